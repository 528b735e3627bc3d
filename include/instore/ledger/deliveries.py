"""Ready to sent: ``sending`` is committed before a request leaves, and every answer is committed after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import sqlalchemy as sa

from include.instore.ledger.claims import keep_alive
from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import Status, kept_text, orders, runs


@dataclass(frozen=True)
class OutgoingOrder:
    """What an event is built from."""

    order_number: str
    event_id: str
    order_type: str
    order_time: datetime
    payload: str = field(repr=False)
    email: str = field(repr=False)


def ready_numbers(ledger: Ledger, run_id: str, batch: int) -> list[str]:
    """The batch's ready orders, oldest first."""
    with ledger.read() as connection:
        return list(
            connection.scalars(
                sa.select(orders.c.order_number)
                .where(*_held(run_id, batch), orders.c.status == Status.READY.value)
                .order_by(orders.c.order_time, orders.c.order_number)
            )
        )


def mark_sending(ledger: Ledger, run_id: str, batch: int, numbers: Sequence[str]) -> list[OutgoingOrder]:
    """Commit that these orders are about to leave. Only those returned may: the others are no longer this run's."""
    with ledger.write() as connection:
        marked = set(
            connection.scalars(
                sa.update(orders)
                .where(*_held(run_id, batch), orders.c.status == Status.READY.value, orders.c.order_number.in_(numbers))
                .values(
                    status=Status.SENDING.value,
                    attempts=orders.c.attempts + 1,
                    sending_at=datetime.now(timezone.utc),
                )
                .returning(orders.c.order_number)
            )
        )
        rows = connection.execute(
            sa.select(
                orders.c.order_number, orders.c.event_id, orders.c.order_type, orders.c.order_time, orders.c.payload,
                orders.c.email,
            )
            .where(orders.c.order_number.in_(marked))
            .order_by(orders.c.order_time, orders.c.order_number)
        )  # fmt: skip
        return [OutgoingOrder(*row) for row in rows]


def record_outcomes(
    ledger: Ledger,
    run_id: str,
    batch: int,
    *,
    sent: Collection[str] = (),
    rejected: Mapping[str, str] | None = None,
    unsent: Collection[str] = (),
    truncated: int = 0,
) -> None:
    """Commit what became of orders in ``sending``, named by event id; what is not named stays ``sending``.

    :param rejected: event id to the reason the destination gave.
    :param unsent: certainly not taken by the destination: ready again.
    """
    now = datetime.now(timezone.utc)
    held = (*_held(run_id, batch), orders.c.status == Status.SENDING.value)
    with ledger.write() as connection:
        if sent:
            connection.execute(
                sa.update(orders)
                .where(*held, orders.c.event_id.in_(sent))
                .values(
                    status=Status.SENT.value, reason=None, sent_at=now, outcome_run=run_id, sends=orders.c.sends + 1
                )
            )
        for event_id, reason in (rejected or {}).items():
            connection.execute(
                sa.update(orders)
                .where(*held, orders.c.event_id == event_id)
                .values(status=Status.REJECTED.value, reason=kept_text(reason), outcome_run=run_id)
            )
        if unsent:
            connection.execute(
                sa.update(orders)
                .where(*held, orders.c.event_id.in_(unsent))
                .values(status=Status.READY.value, sending_at=None)
            )
        if truncated:
            connection.execute(
                sa.update(runs).where(runs.c.run_id == run_id).values(truncated=runs.c.truncated + truncated)
            )
        keep_alive(connection, run_id, batch)


def in_doubt(ledger: Ledger, run_id: str, batch: int) -> dict[str, datetime]:
    """Event id to the time its request left, of the batch's orders in ``sending``: nobody knows what became of them."""
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(orders.c.event_id, orders.c.sending_at).where(
                *_held(run_id, batch), orders.c.status == Status.SENDING.value
            )
        )
        return dict(rows.tuples().all())


def _held(run_id: str, batch: int) -> tuple[sa.ColumnElement[bool], ...]:
    return orders.c.claim_run == run_id, orders.c.claim_batch == batch
