"""Who holds which orders: a claim is a conditional update, so two runs never hold the same order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import UNDER_WAY, Status, orders, runs
from include.instore.windows import Run, Window

MAX_BATCHES = 50
"""Mapping over more than a few dozen tasks costs more than it brings (airflow.md, "Mapping and XCom")."""


@dataclass(frozen=True)
class Batch:
    """What one pair of mapped tasks works on; a reference and a count, nothing of the orders."""

    batch: int
    orders: int


def open_run(ledger: Ledger, run: Run) -> None:
    """Make the run known; a second call changes nothing but its kind and window."""
    values = {
        "kind": run.kind,
        "window_start": run.window.start if run.window else None,
        "window_end": run.window.end if run.window else None,
        "ended_at": None,
    }
    with ledger.write() as connection:
        statement = ledger.insert(runs).values(run_id=run.run_id, started_at=datetime.now(timezone.utc), **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_=values))


def claim(ledger: Ledger, run: Run, *, batch_orders: int, claim_minutes: float) -> list[Batch]:
    """Claim the orders this run may send and cut them into at most fifty batches, by loyalty card.

    Unmatched orders whose next attempt is due become pending again. Orders whose run gave no sign of life for
    ``claim_minutes`` are taken over. Planning again finds its own claims.

    :param batch_orders: orders a batch should have; more where fifty batches would not do.
    """
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        connection.execute(
            sa.update(orders)
            .where(_may_send(run, now), _free_for(run.run_id, now - timedelta(minutes=claim_minutes)))
            .values(
                claim_run=run.run_id,
                claim_time=now,
                planned_run=run.run_id,
                status=sa.case(
                    (orders.c.status == Status.UNMATCHED.value, Status.PENDING.value), else_=orders.c.status
                ),
            )
        )
        held = connection.execute(
            sa.select(orders.c.order_number, orders.c.loyalty_card)
            .where(orders.c.claim_run == run.run_id, orders.c.status.in_([status.value for status in UNDER_WAY]))
            .order_by(sa.func.coalesce(orders.c.loyalty_card, orders.c.order_number), orders.c.order_number)
        ).all()
        batches = _cut([card or number for number, card in held], batch_orders)
        if held:
            connection.execute(
                sa.update(orders)
                .where(orders.c.order_number == sa.bindparam("number"))
                .values(claim_batch=sa.bindparam("in_batch")),
                [{"number": row.order_number, "in_batch": batch} for row, batch in zip(held, batches, strict=True)],
            )
        sizes = {batch: batches.count(batch) for batch in sorted(set(batches))}
        connection.execute(
            sa.update(runs).where(runs.c.run_id == run.run_id).values(claimed=len(held), batches=len(sizes))
        )
    return [Batch(batch, size) for batch, size in sizes.items()]


def keep_alive(connection: sa.Connection, run_id: str, batch: int) -> None:
    """A sign of life of the run that holds the batch, in the transaction of whatever it just did."""
    connection.execute(
        sa.update(orders)
        .where(orders.c.claim_run == run_id, orders.c.claim_batch == batch)
        .values(claim_time=datetime.now(timezone.utc))
    )


def release(ledger: Ledger, run_id: str) -> None:
    """Give up what the run still holds; the orders stay where they are on their way."""
    with ledger.write() as connection:
        connection.execute(
            sa.update(orders)
            .where(orders.c.claim_run == run_id)
            .values(claim_run=None, claim_batch=None, claim_time=None)
        )


def _may_send(run: Run, now: datetime) -> sa.ColumnElement[bool]:
    under_way = orders.c.status.in_([status.value for status in UNDER_WAY])
    due_again = sa.and_(orders.c.status == Status.UNMATCHED.value, orders.c.next_attempt <= now)
    if run.claims == "due":
        return sa.or_(under_way, due_again)
    if run.claims == "own":
        own = sa.or_(orders.c.received_run == run.run_id, orders.c.planned_run == run.run_id)
        return sa.and_(sa.or_(under_way, due_again), own)
    return sa.and_(sa.or_(under_way, due_again), _in_window(run.window))


def _in_window(window: Window | None) -> sa.ColumnElement[bool]:
    if window is None:
        return sa.false()
    return sa.and_(orders.c.order_time >= window.start, orders.c.order_time < window.end)


def _free_for(run_id: str, stale: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(orders.c.claim_run.is_(None), orders.c.claim_run == run_id, orders.c.claim_time < stale)


def _cut(keys: Sequence[str], batch_orders: int) -> list[int]:
    """The batch of each key; keys come sorted, and the same key never spans two batches."""
    size = max(batch_orders, math.ceil(len(keys) / MAX_BATCHES))
    batches: list[int] = []
    batch, filled = 0, 0
    for index, key in enumerate(keys):
        if filled >= size and key != keys[index - 1]:
            batch, filled = batch + 1, 0
        batches.append(batch)
        filled += 1
    return batches
