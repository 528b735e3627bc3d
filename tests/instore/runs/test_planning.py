"""What a run plans to send."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.runs.planning import HeldByAnotherRun, plan
from include.instore.runs.report import report_run
from tests.instore import given

MakeSettings = Callable[..., Settings]
WINDOW = given.window("2017-06-05", "2017-06-06")
OTHER_DAY = "2017-06-07T10:00:00Z"


def window_run(run_id: str, **changes: bool) -> Run:
    return given.run(run_id, "manual", window=WINDOW, claims="in_window", **changes)


def planned(ledger: Ledger, run: Run, settings: MakeSettings, **values: bool) -> int:
    open_run(ledger, run)
    return sum(batch.orders for batch in plan(ledger, run, settings(**values)))


def test_a_dry_run_tells_of_the_orders_that_wait_to_be_sent(ledger: Ledger, settings: MakeSettings) -> None:
    """Tracking is off in a dry run, and what waits for it to be on again is what it is asked about."""
    given.ready(ledger, "S1", "S2")
    report_run(ledger, given.run(), (), settings())  # gives them up
    dry = window_run("dry", dry_run=True)
    assert planned(ledger, dry, settings, enable_track_events=False) == 2
    report = report_run(ledger, dry, (), settings(enable_track_events=False)).document
    assert (report["would_send"], report["sent"]) == (2, 0)


def test_a_dry_run_with_resend_tells_of_the_orders_that_were_sent(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2")
    given.landed(ledger, given.document("S3", date=OTHER_DAY))
    given.set_orders(ledger, status="sent", outcome_run="run-1", claim_run=None)
    without = window_run("without", dry_run=True)
    assert planned(ledger, without, settings, enable_track_events=False) == 0
    dry = window_run("dry", dry_run=True, resend=True)
    assert planned(ledger, dry, settings, enable_track_events=False) == 2
    assert report_run(ledger, dry, (), settings(enable_track_events=False)).document["would_send"] == 2


def test_a_run_without_tracking_leaves_what_waits_to_be_sent_to_others(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    report_run(ledger, given.run(), (), settings())
    assert planned(ledger, window_run("real", resend=True), settings, enable_track_events=False) == 0


def test_a_dry_run_does_not_wait_for_what_another_run_holds(ledger: Ledger, settings: MakeSettings) -> None:
    """In its copy of the ledger the other run would hold it for ever."""
    given.ready(ledger, "S1")
    with pytest.raises(HeldByAnotherRun):
        planned(ledger, window_run("real"), settings)
    assert planned(ledger, window_run("dry", dry_run=True), settings) == 0


def test_a_run_of_a_window_waits_so_long_for_what_another_run_holds_and_then_takes_the_rest(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.ready(ledger, "held")
    given.landed(ledger, given.document("free"))
    run = window_run("real")
    open_run(ledger, run)
    with pytest.raises(HeldByAnotherRun):
        plan(ledger, run, settings(claim_wait=60))
    assert sum(batch.orders for batch in plan(ledger, run, settings(claim_wait=0))) == 1
    assert given.row(ledger, "held")["claim_run"] == "run-1"
