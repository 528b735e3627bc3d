"""Events that are held because nobody can tell whether they were taken, and what a person decides of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import Status, orders


class Decision(str, Enum):
    """What becomes of a held event."""

    SENT = "sent"
    SEND_AGAIN = "send-again"
    ASK_AGAIN = "ask-again"


@dataclass(frozen=True)
class HeldEvent:
    """One event that is held; ``run`` held it."""

    event_id: str
    edition: int
    reference: str
    sending_at: datetime | None
    reason: str
    run: str


def held_events(ledger: Ledger, event_ids: Sequence[str], limit: int) -> list[HeldEvent]:
    """Those that left first. :param event_ids: only these; empty: all."""
    wanted = sa.select(
        orders.c.event_id, orders.c.edition, orders.c.reference, orders.c.sending_at, orders.c.reason,
        orders.c.outcome_run,
    ).where(orders.c.status == Status.HELD.value)  # fmt: skip
    if event_ids:
        wanted = wanted.where(orders.c.event_id.in_(event_ids))
    with ledger.read() as connection:
        return [HeldEvent(*row) for row in connection.execute(wanted.order_by(orders.c.left_seq).limit(limit))]


def decide(ledger: Ledger, event_ids: Sequence[str], decision: Decision) -> int:
    """Commit what a person decided of these; how many of them were held still.

    Those to be sent, or asked for, again are in the hands of the next run.
    """
    now = datetime.now(timezone.utc)
    decided: dict[Decision, dict[str, object]] = {
        Decision.SENT: {"status": Status.SENT.value, "sent_at": now, "reason": None},
        Decision.SEND_AGAIN: {"status": Status.READY.value, "sending_at": None, "reason": None},
        # As one that has just left: what is asked anew is waited for anew.
        Decision.ASK_AGAIN: {"status": Status.SENDING.value, "sending_at": now, "waited_seq": None, "reason": None},
    }
    with ledger.write() as connection:
        changed = connection.scalars(
            sa.update(orders)
            .where(orders.c.status == Status.HELD.value, orders.c.event_id.in_(event_ids))
            .values(claim_run=None, **decided[decision])
            .returning(orders.c.key)
        )
        return len(changed.all())
