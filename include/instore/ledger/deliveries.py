"""Ready to sent: ``sending`` is committed before a request leaves, and every answer is committed after it.

What the ledger takes for not sent, whatever the reason, may also be marked as sent on somebody else's word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum

import sqlalchemy as sa

from include.instore.ledger.claims import held_by_no_live_run, keep_alive, take_turns
from include.instore.ledger.database import Ledger
from include.instore.ledger.suppressions import SUPPRESSED, suppressed_among
from include.instore.ledger.tables import UNDER_WAY, Status, kept_text, orders, runs

_LEAVING = "leaving"
_UNSENT = (*UNDER_WAY, Status.UNMATCHED, Status.REJECTED, Status.HELD)
"""Not the suppressed: of them nothing was ever sent, and nothing will be."""


@dataclass(frozen=True)
class OutgoingOrder:
    """What an event is built from."""

    key: str
    event_id: str
    order_type: str
    order_time: datetime
    payload: str = field(repr=False)
    email: str = field(repr=False)
    attempts: int


@dataclass(frozen=True)
class Doubt:
    """An event that left, and of which nobody knows whether it was taken.

    :param left: its place among all that left, in the order of their commits.
    :param waited: what left behind this place left ``verify_after`` later; None: nobody has waited for it yet.
    """

    event_id: str
    left: int
    waited: int | None
    sending_at: datetime


def ready_orders(ledger: Ledger, run_id: str, batch: int) -> list[str]:
    """Keys of the batch's ready orders, oldest first."""
    with ledger.read() as connection:
        return list(
            connection.scalars(
                sa.select(orders.c.key)
                .where(*_held(run_id, batch), orders.c.status == Status.READY.value)
                .order_by(orders.c.order_time, orders.c.key)
            )
        )


def mark_sending(ledger: Ledger, run_id: str, batch: int, keys: Sequence[str]) -> list[OutgoingOrder]:
    """Commit that these orders are about to leave. Only those returned may.

    The others are no longer this run's, or of a person for whom nothing may be sent: those are suppressed.
    """
    with ledger.write() as connection:
        left = ledger.next_number(connection, _LEAVING)
        found = connection.execute(
            sa.update(orders)
            .where(*_held(run_id, batch), orders.c.status == Status.READY.value, orders.c.key.in_(keys))
            .values(
                status=Status.SENDING.value,
                attempts=orders.c.attempts + 1,
                sending_at=datetime.now(timezone.utc),
                left_seq=left,
                waited_seq=None,
            )
            .returning(orders.c.key, orders.c.card_hash, orders.c.email_hash)
        ).all()
        # After the rows are locked, or one who is suppressed meanwhile would be missed by both.
        stopped = suppressed_among(connection, [each for row in found for each in row[1:]])
        kept_back = {row.key for row in found if stopped & {row.card_hash, row.email_hash}}
        if kept_back:
            connection.execute(
                sa.update(orders)
                .where(orders.c.key.in_(kept_back))
                .values(
                    status=Status.SUPPRESSED.value,
                    reason=SUPPRESSED,
                    resolved_run=run_id,
                    attempts=orders.c.attempts - 1,
                    sending_at=None,
                    left_seq=None,
                )
            )
        marked = {row.key for row in found} - kept_back
        rows = connection.execute(
            sa.select(
                orders.c.key, orders.c.event_id, orders.c.order_type, orders.c.order_time, orders.c.payload,
                orders.c.email, orders.c.attempts,
            )
            .where(orders.c.key.in_(marked))
            .order_by(orders.c.order_time, orders.c.key)
        )  # fmt: skip
        return [OutgoingOrder(*row) for row in rows]


class Renewed(str, Enum):
    """Whether events that were marked may leave once more."""

    YES = "yes"
    TAKEN_OVER = "another try of the task has them"
    SUPPRESSED = "a person among them has been suppressed meanwhile"


def renew_sending(ledger: Ledger, run_id: str, batch: int, attempts: Mapping[str, int]) -> Renewed:
    """Commit that these orders are about to leave now; where any must not, nothing is written.

    Their place among all that left stays that of the first time, and nobody has waited for them any more.

    :param attempts: event id to the order's attempts when it was marked: each marking counts one more, so the number
        tells whose ``sending`` it is.
    """
    mine = (*_held(run_id, batch), orders.c.status == Status.SENDING.value, orders.c.event_id.in_(attempts))
    with ledger.write() as connection:
        rows = connection.execute(
            sa.select(orders.c.event_id, orders.c.attempts, orders.c.card_hash, orders.c.email_hash)
            .where(*mine)
            .with_for_update()
        ).all()
        if {row.event_id: row.attempts for row in rows} != dict(attempts):
            return Renewed.TAKEN_OVER
        if suppressed_among(connection, [each for row in rows for each in row[2:]]):
            return Renewed.SUPPRESSED
        connection.execute(
            sa.update(orders).where(*mine).values(sending_at=datetime.now(timezone.utc), waited_seq=None)
        )
        keep_alive(connection, run_id, batch)
        return Renewed.YES


def record_outcomes(
    ledger: Ledger,
    run_id: str,
    batch: int,
    *,
    sent: Collection[str] = (),
    rejected: Mapping[str, str] | None = None,
    unsent: Collection[str] = (),
    truncated: int = 0,
    attempts: Mapping[str, int] | None = None,
) -> None:
    """Commit what became of orders in ``sending``, named by event id; what is not named stays ``sending``.

    :param sent: taken by the destination, also where another try has given the order back meanwhile.
    :param rejected: event id to the reason the destination gave.
    :param unsent: certainly not taken by the destination: ready again.
    :param attempts: as for :func:`renew_sending`; an order that another try is sending is neither rejected nor ready.
    """
    now = datetime.now(timezone.utc)
    held = (*_held(run_id, batch), orders.c.status == Status.SENDING.value)
    if attempts is not None:
        whose = [sa.and_(orders.c.event_id == event, orders.c.attempts == made) for event, made in attempts.items()]
        held = (*held, sa.or_(sa.false(), *whose))
    with ledger.write() as connection:
        if sent:
            connection.execute(
                sa.update(orders)
                .where(
                    *_held(run_id, batch),
                    orders.c.status.in_([Status.SENDING.value, Status.READY.value, Status.HELD.value]),
                    orders.c.event_id.in_(sent),
                )
                .values(status=Status.SENT.value, reason=None, sent_at=now, outcome_run=run_id)
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


def give_back(ledger: Ledger, run_id: str, batch: int, doubts: Collection[Doubt]) -> None:
    """Commit that these were not taken by the destination: ready again, unless they have left once more meanwhile."""
    if doubts:
        _move(ledger, run_id, batch, doubts, status=Status.READY.value, sending_at=None)


def hold_for_a_person(ledger: Ledger, run_id: str, batch: int, doubts: Collection[Doubt], reason: str) -> None:
    """Commit that nobody can tell whether these were taken, unless they have left once more meanwhile."""
    _move(ledger, run_id, batch, doubts, status=Status.HELD.value, reason=kept_text(reason), outcome_run=run_id)


def waited_for(ledger: Ledger, run_id: str, batch: int, doubts: Collection[Doubt]) -> None:
    """Commit that ``verify_after`` has passed since these were in doubt: what leaves from now on are witnesses."""
    if doubts:
        with ledger.write() as connection:
            waited = ledger.next_number(connection, _LEAVING)
            connection.execute(_unmoved(run_id, batch, doubts).values(waited_seq=waited))
            keep_alive(connection, run_id, batch)


def _move(ledger: Ledger, run_id: str, batch: int, doubts: Collection[Doubt], **values: object) -> None:
    with ledger.write() as connection:
        connection.execute(_unmoved(run_id, batch, doubts).values(values))
        keep_alive(connection, run_id, batch)


def _unmoved(run_id: str, batch: int, doubts: Collection[Doubt]) -> sa.Update:
    left = [
        sa.and_(
            orders.c.event_id == each.event_id,
            orders.c.left_seq == each.left,
            orders.c.sending_at == each.sending_at,
            orders.c.waited_seq.is_not_distinct_from(each.waited),
        )
        for each in doubts
    ]
    return sa.update(orders).where(*_held(run_id, batch), orders.c.status == Status.SENDING.value, sa.or_(*left))


def in_doubt(ledger: Ledger, run_id: str, batch: int) -> list[Doubt]:
    """The batch's orders in ``sending``, in the order in which they left: nobody knows what became of them."""
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(orders.c.event_id, orders.c.left_seq, orders.c.waited_seq, orders.c.sending_at)
            .where(*_held(run_id, batch), orders.c.status == Status.SENDING.value)
            .order_by(orders.c.left_seq, orders.c.event_id)
        )
        return [Doubt(*row) for row in rows]


def left_later(ledger: Ledger, after: int, most: int) -> dict[str, int]:
    """Event id to place among all that left, of sent orders behind a place: the first of them, and the last."""
    sent = sa.select(orders.c.event_id, orders.c.left_seq).where(
        orders.c.status == Status.SENT.value, orders.c.left_seq > after
    )
    with ledger.read() as connection:
        first = connection.execute(sent.order_by(orders.c.left_seq).limit(most)).tuples().all()
        last = connection.execute(sent.order_by(orders.c.left_seq.desc()).limit(most)).tuples().all()
    return dict(first) | dict(last)


def _held(run_id: str, batch: int) -> tuple[sa.ColumnElement[bool], ...]:
    return orders.c.claim_run == run_id, orders.c.claim_batch == batch


def unsent_after(ledger: Ledger, key: str, *, limit: int, claim_minutes: float) -> dict[str, str]:
    """Key to event id of the next unsent orders that no live run holds, by key.

    :param key: behind this one; empty: from the beginning.
    :param claim_minutes: a run that gave no sign of life for so long is not live.
    """
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(orders.c.key, orders.c.event_id)
            .where(_unsent(), held_by_no_live_run(claim_minutes), orders.c.key > key)
            .order_by(orders.c.key)
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
        take_turns(ledger, connection)
        marked = connection.scalars(
            sa.update(orders)
            .where(_unsent(), held_by_no_live_run(claim_minutes), orders.c.event_id.in_(event_ids))
            .values(
                status=Status.SENT.value,
                reason=None,
                next_attempt=None,
                sent_at=now,
                outcome_run=run_id,
                claim_run=None,
            )
            .returning(orders.c.key)
        )
        return len(marked.all())


def _unsent() -> sa.ColumnElement[bool]:
    return orders.c.status.in_([status.value for status in _UNSENT])
