"""A ledger of many orders, as years of running would leave it, written past the pipeline: by COPY on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import chain, islice
from typing import Any

import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.tables import contents, customers, deliveries, extracts, orders, quarantine, runs
from include.instore.model.identifiers import identity

PER_DAY = 2500
STORES = 100
_CHUNK = 10_000
_LINES = [{"productCode": f"94786{n}", "description": "CANDY BAR", "quantity": "2", "total": "3.50"} for n in range(5)]
_STUCK = {3: "rejected", 5: "held", 7: "ready", 11: "sending", 13: "cancelled"}
_COUNTS = dict.fromkeys(("received", "orders", "sent", "unmatched", "quarantined", "rejected", "carried_over"), 100)


def fill(ledger: Ledger, count: int, until: datetime | None = None) -> None:
    """Write so many orders, the last one at this moment, and all that belongs to them."""
    now = until or datetime.now(timezone.utc)
    for table, rows in _tables(ledger, count, now):
        write_rows(ledger, table, rows)
    if ledger.engine.dialect.name == "postgresql":  # which does it by itself in time; SQLite never does
        outside = ledger.engine.execution_options(isolation_level="AUTOCOMMIT")
        with outside.connect() as connection:
            connection.execute(sa.text("VACUUM (ANALYZE)"))


def number_of(n: int, count: int) -> str:
    """The number of the nth order: numbers of all tills, so that a day's lie far apart."""
    return f"S{n * 1_000_003 % count:09d}"


def _tables(ledger: Ledger, count: int, now: datetime) -> Iterator[tuple[sa.Table, Iterator[dict[str, Any]]]]:
    hours = count * 24 // PER_DAY + 1
    yield runs, (_run(n, now - timedelta(hours=hours - n)) for n in range(hours + 1))
    yield orders, (order_row(ledger, n, count, now) for n in range(count))
    yield deliveries, (row for n in range(count) if (row := delivery_row(n, count, now)))
    yield contents, ({
        "key": json.dumps([identity(number_of(n, count)), "sale"]), "fingerprint": "0" * 64, "state": "replaced",
        "published_at": now, "source": "topic", "reference": f"c{n}#{n}", "payload": "{}", "loyalty_card": None,
        "email": None, "run": "run-1", "received_at": _moment(n, count, now),
    } for n in range(0, count, 100))  # fmt: skip
    yield customers, ({
        "loyalty_card": f"60{n:014d}", "outcome": "matched", "email": f"c{n}@example.com", "asked_at": now,
        "expires_at": now,
    } for n in range(count // 4))  # fmt: skip
    yield quarantine, ({
        "id": f"{n:064d}", "source": "topic", "reference": f"q{n}#{n}", "reason": ("not_json", "bad_value")[n % 2],
        "detail": "a detail", "raw": json.dumps({"orderNumber": f"Q{n}", "lines": _LINES}).encode(), "heading": None,
        "run": f"run-{n % hours}", "received_at": _moment(n * 300, count, now),
        "state": "quarantined" if n % 4 else "redriven",
    } for n in range(count // 300))  # fmt: skip
    yield extracts, ({
        "path": f"day-{n}.csv", "version": "1", "orders": PER_DAY, "bad_rows": 0, "state": "loaded", "detail": None,
        "run": f"run-{n * 24}", "loaded_at": _moment(n * PER_DAY, count, now),
    } for n in range(count // PER_DAY))  # fmt: skip


def _moment(n: int, count: int, now: datetime) -> datetime:
    return now - timedelta(days=(count - n) / PER_DAY)


def _run(n: int, at: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {column.name: 0 for column in runs.c if isinstance(column.type, sa.Integer)}
    row |= {"run_id": f"run-{n}", "kind": "scheduled", "window_start": at, "window_end": at, "started_at": at}
    return row | {
        "ended_at": at + timedelta(minutes=1),
        "counts": json.dumps(_COUNTS | {"red": [], "ledger": "." * 2000}),
    }


def _kind(n: int) -> str:
    """One of 100 orders in turn: most were sent, some have no customer."""
    turn = n % 100
    return "matched" if turn < 78 else "not_found" if turn < 90 else "no_customer_key" if turn < 98 else "suppressed"


def order_row(ledger: Ledger, n: int, count: int, now: datetime) -> dict[str, Any]:
    """The nth of so many orders."""
    at, number, kind = _moment(n, count, now), number_of(n, count), _kind(n)
    status = kind if kind in ("matched", "suppressed") else "unmatched"
    card = None if kind == "no_customer_key" else f"60{n * 7 % (count // 4):014d}"
    run = f"run-{n * 24 // PER_DAY}"
    topic = n % 3 > 0
    return {
        "key": json.dumps([identity(number), "sale"]), "order_number": number, "number_root": identity(number),
        "store_id": f"{n % STORES:04d}", "day": f"{at:%Y-%m-%d}", "event_id": f"{n:036d}", "order_type": "sale",
        "source": "topic" if topic else "extract", "order_time": at, "received_at": at, "received_run": run,
        "reference": f"m{n}#{n}" if topic else f"day-{n // PER_DAY}.csv:{n}",
        "origin": f"m{n}" if topic else f"day-{n // PER_DAY}.csv", "fingerprint": f"{n:064d}", "content_at": at,
        "payload": json.dumps({"orderNumber": number, "lines": _LINES}), "loyalty_card": card,
        "email": f"c{n * 7 % (count // 4)}@example.com" if kind == "matched" else None,
        "card_hash": ledger.keyed_hash(card) if card else None,
        "email_hash": ledger.keyed_hash(f"c{n * 7 % (count // 4)}@example.com") if kind == "matched" else None,
        "status": status, "reason": None if status == "matched" else kind, "look_ups": 1,
        "next_attempt": now if kind == "not_found" and count - n < 30 * PER_DAY else None, "claim_run": None,
        "claim_batch": 0, "planned_run": run, "resolved_run": run,
    }  # fmt: skip


def delivery_row(n: int, count: int, now: datetime) -> dict[str, Any] | None:
    """Its delivery; none where it has no customer."""
    if _kind(n) != "matched":
        return None
    at = _moment(n, count, now)
    status = _STUCK.get(n % 4000, "sent")
    return {
        "key": json.dumps([identity(number_of(n, count)), "sale"]), "destination": "profile_store", "edition": 1,
        "is_latest": True, "event_id": f"{n:036d}", "status": status, "reason": None, "fingerprint": f"{n:064d}",
        "email": None, "attempts": 1, "sending_at": at, "left_seq": n, "waited_seq": None,
        "sent_at": at if status == "sent" else None, "outcome_run": f"run-{n * 24 // PER_DAY}",
    }  # fmt: skip


def write_rows(ledger: Ledger, table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
    """All of them in one transaction."""
    first = next(rows)
    rows = chain([first], rows)
    with ledger.write() as connection:
        if ledger.engine.dialect.name == "postgresql":
            into = f"COPY {table.name} ({', '.join(first)}) FROM STDIN"
            with connection.connection.cursor().copy(into) as copy:
                for row in rows:
                    copy.write_row(list(row.values()))
        while chunk := list(islice(rows, _CHUNK)):
            connection.execute(sa.insert(table), chunk)
