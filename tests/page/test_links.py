"""What leads to the page: alerts to the list of what they are about, the report's task and the DAG's manual."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from include.instore.ledger.read_orders import FEW
from include.instore.model.codes import CODES, Kind
from include.instore.model.states import Status
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


def test_the_report_s_task_leads_to_the_run_s_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/")
    for dag, run in (
        ("instore_orders", "manual__2017-06-05T10:00:00%2B00:00"),
        ("instore_resend", "instore_resend%2F"),
    ):
        key = SimpleNamespace(dag_id=dag, run_id="manual__2017-06-05T10:00:00+00:00")
        link = RunPageLink().get_link(None, ti_key=key)  # type: ignore[arg-type]
        assert link.startswith(f"https://airflow.example/instore/run?id={run.replace(':', '%3A')}")
