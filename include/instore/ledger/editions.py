"""Editions: an order that is sent again goes out under an event id of its own, so that neither proves the other.

A run orders at most one new edition of an order, however often it is cleared or reprocessed: the table's key says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.known_again import content_row, taken_content
from include.instore.ledger.suppressions import person_hashes
from include.instore.ledger.tables import NO_CUSTOMER_KEY, ContentState, Status, UtcDateTime, contents, editions, orders
from include.instore.model.events import next_event_id
from include.instore.model.windows import Run

_CHUNK = 500


def to_be_sent_again(run: Run) -> sa.ColumnElement[bool]:
    """Orders that were sent, and of which this run has no edition yet."""
    mine = sa.select(editions.c.key).where(editions.c.key == orders.c.key, editions.c.ordered_by == run.tries[0])
    return sa.and_(orders.c.status == Status.SENT.value, sa.not_(sa.exists(mine)))


def order_editions(
    ledger: Ledger, connection: sa.Connection, run: Run, which: Sequence[sa.ColumnElement[bool]], now: datetime
) -> None:
    """Make the sent orders among these ready, each as a new edition with its latest content."""
    names = (
        "key", "event_id", "edition", "fingerprint", "content_at", "source", "reference", "payload", "loyalty_card",
        "email", "status",
    )  # fmt: skip
    wanted = sa.select(*(orders.c[name] for name in names)).where(*which).order_by(orders.c.key).with_for_update()
    rows = [dict(row) for row in connection.execute(wanted).mappings()]
    for start in range(0, len(rows), _CHUNK):
        _order(ledger, connection, run, rows[start : start + _CHUNK], now)


def note_editions(
    ledger: Ledger, connection: sa.Connection, run: Run, which: Sequence[sa.ColumnElement[bool]], now: datetime
) -> None:
    """What a resend run finds unsent goes out once by it, as the edition it is."""
    found = sa.select(
        orders.c.key, sa.literal(run.tries[0]), orders.c.edition, orders.c.event_id, sa.literal(now, UtcDateTime)
    ).where(*which)
    names = ["key", "ordered_by", "edition", "event_id", "made_at"]
    connection.execute(ledger.insert(editions).from_select(names, found).on_conflict_do_nothing())


def _order(ledger: Ledger, connection: sa.Connection, run: Run, rows: Sequence[dict[str, Any]], now: datetime) -> None:
    later = _later_contents(ledger, connection, [row["key"] for row in rows])
    made = []
    for row in rows:
        edition = row["edition"] + 1
        made.append(
            {
                "key": row["key"],
                "ordered_by": run.tries[0],
                "edition": edition,
                "event_id": next_event_id(row["event_id"], edition),
                "replaces": row["event_id"],
                "made_at": now,
            }
        )
        values = {"edition": edition, "event_id": made[-1]["event_id"], "status": Status.READY.value, "reason": None}
        if content := later.get(row["key"]):
            one = (contents.c.key == row["key"], contents.c.fingerprint == content["fingerprint"])
            connection.execute(sa.delete(contents).where(*one))
            kept = content_row(row, ContentState.SENT, run.run_id, now)
            connection.execute(ledger.insert(contents).values(kept).on_conflict_do_nothing())
            values |= taken_content(row, content)
        connection.execute(sa.update(orders).where(orders.c.key == row["key"]).values(values))
    connection.execute(sa.insert(editions), made)


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
