"""What Airflow itself makes of the provider: its metadata, the CLI, and the forms over the API server's own API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from airflow.sdk._shared.secrets_masker import should_hide_value_for_key
from instore_provider.hooks.alerts import AlertsHook
from instore_provider.hooks.loyalty import LoyaltyHook
from instore_provider.hooks.profile_store import ProfileStoreHook
from instore_provider.hooks.service_bus import ServiceBusAdminHook, ServiceBusHook
from instore_provider.provider_info import get_provider_info
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from sandbox.servicebus import ServiceBusStandIn, connection_string
from tests.alerts.channels import TOKEN, Webhook
from tests.provider.wire import Reply, Wire, free_port

ROOT = Path(__file__).parents[2]

TYPES: dict[str, dict[str, Any]] = {each["connection-type"]: each for each in get_provider_info()["connection-types"]}
HOOKS: dict[str, Any] = {
    "profile_store": ProfileStoreHook,
    "loyalty": LoyaltyHook,
    "service_bus": ServiceBusHook,
    "alerts": AlertsHook,
}
SERVICES = ("profile_store", "loyalty")


def test_the_provider_is_installed_and_named_like_its_distribution() -> None:
    found = [each for each in entry_points(group="apache_airflow_provider") if each.module.startswith("instore_")]
    assert found, "install it: pip install --no-deps -e ./plugins"
    assert {each.dist.name for each in found if each.dist} == {get_provider_info()["package-name"]}
    assert found[0].load()() == get_provider_info()


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_the_metadata_fits_airflows_schema(schema: str) -> None:
    import airflow

    given = json.loads((Path(airflow.__file__).parent / schema).read_text())
    if schema.startswith("provider.yaml"):
        given = {**given["properties"]["connection-types"], "definitions": given.get("definitions", {})}
    jsonschema.validate(
        get_provider_info()["connection-types"]
        if "type" in given and given["type"] == "array"
        else get_provider_info(),
        given,
    )


@pytest.mark.parametrize("conn_type", TYPES)
def test_the_metadata_and_the_hook_agree(conn_type: str) -> None:
    hook = HOOKS[conn_type]
    assert TYPES[conn_type]["hook-class-name"] == f"{hook.__module__}.{hook.__name__}"
    assert (hook.conn_type, hook.hook_name) == (conn_type, TYPES[conn_type]["hook-name"])


@pytest.mark.parametrize("conn_type", TYPES)
def test_every_field_has_a_label_and_a_help_text_and_every_secret_is_masked_by_its_name(conn_type: str) -> None:
    for name, field in TYPES[conn_type]["conn-fields"].items():
        assert field["label"], name
        assert field["description"].endswith("."), name
        if field["schema"].get("format") == "password":
            # The API server redacts an extra by its name only: under another name it would show the key.
            assert should_hide_value_for_key(name), name


@pytest.mark.parametrize("conn_type", SERVICES)
def test_the_defaults_in_the_form_are_those_of_the_hook(conn_type: str, connection: Any, wire: Wire) -> None:
    defaults = {
        name: field["schema"]["default"]
        for name, field in TYPES[conn_type]["conn-fields"].items()
        if "default" in field["schema"]
    }
    answers = []
    for extra in ({}, defaults):
        wire.on("/customers/by-loyalty-card/1", Reply(200, {"email": "a@b.example", "status": "active"}))
        wire.on("/api/v1.0/Track", Reply(202))
        hook = HOOKS[conn_type](connection(conn_type, wire.url, "some-key", **extra))
        if conn_type == "loyalty":
            answers.append((hook.look_up("1"), hook._load()[1]))
        else:
            answers.append(list(hook.send_events([{"trackId": "t"}], bulk_size=1)))
        hook.close()
    assert str(answers[0]) == str(answers[1])
    assert wire.seen[0].headers == wire.seen[1].headers


def airflow(environment: dict[str, str], *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def test_the_providers_command_lists_the_hooks(airflow_environment: dict[str, str]) -> None:
    listed = json.loads(airflow(airflow_environment, "providers", "hooks", "--output", "json"))
    ours = {each["connection_type"]: each for each in listed if each["package_name"] == "instore-provider"}
    assert {name: each["class"] for name, each in ours.items()} == {
        name: each["hook-class-name"] for name, each in TYPES.items()
    }


def test_the_plugins_folder_hides_the_package_from_the_plugin_loader(airflow_environment: dict[str, str]) -> None:
    script = """
import json, sys
from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(json.dumps([name for name, file in files.items() if "/instore_provider/" in file and "." not in name]))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], env=airflow_environment, capture_output=True, text=True, check=True
    )
    assert set(json.loads(run.stdout.splitlines()[-1])) <= {"instore_provider"}


@pytest.fixture(scope="module")
def server(airflow_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("api-server") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port)],
            env={**airflow_environment, "AIRFLOW__API__WORKERS": "1", "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for attempt in Retrying(
            stop=stop_after_delay(60), wait=wait_fixed(0.1), retry=retry_if_exception_type(OSError), reraise=True
        ):
            with attempt:
                assert process.poll() is None, log.read_text()[-2000:]
                requests.get(f"{url}/api/v2/version", timeout=5)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


@pytest.fixture(scope="module")
def keeper(server: str) -> Iterator[requests.Session]:
    answer = requests.post(f"{server}/auth/token", json={"username": "keeper", "password": "open sesame"}, timeout=20)
    assert answer.status_code == 201, answer.text
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield session


def test_nobody_sees_the_forms_without_a_token(server: str) -> None:
    assert requests.get(f"{server}/ui/connections/hook_meta", timeout=20).status_code == 401


def test_each_type_has_its_form(server: str, keeper: requests.Session) -> None:
    answer = keeper.get(f"{server}/ui/connections/hook_meta", timeout=20)
    forms = {each["connection_type"]: each for each in answer.json()}
    for conn_type, metadata in TYPES.items():
        form = forms[conn_type]
        assert form["hook_name"] == metadata["hook-name"]
        assert (form["extra_fields"] or {}).keys() == metadata["conn-fields"].keys()
        for name, field in metadata["conn-fields"].items():
            shown = form["extra_fields"][name]
            assert shown["schema"]["title"] == field["label"]
            assert shown["description"] == field["description"]
            assert shown["value"] == field["schema"].get("default")
            assert shown["schema"].get("format") == field["schema"].get("format")
        assert form["standard_fields"]["port"]["hidden"]
        shown = {name for name, each in form["standard_fields"].items() if not (each and each["hidden"])} - {
            "description"
        }
        assert shown == {
            "url_schema" if name == "schema" else name for name in metadata["ui-field-behaviour"]["relabeling"]
        }
    assert forms["alerts"]["standard_fields"]["password"]["title"] == "Apprise URLs"
    assert forms["loyalty"]["standard_fields"]["host"]["placeholder"].startswith("https://")
    assert forms["profile_store"]["extra_fields"]["read_api_key"]["schema"]["format"] == "password"


def test_a_saved_connection_shows_no_key(server: str, keeper: requests.Session) -> None:
    extra = {"read_host": "https://read.example.com", "read_api_key": "key-canary-1"}
    body = {
        "connection_id": "saved",
        "conn_type": "profile_store",
        "host": "https://track.example.com",
        "password": "key-canary-2",
        "extra": json.dumps(extra),
    }
    assert keeper.post(f"{server}/api/v2/connections", json=body, timeout=20).status_code == 201
    shown = keeper.get(f"{server}/api/v2/connections/saved", timeout=20)
    assert shown.status_code == 200
    assert "key-canary" not in shown.text
    assert "https://read.example.com" in shown.text


def press_test(server: str, keeper: requests.Session, conn_id: str) -> requests.Response:
    """As the UI does it: what the server shows of the connection, with 0 for no port."""
    shown = keeper.get(f"{server}/api/v2/connections/{conn_id}", timeout=20).json()
    button = {name: shown[name] or "" for name in ("conn_type", "connection_id", "host", "password", "login", "schema")}
    button |= {"port": shown["port"] or 0, "extra": shown["extra"] or "{}"}
    return keeper.post(f"{server}/api/v2/connections/test", json=button, timeout=60)


def test_a_saved_connection_can_be_tested_as_the_button_does_it(
    server: str, keeper: requests.Session, wire: Wire
) -> None:
    wire.on("/customers/by-loyalty-card/no-such-card-connection-test", Reply(404))
    fields = {"conn_type": "loyalty", "host": wire.url, "password": "some-key", "extra": "{}"}
    for port in (None, 443):
        made = {**fields, "connection_id": f"by_form_{port}", **({"port": port} if port else {})}
        assert keeper.post(f"{server}/api/v2/connections", json=made, timeout=20).status_code == 201
        tested = press_test(server, keeper, made["connection_id"])
        assert tested.status_code == 200, tested.text
        assert tested.json()["status"], tested.text


def test_a_request_that_is_no_test_is_answered_as_before(server: str, keeper: requests.Session) -> None:
    answer = keeper.post(f"{server}/api/v2/connections/test", data=b"{", timeout=20)
    assert answer.status_code == 422, answer.text
    assert requests.post(f"{server}/api/v2/connections/test", json={"port": 0}, timeout=20).status_code == 401


def test_the_test_button_calls_the_service(server: str, keeper: requests.Session, wire: Wire) -> None:
    wire.on("/customers/by-loyalty-card/no-such-card-connection-test", Reply(404), Reply(401))
    body = {
        "connection_id": "tried",
        "conn_type": "loyalty",
        "host": wire.url,
        "password": "some-key",
        "extra": "{}",
    }
    for works in (True, False):
        answer = keeper.post(f"{server}/api/v2/connections/test", json=body, timeout=20)
        assert answer.json()["status"] is works, answer.text
    assert "'password'" in answer.json()["message"]
    assert len(wire.seen) == 2


def test_the_button_of_an_alert_connection_sends_a_test_alert_to_each_channel(
    server: str, keeper: requests.Session
) -> None:
    with Webhook().running() as webhook:
        for urls, works, said in (
            (f"{webhook.url} {webhook.url}", True, "Channels that took a test alert: 2, which is all."),
            (f"{webhook.url} nonsense://{TOKEN}", False, "URL 2 is not a URL that Apprise knows; correct it."),
            ("", False, "its field 'password' has no URL"),
        ):
            body = {"connection_id": "alerts", "conn_type": "alerts", "password": urls, "extra": "{}", "port": 0}
            answer = keeper.post(f"{server}/api/v2/connections/test", json=body, timeout=60).json()
            assert (answer["status"], said in answer["message"]) == (works, True), answer
            assert TOKEN not in answer["message"]
        assert webhook.titles == ["Test alert"] * 3


def test_the_button_of_a_service_bus_connection_looks_at_the_subscription(
    server: str, keeper: requests.Session
) -> None:
    with ServiceBusStandIn() as broker:
        wrong_key = connection_string(broker.port, key="d3Jvbmc=")
        for string, extra, works, said in (
            (broker.connection_string, {}, True, "shows topic 'orders' with subscription 'orderprocessing'"),
            (broker.connection_string, {"topic": "none"}, False, "correct 'topic'"),
            (wrong_key, {}, False, "refused the key"),
            ("nonsense", {}, False, "field 'schema' is not a connection string"),
            ("", {}, False, "field 'schema' is empty"),
        ):
            body = {"connection_id": "bus", "conn_type": "service_bus", "schema": string, "extra": json.dumps(extra)}
            answer = keeper.post(f"{server}/api/v2/connections/test", json=body, timeout=60).json()
            assert (answer["status"], said in answer["message"]) == (works, True), answer
            assert "SharedAccessKey" not in answer["message"]


def test_a_namespace_without_a_connection_string_is_opened_by_a_managed_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The form stores no connection string then, which Airflow's own hook takes for one of the name None."""
    extra = {"fully_qualified_namespace": "name.servicebus.windows.net"}
    monkeypatch.setenv("AIRFLOW_CONN_MANAGED", json.dumps({"conn_type": "service_bus", "extra": extra}))
    with ServiceBusHook("managed").get_conn() as client:
        assert client.fully_qualified_namespace == "name.servicebus.windows.net"
    with ServiceBusAdminHook("managed").get_conn() as admin:
        assert admin.fully_qualified_namespace == "name.servicebus.windows.net"
