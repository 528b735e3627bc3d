"""The operator's commands, as they are typed: JSON, dry runs, exit codes, and no personal data unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner, Result

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.intake import land
from include.instore.model.errors import RecordRefused
from include.instore_airflow.cli import app
from sandbox.profile_store import ProfileStoreStandIn
from sandbox.servicebus import ServiceBusStandIn
from tests.instore import given

ROOT = Path(__file__).parents[2]
COMMANDS = [
    ("reconcile",),
    ("quarantine", "list"), ("quarantine", "show"), ("quarantine", "redrive"), ("quarantine", "discard"),
    ("dead-letters", "list"), ("dead-letters", "redrive"), ("deliveries", "list"), ("deliveries", "settle"),
    ("extracts", "list"), ("quarantine", "accept-as"), ("orders", "resend"), ("orders", "keep"),
    ("orders", "search-again"), ("suppressions", "list"), ("suppressions", "add"), ("suppressions", "lift"),
    ("extracts", "release"), ("extracts", "forget"), ("ledger", "rekey"), ("ledger", "adopt"), ("ledger", "audit"),
    ("orders", "show"), ("orders", "list"), ("orders", "undelivered"), ("customers", "show"), ("report",),
    ("runs", "list"), ("runs", "show"),
]  # fmt: skip
READING = ("list", "show", "audit", "undelivered", "report")
CHANGING = [command for command in COMMANDS if command[-1] not in READING]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    with closing(Ledger(f"sqlite:///{path}")) as opened:
        opened.migrate()
        yield opened


@pytest.fixture
def refused(ledger: Ledger) -> str:
    """The id of a quarantined message that is an order by today's settings."""
    open_run(ledger, given.run())
    body = given.body("S1", emailAddress=f"{given.CANARY}@example.com")
    item = given.set_aside(RecordRefused("too_large", "a detail"), body, "m1\x07#1")
    land(ledger, "run-1", [], [item])
    return item.id


@pytest.fixture
def profile_store(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> Iterator[ProfileStoreStandIn]:
    """A Profile Store that can be read, and two orders in the ledger of which it has one."""
    given.landed(ledger, given.document("S1"), given.document("S2"))
    event = {
        "trackId": given.row(ledger, "S1")["event_id"], "deviceId": "d", "eventType": "StorePurchase",
        "eventTime": "2017-06-05T10:04:12Z", "value": "StorePurchase", "scope": "Default",
        "user": {"email": f"{given.CANARY}@example.com"}, "payload": {},
    }  # fmt: skip
    with ProfileStoreStandIn("key") as running:
        extra = {"read_host": running.url, "read_api_key": "key"}
        connect = {"conn_type": "profile_store", "host": running.url, "password": "key", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_INSTORE_PROFILE_STORE", json.dumps(connect))
        headers = {"Ocp-Apim-Subscription-Key": "key"}
        assert requests.post(f"{running.url}/api/v1.0/Track", json=event, headers=headers, timeout=10).ok
        yield running


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: tuple[str, ...]) -> None:
    told = run(*command, "--help").output
    assert "--json" in told


@pytest.mark.parametrize("command", CHANGING)
def test_every_command_that_changes_something_has_a_dry_run(command: tuple[str, ...]) -> None:
    assert "--dry-run" in run(*command, "--help").output


def test_quarantine_is_listed_without_the_record(refused: str) -> None:
    (row,) = printed(run("quarantine", "list", "--json"))
    assert (row["id"], row["reason"], row["state"]) == (refused, "too_large", "quarantined")
    shown = {"id", "source", "reference", "order_number", "reason", "detail", "run", "received_at", "state", "size"}
    assert (set(row), row["order_number"]) == (shown | {"adapter"}, "S1")
    table = run("quarantine", "list").output
    assert refused[:12] in table
    assert "m1\\x07#1" in table  # a terminal would obey it
    assert given.CANARY not in table + json.dumps(row)


def test_a_record_is_shown_only_when_it_is_asked_for_and_the_help_says_what_it_holds(refused: str) -> None:
    assert given.CANARY not in run("quarantine", "show", refused[:8]).output
    assert "raw" not in printed(run("quarantine", "show", refused[:8], "--json"))
    assert given.CANARY in printed(run("quarantine", "show", refused[:8], "--raw", "--json"))["raw"]
    assert given.CANARY in run("quarantine", "show", refused[:8], "--raw").output
    words = run("quarantine", "show", "--help").output.replace("│", " ").split()
    assert "HOLDS PERSONAL DATA" in " ".join(words)


def test_a_redrive_lands_and_a_dry_run_before_it_says_so(refused: str, ledger: Ledger) -> None:
    dry = printed(run("quarantine", "redrive", refused[:8], "--dry-run", "--json"))
    assert (dry["dry_run"], dry["counts"], given.statuses(ledger)) == (True, {"landed": 1}, {})
    done = printed(run("quarantine", "redrive", refused[:8], "--json"))
    assert (done["dry_run"], done["counts"], given.statuses(ledger)) == (False, {"landed": 1}, {"S1": "pending"})
    assert "1 unchanged" in run("quarantine", "redrive", refused[:8]).output
    # What a person did is written down, and what she only looked at is not.
    audited = [(each["what"], each["records"], each["detail"]) for each in printed(run("ledger", "audit", "--json"))]
    assert audited == [("quarantine redrive", 1, "1 unchanged"), ("quarantine redrive", 1, "1 landed")]


def test_discarding_needs_to_be_told_what(refused: str, ledger: Ledger) -> None:
    nothing = run("quarantine", "discard")
    assert nothing.exit_code == 2
    assert "Choose one" in nothing.output
    both = run("quarantine", "discard", refused, "--all")
    assert (both.exit_code, "not both" in both.output) == (2, True)
    assert printed(run("quarantine", "discard", "--reason", "too_large", "--json"))["counts"] == {"discarded": 1}
    assert [row["state"] for row in given.rows(ledger, "quarantine")] == ["discarded"]


def test_a_renamed_subscription_is_refused_until_the_ledger_adopts_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.landed(ledger, given.document("S1"))
    assert run("quarantine", "list").exit_code == 0
    monkeypatch.setenv("INSTORE_SUBSCRIPTION", "renamed")
    refused = run("quarantine", "list")
    assert (refused.exit_code, "ledger adopt" in refused.output) == (2, True)
    dry = printed(run("ledger", "adopt", "--dry-run", "--json"))["changed"]
    assert dry == {"subscription": ["orders/orderprocessing", "orders/renamed"]}
    assert run("quarantine", "list").exit_code == 2
    assert printed(run("ledger", "adopt", "--json"))["changed"] == dry
    assert run("quarantine", "list").exit_code == 0
    (told,) = printed(run("ledger", "audit", "--json"))
    assert (told["what"], told["records"]) == ("ledger adopt", 1)
    assert told["who"]


def test_reconcile_marks_what_the_profile_store_shows_and_a_dry_run_before_it_says_so(
    profile_store: ProfileStoreStandIn, ledger: Ledger
) -> None:
    counts = {"asked": 2, "sent": 1, "left": 1, "held": 0}
    assert printed(run("reconcile", "--dry-run", "--json")) == {"dry_run": True, "counts": counts}
    assert given.statuses(ledger) == {"S1": "pending", "S2": "pending"}
    told = run("reconcile")
    assert (told.exit_code, told.stdout) == (0, "2 asked, 1 sent, 1 left, 0 held\n")
    assert given.CANARY not in told.output
    assert given.statuses(ledger) == {"S1": "sent", "S2": "pending"}
    assert printed(run("reconcile", "--json")) == {"dry_run": False, "counts": counts | {"asked": 1, "sent": 0}}


def test_reconcile_needs_a_profile_store_that_can_be_read(
    profile_store: ProfileStoreStandIn, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = json.dumps({"conn_type": "profile_store", "host": profile_store.url, "password": "a-key"})
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_PROFILE_STORE", deaf)
    refused = run("reconcile")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.strip() == (
        "Connection 'instore_profile_store': its field 'read_host' is empty, so put the base URL of the Profile Store "
        "API into it, with its key in 'read_api_key'."
    )
    monkeypatch.delenv("AIRFLOW_CONN_INSTORE_PROFILE_STORE")
    assert "Connection instore_profile_store is missing; create it" in run("reconcile").stderr
    assert given.statuses(ledger) == {"S1": "pending", "S2": "pending"}


def test_what_a_person_has_to_change_ends_in_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    unknown = run("quarantine", "show", "0123456789")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "No quarantined record" in unknown.stderr
    missing = run("dead-letters", "list")
    assert missing.exit_code == 2
    assert "Connection instore_service_bus is missing; create it" in missing.stderr
    monkeypatch.delenv("AIRFLOW_CONN_INSTORE_LEDGER")
    assert "Connection instore_ledger is missing; create it" in run("quarantine", "list").stderr


def test_a_ledger_that_cannot_be_opened_ends_in_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    away = {"conn_type": "sqlite", "host": str(tmp_path / "not mounted" / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps(away))
    result = run("quarantine", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "The ledger (connection instore_ledger) failed" in result.stderr


def test_dead_letters_of_a_bus_without_any_are_an_empty_list(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    with ServiceBusStandIn() as bus:
        connection = json.dumps({"conn_type": "azure_service_bus", "schema": bus.connection_string})
        monkeypatch.setenv("AIRFLOW_CONN_INSTORE_SERVICE_BUS", connection)
        assert printed(run("dead-letters", "list", "--json")) == []
        done = printed(run("dead-letters", "redrive", "--dry-run", "--json"))
    assert done == {"dry_run": True, "counts": {}, "completed": 0, "settle_failed": 0, "records": []}


def test_the_module_itself_prints_json_and_nothing_else(refused: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
    }
    environment.pop("_AIRFLOW_PROCESS_CONTEXT")
    done = subprocess.run(
        [sys.executable, "-m", "include.instore", "quarantine", "list", "--json"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["id"] for row in json.loads(done.stdout)] == [refused]
