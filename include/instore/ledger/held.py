"""Events that are held, or were rejected, and what a person decides of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import deliveries, orders
from include.instore.model.states import DeliveryStatus


class Decision(str, Enum):
    """What becomes of an event that is held; of one that was rejected: send-again, or give-up."""

    SENT = "sent"
    SEND_AGAIN = "send-again"
    ASK_AGAIN = "ask-again"
    GIVE_UP = "give-up"


_HELD, _REJECTED = DeliveryStatus.HELD.value, DeliveryStatus.REJECTED.value
DECIDED = {
    Decision.SENT: (_HELD,),
    Decision.SEND_AGAIN: (_HELD, _REJECTED),
    Decision.ASK_AGAIN: (_HELD,),
    Decision.GIVE_UP: (_REJECTED,),
}
"""Of which events each may be decided."""


@dataclass(frozen=True)
class HeldEvent:
    """One event that is held or was rejected, which ``run`` did."""

    destination: str
    event_id: str
    edition: int
    reference: str
    sending_at: datetime | None
    reason: str
    run: str


def held_events(
    ledger: Ledger, event_ids: Sequence[str], limit: int, statuses: Sequence[str] = (_HELD,)
) -> list[HeldEvent]:
    """Held or rejected events, the first one sent at the top. :param event_ids: only these; empty: all."""
    wanted = (
        sa.select(
            deliveries.c.destination, deliveries.c.event_id, deliveries.c.edition, orders.c.reference,
            deliveries.c.sending_at, deliveries.c.reason, deliveries.c.outcome_run,
        )
        .join(orders, orders.c.key == deliveries.c.key)
        .where(deliveries.c.status.in_(statuses), deliveries.c.is_latest)
    )  # fmt: skip
    if event_ids:
        wanted = wanted.where(deliveries.c.event_id.in_(event_ids))
    with ledger.read() as connection:
        return [HeldEvent(*row) for row in connection.execute(wanted.order_by(deliveries.c.left_seq).limit(limit))]


def decide(ledger: Ledger, event_ids: Sequence[str], decision: Decision) -> int:
    """Commit what a person decided of these; how many of them were held, or rejected, still.

    Those to be sent, or asked for, again are in the hands of the next run.
    """
    now = datetime.now(timezone.utc)
    decided: dict[Decision, dict[str, object]] = {
        Decision.SENT: {"status": DeliveryStatus.SENT.value, "sent_at": now, "reason": None},
        Decision.SEND_AGAIN: {"status": DeliveryStatus.READY.value, "sending_at": None, "reason": None},
        # As one that has just left: what is asked anew is waited for anew.
        Decision.ASK_AGAIN: {
            "status": DeliveryStatus.SENDING.value,
            "sending_at": now,
            "waited_seq": None,
            "reason": None,
        },
        Decision.GIVE_UP: {"status": DeliveryStatus.CANCELLED.value, "reason": "a person gave it up"},
    }
    with ledger.write() as connection:
        changed = connection.scalars(
            sa.update(deliveries)
            .where(deliveries.c.status.in_(DECIDED[decision]), deliveries.c.event_id.in_(event_ids))
            .values(decided[decision])
            .returning(deliveries.c.key)
        ).all()
        connection.execute(sa.update(orders).where(orders.c.key.in_(changed)).values(claim_run=None))
        return len(changed)
