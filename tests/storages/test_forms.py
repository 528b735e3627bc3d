"""Each way to fill in the connection's form, tried on a real server by the task's own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asyncssh import SSHKey

from include.instore.model.settings import Settings
from include.instore_airflow.connections import extracts
from tests.instore.sources.extracts.rows import orders_text
from tests.storages.conftest import Connect, lay_week, run
from tests.storages.standing import ACCOUNT, KEY, Azurite, ManagedIdentity, Sftp, certificate

ROOT = Path(__file__).parents[2]
TRY_EACH = """
import json, os, sys
from tests.storages.conftest import run
found = {}
for name, form in json.load(sys.stdin).items():
    os.environ["AIRFLOW_CONN_INSTORE_EXTRACTS"] = json.dumps(form)
    os.environ["INSTORE_EXTRACT_MIN_AGE"] = "0"
    os.environ["AIRFLOW_CONN_INSTORE_LEDGER"] = json.dumps({"conn_type": "sqlite", "host": f"{name}.db"})
    try:
        found[name] = [run()["orders"], run()["orders"]]
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def azure_forms(azurite: Azurite) -> dict[str, dict[str, Any]]:
    path = "abfs://extracts/orders"
    string, sas = azurite.connection_string, azurite.sas()
    where = {"host": azurite.url, "login": ACCOUNT}
    key = {"host": azurite.url, "password": KEY}
    return {
        "wasb, account and key": {"conn_type": "wasb", **where, "password": KEY, "extra": {"path": path}},
        "wasb, SAS token": {"conn_type": "wasb", **where, "extra": {"sas_token": sas, "path": path}},
        "wasb, connection string": {"conn_type": "wasb", "extra": {"connection_string": string, "path": path}},
        "wasb, managed identity": {"conn_type": "wasb", **where, "extra": {"path": path}},
        "wasb, abfss": {"conn_type": "wasb", "extra": {"connection_string": string, "path": f"abfss{path[4:]}"}},
        "adls, account and key": {"conn_type": "adls", **key, "extra": {"account_name": ACCOUNT, "path": path}},
        "adls, connection string": {"conn_type": "adls", "extra": {"connection_string": string, "path": path}},
    }


FORMS = (
    *("wasb, account and key", "wasb, connection string", "wasb, SAS token", "wasb, abfss"),
    "wasb, managed identity",
    *("adls, account and key", "adls, connection string"),
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each form of Azure Blob Storage loads in two runs, by HTTPS: they are tried in a process that trusts it."""
    folder = tmp_path_factory.mktemp("forms")
    trusted = certificate(folder)
    azurite, identity = Azurite(folder, trusted), ManagedIdentity()
    own = {"SSL_CERT_FILE": str(trusted), "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", **identity.environment}
    try:
        with azurite.container("extracts") as container:
            lay_week(lambda path, content: container.upload_blob(f"orders/{path}", content))
        done = subprocess.run(
            [sys.executable, "-c", TRY_EACH],
            input=json.dumps(azure_forms(azurite)),
            cwd=folder,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
        )
    finally:
        azurite.stop()
        identity.stop()
    assert done.returncode == 0, done.stderr[-2000:]
    assert set(identity.asked) == {"https://storage.azure.com"}, "for the one form without a key"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("form", FORMS)
def test_the_week_is_loaded_once_by_each_form_of_azure_blob_storage(form: str, tried: dict[str, Any]) -> None:
    assert tried[form] == [1002, 0]


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"conn_type": "wasb", "login": "shop"}, "https://shop.blob.core.windows.net"),
        ({"conn_type": "wasb", "login": "shop", "host": "https://shop.blob.core.usgovcloudapi.net/"},
         "https://shop.blob.core.usgovcloudapi.net"),
        ({"conn_type": "adls", "host": "shop"}, "https://shop.blob.core.windows.net"),
        ({"conn_type": "wasb", "login": "client id", "host": "shop.blob.core.windows.net", "extra": {"tenant_id": "t"}},
         "https://shop.blob.core.windows.net"),
    ],
)  # fmt: skip
def test_the_account_s_address_comes_from_the_fields_of_the_form(
    fields: dict[str, Any], url: str, connect: Connect
) -> None:
    extra = {"path": "abfs://extracts"} | fields.get("extra", {})
    connect(**{"password": KEY, **fields, "extra": extra})
    assert extracts(Settings())._filesystem.account_url == url


def pem(key: SSHKey, passphrase: str | None = None) -> str:
    return key.export_private_key(passphrase=passphrase).decode()


@pytest.fixture
def folder(sftp: Sftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of the SFTP server with one extract; the home folder of the worker knows no server and no key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (sftp.root / tmp_path.name).mkdir()
    (sftp.root / tmp_path.name / "a.csv").write_text(orders_text("S1"))
    return f"/{tmp_path.name}"


@pytest.mark.parametrize("form", ["password", "private_key", "private_key with passphrase", "key_file", "known_hosts"])
def test_the_extracts_are_loaded_by_each_form_of_sftp(
    form: str, sftp: Sftp, folder: str, connect: Connect, tmp_path: Path
) -> None:
    fields = sftp.connection(folder)
    extra = fields["extra"]
    if form == "known_hosts":
        del extra["host_key"]
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{sftp.port} {sftp.host_key}\n")
    elif form != "password":
        del fields["password"]
        extra |= {
            "private_key": {"private_key": pem(sftp.client_key)},
            "private_key with passphrase": {
                "private_key": pem(sftp.client_key, "once"),
                "private_key_passphrase": "once",
            },
            "key_file": {"key_file": str(tmp_path / "key")},
        }[form]
        (tmp_path / "key").write_text(pem(sftp.client_key))
    connect(**fields)
    assert run()["orders"] == 1


def test_the_extracts_are_loaded_from_a_url_in_the_setting(
    sftp: Sftp, folder: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_EXTRACTS_URL", f"sftp://erp.example.com{folder}")
    connect(**sftp.connection("/somewhere else"))
    assert run()["orders"] == 1


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_of_the_worker_is_named_by_path_or_url(connect: Connect, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.csv").write_text(orders_text("S1"))
    connect("fs", extra={"path": f"{scheme}{tmp_path / 'out'}"})
    assert run()["orders"] == 1
