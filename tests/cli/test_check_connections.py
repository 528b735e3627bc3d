"""`check-connections` against the sandbox: all right, and with each of many things wrong, which it has to name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk import Connection
from alembic import command
from alembic.config import Config
from azure.servicebus.management import ServiceBusAdministrationClient
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from typer.testing import CliRunner

from include.instore.ledger import Ledger
from include.instore.ledger.audit import done
from include.instore.model.settings import Settings
from include.instore.sources.bus import keeps_expired
from include.instore_airflow import maintenance
from include.instore_airflow.checking import may_write
from include.instore_airflow.cli import app
from sandbox import week
from sandbox.loyalty import LoyaltyKeys, LoyaltyStandIn
from sandbox.profile_store import ProfileStoreStandIn
from sandbox.servicebus import ServiceBusStandIn
from tests.alerts.channels import TOKEN, Webhook
from tests.instore import given
from tests.instore.conftest import *  # noqa: F403  the ledger's two databases
from tests.sandbox.servicebus.test_access import token
from tests.sandbox.servicebus.test_http import PlainHttp
from tests.storages.standing import ACCOUNT, KEY

KEYS = LoyaltyKeys("loyalty-key-7c1d", "id", "secret")
SECRETS = ("loyalty-key-7c1d", "store-key-55aa", "the-hash-key-of-the-tests", TOKEN)
MIGRATIONS = Path(__file__).parents[2] / "include/instore/ledger/migrations"
BUS, LEDGER, EXTRACTS = "instore_service_bus", "instore_ledger", "instore_extracts"
LOYALTY, STORE, ALERTS = "instore_loyalty", "instore_profile_store", "instore_alerts"
OF_A_RUN = [LEDGER, BUS, EXTRACTS, LOYALTY, STORE]
BAD = "failed"


@dataclass
class Sandbox:
    """All connections as they should be, to be changed by a test."""

    folder: Path
    bus: ServiceBusStandIn
    channel: Webhook
    connections: dict[str, dict[str, Any]]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.connections['ledger']['host']}"

    def extra(self, conn_id: str, **values: Any) -> None:
        self.connections[conn_id].setdefault("extra", {}).update(values)

    def check(self, *flags: str) -> tuple[int, list[dict[str, str]], str]:
        """Exit code, the lines, and everything that was printed."""
        env: dict[str, str | None] = {
            f"AIRFLOW_CONN_INSTORE_{name.upper()}": json.dumps(value) for name, value in self.connections.items()
        }
        done = CliRunner().invoke(app, ["check-connections", "--json", *flags], env={**env, **self.settings})
        return done.exit_code, json.loads(done.stdout) if done.stdout else [], done.output


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    folder = tmp_path / "extracts"
    folder.mkdir()
    (folder / "2017-06-05.jsonl").write_bytes(given.body())
    card = next(row for row in week.MEMBERS.read_text().splitlines()[1:] if row.endswith("active")).split(",")[0]
    with ExitStack() as running:
        bus = running.enter_context(ServiceBusStandIn())
        loyalty = running.enter_context(LoyaltyStandIn(week.MEMBERS, KEYS))
        store = running.enter_context(ProfileStoreStandIn("store-key-55aa"))
        channel = running.enter_context(Webhook().running())
        read = {"read_host": store.url, "read_api_key": "store-key-55aa"}
        connections = {
            "service_bus": {"conn_type": "azure_service_bus", "schema": bus.connection_string},
            "loyalty": {
                "conn_type": "loyalty", "host": loyalty.url, "password": KEYS.api_key, "extra": {"test_card": card}
            },
            "profile_store": {
                "conn_type": "profile_store", "host": store.url, "password": "store-key-55aa", "extra": read
            },
            "extracts": {"conn_type": "fs", "extra": {"path": str(folder)}},
            "ledger": {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")},
            "alerts": {"conn_type": "generic", "password": channel.url},
        }  # fmt: skip
        yield Sandbox(tmp_path, bus, channel, connections)


def states(lines: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(line["conn_id"], line["state"]) for line in lines]


def test_each_connection_is_used_and_has_a_line(sandbox: Sandbox) -> None:
    code, lines, printed = sandbox.check()
    assert states(lines) == [(name, "ok") for name in (*OF_A_RUN, "instore_alerts")]
    assert code == 0
    assert "finds the customer of the card to test with" in lines[3]["said"]
    assert sandbox.channel.told == []
    assert not [secret for secret in SECRETS if secret in printed]
    with closing(Ledger(sandbox.ledger_url)) as ledger:
        assert [each.what for each in done(ledger, 10)] == ["check-connections"], "the ledger was written to"


def test_a_test_alert_goes_to_each_channel_where_it_is_asked_for(sandbox: Sandbox) -> None:
    sandbox.connections["alerts"]["password"] += f" {sandbox.channel.url}"
    _, lines, _ = sandbox.check("--test-alert")
    assert lines[-1] == {"conn_id": "instore_alerts", "state": "ok", "said": "2 channels took a test alert"}
    assert sandbox.channel.titles == ["Test alert"] * 2


def test_what_a_run_does_not_use_is_not_asked(sandbox: Sandbox) -> None:
    sandbox.settings |= {f"INSTORE_USE_{name}": "off" for name in ("TOPIC", "EXTRACTS", "LOYALTY_API")}
    sandbox.settings["INSTORE_MAPPING_FILE"] = str(sandbox.folder / "mapping.csv")
    (sandbox.folder / "mapping.csv").write_text(f"card,email\n{given.CARD},a@example.com\n")
    code, lines, _ = sandbox.check()
    assert code == 0
    assert states(lines) == [
        (name, "ok") for name in ("instore_ledger", "INSTORE_MAPPING_FILE", "instore_profile_store", "instore_alerts")
    ]


def _other_release(sandbox: Sandbox) -> None:
    engine, config = sa.create_engine(sandbox.ledger_url, poolclass=sa.NullPool), Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")


def _of_another(sandbox: Sandbox, **settings: str) -> None:
    """A ledger with an order, made under other settings."""
    assert sandbox.check()[0] == 0
    with closing(Ledger(sandbox.ledger_url, hash_key="the-hash-key-of-the-tests")) as ledger:
        given.landed(ledger, given.document("S1"))
    sandbox.settings |= settings


def _key(sandbox: Sandbox, conn_id: str, **values: Any) -> None:
    sandbox.connections[conn_id].update(values)


def _bus(sandbox: Sandbox, old: str, new: str) -> None:
    sandbox.connections["service_bus"]["schema"] = sandbox.bus.connection_string.replace(old, new)


WRONG: Mapping[str, tuple[Callable[[Sandbox], object], str, str, str]] = {
    # The bus
    "no bus connection": (lambda s: s.connections.pop("service_bus"), BUS, BAD, "is missing; create it"),
    "bus key": (lambda s: _bus(s, "SharedAccessKey=", "SharedAccessKey=x"), BUS, BAD, "refused the key"),
    "bus connection string": (lambda s: _key(s, "service_bus", schema="Endpoint"), BUS, BAD, "copy it again"),
    "bus connection without string": (
        lambda s: _key(s, "service_bus", schema=None),
        BUS,
        BAD,
        "its field 'schema' is empty",
    ),
    "topic": (lambda s: s.settings.update(INSTORE_TOPIC="ordes"), BUS, BAD, "INSTORE_TOPIC"),
    "subscription": (lambda s: s.settings.update(INSTORE_SUBSCRIPTION="x"), BUS, BAD, "INSTORE_SUBSCRIPTION"),
    # The ledger
    "no ledger connection": (lambda s: s.connections.pop("ledger"), LEDGER, BAD, "is missing; create it"),
    "ledger without path": (lambda s: _key(s, "ledger", host=None), LEDGER, BAD, "has no path"),
    "ledger's folder": (lambda s: _key(s, "ledger", host=f"{s.folder}/nowhere/l.db"), LEDGER, BAD, "check the path"),
    "ledger's database server": (
        lambda s: _key(s, "ledger", conn_type="postgres", host="127.0.0.1", port=9, schema="ledger"),
        LEDGER,
        BAD,
        "check the path or the host, login",
    ),
    "short hash key": (
        lambda s: s.connections.update(hash_key={"conn_type": "generic", "password": "short"}),
        LEDGER,
        BAD,
        "openssl rand",
    ),
    "another hash key": (
        lambda s: (_of_another(s), s.connections.update(hash_key={"conn_type": "generic", "password": "x" * 32})),
        LEDGER,
        BAD,
        "put the old one back",
    ),
    "order key": (lambda s: _of_another(s, INSTORE_ORDER_KEY="store_id,order_number"), LEDGER, BAD, "ledger rekey"),
    "another pipeline's ledger": (
        lambda s: _of_another(s, INSTORE_PIPELINE="brand_b"),
        LEDGER,
        BAD,
        "needs a ledger of its own",
    ),
    "ledger of an older release": (_other_release, LEDGER, BAD, "set-up"),
    # The extracts
    "no extracts connection": (lambda s: s.connections.pop("extracts"), EXTRACTS, BAD, "is missing; create it"),
    "extracts without path": (lambda s: s.connections["extracts"].pop("extra"), EXTRACTS, BAD, "has no path"),
    "extracts folder": (lambda s: s.extra("extracts", path=f"{s.folder}/nowhere"), EXTRACTS, BAD, "does not exist"),
    "empty extracts folder": (
        lambda s: (s.folder / "extracts/2017-06-05.jsonl").unlink(),
        EXTRACTS,
        "warning",
        "put one extract",
    ),
    # The loyalty API
    "no loyalty connection": (lambda s: s.connections.pop("loyalty"), LOYALTY, BAD, "is missing; create it"),
    "loyalty key": (lambda s: _key(s, "loyalty", password="x"), LOYALTY, BAD, "'password'"),
    "loyalty host": (lambda s: _key(s, "loyalty", host="http://127.0.0.1:9"), LOYALTY, BAD, "instore_loyalty"),
    "loyalty path": (lambda s: s.extra("loyalty", url_template="/nowhere/{card}"), LOYALTY, BAD, "'url_template'"),
    "path to the email": (lambda s: s.extra("loyalty", email_path="contact.mail"), LOYALTY, BAD, "'email_path'"),
    "no card to test with": (lambda s: s.extra("loyalty", test_card=""), LOYALTY, "warning", "'test_card'"),
    "mapping file": (
        lambda s: s.settings.update(INSTORE_MAPPING_FILE="/nowhere.csv"),
        "INSTORE_MAPPING_FILE",
        "failed",
        "correct the path",
    ),
    # The Profile Store
    "no Profile Store connection": (lambda s: s.connections.pop("profile_store"), STORE, BAD, "is missing; create it"),
    "Tracking API's key": (lambda s: _key(s, "profile_store", password="x"), STORE, BAD, "'password'"),
    "Tracking API's URL": (
        lambda s: s.connections["profile_store"].update(host=s.connections["profile_store"]["host"] + "/x"),
        STORE,
        BAD,
        "'host'",
    ),
    "Profile Store API's key": (lambda s: s.extra("profile_store", read_api_key="x"), STORE, BAD, "'read_api_key'"),
    "Profile Store API's URL": (
        lambda s: s.extra("profile_store", read_host="http://127.0.0.1:9"),
        STORE,
        BAD,
        "Profile Store API",
    ),
    "nothing to read back from": (lambda s: s.extra("profile_store", read_host=""), STORE, "warning", "'read_host'"),
    # The alerts
    "no alerts connection": (lambda s: s.connections.pop("alerts"), ALERTS, BAD, "is missing; create it"),
    "no channel": (lambda s: _key(s, "alerts", password=""), ALERTS, BAD, "has no URL"),
    "unknown channel": (
        lambda s: _key(s, "alerts", password="nonsense://x"),
        ALERTS,
        BAD,
        "URL 1 of connection instore_alerts is not a URL",
    ),
    "channel that refuses": (
        lambda s: setattr(s.channel, "answer", 500),
        ALERTS,
        BAD,
        "URL 1 of connection instore_alerts did not take",
    ),
}
"""What is wrong, the connection whose line has to name it, its state, and words of the remedy."""


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_and_the_others_are_looked_at(what: str, sandbox: Sandbox) -> None:
    spoil, conn_id, state, words = WRONG[what]
    spoil(sandbox)
    code, lines, printed = sandbox.check("--test-alert")
    said = [line["said"] for line in lines if (line["conn_id"], line["state"]) == (conn_id, state)]
    assert words in " ".join(said), printed
    assert conn_id in " ".join(said) or state == "failed"
    assert code == (2 if state == "failed" else 0)
    others = {line["conn_id"] for line in lines if line["state"] == "ok"} - {conn_id}
    assert others >= {*OF_A_RUN, "instore_alerts"} - {conn_id}
    assert not [secret for secret in SECRETS if secret in printed]


@pytest.mark.parametrize("what", ["right", "expired", "of another topic"])
def test_the_bus_is_read_by_a_signature_for_its_topic_alone(what: str, sandbox: Sandbox) -> None:
    until, topic = int(time.time()) + (-60 if what == "expired" else 600), "returns" if "another" in what else "orders"
    parts = dict(each.partition("=")[::2] for each in sandbox.bus.connection_string.split(";"))
    address = parts["Endpoint"]
    signature = token(f"{address.rstrip('/')}/{topic}", parts["SharedAccessKey"], until, parts["SharedAccessKeyName"])
    string = f"Endpoint={address};SharedAccessSignature={signature};UseDevelopmentEmulator=true"
    sandbox.connections["service_bus"]["schema"] = string
    code, lines, printed = sandbox.check()
    (line,) = (each for each in lines if each["conn_id"] == BUS)
    assert (code, line["state"]) == ((0, "ok") if what == "right" else (2, "failed")), line
    assert signature not in printed


def test_the_dag_s_task_is_red_and_names_what_is_wrong(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    for name, value in sandbox.connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_INSTORE_{name.upper()}", json.dumps(value))
    with caplog.at_level("INFO"):
        found = maintenance.check_connections({"test_alert": True})
    assert found == dict.fromkeys([*OF_A_RUN, "instore_alerts"], "ok")
    assert sandbox.channel.titles == ["Test alert"]
    assert "instore_extracts: ok: the folder can be listed" in caplog.text
    monkeypatch.delenv("AIRFLOW_CONN_INSTORE_LOYALTY")
    with pytest.raises(AirflowFailException, match=r"1 connections do not work. Connection instore_loyalty is missing"):
        maintenance.check_connections({})


def test_a_key_that_may_manage_the_namespace_is_told_from_one_that_may_not(sandbox: Sandbox) -> None:
    settings = Settings()
    string = sandbox.bus.connection_string
    for key, may in ((string, True), (string.replace("SharedAccessKey=", "SharedAccessKey=x"), False)):
        with ServiceBusAdministrationClient.from_connection_string(key, transport=PlainHttp()) as namespace:
            assert (keeps_expired(namespace, settings.bus) is not None) is may


def sas(**may: bool) -> str:
    until, what = datetime.now(timezone.utc) + timedelta(hours=1), ResourceTypes(container=True, object=True)
    return str(generate_account_sas(ACCOUNT, KEY, what, AccountSasPermissions(**may), until))


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        pytest.param({"password": KEY}, True, id="account key"),
        pytest.param({"password": "secret", "extra": {"tenant_id": "t"}}, False, id="client secret"),
        pytest.param({"extra": {"connection_string": f"AccountName=a;AccountKey={KEY}"}}, True, id="connection string"),
        pytest.param({"extra": {"sas_token": "?" + sas(read=True, list=True)}}, False, id="narrow SAS"),
        pytest.param({"extra": {"sas_token": sas(read=True, list=True, write=True)}}, True, id="wide SAS"),
        pytest.param(
            {"extra": {"connection_string": "BlobEndpoint=u;SharedAccessSignature=" + sas(read=True, delete=True)}},
            True,
            id="wide SAS in a connection string",
        ),
        pytest.param({"extra": {}}, False, id="managed identity"),
    ],
)
def test_an_azure_connection_that_may_write_is_told_from_one_that_reads(fields: dict[str, Any], may: bool) -> None:
    extra = json.dumps(fields.pop("extra", {}))
    assert may_write(Connection(conn_id="x", conn_type="wasb", extra=extra, **fields)) is may


def test_a_role_that_lacks_a_right_or_has_too_many_is_named(
    sandbox: Sandbox, postgres: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ledger(database: str, role: str) -> None:
        url = postgres.set(database=database, username=role)
        extra = {"host": url.query["host"]}
        _key(sandbox, "ledger", conn_type="postgres", host=None, login=role, schema=database, extra=extra)

    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in ("CREATE ROLE narrow LOGIN", "CREATE DATABASE checked"):
            connection.execute(sa.text(statement))
    ledger("checked", "postgres")
    code, lines, _ = sandbox.check()
    assert (code, states(lines)[:2]) == (0, [("instore_ledger", "ok"), ("instore_ledger", "warning")])
    assert "superuser" in lines[1]["said"]
    inside = sa.create_engine(postgres.set(database="checked"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with inside.connect() as connection:
        connection.execute(sa.text("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO narrow"))
        connection.execute(sa.text("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO narrow"))
    ledger("checked", "narrow")
    assert states(sandbox.check()[1])[:2] == [("instore_ledger", "ok"), ("instore_service_bus", "ok")]
    with inside.connect() as connection:
        connection.execute(sa.text("REVOKE DELETE ON deliveries FROM narrow"))
    code, lines, _ = sandbox.check()
    assert (code, lines[0]["state"]) == (2, "failed")
    assert "permission denied for table deliveries" in lines[0]["said"]
    assert "what the login may do" in lines[0]["said"]
