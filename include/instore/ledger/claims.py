"""Who holds which orders: a claim is a conditional update, so two runs never hold the same order."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from include.instore import fault_points
from include.instore.ledger.database import Ledger
from include.instore.ledger.destinations import cancel_switched_off, order_first_deliveries
from include.instore.ledger.editions import note_editions, order_editions, to_be_sent_again
from include.instore.ledger.tables import claims, deliveries, editions, orders, runs
from include.instore.model.states import UNDER_WAY, DeliveryStatus, Status
from include.instore.model.windows import Run, Window

MAX_BATCHES = 50
"""Mapping over more than a few dozen tasks costs more than it brings (airflow-quirks.md, "Mapped tasks")."""

_TRY_NO_REJECTED = ("due", "listed")
"""Runs that do not try again what was rejected."""


@dataclass(frozen=True)
class Batch:
    """What one pair of mapped tasks works on; a reference and a count, nothing of the orders."""

    batch: int
    orders: int


@dataclass(frozen=True)
class HeldBatch:
    """One batch of a run, which the run holds as long as it gives signs of life."""

    run_id: str
    batch: int

    @property
    def orders(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Orders of the batch that are still in the run's hands."""
        return orders.c.claim_run == self.run_id, orders.c.claim_batch == self.batch


def open_run(ledger: Ledger, run: Run, *, begins: bool = True) -> Run:
    """Make the run known, and return it under the id its rows in the ledger bear.

    A run that is cleared as a whole, or reprocessed by a backfill, begins anew under an id of its own, so that its
    counts are those of this time; one of which single tasks are cleared goes on under the id it has.

    :param begins: whether the calling task is one that a run begins with.
    """
    values = {
        "kind": run.kind,
        "window_start": run.window.start if run.window else None,
        "window_end": run.window.end if run.window else None,
        "ended_at": None,
    }
    with ledger.write() as connection:
        known = set(connection.scalars(sa.select(runs.c.run_id).where(runs.c.run_id.in_(run.tries))))
        begun = [each for each in run.tries if each in known]
        run_id = run.tries[-1] if begins or not begun else begun[-1]
        statement = ledger.insert(runs).values(run_id=run_id, started_at=datetime.now(timezone.utc), **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_=values))
    return replace(run, run_id=run_id)


def claim(ledger: Ledger, run: Run, *, batch_orders: int, claim_minutes: float, tracking: bool = True) -> list[Batch]:
    """Claim the orders this run may send and cut them into at most fifty batches, by loyalty card.

    Unmatched orders whose next attempt is due become pending again. Of those that a window's or a cleared run is asked
    for, what another run saw rejected becomes ready again, and with ``resend`` what another run sent, as a new edition;
    where it names a destination, orders that were never there go there, and only there again.
    Orders whose run gave no sign of life for ``claim_minutes`` are taken over. Planning again finds its own claims, and
    gives at least as many batches.

    :param batch_orders: orders a batch should have; more where fifty batches would not do.
    :param tracking: off, only orders whose customer is still to be found are claimed: the others could not go on.
    """
    now = datetime.now(timezone.utc)
    free = held_by_no_live_run(claim_minutes, run.tries)
    with ledger.write() as connection:
        take_turns(ledger, connection)
        cancel_switched_off(connection, run.run_id)
        if run.destination:
            order_first_deliveries(ledger, connection, run, (*_asked_for(run), free))
        if run.resend and tracking:
            order_editions(ledger, connection, run, (*_asked_for(run), free), now)
        connection.execute(sa.update(orders).where(_may_send(run, now, tracking), free).values(claim_run=run.run_id))
        _begin_again(connection, run)
        mine = (orders.c.claim_run == run.run_id, under_way())
        if run.resend and tracking:
            note_editions(ledger, connection, run, mine, now)
        _count_as_mine(connection, run.run_id, mine)
        held = connection.execute(
            sa.select(orders.c.key, orders.c.loyalty_card)
            .where(*mine)
            .order_by(sa.func.coalesce(orders.c.loyalty_card, orders.c.key), orders.c.key)
        ).all()
        batches = _cut([card or key for key, card in held], batch_orders)
        if held:
            connection.execute(
                sa.update(orders)
                .where(orders.c.key == sa.bindparam("order"))
                .values(claim_batch=sa.bindparam("in_batch"), planned_run=run.run_id),
                [{"order": row.key, "in_batch": batch} for row, batch in zip(held, batches, strict=True)],
            )
        _hold(ledger, connection, run.run_id, set(batches), now)
        sizes = {batch: batches.count(batch) for batch in sorted(set(batches))}
        # Airflow never brings back a mapped task that an earlier time of this run had and a later one had not: the
        # number of batches of a run only grows, by empty ones.
        earlier = connection.scalar(sa.select(sa.func.max(runs.c.batches)).where(runs.c.run_id.in_(run.tries))) or 0
        sizes |= dict.fromkeys(range(len(sizes), earlier), 0)
        connection.execute(
            sa.update(runs).where(runs.c.run_id == run.run_id).values(claimed=len(held), batches=len(sizes))
        )
        fault_points.reach("claims.planned")
    return [Batch(batch, size) for batch, size in sizes.items()]


def _begin_again(connection: sa.Connection, run: Run) -> None:
    """Look up customers again, and send rejected events again, of what the run has just claimed."""
    connection.execute(
        sa.update(orders)
        .where(
            orders.c.claim_run == run.run_id,
            orders.c.status == Status.UNMATCHED.value,
            orders.c.next_attempt.is_not(None),
        )
        .values(status=Status.PENDING.value)
    )
    if run.claims not in _TRY_NO_REJECTED:
        claimed = sa.exists().where(orders.c.key == deliveries.c.key, orders.c.claim_run == run.run_id)
        connection.execute(
            sa.update(deliveries).where(_rejected(run), claimed).values(status=DeliveryStatus.READY.value)
        )


def _count_as_mine(connection: sa.Connection, run_id: str, mine: Sequence[sa.ColumnElement[bool]]) -> None:
    """Take what this run plans off the counts of the runs that planned it before.

    Such a run may report again, when a person clears it after the next one went on: its claimed orders are those that
    nobody has planned since, or they would seem to be missing from the ledger.
    """
    planned_before = connection.execute(
        sa.select(orders.c.planned_run, sa.func.count())
        .where(*mine, orders.c.planned_run != run_id)
        .group_by(orders.c.planned_run)
        .order_by(orders.c.planned_run)
    ).all()
    for earlier, count in planned_before:
        connection.execute(sa.update(runs).where(runs.c.run_id == earlier).values(claimed=runs.c.claimed - count))


def keep_alive(connection: sa.Connection, held: HeldBatch) -> None:
    """A sign of life of the run that holds the batch, in the transaction of whatever it just did."""
    connection.execute(
        sa.update(claims)
        .where(claims.c.run == held.run_id, claims.c.batch == held.batch)
        .values(alive_at=datetime.now(timezone.utc))
    )


def take_turns(ledger: Ledger, connection: sa.Connection) -> None:
    """Wait until no other run is claiming orders; the next statement sees what it committed.

    PostgreSQL reads a row again that another transaction has changed, but not the claims that the same statement
    compares it with: two runs that plan at the same time would each take over the other one's orders.
    """
    ledger.next_number(connection, "planning")


def _hold(ledger: Ledger, connection: sa.Connection, run_id: str, batches: Collection[int], now: datetime) -> None:
    rows = [{"run": run_id, "batch": batch, "alive_at": now} for batch in sorted(batches)]
    if rows:
        statement = ledger.insert(claims)
        values = {"alive_at": statement.excluded.alive_at}
        connection.execute(statement.on_conflict_do_update(index_elements=["run", "batch"], set_=values), rows)


def hold(ledger: Ledger, held: HeldBatch) -> None:
    """Claim again what the run had planned in this batch and gave up: its task was cleared after the run had ended."""
    with ledger.write() as connection:
        take_turns(ledger, connection)
        connection.execute(
            sa.update(orders)
            .where(
                orders.c.planned_run == held.run_id,
                orders.c.claim_batch == held.batch,
                orders.c.claim_run.is_(None),
                under_way(),
            )
            .values(claim_run=held.run_id)
        )
        _hold(ledger, connection, held.run_id, [held.batch], datetime.now(timezone.utc))


def held_elsewhere(ledger: Ledger, run: Run, *, claim_minutes: float, tracking: bool = True) -> int:
    """How many orders this run may send are held by another run that gave a sign of life within ``claim_minutes``."""
    now = datetime.now(timezone.utc)
    free = held_by_no_live_run(claim_minutes, run.tries)
    with ledger.read() as connection:
        may = _may_send(run, now, tracking)
        if run.resend and tracking:
            again = sa.select(deliveries.c.key).where(to_be_sent_again(run))
            may = sa.or_(may, sa.and_(orders.c.key.in_(again), *_asked_for(run)))
        mine = sa.select(sa.func.count()).select_from(orders).where(may, sa.not_(free))
        return connection.scalar(mine) or 0


def release(ledger: Ledger, run_id: str) -> None:
    """Release the run's claims. The orders and their deliveries keep their states."""
    with ledger.write() as connection:
        connection.execute(sa.update(orders).where(orders.c.claim_run == run_id).values(claim_run=None))
        connection.execute(sa.delete(claims).where(claims.c.run == run_id))


def held_by_no_live_run(claim_minutes: float, tries: Sequence[str] = ()) -> sa.ColumnElement[bool]:
    """Orders that a run may take: nobody holds them, or whoever does gave no sign of life for ``claim_minutes``.

    :param tries: the ids of the asking run's own tries, whose claims are its own.
    """
    stale = datetime.now(timezone.utc) - timedelta(minutes=claim_minutes)
    alive = sa.exists().where(
        claims.c.run == orders.c.claim_run, claims.c.batch == orders.c.claim_batch, claims.c.alive_at >= stale
    )
    return sa.or_(orders.c.claim_run.is_(None), orders.c.claim_run.in_(tries), sa.not_(alive))


def under_way() -> sa.ColumnElement[bool]:
    """Orders that a run can move on without a person: pending, or with a delivery that is."""
    going = sa.exists().where(deliveries.c.key == orders.c.key, _going()).correlate(orders)
    return sa.or_(orders.c.status == Status.PENDING.value, going)


def _going() -> sa.ColumnElement[bool]:
    """Deliveries that a run can move on, joined to their orders: sending, or ready and the customer is known."""
    ready = sa.and_(deliveries.c.status == DeliveryStatus.READY.value, orders.c.status == Status.MATCHED.value)
    return sa.or_(deliveries.c.status == DeliveryStatus.SENDING.value, ready)


def _rejected(run: Run) -> sa.ColumnElement[bool]:
    """Rejected deliveries, without those that were rejected in this run: a retry of its plan does not send them."""
    rejected = deliveries.c.status == DeliveryStatus.REJECTED.value
    return sa.and_(rejected, deliveries.c.is_latest, deliveries.c.outcome_run != run.run_id)


def _may_send(run: Run, now: datetime, tracking: bool) -> sa.ColumnElement[bool]:
    # A union, because each part has an index of its own; of an OR over two tables PostgreSQL reads every order.
    due_again = sa.and_(orders.c.status == Status.UNMATCHED.value, orders.c.next_attempt <= now)
    may = [
        sa.select(orders.c.key).where(orders.c.status == Status.PENDING.value),
        sa.select(orders.c.key).where(due_again),
    ]
    if tracking:
        going = sa.select(deliveries.c.key).join(orders, orders.c.key == deliveries.c.key)
        may.append(going.where(deliveries.c.status.in_(UNDER_WAY), _going()))
    if run.claims not in _TRY_NO_REJECTED and tracking:
        may.append(sa.select(deliveries.c.key).where(_rejected(run)))
    return sa.and_(orders.c.key.in_(sa.union_all(*may)), *_asked_for(run))


def events_again(ledger: Ledger, run: Run) -> int:
    """How many events this run would send again."""
    joined = deliveries.join(orders, orders.c.key == deliveries.c.key)
    wanted = sa.select(sa.func.count()).select_from(joined).where(to_be_sent_again(run), *_asked_for(run))
    with ledger.read() as connection:
        return connection.scalar(wanted) or 0


def wanted_by(run: Run) -> sa.ColumnElement[bool]:
    """Orders that a run may claim, whoever holds them."""
    if run.claims == "due":
        return _may_send(run, datetime.now(timezone.utc), tracking=True)
    return sa.and_(*_asked_for(run))


def _asked_for(run: Run) -> tuple[sa.ColumnElement[bool], ...]:
    """Which orders the run is for, whatever their status."""
    if run.claims == "due":
        return ()
    its = in_window(run.window)
    if run.claims == "listed":
        begun = sa.select(editions.c.key).where(editions.c.ordered_by == run.tries[0])
        its = orders.c.key.in_(sa.union_all(sa.select(deliveries.c.key).where(to_be_sent_again(run)), begun))
    elif run.claims == "own":
        its = sa.or_(orders.c.received_run.in_(run.tries), orders.c.planned_run.in_(run.tries))
    return its, orders.c.pruned_at.is_(None)  # of a pruned one there is nothing to send


def in_window(window: Window | None) -> sa.ColumnElement[bool]:
    """Orders whose own time is in the window; none without one."""
    if window is None:
        return sa.false()
    return sa.and_(orders.c.order_time >= window.start, orders.c.order_time < window.end)


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
