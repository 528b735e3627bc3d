"""Two destinations of one ledger: each has its own deliveries, and what is wrong with one does not touch the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.customers import CardAnswer, remember, settle_customers
from include.instore.ledger.deliveries import mark_sending, record_outcomes
from include.instore.ledger.destinations import switch_destinations
from include.instore.ledger.keys import rekey
from include.instore.ledger.runs import count_run, faults_in
from include.instore.ledger.tables import deliveries
from include.instore.model.destinations import PROFILE_STORE
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.runs.planning import plan
from include.instore.runs.reconcile import reconcile
from include.instore.runs.report import report_run
from tests.instore import given
from tests.instore.destinations.archive import Archive
from tests.instore.destinations.test_delivery import Store

MakeSettings = Callable[..., Settings]
BOTH = (PROFILE_STORE, "archive")
DAY = given.window("2017-06-05", "2017-06-06")


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(f"file://{tmp_path}/archive")


def backfill(run_id: str, **changes: Any) -> Run:
    return replace(given.run(run_id, "backfill", window=DAY, claims="in_window", drains_topic=False), **changes)


def documents(*numbers: str, **changes: Any) -> list[dict[str, Any]]:
    """Orders whose customer is known without asking."""
    return [
        given.document(number, emailAddress=f"{number}@example.com", loyaltyCardNumber=None, **changes)
        for number in numbers
    ]


def go(ledger: Ledger, settings: Settings, run: Run, *sends_to: tuple[str, Any]) -> dict[str, Counter[str]]:
    """Plan, find the customers, send, report and end a run; destination to what became of its events by this run."""
    given.open_run(ledger, run)
    for batch in plan(ledger, run, settings):
        settle_customers(
            ledger, given.batch(run.run_id, batch.batch),
            asked_after=given.hours_ago(0), cache_hits=0, expiry=given.timedelta(days=1),
        )  # fmt: skip
        for name, destination in sends_to:
            given.send(destination, ledger, given.batch(run.run_id, batch.batch, name), settings)
    report = report_run(ledger, run, [], settings)
    assert report.red == (), report.red
    return {name: Counter(became) for name, became in report.document["by_destination"].items()}


def at(ledger: Ledger, destination: str) -> Counter[str]:
    return Counter(row["status"] for row in given.rows(ledger, "deliveries") if row["destination"] == destination)


def test_an_order_goes_to_every_destination_that_is_on_with_an_event_of_its_own(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1", "S2"))
    store = Store(ledger)
    became = go(ledger, settings(), given.run(), (PROFILE_STORE, store), ("archive", archive))
    assert became == {PROFILE_STORE: {"sent": 2}, "archive": {"sent": 2}}
    assert [event["order"]["orderNumber"] for event in archive.events()] == store.orders == ["S1", "S2"]
    assert archive.events()[0]["customer"] == "S1@example.com"
    ids = [event["trackId"] for event in (*archive.events(), *store.taken)]
    assert len(set(ids)) == 4
    assert {row["event_id"] for row in given.rows(ledger, "orders")} == {event["trackId"] for event in store.taken}


def test_old_orders_go_to_a_destination_that_is_new_only_where_a_backfill_names_it(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    old = [f"S{number}" for number in range(3000)]
    given.landed(ledger, *documents(*old))
    store, both = Store(ledger), (PROFILE_STORE, "archive")
    assert go(ledger, settings(), given.run(), (PROFILE_STORE, store)) == {PROFILE_STORE: {"sent": 3000}}
    switch_destinations(ledger, both)
    to = ((PROFILE_STORE, store), ("archive", archive))
    assert go(ledger, settings(), given.run("run-2"), *to) == {}
    assert go(ledger, settings(), backfill("unnamed"), *to) == {}
    assert archive.events() == []
    assert go(ledger, settings(), backfill("named", destination="archive"), *to) == {"archive": {"sent": 3000}}
    assert go(ledger, settings(), backfill("again", destination="archive"), *to) == {}
    assert (len(archive.events()), len({event["trackId"] for event in archive.events()})) == (3000, 3000)
    assert len(store.taken) == 3000


def test_an_order_that_came_before_and_finds_its_customer_after_does_not_go_to_the_new_one(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.landed(ledger, *documents("early"))
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("late"))
    go(ledger, settings(), given.run())
    there = {(row["destination"], row["key"]) for row in given.rows(ledger, "deliveries")}
    assert there == {
        (PROFILE_STORE, '["early", "sale"]'), (PROFILE_STORE, '["late", "sale"]'), ("archive", '["late", "sale"]'),
    }  # fmt: skip


def test_one_that_refuses_everything_does_not_touch_the_other(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1", "S2"))
    store = Store(ledger, S1=[ConfigurationError("refused the key")])
    with pytest.raises(ConfigurationError):
        go(ledger, settings(), given.run(), (PROFILE_STORE, store))
    given.send(archive, ledger, given.batch(destination="archive"), settings())
    assert (at(ledger, PROFILE_STORE), at(ledger, "archive")) == ({"ready": 2}, {"sent": 2})
    assert count_run(ledger, "run-1").carried_over == 2
    release(ledger, "run-1")
    assert go(ledger, settings(), given.run("run-2"), (PROFILE_STORE, store), ("archive", archive)) == {
        PROFILE_STORE: {"sent": 2}
    }
    assert (len(store.taken), len(archive.events())) == (2, 2)


def test_one_that_is_switched_off_gets_nothing_more_and_what_waited_is_cancelled(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1", "S2"))
    store = Store(ledger)
    assert go(ledger, settings(), given.run(), (PROFILE_STORE, store)) == {PROFILE_STORE: {"sent": 2}}
    switch_destinations(ledger, [PROFILE_STORE])
    given.landed(ledger, *documents("S3"), run=given.run("run-2"))
    became = go(ledger, settings(), given.run("run-2"), (PROFILE_STORE, store))
    assert became == {PROFILE_STORE: {"sent": 1}, "archive": {"cancelled": 2}}
    assert count_run(ledger, "run-2").cancelled == 2
    # On again, it gets what comes from now on; a backfill that names it brings what was missed.
    switch_destinations(ledger, BOTH)
    to = ((PROFILE_STORE, store), ("archive", archive))
    assert go(ledger, settings(), given.run("run-3"), *to) == {}
    assert go(ledger, settings(), backfill("named", destination="archive"), *to) == {"archive": {"sent": 3}}
    assert (len(store.taken), len(archive.events())) == (3, 3)


def test_what_is_in_doubt_at_one_that_is_switched_off_a_person_decides(ledger: Ledger, settings: MakeSettings) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1"))
    go(ledger, settings(), given.run())
    given.planned(ledger, given.run("run-2"))
    mark_sending(ledger, given.batch("run-2", destination="archive"), ['["s1", "sale"]'])
    release(ledger, "run-2")
    switch_destinations(ledger, [PROFILE_STORE])
    given.open_run(ledger, given.run("run-3"))
    plan(ledger, given.run("run-3"), settings())
    assert at(ledger, "archive") == {"held": 1}
    assert report_run(ledger, given.run("run-3"), [], settings()).red != ()


def test_a_correction_is_taken_where_the_order_has_not_left_and_told_where_it_has(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1"))
    store = Store(ledger)
    go(ledger, settings(), given.run(), (PROFILE_STORE, store))
    given.landed(ledger, *documents("S1", total="9.50"), run=given.run("run-2"))
    counts = count_run(ledger, "run-2")
    assert (counts.corrections, counts.corrected_after_sent) == (1, 1)
    go(ledger, settings(), given.run("run-3"), (PROFILE_STORE, store), ("archive", archive))
    assert [str(event["payload"]["total"]) for event in store.taken] == ["3.50"]
    assert [str(event["order"]["total"]) for event in archive.events()] == ["9.50"]
    # Neither content is news when its file comes again.
    again = given.landed(ledger, *documents("S1"), *documents("S1", total="9.50"), run=given.run("run-4"))
    assert (again.duplicates, again.corrections) == (2, 0)


def test_what_has_left_once_keeps_its_content_though_the_order_is_corrected_for_another(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1"))
    go(ledger, settings(), given.run())
    given.planned(ledger, given.run("run-2"))
    (left,) = mark_sending(ledger, given.batch("run-2"), ['["s1", "sale"]'])
    given.landed(ledger, *documents("S1", total="9.50"), run=given.run("run-3"))
    record_outcomes(ledger, given.batch("run-2"), unsent=[left.event_id])
    release(ledger, "run-2")
    store = Store(ledger)
    go(ledger, settings(), given.run("run-4"), (PROFILE_STORE, store), ("archive", archive))
    (event,) = store.taken
    assert (event["trackId"], str(event["payload"]["total"])) == (left.event_id, "3.50")
    assert [str(event["order"]["total"]) for event in archive.events()] == ["9.50"]


def test_a_person_who_is_suppressed_gets_nothing_at_either(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1", "S2"))
    go(ledger, settings(), given.run())
    run = given.run("run-2")
    given.planned(ledger, run)
    hers = CardAnswer("x1", "suppressed", "S1@example.com")
    remember(ledger, given.batch("run-2"), [hers], cache=given.timedelta(days=1), negative=given.timedelta(days=1))
    store = Store(ledger)
    for name, destination in ((PROFILE_STORE, store), ("archive", archive)):
        given.send(destination, ledger, given.batch("run-2", destination=name), settings())
    assert store.orders == [event["order"]["orderNumber"] for event in archive.events()] == ["S2"]
    counts = count_run(ledger, "run-2")
    assert (counts.by_destination, counts.suppressed) == (
        {name: {"sent": 1, "suppressed": 1} for name in ("archive", PROFILE_STORE)},
        2,
    )
    assert faults_in(counts) == []


def test_a_resend_makes_an_edition_at_each_and_at_the_named_one_only(
    ledger: Ledger, settings: MakeSettings, archive: Archive
) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1"))
    store = Store(ledger)
    to = ((PROFILE_STORE, store), ("archive", archive))
    go(ledger, settings(), given.run(), *to)
    assert go(ledger, settings(), backfill("named", resend=True, destination="archive"), *to) == {
        "archive": {"sent": 1}
    }
    assert go(ledger, settings(), backfill("all", resend=True), *to) == {
        "archive": {"sent": 1}, PROFILE_STORE: {"sent": 1},
    }  # fmt: skip
    editions = {(row["destination"], row["edition"]) for row in given.rows(ledger, "deliveries") if row["is_latest"]}
    assert editions == {("archive", 3), (PROFILE_STORE, 2)}
    assert len({event["trackId"] for event in archive.events()}) == len(archive.events()) == 3
    assert len({event["trackId"] for event in store.taken}) == 2


def test_a_new_key_takes_the_deliveries_of_both_along(ledger: Ledger, settings: MakeSettings, archive: Archive) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1"))
    store = Store(ledger)
    to = ((PROFILE_STORE, store), ("archive", archive))
    go(ledger, settings(), given.run(), *to)
    rekey(ledger, settings(order_key="storeId,orderNumber"))
    assert go(ledger, settings(), backfill("again"), *to) == {}
    assert (at(ledger, PROFILE_STORE), at(ledger, "archive")) == ({"sent": 1}, {"sent": 1})


def test_reconciling_one_leaves_the_other(ledger: Ledger, settings: MakeSettings, archive: Archive) -> None:
    switch_destinations(ledger, BOTH)
    given.landed(ledger, *documents("S1", "S2"))
    go(ledger, settings(), given.run(), ("archive", archive))
    with ledger.engine.begin() as connection:  # a backup from before it was sent
        connection.execute(sa.delete(deliveries).where(deliveries.c.destination == "archive"))
    given.set_orders(ledger, given.orders.c.order_number == "S2", status="pending")
    done = reconcile(archive, "archive", ledger, settings())
    assert (done.asked, done.sent) == (1, 1)
    assert at(ledger, "archive") == {"sent": 1}


def test_a_run_that_names_a_destination_nobody_knows_is_refused(ledger: Ledger, settings: MakeSettings) -> None:
    given.open_run(ledger, backfill("named", destination="archive"))
    with pytest.raises(ConfigurationError, match="'archive', which is not on; there is profile_store"):
        plan(ledger, backfill("named", destination="archive"), settings())


def test_an_order_that_goes_nowhere_makes_the_run_red(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, *documents("S1"))
    switch_destinations(ledger, [])
    run = given.run()
    given.open_run(ledger, run)
    plan(ledger, run, settings())
    settle_customers(
        ledger, given.batch(), asked_after=given.hours_ago(0), cache_hits=0, expiry=given.timedelta(days=1)
    )
    assert "they go to no destination" in " ".join(report_run(ledger, run, [], settings()).red)
