"""Landing what arrives: one commit per block, each record in exactly one place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from datetime import datetime, timezone
from operator import add
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import NO_CUSTOMER_KEY, Status, extracts, kept_text, orders, quarantine, runs
from include.instore.model.errors import RecordRefused
from include.instore.model.events import event_id, event_kind
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings


@dataclass(frozen=True)
class Arrival:
    """One order with where it came from; ``row`` holds its columns, ready to be written.

    :param first_came: when it came for the first time, of one that was set aside meanwhile: it is not the later
        content of an order whose content came after that.
    """

    row: dict[str, Any] = field(repr=False)
    has_offset: bool = True
    first_came: datetime | None = None


@dataclass(frozen=True)
class Refusal:
    """One record that is not an order: kept in quarantine with its raw bytes.

    :param heading: what has to stand before the raw bytes for them to be read again, such as a CSV's first line.
    """

    source: str
    reference: str
    reason: str
    detail: str
    raw: bytes = field(repr=False)
    heading: bytes = field(default=b"", repr=False)

    @property
    def id(self) -> str:
        head = f"{self.source}\0{self.reference}\0{self.reason}\0".encode(errors="surrogatepass")
        return hashlib.sha256(head + self.raw).hexdigest()


@dataclass(frozen=True)
class LoadedExtract:
    """What is remembered of a file, written in the same commit as its last block."""

    path: str
    version: str
    orders: int
    bad_rows: int
    broken: bool


@dataclass(frozen=True)
class Landed:
    """What became of a block: ``received = orders + duplicates + quarantined``."""

    received: int = 0
    orders: int = 0
    duplicates: int = 0
    changed_duplicates: int = 0
    quarantined: int = 0

    def __add__(self, other: Landed) -> Landed:
        return Landed(*map(add, astuple(self), astuple(other)))


def arrival(
    order: InStoreOrder, *, source: str, reference: str, settings: Settings, first_came: datetime | None = None
) -> Arrival:
    """The ledger row of an order that arrives.

    :raises RecordRefused: the order's date or text cannot be kept, see :class:`InStoreOrder`.
    """
    payload = order.payload()
    nobody = not (order.loyalty_card_number or order.email_address)
    event_type, _ = event_kind(order.order_type, settings)
    row = {
        "order_number": order.order_number,
        "event_id": event_id(settings.scope, event_type, order.order_number),
        "order_type": order.order_type,
        "source": source,
        "reference": kept_text(reference),
        "order_time": order.time(settings.store_timezone),
        "fingerprint": order.fingerprint(),
        "payload": payload,
        "loyalty_card": order.loyalty_card_number,
        "email": order.email_address,
        "status": (Status.UNMATCHED if nobody else Status.PENDING).value,
        "reason": NO_CUSTOMER_KEY if nobody else None,
        "look_ups": 0,
        "attempts": 0,
        "sends": 0,
    }
    return Arrival(row, order.has_offset(), first_came)


def refusal(error: RecordRefused, *, source: str, reference: str, raw: bytes, heading: bytes = b"") -> Refusal:
    """The quarantine row of a record that is not an order."""
    return Refusal(source, kept_text(reference), error.reason, kept_text(error.detail), raw, heading)


def land(
    ledger: Ledger,
    run_id: str,
    arrivals: Sequence[Arrival],
    refusals: Sequence[Refusal],
    extract: LoadedExtract | None = None,
    redriven: Sequence[str] = (),
) -> Landed:
    """Commit one block: orders, quarantine, the file's own row and the run's tallies together.

    An order whose number is known is a duplicate; where its content differs it is a changed duplicate, and the later
    content wins as long as nothing of it has left the house (pending, ready, unmatched and not held by a run).

    :param redriven: ids of the quarantine rows that these arrivals come out of.
    :raises RetriableError: nothing was written.
    """
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        first: dict[str, dict[str, Any]] = {}
        for item in arrivals:
            first.setdefault(item.row["order_number"], item.row)
        new = _insert_orders(ledger, connection, run_id, list(first.values()), now)
        repeats = [item.row for item in arrivals if item.row is not first[item.row["order_number"]]]
        repeats += [row for number, row in first.items() if number not in new]
        came = {item.row["order_number"]: item.first_came for item in arrivals if item.first_came is not None}
        changed = _take_later_content(connection, repeats, came, now)
        kept = _insert_refusals(ledger, connection, run_id, refusals, now)
        landed = Landed(
            received=len(arrivals) + len(refusals),
            orders=len(new),
            duplicates=len(repeats) + len(refusals) - kept,
            changed_duplicates=changed,
            quarantined=kept,
        )
        if extract is not None:
            _remember_extract(ledger, connection, run_id, extract, now)
        if redriven:
            connection.execute(sa.update(quarantine).where(quarantine.c.id.in_(redriven)).values(state="redriven"))
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id)
            .values(
                received=runs.c.received + landed.received,
                duplicates=runs.c.duplicates + landed.duplicates,
                changed_duplicates=runs.c.changed_duplicates + landed.changed_duplicates,
                dates_without_offset=runs.c.dates_without_offset + sum(not item.has_offset for item in arrivals),
            )
        )
    return landed


def loaded_versions(ledger: Ledger, paths: Sequence[str]) -> dict[str, str]:
    """Path to version of those of the files that were loaded before."""
    query = sa.select(extracts.c.path, extracts.c.version).where(extracts.c.path.in_(paths))
    with ledger.read() as connection:
        return dict(connection.execute(query).tuples().all())


def _insert_orders(
    ledger: Ledger, connection: sa.Connection, run_id: str, rows: list[dict[str, Any]], now: datetime
) -> set[str]:
    if not rows:
        return set()
    # One order of inserting for all processes: two that land the same orders must not wait for each other.
    rows = sorted(rows, key=lambda row: str(row["order_number"]))
    statement = ledger.insert(orders).on_conflict_do_nothing(index_elements=["order_number"])
    stamped = [
        {
            **row,
            "received_at": now,
            "received_run": run_id,
            # Without card and email there is nothing to ask: its customer is settled here.
            "resolved_run": run_id if row["status"] == Status.UNMATCHED.value else None,
        }
        for row in rows
    ]
    return set(connection.scalars(statement.returning(orders.c.order_number), stamped))


def _take_later_content(
    connection: sa.Connection, repeats: list[dict[str, Any]], came: Mapping[str, datetime], now: datetime
) -> int:
    if not repeats:
        return 0
    numbers = [row["order_number"] for row in repeats]
    query = sa.select(orders.c.order_number, orders.c.fingerprint).where(orders.c.order_number.in_(numbers))
    known = dict(connection.execute(query).tuples().all())
    changed = [row for row in repeats if known[row["order_number"]] != row["fingerprint"]]
    content = ("fingerprint", "payload", "loyalty_card", "email", "order_time", "order_type", "event_id")
    for row in changed:
        # Back to the beginning: another card may be another customer.
        connection.execute(
            sa.update(orders)
            .where(
                orders.c.order_number == row["order_number"],
                orders.c.status.in_([Status.PENDING.value, Status.READY.value, Status.UNMATCHED.value]),
                orders.c.claim_run.is_(None),
                orders.c.attempts == 0,
                sa.func.coalesce(orders.c.content_at, orders.c.received_at) <= came.get(row["order_number"], now),
            )
            .values(
                {name: row[name] for name in content}
                | {"status": row["status"], "reason": row["reason"], "look_ups": 0, "next_attempt": None}
                | {"content_at": came.get(row["order_number"], now)}
            )
        )
    return len(changed)


def _insert_refusals(
    ledger: Ledger, connection: sa.Connection, run_id: str, refusals: Sequence[Refusal], now: datetime
) -> int:
    rows = {
        item.id: asdict(item)
        | {"id": item.id, "heading": item.heading or None, "run": run_id, "received_at": now, "state": "quarantined"}
        for item in refusals
    }
    if not rows:
        return 0
    statement = ledger.insert(quarantine).on_conflict_do_nothing(index_elements=["id"]).returning(quarantine.c.id)
    return len(connection.scalars(statement, list(rows.values())).all())


def _remember_extract(
    ledger: Ledger, connection: sa.Connection, run_id: str, extract: LoadedExtract, now: datetime
) -> None:
    values = asdict(extract) | {"run": run_id, "loaded_at": now}
    statement = ledger.insert(extracts).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=values))
