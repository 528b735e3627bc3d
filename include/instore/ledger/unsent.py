"""Orders that the ledger has as not sent, and that may be marked as sent where a destination shows their events."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone

import sqlalchemy as sa

from include.instore.ledger.claims import held_by_no_live_run, take_turns
from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import deliveries, orders
from include.instore.model.events import first_event_id
from include.instore.model.states import UNDER_WAY, DeliveryStatus, Status

_UNSENT = (*UNDER_WAY, DeliveryStatus.REJECTED.value, DeliveryStatus.HELD.value)
"""Not the suppressed: of them nothing was ever sent, and nothing will be."""
_NOT_FOUND_YET = (Status.PENDING.value, Status.UNMATCHED.value)


def unsent_after(ledger: Ledger, destination: str, key: str, *, limit: int, claim_minutes: float) -> dict[str, str]:
    """Key to event id of the next orders that the destination was not sent and no live run holds, by key.

    :param key: behind this one; empty: from the beginning.
    :param claim_minutes: a run that gave no sign of life for so long is not live.
    """
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(orders.c.key, orders.c.event_id, deliveries.c.event_id)
            .select_from(_with_latest(destination))
            .where(_unsent(), held_by_no_live_run(claim_minutes), orders.c.key > key)
            .order_by(orders.c.key)
            .limit(limit)
        )
        return {key: known or first_event_id(event, destination) for key, event, known in rows.tuples()}


def count_held(ledger: Ledger, destination: str, claim_minutes: float) -> int:
    """How many orders that the destination was not sent a live run holds."""
    held = sa.select(sa.func.count()).select_from(_with_latest(destination))
    with ledger.read() as connection:
        return connection.scalar(held.where(_unsent(), sa.not_(held_by_no_live_run(claim_minutes)))) or 0


def mark_sent(ledger: Ledger, destination: str, run_id: str, keys: Collection[str], claim_minutes: float) -> int:
    """Commit that these orders are sent, also those whose customer is not known yet; how many were marked.

    One that a live run has claimed since, or that is sent by now, is left alone.
    """
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        take_turns(ledger, connection)
        rows = connection.execute(
            sa.select(orders.c.key, orders.c.event_id, orders.c.fingerprint, orders.c.email, deliveries.c.edition)
            .select_from(_with_latest(destination))
            .where(_unsent(), held_by_no_live_run(claim_minutes), orders.c.key.in_(keys))
            .order_by(orders.c.key)
        ).all()
        marked = [row.key for row in rows]
        sent = {"status": DeliveryStatus.SENT.value, "reason": None, "sent_at": now, "outcome_run": run_id}
        new = [
            {**sent, "key": row.key, "destination": destination, "edition": 1, "is_latest": True, "attempts": 0}
            | {
                "event_id": first_event_id(row.event_id, destination),
                "fingerprint": row.fingerprint,
                "email": row.email,
            }
            for row in rows
            if row.edition is None
        ]
        if new:
            connection.execute(sa.insert(deliveries), new)
        connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.key.in_(marked), deliveries.c.destination == destination, deliveries.c.is_latest)
            .values(sent)
        )
        connection.execute(
            sa.update(orders)
            .where(orders.c.key.in_(marked))
            .values(status=Status.MATCHED.value, reason=None, next_attempt=None, claim_run=None)
        )
        return len(marked)


def _with_latest(destination: str) -> sa.Join:
    """Orders, each beside its latest edition at the destination, or nothing."""
    latest = sa.and_(deliveries.c.key == orders.c.key, deliveries.c.destination == destination, deliveries.c.is_latest)
    return orders.outerjoin(deliveries, latest)


def _unsent() -> sa.ColumnElement[bool]:
    waits = sa.and_(deliveries.c.status.is_(None), orders.c.status.in_(_NOT_FOUND_YET))
    return sa.or_(waits, deliveries.c.status.in_(_UNSENT))
