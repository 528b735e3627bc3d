"""Which causes hold, given counts, ages and limits; and that every text is complete and tells nobody's data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from include.instore.model.alert_causes import RECOVERED, SOFT, Ages
from include.instore.model.settings import Settings
from include.instore.runs.alerts import (
    SECTIONS,
    Alert,
    alert_text,
    anchor,
    deadline_alert,
    no_report_alert,
    recovery_text,
    red_alerts,
    run_in_words,
    soft_alerts,
)

ROOT = Path(__file__).parents[2]
COUNTS: dict[str, Any] = {
    "received": 100,
    "orders": 100,
    "quarantined": 0,
    "quarantined_by_reason": {},
    "unmatched_by_outcome": {},
    "sent": 100,
    "ledger": {"sent": 100},
    "tracking": True,
    "corrected_after_sent": 0,
    "look_ups_failing": 0,
}
WELL = Ages(new_orders=100, new_unmatched=0, oldest_unsent=0, oldest_message=0, dead_letters=0)
LIMITS = Settings(
    alert_quarantined_share=0.02,
    alert_unmatched_share=0.4,
    alert_oldest_message_minutes=120,
    alert_oldest_unsent_minutes=360,
    alert_dead_letters=100,
    alert_min_orders=20,
)
OFF = Settings(
    alert_quarantined_share=0,
    alert_unmatched_share=0,
    alert_oldest_message_minutes=0,
    alert_oldest_unsent_minutes=0,
    alert_dead_letters=0,
)
PASSED = {
    "quarantined_share": ({"quarantined": 2}, {}),
    "unmatched_share": ({}, {"new_unmatched": 40}),
    "oldest_message": ({}, {"oldest_message": 7200}),
    "oldest_unsent": ({}, {"oldest_unsent": 21600}),
    "dead_letters": ({}, {"dead_letters": 100}),
    "corrected_after_sent": ({"corrected_after_sent": 1}, {}),
    "look_ups_failing": ({"look_ups_failing": 1}, {}),
}
NO_LIMIT = ("corrected_after_sent", "look_ups_failing")
"""Told from the first one, whatever the settings."""

KEPT = {
    "quarantined_share": ({"quarantined": 1}, {}),
    "unmatched_share": ({}, {"new_unmatched": 39}),
    "oldest_message": ({}, {"oldest_message": 7199}),
    "oldest_unsent": ({}, {"oldest_unsent": 21599}),
    "dead_letters": ({}, {"dead_letters": 99}),
    "corrected_after_sent": ({"corrected_after_sent": 0}, {}),
    "look_ups_failing": ({"look_ups_failing": 0}, {}),
}


def judged(counts: dict[str, Any], ages: dict[str, Any], settings: Settings = LIMITS, *, shares: bool = True) -> Any:
    return soft_alerts(COUNTS | counts, Ages(**vars(WELL) | ages), settings, shares=shares)


def holding(answer: dict[str, Alert | None]) -> list[str]:
    return [cause for cause, alert in answer.items() if alert]


def test_a_run_that_is_well_keeps_every_limit() -> None:
    assert judged({}, {}) == dict.fromkeys(SOFT)


@pytest.mark.parametrize("cause", SOFT)
def test_a_limit_that_is_reached_is_that_cause_and_no_other(cause: str) -> None:
    assert holding(judged(*PASSED[cause])) == [cause]


@pytest.mark.parametrize("cause", SOFT)
def test_just_below_its_limit_nothing_holds(cause: str) -> None:
    assert holding(judged(*KEPT[cause])) == []


def test_messages_that_expired_unread_are_told_of_from_the_first_one() -> None:
    answer = judged({}, {"dead_letters": 2, "expired": 1})
    assert holding(answer) == ["dead_letters"]
    assert "1 messages expired" in answer["dead_letters"].what


@pytest.mark.parametrize("cause", [cause for cause in SOFT if cause not in NO_LIMIT])
def test_a_limit_that_is_switched_off_never_holds_and_what_was_open_ends(cause: str) -> None:
    assert judged(*PASSED[cause], OFF)[cause] is None


def test_a_bus_nobody_looked_at_says_nothing() -> None:
    answer = judged({}, {"oldest_message": None, "dead_letters": None})
    assert sorted(answer) == sorted([*NO_LIMIT, "oldest_unsent", "quarantined_share", "unmatched_share"])


def test_too_few_orders_say_nothing_about_a_share() -> None:
    answer = judged({"received": 19, "quarantined": 19}, {"new_orders": 19, "new_unmatched": 19})
    assert "quarantined_share" not in answer
    assert "unmatched_share" not in answer


def test_the_shares_of_a_backfill_say_nothing_about_the_stream() -> None:
    answer = judged({"quarantined": 100}, {"new_unmatched": 100}, shares=False)
    assert sorted(answer) == sorted([*NO_LIMIT, "dead_letters", "oldest_message", "oldest_unsent"])


def test_each_failed_task_and_each_other_reason_is_one_cause() -> None:
    red = {"numbers": ["5 records were received, but 4"], "bad_share": ["9 of 10 records were set aside"]}
    alerts = red_alerts(["batch.send_events", "drain_topic"], red)
    assert [alert.cause for alert in alerts] == [
        "task_failed:batch.send_events",
        "task_failed:drain_topic",
        "numbers",
        "bad_share",
    ]
    assert "None is sent twice" in alerts[0].means
    assert "stay on the bus" in alerts[1].means
    assert alerts[2].what == "5 records were received, but 4."


def test_a_green_run_has_no_red_cause() -> None:
    assert red_alerts([], {"numbers": [], "bad_share": []}) == []


def test_an_alert_says_what_happened_the_counts_what_it_means_what_to_do_and_where() -> None:
    (alert,) = red_alerts(["drain_topic"], {})
    title, text = alert_text(
        alert,
        run=run_in_words("manual", "manual__2026", None),
        counts=COUNTS,
        runbook="https://wiki.example.org/runbook",
        link="http://airflow/dags/instore_orders/runs/manual__2026",
    )
    assert title == "In-store orders: Task drain_topic failed"
    assert text.splitlines() == [
        "What happened: Task drain_topic failed, also when it was tried again. The last line of its log is one "
        "sentence that names what is wrong and what to change.",
        "Run: manual run manual__2026.",
        "Counts: received 100, orders 100, quarantined 0, sent 100.",
        "For the orders: New messages stay on the bus, nothing is lost, and the next run takes them; extracts and "
        "orders already in the ledger are handled as always.",
        "What to do: A task failed, in https://wiki.example.org/runbook#a-task-failed",
        "The run in Airflow: http://airflow/dags/instore_orders/runs/manual__2026",
    ]


def test_an_alert_without_a_report_says_that_the_counts_are_not_known() -> None:
    for alert in (no_report_alert("task_failure"), deadline_alert(90, "running")):
        _, text = alert_text(alert, run="a run", counts=None, runbook="r", link="l")
        assert "Counts: not known." in text


def test_a_recovery_names_what_is_over_since_when_and_in_how_many_runs() -> None:
    ended = {"task_failed:drain_topic": ("2026-11-23 10:00 UTC", 3), "dead_letters": ("2026-11-22 08:00 UTC", 1)}
    title, text = recovery_text(ended, run="scheduled run x", counts=COUNTS, link="l")
    assert title == "In-store orders: Recovered"
    assert (
        "this is over: task drain_topic failed, since 2026-11-23 10:00 UTC, in 3 runs; dead letters on the bus, since "
        "2026-11-22 08:00 UTC." in text
    )


def test_every_cause_has_its_section_in_the_runbook_under_the_anchor_that_alerts_link_to() -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)
    anchors = [anchor(heading) for heading in headings]
    for kind, section in SECTIONS.items():
        if kind != RECOVERED:
            assert anchors.count(anchor(section)) == 1, section
