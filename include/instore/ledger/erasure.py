"""Persons who want to be forgotten: taken out of every table by keyed hashes, and suppressed from then on.

Nothing here needs a card or an address but the first look, so that a backup of before can be treated in the same way.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.keys import known_fields
from include.instore.ledger.retention import forget_orders
from include.instore.ledger.suppressions import ERASURE, PLACEHOLDER_CARDS, stop_orders
from include.instore.ledger.tables import customers, orders, quarantine, suppressions
from include.instore.model.codes import BROKEN_FILE, SUPPRESSED
from include.instore.model.forgotten import without_person, without_theirs
from include.instore.model.states import RecordState, Status

_EMAIL = re.compile(r"[^\s\"'<>(),;:|\\]+@[^\s\"'<>(),;:|\\]+")
_CARD = re.compile(r"[0-9A-Za-z]{3,64}")
_CARD_IN_PARTS = re.compile(r"[0-9](?:[ \-\u2010-\u2015]?[0-9]){2,63}")
_BETWEEN = re.compile(r"[ \-\u2010-\u2015]")
_GZIP = b"\x1f\x8b"
_UNPACKED = 1 << 26
"""Bytes of a packed record that are looked into: no record is as large."""
_ROWS = 500
_RECORDS = 50
"""Of the quarantine, whose rows may have megabytes."""


@dataclass(frozen=True)
class Persons:
    """Whom an erasure is about.

    :param hashes: keyed, of their cards and addresses.
    :param event_ids: of the orders that are theirs.
    """

    hashes: frozenset[str]
    event_ids: frozenset[str]

    def are_in(self, ledger: Ledger, raw: bytes) -> bool:
        """Whether a record has one of their cards or addresses."""
        return bool(self.hashes & _hashes_in(ledger, raw))


@dataclass(frozen=True)
class Erased:
    """How many rows were of these persons."""

    orders: int
    customers: int
    quarantine: int


def persons_known_as(ledger: Ledger, cards: Collection[str], emails: Collection[str]) -> Persons:
    """The persons with these cards and addresses, with the addresses of their cards and the cards of their addresses.

    An address that many cards have belongs to no person, so it is not followed in either direction.
    """
    asked = {*cards, *(each.casefold() for each in emails)}
    theirs = set(asked)
    with ledger.read() as connection:
        for _ in range(2):  # from an address to its cards, and on to their other addresses
            for card, email in list(_pairs(ledger, connection, theirs)):
                if not _is_shared(ledger, connection, email):
                    theirs |= {card, email.casefold()}
        hashes = {ledger.keyed_hash(each) for each in theirs} | {ledger.keyed_hash(each.lstrip("0")) for each in theirs}
        persons = Persons(frozenset(hashes), frozenset())
        # An order's own address may be another one than that of its customer, whose hash it has.
        text = sa.func.lower(orders.c.payload)
        said = [text.contains(each.casefold(), autoescape=True) for each in asked]
        rows = connection.execute(sa.select(orders.c.event_id, orders.c.payload).where(sa.or_(*said)))
        events = {row.event_id for row in rows if persons.are_in(ledger, row.payload.encode())}
    return Persons(persons.hashes, frozenset(events))


def is_erased(ledger: Ledger, hashes: Collection[str]) -> bool:
    """Whether all of these are suppressed by an erasure already."""
    with ledger.read() as connection:
        return set(hashes) <= _erased(connection, hashes)


def suppress_erased(ledger: Ledger, persons: Persons) -> None:
    """Commit that nothing may be kept of, or sent for, these persons from now on."""
    now = datetime.now(timezone.utc)
    row = {"source": ERASURE, "learnt_from": "", "cause": "erased", "since": now}
    with ledger.write() as connection:
        connection.execute(
            ledger.insert(suppressions).on_conflict_do_nothing(),
            [{**row, "hash": each} for each in sorted(persons.hashes)],
        )


def erase(ledger: Ledger, persons: Persons, run_id: str, *, dry_run: bool = False) -> tuple[Erased, Persons]:
    """Take these persons out of all tables, in small commits; and the orders that were found to be theirs.

    What has left for a destination has left. :param dry_run: only count.
    """
    with ledger.read() as connection:
        of_hash = sa.or_(orders.c.card_hash.in_(persons.hashes), orders.c.email_hash.in_(persons.hashes))
        events = {*persons.event_ids, *connection.scalars(sa.select(orders.c.event_id).where(of_hash))}
    erased = Erased(
        orders=sum(_erase_orders(ledger, persons, chunk, run_id, dry_run) for chunk in _cut(sorted(events))),
        customers=_erase_customers(ledger, persons, dry_run),
        quarantine=_erase_records(ledger, persons, dry_run),
    )
    return erased, Persons(persons.hashes, frozenset(events))


def without_erased(connection: sa.Connection, rows: Sequence[dict[str, Any]], now: datetime) -> set[str]:
    """Of erased persons' orders that arrive keep only what they are known again by; the keys of those."""
    erased = _erased(connection, [row[name] for row in rows for name in ("card_hash", "email_hash") if row[name]])
    theirs = [row for row in rows if {row["card_hash"], row["email_hash"]} & erased]
    for row in theirs:
        row |= {"loyalty_card": None, "email": None, "pruned_at": now}
        row |= {"status": Status.SUPPRESSED.value, "reason": SUPPRESSED}
        row["payload"] = without_person(row["payload"], known_fields(connection))
    return {row["key"] for row in theirs}


def rest_of_records(
    ledger: Ledger, connection: sa.Connection, records: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Of those records that have a card or an address of an erased person: the columns that change of their rows."""
    erased = frozenset(connection.scalars(sa.select(suppressions.c.hash).where(suppressions.c.source == ERASURE)))
    found = {id: _rest(ledger, erased, row) for id, row in records.items()} if erased else {}
    return {id: rest for id, rest in found.items() if rest}


def _erased(connection: sa.Connection, hashes: Collection[str]) -> set[str]:
    wanted = sa.select(suppressions.c.hash).where(suppressions.c.source == ERASURE, suppressions.c.hash.in_(hashes))
    return set(connection.scalars(wanted)) if hashes else set()


def _pairs(ledger: Ledger, connection: sa.Connection, texts: Collection[str]) -> Iterator[tuple[str, str]]:
    """Cards with their addresses, where one of the two is among these."""
    hashes = [ledger.keyed_hash(each) for each in texts]
    for table, theirs in (
        (customers, sa.or_(customers.c.loyalty_card.in_(texts), sa.func.lower(customers.c.email).in_(texts))),
        (orders, sa.or_(orders.c.card_hash.in_(hashes), orders.c.email_hash.in_(hashes))),
    ):
        both = table.c.loyalty_card.is_not(None), table.c.email.is_not(None)
        yield from connection.execute(sa.select(table.c.loyalty_card, table.c.email).where(theirs, *both)).tuples()


def _is_shared(ledger: Ledger, connection: sa.Connection, email: str) -> bool:
    of_orders = sa.select(orders.c.loyalty_card).where(orders.c.email_hash == ledger.keyed_hash(email))
    of_answers = sa.select(customers.c.loyalty_card).where(sa.func.lower(customers.c.email) == email.casefold())
    cards = sa.union(of_orders, of_answers).limit(PLACEHOLDER_CARDS + 2)  # none is among them, too
    return len([card for card in connection.scalars(cards) if card]) > PLACEHOLDER_CARDS


def _erase_orders(ledger: Ledger, persons: Persons, events: Sequence[str], run_id: str, dry_run: bool) -> int:
    theirs = sa.select(orders.c.key).where(orders.c.event_id.in_(events)).order_by(orders.c.key)
    if dry_run:
        with ledger.read() as connection:
            return len(connection.scalars(theirs).all())
    with ledger.write() as connection:
        keys = connection.scalars(theirs.with_for_update()).all()
        stop_orders(connection, run_id, keys)
        # A person may order that one is sent again of which nobody knows whether it was taken: it is stopped by this.
        connection.execute(
            sa.update(orders)
            .where(
                orders.c.key.in_(keys),
                _of_nobody(orders.c.card_hash, persons),
                _of_nobody(orders.c.email_hash, persons),
            )
            .values(email_hash=min(persons.hashes))
        )
        return forget_orders(connection, keys)


def _of_nobody(column: sa.Column[Any], persons: Persons) -> sa.ColumnElement[bool]:
    return sa.or_(column.is_(None), column.not_in(persons.hashes))


def _erase_customers(ledger: Ledger, persons: Persons, dry_run: bool) -> int:
    with ledger.read() as connection:
        rows = connection.execute(sa.select(customers.c.loyalty_card, customers.c.email)).tuples()
        theirs = [
            card for card, email in rows if {ledger.keyed_hash(each) for each in (card, email or "")} & persons.hashes
        ]
    if theirs and not dry_run:
        with ledger.write() as connection:
            connection.execute(sa.delete(customers).where(customers.c.loyalty_card.in_(theirs)))
    return len(theirs)


def _erase_records(ledger: Ledger, persons: Persons, dry_run: bool) -> int:
    """What is theirs of the quarantine: the row stays, by which a second copy of the record is known."""
    found, after = 0, ""
    while True:
        wanted = sa.select(quarantine).where(quarantine.c.id > after).order_by(quarantine.c.id).limit(_RECORDS)
        with ledger.read() as connection:
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
        if not rows:
            return found
        theirs = {row["id"]: rest for row in rows if (rest := _rest(ledger, persons.hashes, row))}
        if theirs and not dry_run:
            with ledger.write() as connection:
                for id, rest in theirs.items():
                    mine = sa.update(quarantine).where(quarantine.c.id == id)
                    waits = mine.where(quarantine.c.state == RecordState.QUARANTINED.value)
                    connection.execute(waits.values(state=rest.pop("state", RecordState.QUARANTINED.value)))
                    connection.execute(mine.values(rest))
        found, after = found + len(theirs), rows[-1]["id"]


def _rest(ledger: Ledger, hashes: frozenset[str], row: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of a record that has one of these: what is of others stays, and waits as before. Else nothing."""
    raw, heading = bytes(row["raw"]), bytes(row["heading"] or b"")
    if not hashes & _hashes_in(ledger, heading + raw):
        return {}
    # The rows of a file are those of one order, but for the rest of a broken one.
    kept = b"" if heading and row["reason"] != BROKEN_FILE else _of_others(ledger, hashes, raw, rows=bool(heading))
    if not kept:
        return {"raw": b"", "heading": None, "state": RecordState.DISCARDED.value}
    return {"raw": kept, "heading": None if hashes & _hashes_in(ledger, heading) else row["heading"]}


def _of_others(ledger: Ledger, hashes: frozenset[str], raw: bytes, *, rows: bool) -> bytes:
    raw = _unpacked(raw)
    encoding, errors = "utf-8", "surrogateescape"
    if not rows and b"\0" in raw and raw[:1] != b"\0":
        with suppress(UnicodeError):
            raw = raw.decode(json.detect_encoding(raw)).encode()
    text = raw.decode(encoding, errors)
    with suppress(ValueError, RecursionError):
        while text.lstrip()[:1] == '"' and isinstance(inner := json.loads(text), str):
            text = inner.encode(errors="surrogatepass").decode(encoding, errors)  # serialised twice
    kept = without_theirs(
        text, lambda part: bool(hashes & _hashes_in(ledger, part.encode(encoding, errors))), rows=rows
    )
    return kept.encode(encoding, errors)


def _unpacked(raw: bytes) -> bytes:
    if raw.startswith(_GZIP):
        with suppress(zlib.error):
            return zlib.decompressobj(wbits=31).decompress(raw, _UNPACKED)
    return raw


def _hashes_in(ledger: Ledger, raw: bytes) -> set[str]:
    """Hashes of everything in a record that may be a card or an address, however it is written."""
    text = _unpacked(raw).replace(b"\0", b"").decode(errors="replace")
    with suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), ensure_ascii=False)
    words = {*_EMAIL.findall(text), *_CARD.findall(text)}
    words |= {_BETWEEN.sub("", each) for each in _CARD_IN_PARTS.findall(text)}
    return {ledger.keyed_hash(each) for word in words for each in (word, word.lstrip("0"))}


def _cut(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + _ROWS] for start in range(0, len(items), _ROWS))
