"""Which causes hold, given counts, ages and limits; and that every text is complete and tells nobody's data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from include.instore.ledger.alerts import Ages
from include.instore.ledger.arrivals import Silence
from include.instore.model.codes import CODES, RECOVERED, SOFT, Told, code_of
from include.instore.model.settings import Settings, load_settings
from include.instore.runs.alerts import (
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
from include.instore.runs.report import Failure

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
    "rejected": 0,
    "truncated": 0,
    "lines_do_not_add_up": 0,
    "changed_fields": 0,
    "new_stores": 0,
    "set_aside": {},
    "drain": "drained",
    "drained_before": "drained",
    "not_drained": 0,
    "deferred": 0,
    "read_back": "on",
    "read_back_asked": 20,
    "not_visible": 0,
}
WELL = Ages(
    new_orders=100, new_unmatched=0, oldest_unsent=0, oldest_message=0, dead_letters=0, silences={"topic": None},
    left_files=(),
)  # fmt: skip
LIMITS = load_settings(
    alert_unmatched_share=0.4,
    alert_oldest_message_minutes=120,
    alert_oldest_unsent_minutes=360,
    alert_dead_letters=100,
    share_minimum=5,
    alert_not_visible=2,
    alert_shared=5,
)
OFF = load_settings(
    alert_unmatched_share=0,
    alert_oldest_message_minutes=0,
    alert_oldest_unsent_minutes=0,
    alert_dead_letters=0,
    alert_not_visible=0,
    alert_shared=0,
    alert_left_hours=0,
)
PASSED = {
    "quarantined": ({"set_aside": {"not_json": 1}}, {}),
    "unmatched_share": ({}, {"new_unmatched": 40}),
    "oldest_message": ({}, {"oldest_message": 7200}),
    "oldest_unsent": ({}, {"oldest_unsent": 21600}),
    "dead_letters": ({}, {"dead_letters": 100}),
    "corrected_after_sent": ({"set_aside": {"corrected_after_sent": 1}}, {}),
    "look_ups_failing": ({"set_aside": {"look_up_failed": 1}}, {}),
    "rejected": ({"set_aside": {"rejected": 1}}, {}),
    "truncated": ({"truncated": 1}, {}),
    "not_drained": ({"drain": "count", "drained_before": "time", "not_drained": 7}, {}),
    "deferred": ({"deferred": 1}, {}),
    "lines_do_not_add_up": ({"lines_do_not_add_up": 1}, {}),
    "changed_fields": ({"changed_fields": 1}, {}),
    "new_stores": ({"new_stores": 1}, {}),
    "silence": ({}, {"silences": {"topic": Silence(49)}}),
    "not_visible": ({"not_visible": 2}, {}),
    "shared": ({}, {"shared": 1}),
    "left_files": ({}, {"left_files": [("a.csv", "its marker is not there")]}),
}
NO_LIMIT = ["silence:topic", *sorted(code for code in SOFT if code.told is Told.SOFT)]
"""Told from the first one, whatever the settings; of a silence what judges it knows them."""

KEPT = {
    "unmatched_share": ({}, {"new_unmatched": 39}),
    "oldest_message": ({}, {"oldest_message": 7199}),
    "oldest_unsent": ({}, {"oldest_unsent": 21599}),
    "dead_letters": ({}, {"dead_letters": 99}),
    "not_drained": ({"drain": "count", "drained_before": "drained", "not_drained": 7}, {}),
    "silence": ({}, {}),
    "not_visible": ({"not_visible": 1}, {}),
    "shared": ({}, {"shared": 0}),
    "left_files": ({}, {"left_files": []}),
}


def judged(counts: dict[str, Any], ages: dict[str, Any], settings: Settings = LIMITS, *, shares: bool = True) -> Any:
    return soft_alerts(COUNTS | counts, Ages(**vars(WELL) | ages), settings, shares=shares)


def holding(answer: dict[str, Alert | None]) -> list[str]:
    return [code_of(cause) for cause, alert in answer.items() if alert]


def test_a_run_that_is_well_keeps_every_limit() -> None:
    assert {code_of(cause): alert for cause, alert in judged({}, {}).items()} == dict.fromkeys(SOFT)


@pytest.mark.parametrize("cause", SOFT)
def test_a_limit_that_is_reached_is_that_cause_and_no_other(cause: str) -> None:
    assert holding(judged(*PASSED[cause])) == [cause]


@pytest.mark.parametrize("cause", KEPT)
def test_just_below_its_limit_nothing_holds(cause: str) -> None:
    assert holding(judged(*KEPT[cause])) == []


def test_a_silence_says_for_how_long_and_how_long_one_was_before() -> None:
    answer = judged({}, {"silences": {"store 0404": Silence(5, 12.4, 2, "Tuesday"), "topic": Silence(48)}})
    assert answer["silence:store 0404"].what == (
        "Store 0404: no order for 5 h of its usual hours, in which 12 orders are usual; in the four weeks before the "
        "longest such pause was 2 h on a Tuesday."
    )
    assert answer["silence:topic"].what == "Topic: no order for 48 h; the limit is INSTORE_ALERT_SILENCE_HOURS."


@pytest.mark.parametrize("state", ["away", "ignored_filter", "empty_pages"])
def test_events_that_cannot_be_read_back_are_told_by_name(state: str) -> None:
    answer = judged({"read_back": state}, {}, LIMITS.having(alert_not_visible=1))
    assert answer["not_visible"].what == f"The events of the previous run cannot be read back: {state}."


@pytest.mark.parametrize(
    "counts", [{"read_back": "off", "read_back_asked": 0}, {"read_back_asked": 0}], ids=["off", "none asked"]
)
def test_where_nothing_was_read_back_nothing_is_said_of_what_is_visible(counts: dict[str, Any]) -> None:
    assert "not_visible" not in judged(counts, {})


def test_messages_that_expired_unread_are_told_of_from_the_first_one() -> None:
    answer = judged({}, {"dead_letters": 2, "expired": 1})
    assert holding(answer) == ["dead_letters"]
    assert "1 messages expired" in answer["dead_letters"].what


@pytest.mark.parametrize("before", ["drained", "count", None])
def test_a_bus_that_could_not_be_asked_is_told_of_at_once(before: str | None) -> None:
    unknown = {"not_drained": None, "deferred": None}
    answer = judged({"drain": "not known", "drained_before": before, **unknown}, {})
    assert holding(answer) == ["not_drained"]
    assert "did not answer" in answer["not_drained"].what
    assert "deferred" not in answer


def test_a_run_that_drains_nothing_says_nothing_about_the_bus() -> None:
    answer = judged({"drain": None, "drained_before": "count", "not_drained": None, "deferred": None}, {})
    assert not {"not_drained", "deferred"} & set(answer)


@pytest.mark.parametrize("cause", [cause for cause in SOFT if cause not in (*NO_LIMIT, "silence", "not_drained")])
def test_a_limit_that_is_switched_off_never_holds_and_what_was_open_ends(cause: str) -> None:
    assert judged(*PASSED[cause], OFF)[cause] is None


def test_a_bus_nobody_looked_at_says_nothing() -> None:
    answer = judged({}, {"oldest_message": None, "dead_letters": None})
    assert sorted(answer) == sorted(
        [*NO_LIMIT, "left_files", "not_drained", "not_visible", "oldest_unsent", "shared", "unmatched_share"]
    )


def test_too_few_orders_say_nothing_about_a_share_and_enough_of_them_do() -> None:
    assert "unmatched_share" not in judged({}, {"new_orders": 4, "new_unmatched": 4})
    assert holding(judged({}, {"new_orders": 5, "new_unmatched": 5})) == ["unmatched_share"]


def test_what_waits_is_told_with_its_number_code_by_code_and_with_the_commands_for_it() -> None:
    alert = judged({"set_aside": {"not_json": 2, "bad_value": 1, "in_doubt": 3}}, {})["quarantined"]
    assert alert.what.startswith("2 not_json: The record's text cannot be read as JSON, or not as UTF-8. 1 bad_value: ")
    assert "in_doubt" not in alert.what
    _, text = alert_text(alert, run="a run", counts=None, runbook="r", link="l")
    assert "python -m include.instore quarantine discard --reason not_json" in text
    assert "python -m include.instore quarantine redrive --reason bad_value" in text


def test_what_an_older_release_set_aside_by_another_word_is_told_all_the_same() -> None:
    assert holding(judged({"set_aside": {"a_word_of_old": 3}}, {})) == ["quarantined"]


def test_the_shares_of_a_backfill_say_nothing_about_the_stream() -> None:
    answer = judged({}, {"new_unmatched": 100}, shares=False)
    assert sorted(answer) == sorted(
        [
            *(*NO_LIMIT, "dead_letters", "left_files", "not_drained", "not_visible", "oldest_message"),
            *("oldest_unsent", "shared"),
        ]
    )


def test_each_failed_task_and_each_other_reason_is_one_cause() -> None:
    red = {"numbers": ["5 records were received, but 4"], "bad_share": ["9 of 10 records were set aside"]}
    failed = [Failure("batch.send_events"), Failure("drain_topic")]
    alerts = red_alerts(failed, red, COUNTS)
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
    assert red_alerts([], {"numbers": [], "bad_share": []}, COUNTS) == []


def test_an_alert_says_what_happened_the_counts_what_it_means_what_to_do_and_where() -> None:
    why = "Service Bus refused the key of connection instore_service_bus."
    failure = Failure("drain_topic", why, 3, "http://airflow/dags/instore_orders/runs/manual__2026/tasks/drain_topic")
    (alert,) = red_alerts([failure], {}, COUNTS)
    title, text = alert_text(
        alert,
        run=run_in_words("manual", "manual__2026", None),
        counts=COUNTS,
        runbook="https://wiki.example.org/runbook",
        link="http://airflow/dags/instore_orders/runs/manual__2026",
    )
    assert title == "In-store orders: Task drain_topic failed"
    assert text.splitlines() == [
        "What happened: Task drain_topic failed, tried 3 times: Service Bus refused the key of connection "
        "instore_service_bus. (code task_failed:drain_topic)",
        "Run: manual run manual__2026.",
        "Counts: received 100, orders 100, quarantined 0, sent 100, rejected 0.",
        "For the orders: New messages stay on the bus, nothing is lost, and the next run receives them. Extracts, and "
        "orders already in the ledger, are handled as usual.",
        "What to do: A task failed, in https://wiki.example.org/runbook#a-task-failed",
        "The run in Airflow: http://airflow/dags/instore_orders/runs/manual__2026",
        "The task in Airflow: http://airflow/dags/instore_orders/runs/manual__2026/tasks/drain_topic",
    ]


def test_a_task_that_was_killed_is_not_said_to_have_been_tried_again() -> None:
    assert Failure("drain_topic").told().startswith("task drain_topic failed: it ended without a sentence")
    assert Failure("drain_topic", "Why.", 1).told() == "task drain_topic failed, tried once: Why"


def test_an_alert_without_a_report_says_that_the_counts_are_not_known() -> None:
    for alert in (no_report_alert("task_failure"), deadline_alert(90, "running")):
        _, text = alert_text(alert, run="a run", counts=None, runbook="r", link="l")
        assert "Counts: not known." in text


def test_a_recovery_names_what_is_over_since_when_and_in_how_many_runs() -> None:
    ended = {"task_failed:drain_topic": ("2026-11-23 10:00 UTC", 3), "dead_letters": ("2026-11-22 08:00 UTC", 1)}
    title, text = recovery_text(ended, run="scheduled run x", counts=COUNTS, link="l")
    assert title == "In-store orders: Recovered"
    assert (
        "this has ended: task drain_topic failed, since 2026-11-23 10:00 UTC, in 3 runs; "
        "dead letters on the bus, since 2026-11-22 08:00 UTC." in text
    )


def test_every_cause_has_its_section_in_the_runbook_under_the_anchor_that_alerts_link_to() -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)
    anchors = [anchor(heading) for heading in headings]
    for code in CODES.values():
        if code.alert is code and code is not RECOVERED:
            assert anchors.count(anchor(code.heading)) == 1, code
