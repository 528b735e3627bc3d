"""Landing what arrives: one commit per block, each record in exactly one place."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import datetime, timedelta, timezone
from operator import add
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.arrivals import note_arrivals, note_stores
from include.instore.ledger.database import Ledger
from include.instore.ledger.erasure import rest_of_records, without_erased
from include.instore.ledger.extract_files import note_feed
from include.instore.ledger.known_again import AcceptAs, KnownAgain, known_again, set_apart, suspected_twins
from include.instore.ledger.records import Arrival, Record
from include.instore.ledger.suppressions import person_hashes
from include.instore.ledger.tables import extracts, kept_text, orders, origin_of, quarantine, runs
from include.instore.model.codes import LINES_DO_NOT_ADD_UP, NO_CUSTOMER_KEY, SPLIT_ORDER, SUSPECTED_TWIN
from include.instore.model.errors import RecordRefused
from include.instore.model.events import event_id, event_kind
from include.instore.model.identifiers import no_name, number_root
from include.instore.model.order_keys import NUMBER_ALONE, day_of, key_fields, order_key
from include.instore.model.orders import InStoreOrder
from include.instore.model.purchases import no_purchase
from include.instore.model.settings import OrderSettings, Settings
from include.instore.model.states import ExtractState, RecordState, Status

log = logging.getLogger(__name__)
_MASKED = re.compile(r"\*|X{4}", re.IGNORECASE)


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
    adapter: str = ""

    @property
    def id(self) -> str:
        head = f"{self.source}\0{self.reference}\0{self.reason}\0".encode(errors="surrogatepass")
        return hashlib.sha256(head + self.raw).hexdigest()


@dataclass(frozen=True)
class LoadedExtract:
    """What is remembered of a file, written in the same commit as its last block.

    :param detail: where and why it could not be read further, of one that a person released, or what is new in it.
    :param digest: of its bytes and of all that decides what they become.
    :param looks: the row of its feed, by which the next file is judged; ``changed``: by which this one was.
    """

    path: str
    version: str
    orders: int
    bad_rows: int
    detail: str | None = None
    digest: str | None = None
    looks: Mapping[str, str] = field(default_factory=dict)
    changed: bool = False


@dataclass(frozen=True)
class Landed:
    """What became of a block: ``received = orders + duplicates + corrections + quarantined``.

    :param collisions: those quarantined because another order has their key.
    """

    received: int = 0
    orders: int = 0
    duplicates: int = 0
    corrections: int = 0
    quarantined: int = 0
    collisions: int = 0

    def __add__(self, other: Landed) -> Landed:
        return Landed(*map(add, astuple(self), astuple(other)))


def arrival(record: Record, settings: Settings) -> Arrival:
    """The ledger row of an order that arrives.

    :raises RecordRefused: the record holds none, or one whose date, text or key cannot be kept: :class:`InStoreOrder`.
    """
    if isinstance(record.order, RecordRefused):
        raise record.order
    order = record.order.named_by(settings.orders)
    order_time = order.time(settings.orders.store_timezone)
    _refuse_unbelievable(order, order_time, settings.orders)
    short = order.adds_up(settings.orders.sums_tolerance) is False
    if short and settings.orders.sums == "refuse":
        raise RecordRefused(LINES_DO_NOT_ADD_UP, "its lines do not add up to its total, which INSTORE_SUMS refuses")
    payload = order.payload()
    nobody = not (order.loyalty_card_number or order.email_address)
    fields = key_fields(settings.orders.order_key)
    key = order_key(order, fields, settings.orders.store_timezone)
    named = [order.order_number] if fields == NUMBER_ALONE else [",".join(fields), *json.loads(key)[:-1]]
    event_type, _ = event_kind(order.order_type, settings.events)
    if order.order_type == "return" and event_type == settings.events.event_type:
        named.append(order.order_type)
    row = {
        "key": key,
        "order_number": order.order_number,
        "number_root": number_root(order.order_number),
        "store_id": order.store_id,
        "day": day_of(order.date, settings.orders.store_timezone),
        "event_id": event_id(settings.events.scope, event_type, *named),
        "order_type": order.order_type,
        "source": record.source,
        "reference": kept_text(record.reference),
        "origin": origin_of(record.reference),
        "order_time": order_time,
        "fingerprint": order.fingerprint(),
        "content_at": record.published_at,
        "payload": payload,
        "loyalty_card": order.loyalty_card_number,
        "email": order.email_address,
        "status": (Status.UNMATCHED if nobody else Status.PENDING).value,
        "reason": NO_CUSTOMER_KEY if nobody else None,
        "look_ups": 0,
        "pruned_at": None,
        "attempts": 0,
        "edition": 1,
    }
    return Arrival(
        row, record.raw, record.heading, order.has_offset(), record.published_at,
        by_rows=bool(record.heading), adapter=record.adapter,
        short=short and settings.orders.sums == "tell", tolerance=settings.orders.sums_tolerance,
    )  # fmt: skip


def _refuse_unbelievable(order: InStoreOrder, moment: datetime, settings: OrderSettings) -> None:
    """:raises RecordRefused: a date that stands for none, such as 1753-01-01, or of a wrong clock; a sale of less than
    nothing; a number or a card that is none any more; what was voided, or is a test.
    """
    if moment.date() < settings.earliest_date:
        raise RecordRefused("bad_value", f"date is before {settings.earliest_date}, INSTORE_EARLIEST_DATE")
    if moment > datetime.now(timezone.utc) + timedelta(days=1):
        raise RecordRefused("bad_value", "date is more than a day in the future")
    if order.order_type == "sale" and order.total < 0:
        raise RecordRefused("bad_value", "total is below zero, and orderType says sale; a return has the type return")
    for name, text in (("orderNumber", order.order_number), ("storeId", order.store_id)):
        if why := no_name(text):
            raise RecordRefused("bad_value", f"{name} {why}")
    if name := no_purchase(order, settings.no_purchase_words):
        raise RecordRefused(
            "unsupported_type", f"{kept_text(name)} says that it is no purchase, see INSTORE_NO_PURCHASE_WORDS"
        )
    if _MASKED.search(order.loyalty_card_number or ""):
        raise RecordRefused("bad_value", "loyaltyCardNumber is masked, so it says nobody's card; have it written whole")


def refusal(record: Record, error: RecordRefused) -> Refusal:
    """The quarantine row of a record that is not an order."""
    why = error.reason, kept_text(error.detail)
    return Refusal(record.source, kept_text(record.reference), *why, record.raw, record.heading, record.adapter)


def land(
    ledger: Ledger,
    run_id: str,
    arrivals: Sequence[Arrival],
    refusals: Sequence[Refusal],
    extract: LoadedExtract | None = None,
    redriven: Sequence[str] = (),
    *,
    refuse_collisions: bool = False,
    accept_as: AcceptAs | None = None,
) -> Landed:
    """Commit one block: orders, quarantine, the file's own row and the run's tallies together.

    An order whose key is known is a duplicate, a correction, or another order: ledger/known_again.py says which.

    :param redriven: ids of the quarantine rows that these arrivals come out of.
    :param refuse_collisions: another order with a known key is an error, not one more row of the quarantine.
    :param accept_as: what a person says these are.
    :raises RecordRefused: such an order, where these are to be refused; nothing was written.
    :raises RetriableError: nothing was written.
    """
    now = datetime.now(timezone.utc)
    for item in arrivals:
        item.row.update(person_hashes(ledger, item.row["loyalty_card"], item.row["email"]))
    with ledger.write() as connection:
        ledger.know(connection, [item.row for item in arrivals], [item.id for item in refusals])
        spared = without_erased(connection, [item.row for item in arrivals], now)
        arrivals = [replace(item, raw=b"") if item.key in spared else item for item in arrivals]
        new, known, others = _take_orders(ledger, connection, run_id, arrivals, accept_as, now)
        if others and refuse_collisions:
            raise RecordRefused(*others[0][1:])
        collided = [
            Refusal(
                item.row["source"], item.row["reference"], reason, kept_text(why), item.raw, item.heading, item.adapter
            )
            for item, reason, why in others
        ]
        kept = _insert_refusals(ledger, connection, run_id, refusals, now)
        new_collisions = _insert_refusals(ledger, connection, run_id, collided, now)
        _quarantine_taken_back(ledger, connection, known, now)
        landed = Landed(
            received=len(arrivals) + len(refusals),
            orders=len(new),
            duplicates=known.duplicates + len(refusals) - kept + len(collided) - new_collisions,
            corrections=known.corrections,
            quarantined=kept + new_collisions,
            collisions=new_collisions,
        )
        if extract is not None:
            _remember_extract(ledger, connection, run_id, extract, now)
        if redriven:
            connection.execute(
                sa.update(quarantine).where(quarantine.c.id.in_(redriven)).values(state=RecordState.REDRIVEN.value)
            )
        _count(connection, run_id, landed, known, arrivals, sum(item.short for item in new))
        note_arrivals(ledger, connection, [_came(item, now) for item in arrivals if item.published_at is not None])
        note_stores(ledger, connection, run_id, {item.row["store_id"] for item in arrivals})
    if landed.quarantined:
        codes = sorted(Counter(each.reason for each in (*refusals, *collided)).items())
        log.info("set aside: %s", ", ".join(f"{code} {count}" for code, count in codes))
    return landed


def _came(item: Arrival, now: datetime) -> tuple[datetime, str, str]:
    return min(item.published_at or now, now), item.row["source"], item.row["store_id"]


def _take_orders(
    ledger: Ledger,
    connection: sa.Connection,
    run_id: str,
    arrivals: Sequence[Arrival],
    accept_as: AcceptAs | None,
    now: datetime,
) -> tuple[list[Arrival], KnownAgain, list[tuple[Arrival, str, str]]]:
    """The new orders; what became of those whose key is known; and those to set aside, with reason and why."""
    if accept_as is AcceptAs.NEW_ORDER:
        set_apart(ledger, connection, run_id, arrivals, now)
    first: dict[str, Arrival] = {}
    for item in arrivals:
        first.setdefault(item.key, item)
    twins = {} if accept_as else suspected_twins(connection, first.values())
    rows = [item.row for key, item in first.items() if key not in twins]
    inserted = _insert_orders(ledger, connection, run_id, rows, now)
    landing = [item for item in arrivals if item.key not in twins]
    repeats = [item for item in landing if item is not first[item.key] or item.key not in inserted]
    known = known_again(connection, run_id, repeats, now, corrected=accept_as is AcceptAs.CORRECTION)
    suspected = [(item, SUSPECTED_TWIN, twins[item.key]) for item in arrivals if item.key in twins]
    return [first[key] for key in inserted], known, [*suspected, *known.collisions]


def _quarantine_taken_back(ledger: Ledger, connection: sa.Connection, known: KnownAgain, now: datetime) -> None:
    """Put orders that were taken out of the ledger again into the quarantine.

    In the run that received each, so that its numbers add up; also where a person had redriven it before.
    """
    for order, why in known.taken_back:
        raw, run_id = order["payload"].encode(), order["received_run"]
        row = Refusal(order["source"], order["reference"], SPLIT_ORDER, kept_text(why), raw)
        _insert_refusals(ledger, connection, run_id, [row], now)
        quarantined = {"state": RecordState.QUARANTINED.value, "run": run_id}
        connection.execute(sa.update(quarantine).where(quarantine.c.id == row.id).values(quarantined))


def _count(
    connection: sa.Connection, run_id: str, landed: Landed, known: KnownAgain, arrivals: Sequence[Arrival], short: int
) -> None:
    """Add a block to the run's tallies. :param short: new orders whose lines do not make their total."""
    connection.execute(
        sa.update(runs)
        .where(runs.c.run_id == run_id)
        .values(
            received=runs.c.received + landed.received,
            duplicates=runs.c.duplicates + landed.duplicates,
            corrections=runs.c.corrections + landed.corrections,
            lines_do_not_add_up=runs.c.lines_do_not_add_up + short + known.short,
            corrected_after_sent=runs.c.corrected_after_sent + known.after_sending,
            cards_as_numbers=runs.c.cards_as_numbers + sum(item.card_is_a_number for item in arrivals),
            dates_without_offset=runs.c.dates_without_offset + sum(not item.has_offset for item in arrivals),
        )
    )


def _insert_orders(
    ledger: Ledger, connection: sa.Connection, run_id: str, rows: list[dict[str, Any]], now: datetime
) -> set[str]:
    if not rows:
        return set()
    # One order of inserting for all processes: two that land the same orders must not wait for each other.
    rows = sorted(rows, key=lambda row: str(row["key"]))
    # Of whichever constraint: PostgreSQL may find the event id first of an order that another process is landing.
    statement = ledger.insert(orders).on_conflict_do_nothing()
    stamped = [
        {
            **row,
            "received_at": now,
            "received_run": run_id,
            # Without card and email there is nothing to ask: its customer is settled here.
            "resolved_run": None if row["status"] == Status.PENDING.value else run_id,
        }
        for row in rows
    ]
    return set(connection.scalars(statement.returning(orders.c.key), stamped))


def _insert_refusals(
    ledger: Ledger, connection: sa.Connection, run_id: str, refusals: Sequence[Refusal], now: datetime
) -> int:
    rows = {
        item.id: asdict(item)
        | {
            "id": item.id,
            "heading": item.heading or None,
            "run": run_id,
            "received_at": now,
            "state": RecordState.QUARANTINED.value,
        }
        for item in refusals
    }
    if not rows:
        return 0
    for id, rest in rest_of_records(ledger, connection, rows).items():
        rows[id] |= rest
    statement = ledger.insert(quarantine).on_conflict_do_nothing(index_elements=["id"]).returning(quarantine.c.id)
    return len(connection.scalars(statement, list(rows.values())).all())


def _remember_extract(
    ledger: Ledger, connection: sa.Connection, run_id: str, extract: LoadedExtract, now: datetime
) -> None:
    values = {name: getattr(extract, name) for name in ("path", "version", "orders", "bad_rows", "detail", "digest")}
    values |= {"feed": extract.looks.get("feed"), "state": ExtractState.LOADED.value, "run": run_id, "loaded_at": now}
    statement = ledger.insert(extracts).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=values))
    if extract.looks:
        note_feed(ledger, connection, run_id, extract.looks, extract.changed)
