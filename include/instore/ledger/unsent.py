"""What the ledger takes for not sent, whatever the reason, and marking it as sent on somebody else's word."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone

import sqlalchemy as sa

from include.instore.ledger.claims import held_by_no_live_run
from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import UNDER_WAY, Status, orders

_UNSENT = (*UNDER_WAY, Status.UNMATCHED, Status.REJECTED)
"""Not the suppressed: of them nothing was ever sent, and nothing will be."""


def unsent_after(ledger: Ledger, number: str, *, limit: int, claim_minutes: float) -> dict[str, str]:
    """Order number to event id of the next unsent orders that no live run holds, by number.

    :param number: behind this one; empty: from the beginning.
    :param claim_minutes: a run that gave no sign of life for so long is not live.
    """
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(orders.c.order_number, orders.c.event_id)
            .where(_unsent(), held_by_no_live_run(claim_minutes), orders.c.order_number > number)
            .order_by(orders.c.order_number)
            .limit(limit)
        )
        return dict(rows.tuples().all())


def count_held(ledger: Ledger, claim_minutes: float) -> int:
    """How many unsent orders a live run holds."""
    held = sa.select(sa.func.count()).select_from(orders).where(_unsent(), sa.not_(held_by_no_live_run(claim_minutes)))
    with ledger.read() as connection:
        return connection.scalar(held) or 0


def mark_sent(ledger: Ledger, run_id: str, event_ids: Collection[str], claim_minutes: float) -> int:
    """Commit that these orders are sent; how many were marked.

    One that a live run has claimed since, or that is sent by now, is left alone.
    """
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        marked = connection.scalars(
            sa.update(orders)
            .where(_unsent(), held_by_no_live_run(claim_minutes), orders.c.event_id.in_(event_ids))
            .values(
                status=Status.SENT.value,
                reason=None,
                next_attempt=None,
                sent_at=now,
                outcome_run=run_id,
                # One that waited to be sent again has been counted before.
                sends=sa.case((orders.c.sends == 0, 1), else_=orders.c.sends),
                claim_run=None,
                claim_time=None,
            )
            .returning(orders.c.order_number)
        )
        return len(marked.all())


def _unsent() -> sa.ColumnElement[bool]:
    return orders.c.status.in_([status.value for status in _UNSENT])
