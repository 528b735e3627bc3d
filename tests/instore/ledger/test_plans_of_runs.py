"""What an hour, a backfill and what follows them ask of the ledger: nothing by reading all that it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from benchmarks.many_orders import fill
from benchmarks.plans import reads_all
from include.instore.customers.lookup import look_up_batch
from include.instore.ledger import Ledger
from include.instore.ledger.alerts import measure
from include.instore.ledger.arrivals import first_run_at, recent_arrivals
from include.instore.ledger.claims import open_run
from include.instore.ledger.customers import CardAnswer
from include.instore.ledger.intake import land
from include.instore.model.windows import Run, Window
from include.instore.runs.planning import plan
from include.instore.runs.report import report_run
from tests.instore import given
from tests.instore.destinations.test_delivery import Outcome

NOW = datetime.now(timezone.utc)
MANY = 5_000
SETTINGS = given.SETTINGS


class Everybody:
    """A resolver that knows whose each card is."""

    def resolve(self, card: str) -> CardAnswer:
        return CardAnswer(card, "matched", f"c{card}@example.com")


class Store(given.Events):
    """A destination that takes and shows everything, and asks the ledger nothing."""

    reads_back = True

    def __init__(self) -> None:
        self.taken = 0

    def send_events(self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]) -> Iterator[Outcome]:
        before_leaving()
        self.taken += len(events)
        return (Outcome(event["trackId"], "accepted") for event in events)

    def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(event_ids, "shown")


@pytest.fixture
def large_ledger(databases: Any) -> Iterator[Ledger]:
    url = databases.migrated()
    ledger = Ledger(url, hash_key="the-hash-key-of-the-tests")
    fill(ledger, MANY, NOW)
    yield ledger
    ledger.close()
    databases.drop(url)


def _through(ledger: Ledger, run: Run) -> int:
    """A whole run of 30 new orders, a correction and a duplicate; how many events it sent."""
    run = open_run(ledger, run)
    moment = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    new = [given.document(f"N{n}", loyaltyCardNumber=f"70{n:014d}", date=moment) for n in range(30)]
    land(ledger, run.run_id, given.arrivals(*new, new[0], {**new[1], "total": "9.99"}), [given.refused()])
    store = Store()
    for batch in plan(ledger, run, SETTINGS):
        look_up_batch([Everybody()], ledger, given.batch(run.run_id, batch.batch), SETTINGS)
        given.send(store, ledger, given.batch(run.run_id, batch.batch), SETTINGS)
    report_run(ledger, run, [], SETTINGS)
    measure(ledger, run.run_id, 20)
    recent_arrivals(ledger, NOW)
    first_run_at(ledger)
    return store.taken


DAY = Window(NOW - timedelta(hours=5), NOW - timedelta(hours=4))
RUNS: dict[str, Run] = {
    "hour": given.run("scheduled__plans"),
    "woken": given.run("asset_triggered__plans", "woken"),
    "backfill": given.run("backfill__plans", "backfill", window=DAY, claims="in_window", loads_any_extract=False),
    "resend": given.run("backfill__again", "backfill", window=DAY, claims="in_window", resend=True),
    "cleared": given.run("scheduled__plans", "cleared", claims="own", clear_number=1),
}


def _counts_all(statement: str) -> bool:
    """The report counts the whole ledger by status: the one thing that grows with it, by reading an index alone."""
    shown, _, plan = statement.partition("GROUP BY")
    by_status = re.match(r"SELECT (orders|deliveries)\.status, count\(\*\) AS count_1 \nFROM \1 \nWHERE ", shown)
    return by_status is not None and re.search(r"COVERING INDEX|Index Only Scan", plan) is not None


@pytest.mark.parametrize("kind", RUNS)
def test_no_statement_of_a_run_reads_all_orders(large_ledger: Ledger, kind: str) -> None:
    sent = 0

    def ask(ledger: Ledger) -> None:
        nonlocal sent
        sent = _through(ledger, RUNS[kind])

    found = [each for each in reads_all(large_ledger, ask, as_if_large=True) if not _counts_all(each)]
    assert found == []
    assert sent >= 30 or kind in ("backfill", "cleared")
