"""The ledger remembers which alert of which run and cause was given, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.alerts import NOBODY, TOLD, knows_why, mark, measure, remember, waiting
from include.instore.ledger.tables import alerts, orders
from include.instore.model.windows import Run
from tests.instore import given

FAILED = "task_failed:drain_topic"
TEXT = ("a title", "a text")


def recovery(ended: Mapping[str, tuple[str, int]]) -> tuple[str, str]:
    return "Recovered", ", ".join(f"{cause} x{runs}" for cause, (_, runs) in sorted(ended.items()))


def reported(ledger: Ledger, run: Run | str, red: tuple[str, ...] = (), **soft: bool) -> list[str]:
    """One run's report, delivered; the causes it told."""
    run = given.run(run) if isinstance(run, str) else run
    judged = {cause: TEXT if holds else None for cause, holds in soft.items()}
    remember(ledger, run, red=dict.fromkeys(red, TEXT), soft=judged, recovery=recovery)
    told = waiting(ledger, run.tries[-1])
    mark(ledger, told, TOLD)
    return [each.cause for each in told]


def rows(ledger: Ledger) -> list[dict[str, Any]]:
    with ledger.read() as connection:
        return [dict(row) for row in connection.execute(sa.select(alerts)).mappings()]


def test_a_red_cause_is_told_once_a_run_however_often_it_reports(ledger: Ledger) -> None:
    assert reported(ledger, "run-1", (FAILED, "bad_share")) == ["bad_share", FAILED]
    assert reported(ledger, "run-1", (FAILED, "bad_share")) == []
    assert reported(ledger, "run-2", (FAILED,)) == [FAILED]


def test_a_red_cause_that_lasts_is_not_ended_by_a_green_run(ledger: Ledger) -> None:
    reported(ledger, "run-1", ("unread_files", FAILED))
    for run_id, lasting, told in (("run-2", ["unread_files"], FAILED), ("run-3", [], "unread_files")):
        remember(ledger, given.run(run_id), red={}, recovery=recovery, lasting=lasting)
        (recovered,) = (each for each in waiting(ledger, run_id) if each.cause == "recovered")
        assert recovered.text == f"{told} x1"
        mark(ledger, [recovered], TOLD)


def test_a_soft_cause_is_told_again_by_a_run_that_adds_to_it_and_is_over_once(ledger: Ledger) -> None:
    told = []
    for run_id, holds, more in (("run-1", True, True), ("run-2", True, False), ("run-3", True, True), ("run-4", 0, 0)):
        soft = {"quarantined": TEXT if holds else None}
        remember(ledger, given.run(run_id), red={}, soft=soft, recovery=recovery, more=["quarantined"] if more else [])
        messages = waiting(ledger, run_id)
        mark(ledger, messages, TOLD)
        told.append([each.cause if each.cause != "recovered" else each.text for each in messages])
    assert told == [["quarantined"], [], ["quarantined"], ["quarantined x2"]]


def test_what_a_red_cause_tells_is_not_told_as_a_soft_one_as_well_and_its_end_is(ledger: Ledger) -> None:
    both = {"red": {"bad_share": TEXT}, "soft": {"quarantined": TEXT}, "told_by_red": ["quarantined"]}
    remember(ledger, given.run("run-1"), recovery=recovery, **both)  # type: ignore[arg-type]
    messages = waiting(ledger, "run-1")
    assert [each.cause for each in messages] == ["bad_share"]
    mark(ledger, messages, TOLD)
    assert reported(ledger, "run-2", quarantined=True) == ["recovered"]  # of the red one alone
    assert reported(ledger, "run-3", quarantined=False) == ["recovered"]


def test_a_soft_cause_is_told_when_it_begins_and_not_again_every_hour(ledger: Ledger) -> None:
    assert reported(ledger, "run-1", dead_letters=True) == ["dead_letters"]
    assert reported(ledger, "run-2", dead_letters=True) == []
    assert reported(ledger, "run-3", dead_letters=True, oldest_unsent=True) == ["oldest_unsent"]


def test_a_soft_cause_that_ends_is_told_once_and_may_begin_again(ledger: Ledger) -> None:
    reported(ledger, "run-1", dead_letters=True)
    assert reported(ledger, "run-2", dead_letters=False) == ["recovered"]
    assert reported(ledger, "run-3", dead_letters=False) == []
    assert reported(ledger, "run-4", dead_letters=True) == ["dead_letters"]


def test_a_cause_that_was_not_judged_neither_ends_nor_begins(ledger: Ledger) -> None:
    reported(ledger, "run-1", dead_letters=True)
    assert reported(ledger, "run-2") == []
    assert reported(ledger, "run-3", dead_letters=True) == []


def test_the_recovery_of_red_runs_is_told_once_by_the_next_good_one(ledger: Ledger) -> None:
    reported(ledger, "run-1", (FAILED,))
    reported(ledger, "run-2", (FAILED, "bad_share"))
    assert reported(ledger, "run-3") == ["recovered"]
    (told,) = (row for row in rows(ledger) if row["cause"] == "recovered")
    assert told["text"] == "bad_share x1, task_failed:drain_topic x2"
    assert reported(ledger, "run-4") == []


def test_a_run_that_is_red_for_another_reason_is_no_recovery(ledger: Ledger) -> None:
    reported(ledger, "run-1", (FAILED,))
    assert reported(ledger, "run-2", ("numbers",)) == ["numbers"]


def test_a_good_hourly_run_does_not_end_what_a_backfill_failed_at(ledger: Ledger) -> None:
    backfill = given.run("backfill-1", "backfill", claims="in_window", drains_topic=False)
    reported(ledger, backfill, (FAILED,))
    assert reported(ledger, "run-1") == []
    again = replace(backfill, run_id="backfill-1#1", clear_number=1)
    assert reported(ledger, again) == ["recovered"]


def test_a_good_backfill_does_not_end_what_the_hourly_runs_fail_at(ledger: Ledger) -> None:
    reported(ledger, "run-1", (FAILED,))
    assert reported(ledger, given.run("backfill-1", "backfill", claims="in_window")) == []


def test_a_cleared_run_that_fails_again_is_told_again(ledger: Ledger) -> None:
    reported(ledger, "run-1", (FAILED,))
    cleared = given.run("run-1", "cleared", claims="own", clear_number=1)
    assert reported(ledger, cleared, (FAILED,)) == [FAILED]
    assert knows_why(ledger, "run-1#1")


def test_what_could_not_be_delivered_waits_for_its_own_run_at_once_and_for_others_after_a_while(
    ledger: Ledger,
) -> None:
    remember(ledger, given.run("run-1"), red={FAILED: TEXT}, soft={}, recovery=recovery)
    assert [each.cause for each in waiting(ledger, "run-1")] == [FAILED]
    assert waiting(ledger, "run-2") == []  # run-1 may be at it
    begun(ledger, minutes_ago=6)
    assert [(each.run, each.cause) for each in waiting(ledger, "run-2")] == [("run-1", FAILED)]
    begun(ledger, minutes_ago=25 * 60)
    assert waiting(ledger, "run-2") == []


def test_what_is_over_before_it_could_be_told_is_told_by_its_recovery_alone(ledger: Ledger) -> None:
    remember(ledger, given.run("run-1"), red={FAILED: TEXT}, soft={}, recovery=recovery)
    assert reported(ledger, "run-2") == ["recovered"]
    begun(ledger, minutes_ago=6)
    assert reported(ledger, "run-3") == []


def begun(ledger: Ledger, minutes_ago: float) -> None:
    with ledger.write() as connection:
        moment = datetime.now(timezone.utc) - timedelta(minutes=minutes_ago)
        connection.execute(sa.update(alerts).values(begun_at=moment))


def test_what_began_while_there_was_no_channel_is_told_once_there_is_one(ledger: Ledger) -> None:
    remember(ledger, given.run("run-1"), red={FAILED: TEXT}, soft={"dead_letters": TEXT}, recovery=recovery)
    mark(ledger, waiting(ledger, "run-1"), NOBODY)
    assert reported_for(ledger, "run-2", dead_letters=True) == ["dead_letters"]
    # The failure of run-1 was told to nobody, so nobody is told that it is over.
    assert [row["cause"] for row in rows(ledger) if row["cause"] == "recovered"] == []


def reported_for(ledger: Ledger, run_id: str, **soft: bool) -> list[str]:
    remember(ledger, given.run(run_id), red={}, soft=dict.fromkeys(soft, ("new title", "t")), recovery=recovery)
    return [row["cause"] for row in rows(ledger) if row["state"] == "waiting"]


def test_two_runs_that_report_at_once_begin_a_soft_cause_once(ledger: Ledger, another_process: Ledger) -> None:
    for attempt in range(10):
        barrier = threading.Barrier(2)

        def report(handle: Ledger, run_id: str, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            remember(handle, given.run(run_id), red={}, soft={"dead_letters": TEXT}, recovery=recovery)

        threads = [
            threading.Thread(target=report, args=(handle, f"run-{attempt}-{number}"))
            for number, handle in enumerate((ledger, another_process))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(rows(ledger)) == 1
        with ledger.write() as connection:
            connection.execute(sa.delete(alerts))


def test_a_dry_run_s_failure_is_told_and_ends_nothing(ledger: Ledger) -> None:
    reported(ledger, "run-1", (FAILED,), dead_letters=True)
    dry = given.run("dry", "manual", dry_run=True)
    remember(ledger, dry, red={FAILED: TEXT})
    remember(ledger, replace(dry, run_id="dry#1", clear_number=1), red={})
    assert [row["ended_run"] for row in rows(ledger)] == [None, None, None]


def test_a_good_hourly_run_does_not_end_what_a_dry_run_failed_at(ledger: Ledger) -> None:
    dry = given.run("dry", "manual", dry_run=True)
    remember(ledger, dry, red={FAILED: TEXT})
    mark(ledger, waiting(ledger, "dry"), TOLD)
    assert reported(ledger, "run-1") == []


def test_a_red_run_s_why_is_known_only_by_a_red_cause(ledger: Ledger) -> None:
    reported(ledger, "run-1", dead_letters=True)
    reported(ledger, "run-2", ("deadline",))
    reported(ledger, "run-3", (FAILED,))
    assert [knows_why(ledger, f"run-{number}") for number in (1, 2, 3)] == [False, False, True]


def test_only_new_orders_count_for_the_unmatched_share_and_the_oldest_unsent_is_measured(ledger: Ledger) -> None:
    given.landed(ledger, given.document("old1"), given.document("old2"), run=given.run("run-0"))
    given.landed(ledger, *(given.document(f"new{number}") for number in range(4)))
    given.set_orders(ledger, status="unmatched", resolved_run="run-1")
    given.set_orders(ledger, orders.c.order_number.in_(["new1", "new2"]), status="sent")
    given.set_orders(ledger, orders.c.order_number == "new3", status="ready", received_at=given.hours_ago(3))
    ages = measure(ledger, "run-1")
    assert (ages.new_orders, ages.new_unmatched) == (4, 1)
    assert 3 * 3600 <= ages.oldest_unsent < 3 * 3600 + 60
    assert ages.oldest_message is None
    given.set_orders(ledger, status="sent")
    assert measure(ledger, "run-1").oldest_unsent == 0


def test_new_orders_of_which_some_could_not_be_asked_for_say_nothing_about_the_share(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"))
    given.set_orders(ledger, orders.c.order_number == "S1", status="unmatched")
    assert measure(ledger, "run-1").new_orders == 0
