"""The customers behind loyalty cards: what was answered, for how long it holds, and what it means for an order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.claims import HeldBatch, keep_alive
from include.instore.ledger.database import Ledger
from include.instore.ledger.destinations import make_deliveries
from include.instore.ledger.suppressions import learn_from_answers, suppressed_among
from include.instore.ledger.tables import customers, orders, runs
from include.instore.model.states import CardOutcome, Status

_ASK_AGAIN_HOURS = (1, 6, 24)
"""An unmatched order is asked for again after these hours, then daily until it expires."""


_STATUS_OF: Mapping[str | None, Status] = {
    CardOutcome.MATCHED: Status.MATCHED,
    CardOutcome.SUPPRESSED: Status.SUPPRESSED,
}
_SEARCHED_ANEW = {"status": Status.PENDING.value, "reason": None, "next_attempt": None, "claim_run": None}


@dataclass(frozen=True)
class CardAnswer:
    """What one card's look-up came to; the card and the email stay out of its repr."""

    loyalty_card: str = field(repr=False)
    outcome: CardOutcome
    email: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Asking:
    """The cards of a batch: those to ask for, and how many are remembered."""

    cards: tuple[str, ...] = field(repr=False)
    cache_hits: int


def cards_to_ask(ledger: Ledger, held: HeldBatch) -> Asking:
    """Distinct cards of the batch's pending orders that need an answer, whether or not the order has an email."""
    now = datetime.now(timezone.utc)
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(orders.c.loyalty_card, sa.func.max(customers.c.expires_at))
            .outerjoin(customers, customers.c.loyalty_card == orders.c.loyalty_card)
            .where(*_pending(held), orders.c.loyalty_card.is_not(None))
            .group_by(orders.c.loyalty_card)
        ).all()
    stale = tuple(sorted(card for card, expires in rows if expires is None or expires <= now))
    return Asking(stale, len(rows) - len(stale))


def remember(
    ledger: Ledger, held: HeldBatch, answers: Iterable[CardAnswer], *, cache: timedelta, negative: timedelta
) -> None:
    """Keep a block of answers and count them, in one commit.

    :param cache: how long a matched card holds; ``negative``: how long the others do.
    """
    now = datetime.now(timezone.utc)
    answers = sorted(answers, key=lambda answer: answer.loyalty_card)
    rows = [
        {
            "loyalty_card": answer.loyalty_card,
            "outcome": str(answer.outcome),
            "email": answer.email if answer.outcome == CardOutcome.MATCHED else None,
            "asked_at": now,
            "expires_at": now + (cache if answer.outcome == CardOutcome.MATCHED else negative),
        }
        for answer in answers
    ]
    suppressed = [(answer.loyalty_card, answer.email) for answer in answers if answer.outcome == CardOutcome.SUPPRESSED]
    active = [answer.loyalty_card for answer in answers if answer.outcome == CardOutcome.MATCHED]
    if not rows:
        return
    statement = ledger.insert(customers)
    statement = statement.on_conflict_do_update(
        index_elements=["loyalty_card"],
        set_={name: statement.excluded[name] for name in ("outcome", "email", "asked_at", "expires_at")},
    )
    with ledger.write() as connection:
        connection.execute(statement, rows)
        learn_from_answers(ledger, connection, held.run_id, suppressed, active, now)
        connection.execute(
            sa.update(runs).where(runs.c.run_id == held.run_id).values(looked_up=runs.c.looked_up + len(rows))
        )
        keep_alive(connection, held)


def settle_customers(
    ledger: Ledger,
    held: HeldBatch,
    *,
    asked_after: datetime,
    cache_hits: int,
    expiry: timedelta,
    own_email_after: Collection[str] = (),
) -> None:
    """Move the batch's pending orders to matched, unmatched or suppressed, by what is known of their cards.

    Those matched are ready for their destinations in the same commit. An order whose card has no answer of this asking
    stays pending, whatever email it has.

    :param asked_after: answers that expired before this moment do not count.
    :param expiry: how long after its arrival an unmatched order is asked for again.
    :param own_email_after: outcomes of a card after which the order's own email, if it has one, is its customer's.
    """
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        rows = connection.execute(
            sa.select(
                orders.c.key, orders.c.event_id, orders.c.received_at, orders.c.look_ups, orders.c.loyalty_card,
                orders.c.email, orders.c.card_hash, customers.c.outcome, customers.c.email.label("customer_email"),
            )
            .outerjoin(
                customers,
                sa.and_(customers.c.loyalty_card == orders.c.loyalty_card, customers.c.expires_at > asked_after),
            )
            .where(*_pending(held))
            .order_by(orders.c.key)
            .with_for_update(of=orders)  # nobody takes the batch over before this is written
        ).all()  # fmt: skip
        hashes = {email: ledger.keyed_hash(email) for row in rows for email in (row.email, row.customer_email) if email}
        stopped = suppressed_among(connection, [*hashes.values(), *(row.card_hash for row in rows)])
        updates = [
            _settled(row, now, hashes, stopped, expiry, own_email_after)
            for row in rows
            if row.loyalty_card is None or row.outcome is not None
        ]
        if updates:
            found = {row.key: (row.event_id, row.received_at) for row in rows}
            matched_now = [each["order"] for each in updates if each["to_status"] == Status.MATCHED.value]
            make_deliveries(ledger, connection, {key: found[key] for key in matched_now})
            connection.execute(
                sa.update(orders)
                .where(orders.c.key == sa.bindparam("order"), *_pending(held))
                .values(
                    status=sa.bindparam("to_status"),
                    reason=sa.bindparam("why"),
                    email=sa.bindparam("customer"),
                    email_hash=sa.bindparam("customer_hash"),
                    next_attempt=sa.bindparam("again"),
                    look_ups=sa.bindparam("rounds"),
                    resolved_run=held.run_id,
                ),
                updates,
            )
        connection.execute(
            sa.update(runs).where(runs.c.run_id == held.run_id).values(cache_hits=runs.c.cache_hits + cache_hits)
        )
        keep_alive(connection, held)


def _settled(
    row: sa.Row[Any],
    now: datetime,
    hashes: Mapping[str, str],
    stopped: Collection[str],
    expiry: timedelta,
    own_email_after: Collection[str],
) -> dict[str, Any]:
    """What one order becomes, by the answer about its card or by its own email.

    :param hashes: of the addresses. :param stopped: hashes of people for whom nothing may be sent.
    """
    outcome, email = row.outcome, row.customer_email
    if row.email is not None and (row.loyalty_card is None or outcome in own_email_after):
        outcome, email = CardOutcome.MATCHED.value, row.email
    if row.card_hash in stopped or hashes.get(email or "") in stopped:
        outcome = CardOutcome.SUPPRESSED.value
    matched = outcome == CardOutcome.MATCHED
    status = _STATUS_OF.get(outcome, Status.UNMATCHED)
    # Of a suppressed person's order its own address stays, by which later ones are known.
    customer = email if matched else row.email
    return {
        "order": row.key,
        "to_status": status.value,
        "why": None if matched else outcome,
        "customer": customer,
        "customer_hash": hashes.get(customer or ""),
        "again": _ask_again(now, row.received_at, row.look_ups, expiry) if status is Status.UNMATCHED else None,
        "rounds": row.look_ups + (not matched),
    }


def search_again(ledger: Ledger, reason: str = "", keys: Sequence[str] = (), *, dry_run: bool) -> int:
    """Have the next run search the customers of unmatched orders; how many there are.

    :param reason: of all that are unmatched for it. :param keys: of these orders instead.
    """
    named = orders.c.key.in_(keys) if keys else orders.c.reason == reason
    which = (orders.c.status == Status.UNMATCHED.value, named, orders.c.loyalty_card.is_not(None))
    with ledger.write() as connection:
        count = connection.scalar(sa.select(sa.func.count()).select_from(orders).where(*which)) or 0
        if not dry_run:
            cards = sa.select(orders.c.loyalty_card).where(*which)
            connection.execute(sa.delete(customers).where(customers.c.loyalty_card.in_(cards)))
            connection.execute(sa.update(orders).where(*which).values(_SEARCHED_ANEW))
    return count


def _pending(held: HeldBatch) -> tuple[sa.ColumnElement[bool], ...]:
    return *held.orders, orders.c.status == Status.PENDING.value


def _ask_again(now: datetime, received_at: datetime, look_ups: int, expiry: timedelta) -> datetime | None:
    hours = _ASK_AGAIN_HOURS[min(look_ups, len(_ASK_AGAIN_HOURS) - 1)]
    again = now + timedelta(hours=hours)
    return again if again <= received_at + expiry else None
