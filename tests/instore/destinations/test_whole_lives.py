"""Lives of many orders through several runs: resent where a batch fails, and known by another key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.customers import settle_customers
from include.instore.ledger.intake import land
from include.instore.ledger.keys import rekey
from include.instore.ledger.quarantined import Wanted
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.runs.planning import plan
from include.instore.runs.report import Failure, report_run
from include.instore.sources.quarantine import redrive
from tests.instore import given
from tests.instore.destinations.test_delivery import Store

MakeSettings = Callable[..., Settings]
DAY = given.window("2017-06-05", "2017-06-06")


def documents(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Orders whose customer is known without asking."""
    return [
        given.document(f"S{number}", emailAddress=f"S{number}@example.com", loyaltyCardNumber=None, **changes)
        for number in range(count)
    ]


def begun(ledger: Ledger, settings: Settings, run: Run) -> list[int]:
    """The batches of a run that is planned, and whose customers are found."""
    open_run(ledger, run)
    batches = [each.batch for each in plan(ledger, run, settings) if each.orders]
    for batch in batches:
        settle_customers(
            ledger, given.batch(run.run_id, batch),
            asked_after=given.hours_ago(0), cache_hits=0, expiry=given.timedelta(days=1),
        )  # fmt: skip
    return batches


def through(ledger: Ledger, settings: Settings, run: Run, store: Store) -> int:
    """The same, sent and reported; how many were sent by it."""
    for batch in begun(ledger, settings, run):
        given.send(store, ledger, given.batch(run.run_id, batch), settings)
    counts = report_run(ledger, run, [], settings).document
    return int(counts["sent"] + counts["resent"])


def test_a_resend_of_1000_orders_of_which_a_batch_fails_makes_1000_editions_whatever_is_cleared(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.landed(ledger, *documents(1000))
    store, some = Store(ledger), settings(batch_orders=100)
    assert through(ledger, some, given.run(), store) == 1000
    again = replace(given.run("again", "backfill", window=DAY, claims="in_window"), resend=True)
    batches = begun(ledger, some, again)
    assert len(batches) == 10
    for batch in batches:
        if batch == 7:
            numbers = [row["order_number"] for row in given.on_the_way(ledger) if row["claim_batch"] == 7]
            broken = Store(ledger, **{numbers[50]: [ConfigurationError("refused the key")]})
            with pytest.raises(ConfigurationError):
                given.send(broken, ledger, given.batch("again", 7), some)
            store.taken += broken.taken
        else:
            given.send(store, ledger, given.batch("again", batch), some)
    report_run(ledger, again, [Failure("send_events")], some)
    # Its task is cleared, and after it the whole run, twice.
    given.send(store, ledger, given.batch("again", 7), some)
    report_run(ledger, again, [], some)
    assert len({event["trackId"] for event in store.taken}) == len(store.taken) == 2000
    for number in (1, 2):
        assert through(ledger, some, replace(again, run_id=f"again#{number}", clear_number=number), store) == 0
    assert len(store.taken) == 2000
    assert len(given.rows(ledger, "editions")) == 1000
    assert {row["edition"] for row in given.on_the_way(ledger)} == {2}


def test_1000_sent_orders_and_20_collisions_are_20_events_more_once_the_key_tells_them_apart(
    ledger: Ledger, settings: MakeSettings
) -> None:
    first, second = documents(1000), documents(20, storeId="0500")
    store, by_store = Store(ledger), settings(order_key="storeId,orderNumber")
    given.landed(ledger, *first)
    assert through(ledger, settings(), given.run(), store) == 1000
    assert given.landed(ledger, *second, run=given.run("run-2")).collisions == 20
    rekey(ledger, by_store)
    assert [each.outcome for each in redrive(ledger, Wanted(reason="collision"), by_store)] == ["landed"] * 20
    open_run(ledger, given.run("run-3"))
    delivered_again = land(ledger, "run-3", given.arrivals(*first, *second, settings=by_store), [])
    assert (delivered_again.orders, delivered_again.duplicates) == (0, 1020)
    assert through(ledger, by_store, given.run("run-3"), store) == 20
    assert through(ledger, by_store, given.run("run-4"), store) == 0
    assert len({event["trackId"] for event in store.taken}) == len(store.taken) == 1020
    assert {event["payload"]["storeId"] for event in store.taken[1000:]} == {"0500"}
