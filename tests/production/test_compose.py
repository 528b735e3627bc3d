"""docker-compose.yaml as the real compose binary reads it; `make compose-check` carries it out."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    return dict(found["services"])


def test_every_image_is_pinned_and_nothing_is_published_beyond_loopback(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
        assert re.search(r":\w[\w.-]*\d", image), f"{name} has {image}"
        assert not image.endswith("latest")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_every_service_is_limited_and_has_a_health_check_and_no_rights_it_does_not_need(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        once_or_microsofts = name in ("set-up", "servicebus-emulator", "servicebus-sql")
        assert "healthcheck" in service or once_or_microsofts, name


def test_the_secrets_are_new_each_time_and_may_stand_in_a_url(tmp_path: Path) -> None:
    def made(name: str) -> dict[str, str]:
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / "make-env.sh", tmp_path / name)
        subprocess.run(["./make-env.sh"], cwd=tmp_path / name, check=True, capture_output=True)
        env = tmp_path / name / ".env"
        assert env.stat().st_mode & 0o077 == 0
        before = env.read_text()
        subprocess.run(["./make-env.sh"], cwd=tmp_path / name, check=True, capture_output=True)
        assert env.read_text() == before, "those that are there belong to the volumes"
        return dict(line.split("=", 1) for line in before.splitlines())

    one, two = made("one"), made("two")
    asked = set(re.findall(r"\$\{(\w+)(?::\?[^}]*)?\}", (ROOT / "docker-compose.yaml").read_text()))
    assert asked <= set(one)
    secrets = set(one) - {"BASE_URL", "PARALLELISM"}
    assert all(one[name] != two[name] for name in secrets)
    assert all(re.fullmatch(r"[\w=-]{40,}", one[name]) for name in secrets)
    assert len(base64.urlsafe_b64decode(one["FERNET_KEY"])) == 32
    base64.b64decode(one["AZURITE_KEY"], validate=True)
    assert len({one[name] for name in secrets}) == len(secrets)


def test_the_connections_are_those_of_the_pipeline() -> None:
    from include.instore_airflow.connections import ALERTS, CONNECTIONS

    configs = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["configs"]
    text = re.sub(r"\$\{[^}]*\}", "x", configs["connections"]["content"])
    assert set(json.loads(text)) == set(CONNECTIONS) - {ALERTS}
