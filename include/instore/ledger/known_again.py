"""Orders whose key is known: a duplicate, a correction, or another purchase (a collision)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.records import Arrival
from include.instore.ledger.tables import contents, deliveries, editions, orders, origin_of, runs
from include.instore.model.codes import COLLISION, SPLIT_ORDER
from include.instore.model.events import next_event_id
from include.instore.model.identifiers import identity
from include.instore.model.orders import order_of_payload
from include.instore.model.states import ContentState, Source, Status

_MIDNIGHT = re.compile(r"T00:00(?::00(?:\.0+)?)?(?:Z|[+-]\d\d:\d\d)?$")
_TELL_NOTHING_APART = {
    "orderNumber", "orderType", "date", "storeName", "loyaltyCardNumber", "emailAddress", "currency", "total", "lines",
}  # fmt: skip
"""Fields of an order in which two purchases may differ, and of which a key is not made."""


@dataclass
class KnownAgain:
    """What became of the repeats of one block.

    :param after_sending: those corrections that came when the order had left for a destination.
    :param short: those corrections whose lines do not make their total.
    :param collisions: the others, each with its reason in the quarantine and why it is another order.
    :param taken_back: orders that have never left and are pieces of one that cannot be put together, each with why;
        they are no longer in the ledger, and their rows belong into the quarantine.
    """

    duplicates: int = 0
    corrections: int = 0
    after_sending: int = 0
    short: int = 0
    collisions: list[tuple[Arrival, str, str]] = field(default_factory=list)
    taken_back: list[tuple[dict[str, Any], str]] = field(default_factory=list)


class AcceptAs(str, Enum):
    """What a person says an order is that has another one's key, or seems to be another one."""

    CORRECTION = "correction"
    NEW_ORDER = "new-order"


def set_apart(ledger: Ledger, connection: sa.Connection, run_id: str, items: Sequence[Arrival], now: datetime) -> None:
    """Give those whose key another order has a key and an event id of their own, by their content.

    The content is kept beside the other order as well, so that it is known when it comes once more.
    """
    known = _known(connection, {item.key for item in items})
    for row in [item.row for item in items if item.key in known]:
        kept = content_row(row, ContentState.ANOTHER, run_id, now)
        connection.execute(ledger.insert(contents).values(kept).on_conflict_do_nothing())
        *elements, order_type = json.loads(row["key"])
        row["key"] = json.dumps([*elements, row["fingerprint"][:12], order_type], ensure_ascii=False)
        row["event_id"] = next_event_id(row["event_id"], row["fingerprint"])


def suspected_twins(connection: sa.Connection, arrivals: Iterable[Arrival]) -> dict[str, str]:
    """Key to why, of new orders of whose store and moment one is known by a number with other leading zeros.

    :param arrivals: the first of each key.
    """
    items = list(arrivals)
    names = ("key", "order_number", "number_root", "store_id", "order_time", "order_type", "reference")
    roots = {item.row["number_root"] for item in items}
    query = sa.select(*(orders.c[name] for name in names)).where(orders.c.number_root.in_(roots))
    there = [dict(row) for row in connection.execute(query).mappings()]
    known = {row["key"] for row in there}
    by_purchase: dict[tuple[str, ...], dict[str, str]] = {}  # each number of it, and where that came from
    for row in there:
        by_purchase.setdefault(_purchase(row), {})[identity(row["order_number"])] = row["reference"]
    twins = {}
    for item in items:
        numbers = by_purchase.setdefault(_purchase(item.row), {})
        mine = identity(item.row["order_number"])
        others = [reference for number, reference in numbers.items() if number != mine]
        if item.key not in known and others:
            twins[item.key] = (
                f"{others[0]} is of the same store and moment, and its number differs in leading zeros only; "
                "have both sources write it alike"
            )
        else:
            numbers.setdefault(mine, item.row["reference"])
    return twins


def _purchase(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["number_root"], identity(row["store_id"]), str(row["order_time"]), row["order_type"]


def known_again(
    connection: sa.Connection, run_id: str, repeats: Sequence[Arrival], now: datetime, *, corrected: bool = False
) -> KnownAgain:
    """Tell duplicates, corrections and collisions apart, and take corrected contents.

    A duplicate has a content that is known of the order. A correction has the store, the moment and the customer of
    the one that is known, and is later by its source; it takes its place as long as there is a destination for which
    the order has not left. So does what a piece makes together with the one that is known; where they do not make an
    order neither may leave. Everything else is another order.

    :param corrected: a person says that these are later contents of the orders that are known.
    """
    if not repeats:
        return KnownAgain()
    block = _Block(connection, run_id, now, {item.key for item in repeats}, corrected)
    for item in repeats:
        block.take(item)
    return block.found


class _Block:
    """The repeats of one block, one after the other: what is known grows with each.

    :param keys: of all of them.
    """

    def __init__(self, connection: sa.Connection, run_id: str, now: datetime, keys: set[str], corrected: bool) -> None:
        self._connection, self._run_id, self._now, self._corrected = connection, run_id, now, corrected
        self._there = _known(connection, keys)
        self._left = _left(connection, self._there)
        kept = sa.select(contents.c.key, contents.c.fingerprint).where(contents.c.key.in_(list(self._there)))
        self._seen = set(connection.execute(kept).tuples())
        self._seen |= {(key, row["fingerprint"]) for key, row in self._there.items()}
        self._taken_back: dict[str, str] = {}
        self.found = KnownAgain()

    def take(self, item: Arrival) -> None:
        """Tell what one is, and do what follows from it."""
        before = self._there.get(item.key)
        if (item.key, item.row["fingerprint"]) in self._seen:
            self.found.duplicates += 1
        elif item.key in self._taken_back:
            self.found.collisions.append((item, SPLIT_ORDER, self._taken_back[item.key]))
        elif before is None:
            self.found.collisions.append((item, COLLISION, "another order has its event id, though not its key"))
        elif not self._corrected and _is_piece(before, item):
            self._take_piece(before, item)
        elif not self._corrected and (why := _why_another(before, item)):
            self.found.collisions.append((item, COLLISION, why))
        else:
            self.found.short += item.short
            self._take_content(before, item.row, is_later=self._corrected or bool(_is_later(before, item)))

    def _take_piece(self, before: dict[str, Any], item: Arrival) -> None:
        row, why = _together(before, item)
        if not why:
            self._keep(item.row, ContentState.REPLACED)
            self._seen.add((item.key, item.row["fingerprint"]))
            self._take_content(before, row, is_later=True)
            return
        mine = self._left.get(item.key, _NOT_LEFT)
        self.found.collisions.append((item, SPLIT_ORDER, why))
        self.found.after_sending += mine.any
        if not mine.contents:
            _take_back(self._connection, self._there.pop(item.key))
            self._taken_back[item.key] = why
            self.found.taken_back.append((before, why))

    def _take_content(self, before: dict[str, Any], row: dict[str, Any], *, is_later: bool) -> None:
        """Have a correction take the place of what is known, or keep it beside that."""
        key, mine = row["key"], self._left.get(row["key"], _NOT_LEFT)
        self._seen.add((key, row["fingerprint"]))
        self.found.corrections += 1
        self.found.after_sending += is_later and mine.any
        if not is_later or mine.all:
            self._keep(row, ContentState.AFTER_SENDING if is_later else ContentState.OLDER)
            return
        self._keep(before, ContentState.SENT if before["fingerprint"] in mine.contents else ContentState.REPLACED)
        values = taken_content(before, row)
        self._connection.execute(sa.update(orders).where(orders.c.key == key).values(values))
        self._there[key] = {**before, **values}

    def _keep(self, row: Mapping[str, Any], state: ContentState) -> None:
        self._connection.execute(sa.insert(contents).values(content_row(row, state, self._run_id, self._now)))


def _known(connection: sa.Connection, keys: set[str]) -> dict[str, dict[str, Any]]:
    names = (
        "key", "status", "fingerprint", "content_at", "received_at", "source", "reference", "payload",
        "store_id", "day", "order_time", "loyalty_card", "email", "received_run", "planned_run",
    )  # fmt: skip
    # Locked, in one order of all processes: nothing of it may leave while its content changes.
    query = sa.select(*(orders.c[name] for name in names)).where(orders.c.key.in_(keys)).order_by(orders.c.key)
    return {row["key"]: dict(row) for row in connection.execute(query.with_for_update()).mappings()}


@dataclass(frozen=True)
class _Left:
    """Of an order's latest editions: whether all, and any, have left; and with which contents any ever did."""

    all: bool
    any: bool
    contents: set[str]


_NOT_LEFT = _Left(all=False, any=False, contents=set())


def _left(connection: sa.Connection, keys: Iterable[str]) -> dict[str, _Left]:
    rows = connection.execute(
        sa.select(deliveries.c.key, deliveries.c.is_latest, deliveries.c.fingerprint)
        .where(deliveries.c.key.in_(list(keys)))
        .order_by(deliveries.c.key)
    )
    left = {}
    for key, group in groupby(rows, lambda row: row.key):
        editions = list(group)
        latest = [row.fingerprint is not None for row in editions if row.is_latest]
        left[key] = _Left(all(latest), any(latest), {row.fingerprint for row in editions if row.fingerprint})
    return left


def taken_content(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the order that change with its content."""
    values = {name: row[name] for name in ("fingerprint", "payload", "content_at", "source", "reference")}
    values["origin"] = origin_of(row["reference"])
    values["pruned_at"] = row.get("pruned_at")
    # Another card may be another customer: back to the beginning. But what is suppressed stays so: the email that a
    # correction brings may be that of the very person.
    if _customer(before) != _customer(row) and before["status"] != Status.SUPPRESSED.value:
        values |= {name: row[name] for name in ("loyalty_card", "email", "card_hash", "email_hash", "status", "reason")}
        values |= {"look_ups": 0, "next_attempt": None}
    return values


def _why_another(before: Mapping[str, Any], item: Arrival) -> str:
    """Why this is another order than the one that has its key; nothing where it is a correction of it."""
    row = item.row
    mine, theirs = json.loads(row["payload"], parse_float=Decimal), json.loads(before["payload"], parse_float=Decimal)
    cards, emails = zip(_customer(before), _customer(row), strict=True)
    same = any(pair[0] and pair[0] == pair[1] for pair in (cards, emails))
    if identity(before["store_id"]) != identity(row["store_id"]):
        why = "the store differs"
    elif before["order_time"] != row["order_time"]:
        why = "the day differs" if before["day"] != row["day"] else "the time differs"
    elif any(pair[0] and pair[1] and pair[0] != pair[1] for pair in (cards, emails)):
        why = "the customer differs"
    elif not same and _MIDNIGHT.search(str(mine["date"])):
        why = "the date has no time of day, and not both name the same customer"
    elif item.by_rows and not _holds(mine, theirs) and _is_short(row, item):
        why = "it is a piece: its lines do not add up to the total"
    elif _is_later(before, item) is None:
        why = "nobody can tell which of the two is later"
    else:
        return ""
    apart = _told_apart_by(before, row, mine, theirs)
    remedy = (
        f"INSTORE_ORDER_KEY with {' or '.join(apart)} would tell them apart" if apart else "no field tells them apart"
    )
    return f"{before['reference']} has the same key, and {why}; {remedy}"


def _told_apart_by(
    before: Mapping[str, Any], row: Mapping[str, Any], mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> list[str]:
    fields = [
        name
        for name in mine
        if name not in _TELL_NOTHING_APART
        and all(isinstance(one.get(name), str | int) for one in (mine, theirs))
        and identity(str(mine[name])) != identity(str(theirs[name]))
    ]
    return [*(["day"] if before["day"] != row["day"] else []), *fields]


def _is_later(before: Mapping[str, Any], item: Arrival) -> bool | None:
    """Whether the source published this content after the known one; None where that cannot be told."""
    at, known = item.published_at, before["content_at"]
    if at is None:
        return None
    if known is None:  # landed before the moment of publishing was kept: it was published before it landed
        return True if at > before["received_at"] else None
    return None if at == known else bool(at > known)


def _customer(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The card and the order's own email; the ledger's column may hold the customer's by now."""
    own = json.loads(row["payload"]).get("emailAddress")
    return row["loyalty_card"], own.casefold() if own else None


def _holds(document: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether all lines of the other are in it: a file that was read while it was written, and is whole now."""
    lines = list(document.get("lines") or ())
    for line in other.get("lines") or ():
        if line not in lines:
            return False
        lines.remove(line)
    return True


def _is_short(row: Mapping[str, Any], item: Arrival) -> bool:
    """Whether its lines do not make its total; not where they have no totals to tell by."""
    return order_of_payload(row["payload"]).adds_up(item.tolerance) is False


def _is_piece(before: Mapping[str, Any], item: Arrival) -> bool:
    """Whether both are pieces: rows of one purchase in two files, of which neither makes the total nor holds the other.

    Where only one makes the total that is the order; the other corrects nothing, or is corrected.
    """
    if not item.by_rows or before["source"] != Source.EXTRACT or before["order_time"] != item.row["order_time"]:
        return False
    if identity(before["store_id"]) != identity(item.row["store_id"]):
        return False
    mine, theirs = json.loads(item.row["payload"]), json.loads(before["payload"])
    return not _holds(mine, theirs) and all(_is_short(row, item) for row in (item.row, before))


def _together(before: Mapping[str, Any], item: Arrival) -> tuple[dict[str, Any], str]:
    """The row of the order that two pieces are, what came first before the other; and why they are none, if so."""
    first, second = (order_of_payload(row["payload"]) for row in (before, item.row))
    whole = first.model_copy(update={"lines": first.lines + second.lines})
    why = "" if whole.adds_up(item.tolerance) else "together they do not make its total"
    if first.model_copy(update={"lines": second.lines}).fingerprint() != second.fingerprint():
        why = "their order fields differ"
    where = f"its rows are in two places, {before['reference']} and {item.row['reference']}"
    row = {**item.row, "payload": whole.payload(), "fingerprint": whole.fingerprint()}
    return row, f"{where}, and {why}; have the ERP export its orders whole" if why else ""


def _take_back(connection: sa.Connection, order: Mapping[str, Any]) -> None:
    """Remove an order from the ledger that was never sent."""
    for table in (deliveries, contents, editions, orders):
        connection.execute(sa.delete(table).where(table.c.key == order["key"]))
    # It is none of the orders any more that this run claimed.
    planned = runs.c.run_id == order["planned_run"]
    connection.execute(sa.update(runs).where(planned).values(claimed=runs.c.claimed - 1))


def content_row(row: Mapping[str, Any], state: ContentState, run_id: str, now: datetime) -> dict[str, Any]:
    names = ("key", "fingerprint", "source", "reference", "payload", "loyalty_card", "email")
    kept = {name: row[name] for name in names}
    return kept | {"state": state.value, "published_at": row["content_at"], "run": run_id, "received_at": now}
