"""Persons nothing may be sent for, known by keyed hashes of card and email (design.md, invariant 8).

Suppressing writes the hashes first and moves that person's unsent orders after; marking as sending moves the order
first and reads the hashes after. So whichever commits first, the other one sees it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.keys import written_once
from include.instore.ledger.tables import deliveries, orders, suppressions
from include.instore.model.codes import SUPPRESSED
from include.instore.model.errors import ConfigurationError
from include.instore.model.states import DeliveryStatus, Status

COMMAND = "command"
FILE = "file"
LOYALTY = "loyalty"
"""Source of what a loyalty answer says: a later answer about the same card lifts it."""

ERASURE = "erasure"
"""Source of what is said by an erasure: only a command lifts it, and nothing of the person is kept any more."""

_SOURCES = (ERASURE, COMMAND, FILE, LOYALTY)
"""Where several cover one person, the first of this order is reported: it is the last one to be lifted."""

PLACEHOLDER_CARDS = 5
"""An address on the orders of more cards than this belongs to no person: it is the till's, or a placeholder."""

_NOT_FOUND_YET = (Status.PENDING.value, Status.UNMATCHED.value)
_CHECK = "hash_key"


def check_hash_key(ledger: Ledger) -> None:
    """Note in a new ledger by which key it hashes. :raises ConfigurationError: it was another one until now."""
    mine = ledger.keyed_hash("check")
    if written_once(ledger, _CHECK, lambda _: mine) != mine:
        raise ConfigurationError(
            "The key of connection instore_hash_key is not the one the ledger's suppressions were made with, so nobody "
            "would be known as suppressed; put the old one back."
        )


def person_hashes(ledger: Ledger, card: str | None, email: str | None) -> dict[str, str | None]:
    """The columns of an order by which its person is known."""
    return {
        "card_hash": ledger.keyed_hash(card) if card else None,
        "email_hash": ledger.keyed_hash(email) if email else None,
    }


def suppressed_among(connection: sa.Connection, hashes: Iterable[str | None]) -> set[str]:
    """Those of the hashes that are of a person nothing may be sent for."""
    asked = {each for each in hashes if each}
    if not asked:
        return set()
    return set(connection.scalars(sa.select(suppressions.c.hash).where(suppressions.c.hash.in_(asked))))


def learn_from_answers(
    ledger: Ledger,
    connection: sa.Connection,
    run_id: str,
    suppressed: Collection[tuple[str, str | None]],
    active: Collection[str],
    now: datetime,
) -> None:
    """Suppress persons, and lift suppressions, by a block of loyalty answers.

    :param suppressed: cards of persons nothing may be sent for, each with the address of the answer. It covers the
        card, that address, and the addresses on the orders of the card.
    :param active: cards that were answered otherwise: what an earlier answer about them said is lifted.
    """
    if active:
        hashes = [ledger.keyed_hash(card) for card in active]
        connection.execute(
            sa.delete(suppressions).where(suppressions.c.source == LOYALTY, suppressions.c.learnt_from.in_(hashes))
        )
    rows = []
    for card, email in suppressed:
        by = ledger.keyed_hash(card)
        covered = {by, *_addresses(connection, by), *([ledger.keyed_hash(email)] if email else [])}
        rows += [
            {"hash": each, "source": LOYALTY, "learnt_from": by, "cause": SUPPRESSED, "since": now}
            for each in sorted(covered)
        ]
    if rows:
        connection.execute(ledger.insert(suppressions).on_conflict_do_nothing(), rows)
        _stop(connection, run_id, {str(row["hash"]) for row in rows})


@dataclass(frozen=True)
class Suppressed:
    """One card or address that nothing may be sent for; ``id`` is its keyed hash."""

    id: str
    source: str
    cause: str
    since: datetime


def list_suppressed(ledger: Ledger, limit: int) -> list[Suppressed]:
    """The last ones, for whatever reason."""
    named = (suppressions.c.hash, suppressions.c.source, suppressions.c.cause, suppressions.c.since)
    with ledger.read() as connection:
        rows = connection.execute(sa.select(*named).order_by(suppressions.c.since.desc(), named[0]).limit(limit))
        return [Suppressed(*row) for row in rows]


def by_source(
    connection: sa.Connection, counted: Collection[sa.Column[Any]], of: sa.FromClause, *where: sa.ColumnElement[bool]
) -> Counter[str]:
    """Suppressed orders, or their deliveries, by who said so: ``suppressed`` where it is lifted by now.

    :param counted: the columns that name one. :param of: orders, with whatever is joined.
    """
    persons = of.outerjoin(suppressions, suppressions.c.hash.in_([orders.c.card_hash, orders.c.email_hash]))
    said: dict[tuple[Any, ...], set[str]] = {}
    for *key, source in connection.execute(
        sa.select(*counted, suppressions.c.source).select_from(persons).where(*where)
    ):
        said.setdefault(tuple(key), set()).add(source)
    return Counter(next((each for each in _SOURCES if each in sources), SUPPRESSED) for sources in said.values())


def suppress(ledger: Ledger, persons: Iterable[str], cause: str, source: str = COMMAND) -> int:
    """Commit that nothing may be sent for these cards and addresses, and the addresses on the cards' orders.

    :param source: :data:`COMMAND` or :data:`FILE`.
    """
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        hashes = {ledger.keyed_hash(each) for each in persons}
        covered = hashes.union(*(_addresses(connection, each) for each in hashes))
        rows = [{"hash": each, "source": source, "learnt_from": "", "cause": cause, "since": now} for each in covered]
        if rows:
            rows.sort(key=itemgetter("hash"))
            connection.execute(ledger.insert(suppressions).on_conflict_do_nothing(), rows)
        _stop(connection, f"{COMMAND}__{now.isoformat()}", covered)
    return len(covered)


def lift(ledger: Ledger, ids: Collection[str]) -> int:
    """Commit that these may get something again, and have what was kept back for them searched and sent.

    What another suppression covers as well is kept back again by the run that takes it up.
    """
    theirs = sa.or_(orders.c.card_hash.in_(ids), orders.c.email_hash.in_(ids))
    with ledger.write() as connection:
        keys = connection.scalars(sa.select(orders.c.key).where(theirs).order_by(orders.c.key).with_for_update()).all()
        lifted = connection.execute(sa.delete(suppressions).where(suppressions.c.hash.in_(ids))).rowcount
        connection.execute(
            sa.update(orders)
            .where(orders.c.key.in_(keys), orders.c.status == Status.SUPPRESSED.value)
            .values(status=Status.PENDING.value, reason=None, claim_run=None)
        )
        connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.key.in_(keys), deliveries.c.status == DeliveryStatus.SUPPRESSED.value)
            .values(status=DeliveryStatus.READY.value, reason=None, outcome_run=None)
        )
    return lifted


def _addresses(connection: sa.Connection, card_hash: str) -> set[str]:
    """Hashes of the addresses on the card's orders, without those that belong to no person."""
    other = orders.alias()
    cards = (
        sa.select(sa.func.count(other.c.card_hash.distinct()))
        .where(other.c.email_hash == orders.c.email_hash)
        .scalar_subquery()
    )
    wanted = sa.select(orders.c.email_hash).where(
        orders.c.card_hash == card_hash, orders.c.email_hash.is_not(None), cards <= PLACEHOLDER_CARDS
    )
    return {each for each in connection.scalars(wanted.distinct()) if each}


def _stop(connection: sa.Connection, run_id: str, hashes: Collection[str]) -> None:
    """Suppress what was not sent yet for these persons; what is ``sending`` has left, or is in doubt."""
    theirs = sa.or_(orders.c.card_hash.in_(hashes), orders.c.email_hash.in_(hashes))
    # The orders first, and locked: whoever marks one as sending holds its row until the hashes are read.
    keys = connection.scalars(sa.select(orders.c.key).where(theirs).order_by(orders.c.key).with_for_update()).all()
    stop_orders(connection, run_id, keys)


def stop_orders(connection: sa.Connection, run_id: str, keys: Collection[str]) -> None:
    """Suppress these orders and their ready deliveries. Their rows must be locked."""
    connection.execute(
        sa.update(orders)
        .where(orders.c.key.in_(keys), orders.c.status.in_(_NOT_FOUND_YET))
        .values(status=Status.SUPPRESSED.value, reason=SUPPRESSED, next_attempt=None, resolved_run=run_id)
    )
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.key.in_(keys), deliveries.c.status == DeliveryStatus.READY.value)
        .values(status=DeliveryStatus.SUPPRESSED.value, reason=SUPPRESSED, outcome_run=run_id)
    )
