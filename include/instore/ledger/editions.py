"""Editions: an order is sent again under a new event id, so that finding one event never proves the other.

A run orders at most one new edition of an order at a destination, however often it is cleared or reprocessed: the
table's key says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.destinations import ready_for
from include.instore.ledger.known_again import content_row, taken_content
from include.instore.ledger.suppressions import person_hashes
from include.instore.ledger.tables import (
    UtcDateTime,
    contents,
    deliveries,
    destinations,
    editions,
    orders,
    resend_events,
)
from include.instore.model.codes import NO_CUSTOMER_KEY
from include.instore.model.events import next_event_id
from include.instore.model.states import UNDER_WAY, ContentState, DeliveryStatus, Status
from include.instore.model.windows import Run

_CHUNK = 500


def to_be_sent_again(run: Run) -> sa.ColumnElement[bool]:
    """Deliveries that were sent, and of whose order and destination this run has no edition yet."""
    mine = sa.exists().where(
        editions.c.key == deliveries.c.key,
        editions.c.destination == deliveries.c.destination,
        editions.c.ordered_by == run.tries[0],
    )
    named = deliveries.c.destination == run.destination if run.destination else sa.true()
    on = deliveries.c.destination.in_(sa.select(destinations.c.name).where(destinations.c.is_on))
    its = sa.select(resend_events.c.event_id).where(resend_events.c.resend == run.resend_list)
    listed = deliveries.c.event_id.in_(its) if run.claims == "listed" else sa.true()
    return sa.and_(
        deliveries.c.status == DeliveryStatus.SENT.value, deliveries.c.is_latest, named, on, listed, sa.not_(mine)
    )


def order_editions(
    ledger: Ledger, connection: sa.Connection, run: Run, which: Sequence[sa.ColumnElement[bool]], now: datetime
) -> None:
    """Make the next edition of what was sent of these orders, each with its order's latest content."""
    names = (
        "key", "fingerprint", "content_at", "source", "reference", "payload", "loyalty_card", "email", "status",
    )  # fmt: skip
    wanted = (
        sa.select(
            *(orders.c[name] for name in names),
            deliveries.c.destination, deliveries.c.edition, deliveries.c.event_id.label("before"),
        )
        .join(deliveries, deliveries.c.key == orders.c.key)
        .where(to_be_sent_again(run), *which)
        .order_by(orders.c.key, deliveries.c.destination)
        .with_for_update()
    )  # fmt: skip
    rows = [dict(row) for row in connection.execute(wanted).mappings()]
    for start in range(0, len(rows), _CHUNK):
        _order(ledger, connection, run, rows[start : start + _CHUNK], now)


_late = contents.c.state == ContentState.AFTER_SENDING.value


def keep_corrected(ledger: Ledger, keys: Sequence[str] = (), *, dry_run: bool) -> int:
    """Let the events stand that were sent before their orders were corrected; how many contents are given up.

    :param keys: of these orders only; empty: of all.
    """
    which = (_late, contents.c.key.in_(keys) if keys else sa.true())
    with ledger.write() as connection:
        count = connection.scalar(sa.select(sa.func.count()).select_from(contents).where(*which)) or 0
        if not dry_run:
            connection.execute(sa.update(contents).where(*which).values(state=ContentState.OLDER.value))
    return count


def note_editions(
    ledger: Ledger, connection: sa.Connection, run: Run, which: Sequence[sa.ColumnElement[bool]], now: datetime
) -> None:
    """Record that a resend run sends what it finds unsent, once, as the edition it already is.

    An order whose customer is not known yet has no delivery: it will be its first edition at every destination.
    """
    unsent = (
        sa.select(
            deliveries.c.key, deliveries.c.destination, sa.literal(run.tries[0]), deliveries.c.edition,
            sa.literal(now, UtcDateTime),
        )
        .join(orders, orders.c.key == deliveries.c.key)
        .where(*which, deliveries.c.is_latest, deliveries.c.status.in_(UNDER_WAY))
    )  # fmt: skip
    none_yet = (
        sa.select(
            orders.c.key, destinations.c.name, sa.literal(run.tries[0]), sa.literal(1), sa.literal(now, UtcDateTime)
        )
        .join(destinations, destinations.c.is_on)
        .where(
            *which,
            orders.c.status == Status.PENDING.value,
            sa.not_(
                sa.exists().where(deliveries.c.key == orders.c.key, deliveries.c.destination == destinations.c.name)
            ),
        )
    )
    names = ["key", "destination", "ordered_by", "edition", "made_at"]
    for found in (unsent, none_yet):
        connection.execute(ledger.insert(editions).from_select(names, found).on_conflict_do_nothing())


def _order(ledger: Ledger, connection: sa.Connection, run: Run, rows: Sequence[dict[str, Any]], now: datetime) -> None:
    later = _later_contents(ledger, connection, [row["key"] for row in rows])
    made, ordered = [], []
    for row in rows:
        edition = row["edition"] + 1
        place = {"key": row["key"], "destination": row["destination"]}
        ordered.append({**place, "ordered_by": run.tries[0], "edition": edition, "made_at": now})
        event_id = next_event_id(row["before"], edition)
        made.append(ready_for(row["destination"], row["key"], event_id, edition))
        if content := later.pop(row["key"], None):
            one = (contents.c.key == row["key"], contents.c.fingerprint == content["fingerprint"])
            connection.execute(sa.delete(contents).where(*one))
            kept = content_row(row, ContentState.SENT, run.run_id, now)
            connection.execute(ledger.insert(contents).values(kept).on_conflict_do_nothing())
            connection.execute(sa.update(orders).where(orders.c.key == row["key"]).values(taken_content(row, content)))
    before = (deliveries.c.key == sa.bindparam("of"), deliveries.c.destination == sa.bindparam("at"))
    places = [{"of": row["key"], "at": row["destination"]} for row in made]
    connection.execute(sa.update(deliveries).where(*before).values(is_latest=False), places)
    connection.execute(sa.insert(deliveries), made)
    connection.execute(sa.insert(editions), ordered)


def _later_contents(ledger: Ledger, connection: sa.Connection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Key to the latest content that came after the order had left, in the words of the order's own columns."""
    found = connection.execute(
        sa.select(contents)
        .where(contents.c.key.in_(keys), contents.c.state == ContentState.AFTER_SENDING.value)
        .order_by(contents.c.published_at, contents.c.fingerprint)
    ).mappings()
    return {
        row["key"]: {
            **row,
            "content_at": row["published_at"],
            **person_hashes(ledger, row["loyalty_card"], row["email"]),
            **_begins(row),
        }
        for row in found
    }


def _begins(row: Any) -> dict[str, Any]:
    """Where an order with this content begins, if its customer is another one."""
    if row["loyalty_card"] or row["email"]:
        return {"status": Status.PENDING.value, "reason": None}
    return {"status": Status.UNMATCHED.value, "reason": NO_CUSTOMER_KEY}
