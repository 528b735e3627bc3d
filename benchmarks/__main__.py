"""``make benchmark``: what people ask of the ledger, timed on a ledger of many orders, on both databases.

warm    each question 200 times, with another order, day, store or run each time, on connections that are open
cpu     the processor's time of the same calls: on SQLite all of it, on PostgreSQL without the server's
cold    each question 20 times, the database's files put out of the page cache before each, and PostgreSQL started anew
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.databases import KINDS, Database, opened
from benchmarks.many_orders import PER_DAY, STORES, fill, number_of
from benchmarks.plans import reads_all
from include.instore.ledger import Ledger
from include.instore.ledger.read_figures import By, list_runs, report, undelivered
from include.instore.ledger.read_orders import find_orders, life, list_orders
from include.instore.model.settings import Settings

WARM, COLD = 200, 20
_LIMIT_MS = 100
_SETTINGS = Settings()
Ask = Callable[[Ledger, int], Any]


def questions(count: int) -> dict[str, Ask]:
    """What is asked, of the nth order of so many."""
    today = datetime.now(timezone.utc).date()

    def day(n: int) -> str:
        return f"{today - timedelta(days=n * 7919 % (count // PER_DAY))}"

    def whole_life(ledger: Ledger, n: int) -> Any:
        return [
            life(ledger, each, _SETTINGS) for each in find_orders(ledger, _SETTINGS.orders, number=number_of(n, count))
        ]

    def days(by: By, back: int) -> Ask:
        return lambda ledger, _: report(ledger, by, today - timedelta(days=back), today)

    return {
        "orders show": whole_life,
        "orders by card": lambda ledger, n: find_orders(ledger, _SETTINGS.orders, card=f"60{n % (count // 4):014d}"),
        "orders by message": lambda ledger, n: find_orders(ledger, _SETTINGS.orders, origin=f"m{n}"),
        "orders by file": lambda ledger, n: find_orders(ledger, _SETTINGS.orders, origin=f"day-{n // PER_DAY}.csv"),
        "list: day, store": lambda ledger, n: list_orders(ledger, day=day(n), store=f"{n % STORES:04d}"),
        "list: day, sent": lambda ledger, n: list_orders(ledger, day=day(n), status="sent"),
        "list: run": lambda ledger, n: list_orders(ledger, run=f"run-{n * 24 // PER_DAY}"),
        "list: held": lambda ledger, _: list_orders(ledger, status="held"),
        "undelivered": lambda ledger, _: undelivered(ledger, _SETTINGS),
        "report: 14 days": days(By.DAY, 13),
        "report: 14 days by store": days(By.STORE, 13),
        "report: today by hour": days(By.HOUR, 0),
        "runs": lambda ledger, _: list_runs(ledger),
    }


def _p95(times: list[float]) -> float:
    return sorted(times)[max(0, round(len(times) * 0.95) - 1)]


def _timed(ledger: Ledger, ask: Ask, n: int) -> tuple[float, float]:
    """Milliseconds by the clock and of the processor; where others are at work as well the first are more."""
    begun, cpu = time.perf_counter(), time.process_time()
    ask(ledger, n)
    return (time.perf_counter() - begun) * 1000, (time.process_time() - cpu) * 1000


def _times(database: Database, ask: Ask, order: Callable[[], int]) -> tuple[float, float, float, bool]:
    """Of a question: p95 warm, of the processor and cold, in ms, and whether it reads all orders."""
    with contextlib.closing(database.open()) as ledger:
        ask(ledger, 1)
        warm = [_timed(ledger, ask, order()) for _ in range(WARM)]
        scans = reads_all(ledger, lambda ledger: ask(ledger, 1), as_if_large=False)
    cold = []
    for _ in range(COLD):
        database.forget()
        with contextlib.closing(database.open()) as ledger:
            ledger.engine.connect().close()
            cold.append(_timed(ledger, ask, order())[0])
    by_clock, of_cpu = zip(*warm, strict=True)
    return _p95(list(by_clock)), _p95(list(of_cpu)), _p95(cold), bool(scans)


def _measure(database: Database, count: int) -> bool:
    """Print a line for each question; whether all were fast, and none reads all orders."""
    fine = True
    drawn = random.Random(7)  # noqa: S311  which orders are asked for
    with contextlib.closing(database.open()) as ledger:
        ledger.migrate()
        begun = time.monotonic()
        if not list_runs(ledger):
            fill(ledger, count)
            os.sync()  # what is not on the disk yet cannot be put out of the page cache
    name = type(database).__name__
    print(f"{name}: {count:,} orders written in {time.monotonic() - begun:.0f} s", flush=True)  # noqa: T201
    for question, ask in questions(count).items():
        warm, cpu, cold, scans = _times(database, ask, lambda: drawn.randrange(count))
        verdict = "READS ALL" if scans else "" if warm < _LIMIT_MS else "TOO SLOW"
        told = f"p95 {warm:8.1f} ms warm {cpu:8.1f} ms cpu {cold:8.1f} ms cold   {verdict}"
        print(f"  {question:26} {told}", flush=True)  # noqa: T201
        fine = fine and not verdict
    return fine


def main() -> int:
    """Exit code 1 where a question takes longer than it may. Arguments: how many orders; a folder to keep them in."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    kept = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    fine = True
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # noqa: T201
    for kind in KINDS:
        with opened(kind, kept) as database:
            fine = _measure(database, count) and fine
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")  # noqa: T201
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
