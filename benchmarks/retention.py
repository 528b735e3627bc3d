"""``python -m benchmarks.retention``: hourly runs alone, and beside the nightly pruning of a full ledger.

Everything older than a day is pruned, by a process of its own, while runs of 2,500 orders follow one another: landed,
planned, looked up, sent and reported, with answers from outside that take no time, so that a run is nothing but work on
the ledger. On both databases. Arguments: how many orders; a folder to keep the ledgers in; after how many seconds the
pruning is stopped, where nobody has the time to wait for its end.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.databases import KINDS, Database, opened
from benchmarks.many_orders import PER_DAY, fill
from include.instore.customers.lookup import look_up_batch
from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.customers import CardAnswer
from include.instore.ledger.intake import arrival, land
from include.instore.ledger.read_figures import list_runs
from include.instore.ledger.records import Record
from include.instore.ledger.tables import orders
from include.instore.model.orders import order_from_document
from include.instore.model.settings import Settings, load_settings
from include.instore.model.states import CardOutcome
from include.instore.runs.planning import plan
from include.instore.runs.report import report_run
from tests.instore import given

ALONE = 12
_BLOCK = 500
_PRUNE = """
import sys
from include.instore.ledger import Ledger
from include.instore.ledger.retention import prune
from include.instore.model.settings import load_settings
prune(Ledger(sys.argv[1]), load_settings(retention_days_payloads=1).retention)
"""


class Everybody:
    """A loyalty provider that knows every card, at once."""

    def resolve(self, card: str) -> CardAnswer:
        return CardAnswer(card, CardOutcome.MATCHED, f"c{card}@example.com")


@dataclass(frozen=True)
class Taken:
    """A destination's word for an event."""

    track_id: str
    state: str = "accepted"
    status_code: int | None = 200
    detail: str = ""
    retry_after: float | None = None


class Everything(given.Events):
    """A destination that takes every event, at once."""

    reads_back = False

    def send_events(self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]) -> Iterator[Taken]:
        before_leaving()
        return (Taken(event["trackId"]) for event in events)


def hour(ledger: Ledger, number: int, settings: Settings) -> float:
    """Seconds of one run."""
    begun, run = time.monotonic(), given.run(f"hour-{number}")
    open_run(ledger, run)
    now = datetime.now(timezone.utc)
    for first in range(0, PER_DAY, _BLOCK):
        land(
            ledger,
            run.run_id,
            [_arrival(f"H{number:04}{n:05}", now, n, settings) for n in range(first, first + _BLOCK)],
            [],
        )
    for batch in plan(ledger, run, settings):
        look_up_batch([Everybody()], ledger, given.batch(run.run_id, batch.batch), settings)
        given.send(Everything(), ledger, given.batch(run.run_id, batch.batch), settings)
    sent = report_run(ledger, run, [], settings).document["sent"]
    assert sent >= PER_DAY, sent  # noqa: S101  else it is no run to be measured
    return time.monotonic() - begun


def _arrival(number: str, now: datetime, n: int, settings: Settings) -> Any:
    document = given.document(number, date=now.isoformat(), loyaltyCardNumber=f"61{n:014d}")
    published_at = now + timedelta(microseconds=n)
    record = Record("topic", f"{number}#1", b"{}", order_from_document(document), published_at=published_at)
    return arrival(record, settings)


def measure(database: Database, count: int, most: float) -> dict[str, Any]:
    """Seconds of runs, median and longest, alone and beside the pruning, which is stopped after so many."""
    settings = load_settings(verify_after=0)
    with contextlib.closing(database.open()) as ledger:
        ledger.migrate()
        if not list_runs(ledger):
            fill(ledger, count)
        with ledger.write() as connection:  # of the many none is asked for again: each run does the same
            connection.execute(sa.update(orders).values(next_attempt=None))
        first = int(time.time())
        hour(ledger, first, settings)
        alone = [hour(ledger, first + n, settings) for n in range(1, ALONE + 1)]
        url = ledger.engine.url.render_as_string(hide_password=False)
        begun = time.monotonic()
        pruning = subprocess.Popen([sys.executable, "-c", _PRUNE, url])  # noqa: S603
        beside: list[float] = []
        while pruning.poll() is None and time.monotonic() - begun < most:
            beside.append(hour(ledger, first + ALONE + 1 + len(beside), settings))
        to_its_end, seconds = pruning.poll() == 0, time.monotonic() - begun
        pruning.kill()
        pruning.wait()
        with ledger.read() as connection:
            pruned = connection.scalar(sa.select(sa.func.count()).where(orders.c.pruned_at.is_not(None)))
    middle = statistics.median(alone)
    return {
        "database": type(database).__name__, "orders": count, "pruned": pruned, "pruning_seconds": round(seconds),
        "to_its_end": to_its_end,
        "runs_alone": len(alone), "runs_beside": len(beside),
        "alone": [round(each, 2) for each in (middle, max(alone))],
        "beside": [round(each, 2) for each in (statistics.median(beside), max(beside))],
        "times_of_median": round(statistics.median(beside) / middle, 2),
        "times_of_longest": round(max(beside) / max(alone), 2),
    }  # fmt: skip


def main() -> int:
    """Exit code 1 where a run beside the pruning is longer than 1.2 times the longest alone."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    kept, fine = Path(sys.argv[2]) if len(sys.argv) > 2 else None, True
    most = float(sys.argv[3]) if len(sys.argv) > 3 else float("inf")
    for kind in KINDS:
        with opened(kind, kept) as database:
            found = measure(database, count, most)
            print(json.dumps(found), flush=True)  # noqa: T201
            fine = fine and found["times_of_longest"] <= 1.2 and (found["pruned"] > count / 2 or most < float("inf"))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
