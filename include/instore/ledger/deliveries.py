"""Ready to sent: ``sending`` is committed before a request leaves, and every answer is committed after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum

import sqlalchemy as sa

from include.instore.ledger.claims import HeldBatch, keep_alive
from include.instore.ledger.database import Ledger
from include.instore.ledger.suppressions import suppressed_among
from include.instore.ledger.tables import contents, deliveries, kept_text, orders, runs
from include.instore.model.codes import SUPPRESSED
from include.instore.model.states import DeliveryStatus, Status

_LEAVING = "leaving"


@dataclass(frozen=True)
class OutgoingBatch(HeldBatch):
    """A batch on its way to one destination."""

    destination: str


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
    """An event that was sent, and of which nobody knows whether it was accepted.

    :param left: its sequence number among all events that left, in the order of their commits.
    :param waited: an event with a higher number than this left at least ``verify_after`` later; None: the wait is not
        over.
    """

    event_id: str
    left: int
    waited: int | None
    sending_at: datetime


def ready_orders(ledger: Ledger, held: OutgoingBatch) -> list[str]:
    """Keys of the batch's orders that are ready for the destination, oldest first."""
    with ledger.read() as connection:
        return list(
            connection.scalars(
                sa.select(orders.c.key)
                .join(deliveries, deliveries.c.key == orders.c.key)
                .where(
                    *held.orders,
                    orders.c.status == Status.MATCHED.value,
                    *_at(held),
                    deliveries.c.status == DeliveryStatus.READY.value,
                )
                .order_by(orders.c.order_time, orders.c.key)
            )
        )


def mark_sending(ledger: Ledger, held: OutgoingBatch, keys: Sequence[str]) -> list[OutgoingOrder]:
    """Commit that these orders are about to leave, with the content they have now. Only those returned may.

    The others are no longer this run's, or of a person for whom nothing may be sent: those are suppressed.
    """
    with ledger.write() as connection:
        left = ledger.next_number(connection, _LEAVING)
        persons = {
            row.key: {row.card_hash, row.email_hash}
            for row in connection.execute(
                sa.select(orders.c.key, orders.c.card_hash, orders.c.email_hash)
                .where(*held.orders, orders.c.status == Status.MATCHED.value, orders.c.key.in_(keys))
                .order_by(orders.c.key)
                .with_for_update()
            )
        }
        ready = (*_at(held), deliveries.c.status == DeliveryStatus.READY.value, deliveries.c.key.in_(persons))
        # After the rows are locked, or one who is suppressed meanwhile would be missed by both.
        stopped = suppressed_among(connection, [each for hashes in persons.values() for each in hashes])
        kept_back = [key for key, hashes in persons.items() if stopped & hashes]
        if kept_back:
            connection.execute(
                sa.update(deliveries)
                .where(*ready, deliveries.c.key.in_(kept_back))
                .values(status=DeliveryStatus.SUPPRESSED.value, reason=SUPPRESSED, outcome_run=held.run_id)
            )
        marked = connection.scalars(
            sa.update(deliveries)
            .where(*ready)
            .values(
                status=DeliveryStatus.SENDING.value,
                attempts=deliveries.c.attempts + 1,
                sending_at=datetime.now(timezone.utc),
                left_seq=left,
                waited_seq=None,
                reason=None,
                # Frozen when it leaves for the first time.
                fingerprint=sa.func.coalesce(deliveries.c.fingerprint, _of_the_order("fingerprint")),
                email=sa.func.coalesce(deliveries.c.email, _of_the_order("email")),
            )
            .returning(deliveries.c.key)
        ).all()
        rows = connection.execute(
            sa.select(
                orders.c.key, deliveries.c.event_id, orders.c.order_type, orders.c.order_time,
                sa.case(
                    (deliveries.c.fingerprint == orders.c.fingerprint, orders.c.payload), else_=contents.c.payload
                ),
                deliveries.c.email, deliveries.c.attempts,
            )
            .join(deliveries, deliveries.c.key == orders.c.key)
            .outerjoin(
                contents,
                sa.and_(contents.c.key == orders.c.key, contents.c.fingerprint == deliveries.c.fingerprint),
            )
            .where(*_at(held), orders.c.key.in_(marked))
            .order_by(orders.c.order_time, orders.c.key)
        )  # fmt: skip
        return [OutgoingOrder(*row) for row in rows]


def _of_the_order(column: str) -> sa.ScalarSelect[str]:
    return sa.select(orders.c[column]).where(orders.c.key == deliveries.c.key).scalar_subquery()


class Renewed(str, Enum):
    """Whether events that were marked may leave once more."""

    YES = "yes"
    TAKEN_OVER = "another try of the task has them"
    SUPPRESSED = "a person among them has been suppressed meanwhile"


def renew_sending(ledger: Ledger, held: OutgoingBatch, attempts: Mapping[str, int]) -> Renewed:
    """Commit that these orders are about to leave now; where any must not, nothing is written.

    They keep the sequence number of the first time, and the wait for them begins again.

    :param attempts: event id to the order's attempts when it was marked: each marking counts one more, so the number
        tells whose ``sending`` it is.
    """
    with ledger.write() as connection:
        rows = connection.execute(
            sa.select(deliveries.c.event_id, deliveries.c.attempts, orders.c.card_hash, orders.c.email_hash)
            .join(orders, orders.c.key == deliveries.c.key)
            .where(*held.orders, *_sending(held), deliveries.c.event_id.in_(attempts))
            .order_by(orders.c.key)
            .with_for_update()
        ).all()
        if {row.event_id: row.attempts for row in rows} != dict(attempts):
            return Renewed.TAKEN_OVER
        if suppressed_among(connection, [each for row in rows for each in row[2:]]):
            return Renewed.SUPPRESSED
        connection.execute(
            sa.update(deliveries)
            .where(*_sending(held), deliveries.c.event_id.in_(attempts))
            .values(sending_at=datetime.now(timezone.utc), waited_seq=None)
        )
        keep_alive(connection, held)
        return Renewed.YES


def record_outcomes(
    ledger: Ledger,
    held: OutgoingBatch,
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
    mine = (*_sending(held), _of_held_orders(held))
    if attempts is not None:
        whose = [
            sa.and_(deliveries.c.event_id == event, deliveries.c.attempts == made) for event, made in attempts.items()
        ]
        mine = (*mine, sa.or_(sa.false(), *whose))
    open_still = [each.value for each in (DeliveryStatus.SENDING, DeliveryStatus.READY, DeliveryStatus.HELD)]
    with ledger.write() as connection:
        if sent:
            connection.execute(
                sa.update(deliveries)
                .where(
                    *_at(held),
                    _of_held_orders(held),
                    deliveries.c.status.in_(open_still),
                    deliveries.c.event_id.in_(sent),
                )
                .values(status=DeliveryStatus.SENT.value, reason=None, sent_at=now, outcome_run=held.run_id)
            )
        for event_id, reason in (rejected or {}).items():
            connection.execute(
                sa.update(deliveries)
                .where(*mine, deliveries.c.event_id == event_id)
                .values(status=DeliveryStatus.REJECTED.value, reason=kept_text(reason), outcome_run=held.run_id)
            )
        if unsent:
            connection.execute(
                sa.update(deliveries)
                .where(*mine, deliveries.c.event_id.in_(unsent))
                .values(status=DeliveryStatus.READY.value, sending_at=None, reason=None)
            )
        if truncated:
            connection.execute(
                sa.update(runs).where(runs.c.run_id == held.run_id).values(truncated=runs.c.truncated + truncated)
            )
        keep_alive(connection, held)


def give_back(ledger: Ledger, held: OutgoingBatch, doubts: Collection[Doubt]) -> None:
    """Commit that these were not taken by the destination: ready again, unless they have left once more meanwhile."""
    if doubts:
        _move(ledger, held, doubts, status=DeliveryStatus.READY.value, sending_at=None, reason=None)


def keep_in_doubt(ledger: Ledger, held: OutgoingBatch, doubts: Collection[Doubt], why: str) -> None:
    """Commit what keeps these in doubt, in a word of :mod:`include.instore.model.destinations`."""
    _move(ledger, held, doubts, reason=why)


def hold_for_a_person(ledger: Ledger, held: OutgoingBatch, doubts: Collection[Doubt], reason: str) -> None:
    """Commit that nobody can tell whether these were taken, unless they have left once more meanwhile."""
    _move(
        ledger, held, doubts,
        status=DeliveryStatus.HELD.value, reason=kept_text(reason), outcome_run=held.run_id,
    )  # fmt: skip


def waited_for(ledger: Ledger, held: OutgoingBatch, doubts: Collection[Doubt]) -> None:
    """Commit that ``verify_after`` has passed for these: events that are sent from now on are their witnesses."""
    if doubts:
        with ledger.write() as connection:
            waited = ledger.next_number(connection, _LEAVING)
            connection.execute(_unmoved(held, doubts).values(waited_seq=waited))
            keep_alive(connection, held)


def _move(ledger: Ledger, held: OutgoingBatch, doubts: Collection[Doubt], **values: object) -> None:
    with ledger.write() as connection:
        connection.execute(_unmoved(held, doubts).values(values))
        keep_alive(connection, held)


def _unmoved(held: OutgoingBatch, doubts: Collection[Doubt]) -> sa.Update:
    left = [
        sa.and_(
            deliveries.c.event_id == each.event_id,
            deliveries.c.left_seq == each.left,
            deliveries.c.sending_at == each.sending_at,
            deliveries.c.waited_seq.is_not_distinct_from(each.waited),
        )
        for each in doubts
    ]
    return sa.update(deliveries).where(*_sending(held), _of_held_orders(held), sa.or_(*left))


def in_doubt(ledger: Ledger, held: OutgoingBatch) -> list[Doubt]:
    """The batch's orders in ``sending``, in the order in which they left: nobody knows what became of them."""
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(
                deliveries.c.event_id, deliveries.c.left_seq, deliveries.c.waited_seq, deliveries.c.sending_at
            )
            .join(orders, orders.c.key == deliveries.c.key)
            .where(*held.orders, *_sending(held))
            .order_by(deliveries.c.left_seq, deliveries.c.event_id)
        )  # fmt: skip
        return [Doubt(*row) for row in rows]


def left_later(ledger: Ledger, destination: str, after: int, most: int) -> dict[str, int]:
    """Event id to sequence number of events sent after a number: the first ``most`` of them, and the last."""
    sent = sa.select(deliveries.c.event_id, deliveries.c.left_seq).where(
        deliveries.c.destination == destination,
        deliveries.c.status == DeliveryStatus.SENT.value,
        deliveries.c.left_seq > after,
    )
    with ledger.read() as connection:
        first = connection.execute(sent.order_by(deliveries.c.left_seq).limit(most)).tuples().all()
        last = connection.execute(sent.order_by(deliveries.c.left_seq.desc()).limit(most)).tuples().all()
    return dict(first) | dict(last)


def sent_by_the_previous_run(ledger: Ledger, destination: str, run_id: str, before: datetime, most: int) -> list[str]:
    """Event ids of some that the last run before this one that sent any sent there, before a moment."""
    sent = (deliveries.c.destination == destination, deliveries.c.status == DeliveryStatus.SENT.value)
    with ledger.read() as connection:
        begun = sa.select(runs.c.started_at).where(runs.c.run_id == run_id).scalar_subquery()
        previous = connection.scalar(
            sa.select(runs.c.run_id)
            .where(runs.c.started_at < begun, sa.exists().where(deliveries.c.outcome_run == runs.c.run_id, *sent))
            .order_by(runs.c.started_at.desc())
            .limit(1)
        )
        # By their ids, which are hashes: as good as a random sample.
        events = sa.select(deliveries.c.event_id).where(
            deliveries.c.outcome_run == previous, *sent, deliveries.c.sent_at <= before
        )
        return list(connection.scalars(events.order_by(deliveries.c.event_id).limit(most)))


def _at(held: OutgoingBatch) -> tuple[sa.ColumnElement[bool], ...]:
    """Deliveries, whoever has their orders."""
    return deliveries.c.destination == held.destination, deliveries.c.is_latest


def _sending(held: OutgoingBatch) -> tuple[sa.ColumnElement[bool], ...]:
    return (*_at(held), deliveries.c.status == DeliveryStatus.SENDING.value)


def _of_held_orders(held: OutgoingBatch) -> sa.ColumnElement[bool]:
    return sa.exists().where(orders.c.key == deliveries.c.key, *held.orders)
