"""What leads to the page: alerts to the list of what they are about, the report's task and the DAG's manual."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.extract_files import note_waiting
from include.instore.ledger.quarantined import Wanted, find
from include.instore.ledger.read_orders import FEW
from include.instore.ledger.tables import extracts, orders
from include.instore.model.codes import CODES, Kind
from include.instore.model.states import ExtractState, Status
from include.instore.runs.alerts import Alert
from include.instore_airflow.alerting.channels import text_of
from include.instore_airflow.page import app
from include.instore_airflow.page_links import RunPageLink, list_of
from tests.instore import given

PATHS = {route.path for route in app().routes}  # type: ignore[attr-defined]
WITHOUT = {
    "task_failed",
    "numbers",
    "no_report",
    "deadline",
    "recovered",
    "silence",
    "not_visible",
    "shared",
    "deferred",
    "not_drained",
    "oldest_message",
}
"""Alerts of which there is no list: of a task, a run, messages on the bus, or what did not come."""


@pytest.mark.parametrize("code", sorted(code for code in CODES.values() if code.kind is not Kind.WARNING))
def test_a_code_leads_to_a_list_that_there_is(code: str) -> None:
    there = urlsplit(list_of(code))
    if not there.path:
        assert code in WITHOUT or CODES[code].kind is Kind.ANSWER
        return
    assert there.path in PATHS
    asked = {name: value for name, (value,) in parse_qs(there.query).items()}
    assert set(asked) <= {"status", "reason"}
    assert asked.get("reason", code) in CODES
    assert asked.get("status", "held") in {*FEW, *(each.value for each in Status)}


def test_an_alert_names_the_list_of_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/team")
    rejected = Alert("rejected", "2 events were refused.", codes=[CODES["rejected"]])
    _, text = text_of(rejected, given.run(), None, given.SETTINGS.alerts, "instore_orders")
    assert "What it is about: https://airflow.example/team/instore/undelivered?status=rejected" in text.splitlines()
    _, text = text_of(Alert("silence:topic", "None came."), given.run(), None, given.SETTINGS.alerts, "instore_orders")
    assert "/instore" not in text.replace("instore_orders", "")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{tmp_path}/ledger.db")) as opened:
        opened.migrate()
        yield opened


def _about(ledger: Ledger, cause: str, *codes: str) -> str:
    alert = Alert(cause, "It is so.", codes=[CODES[code] for code in codes])
    _, text = text_of(alert, given.run(), {}, given.SETTINGS.alerts, "instore_orders", ledger)
    (line,) = [line for line in text.splitlines() if line.startswith("What it is about: ")]
    return line.partition("/instore")[2]


def _waits(ledger: Ledger, path: str, state: ExtractState) -> None:
    note_waiting(ledger, "run-1", path, "1", 3, "cut")
    with ledger.write() as connection:
        connection.execute(sa.update(extracts).where(extracts.c.path == path).values(state=state.value))


def test_an_alert_about_one_order_file_or_record_leads_to_it_and_about_several_to_their_list(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(number) for number in ("S1", "S2")))
    refused = [
        given.refused(given.body(f"S{n}"), f"m#{n}", reason) for n, reason in enumerate(("bad_value", "not_json"))
    ]
    given.landed(ledger, refusals=refused)
    for status in ("rejected", "held"):
        given.set_orders(ledger, orders.c.order_number == "S1", status=status)
        assert _about(ledger, status, status) == f"/orders/{given.row(ledger, 'S1')['event_id']}"
        given.set_orders(ledger, status=status)
        assert _about(ledger, status, status) == f"/undelivered?status={status}"
    for state, cause in ((ExtractState.WAITING, "unread_files"), (ExtractState.LEFT, "left_files")):
        _waits(ledger, f"day 1/{state.value}&.csv", state)
        assert _about(ledger, cause) == f"/files?path=day%201%2F{state.value}%26.csv"
        _waits(ledger, "day 2.csv", state)
        assert _about(ledger, cause) == "/files"
    (record,) = find(ledger, Wanted(reason="bad_value"))
    assert _about(ledger, "quarantined", "bad_value") == f"/quarantine/{record.id}"
    assert _about(ledger, "quarantined", "bad_value", "not_json") == "/quarantine"
    assert _about(ledger, "bad_share", "bad_value", "not_json") == "/quarantine?run=run-1"
    given.set_orders(ledger, orders.c.order_number == "S2", status="unmatched", reason="not_found")
    assert _about(ledger, "unmatched_share", "not_found", "inactive").startswith("/orders/")
    given.set_orders(ledger, status="unmatched", reason="not_found")
    assert _about(ledger, "unmatched_share", "not_found", "inactive") == "/undelivered?status=unmatched&run=run-1"


def test_the_report_s_task_leads_to_the_run_s_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/")
    for dag, run in (
        ("instore_orders", "manual__2017-06-05T10:00:00%2B00:00"),
        ("instore_resend", "instore_resend%2F"),
    ):
        key = SimpleNamespace(dag_id=dag, run_id="manual__2017-06-05T10:00:00+00:00")
        link = RunPageLink().get_link(None, ti_key=key)  # type: ignore[arg-type]
        assert link.startswith(f"https://airflow.example/instore/run?id={run.replace(':', '%3A')}")
