"""Sending again what was sent: a few events at once, and many by a stored list that a person approves as a whole."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.editions import order_editions, to_be_sent_again
from include.instore.ledger.tables import (
    contents,
    deliveries,
    kept_text,
    orders,
    resend_events,
    resends,
)
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import Settings
from include.instore.model.states import ContentState
from include.instore.model.windows import RESEND_DAG, Run

EXPIRES = timedelta(days=1)
_sent = deliveries.join(orders, orders.c.key == deliveries.c.key)


@dataclass(frozen=True)
class ResendList:
    """Events to be sent again. :param digest: sha256 of their ids, sorted, a line each."""

    id: str
    made_at: datetime
    made_by: str
    events: int
    digest: str


def resend(
    ledger: Ledger, settings: Settings, which: Sequence[sa.ColumnElement[bool]], who: str, *, dry_run: bool
) -> tuple[int, ResendList | None]:
    """Have the next run send the latest content of these again; more than may be without approval become a list.

    :param which: conditions on deliveries and their orders; of them only the latest editions that were sent count.
    :param dry_run: only count them.
    """
    now = datetime.now(timezone.utc)
    run = Run(f"resend__{now.isoformat()}", "manual", None, False, False, "own", resend=True)
    its = (*which, orders.c.pruned_at.is_(None))
    with ledger.write() as connection:
        wanted = sa.select(deliveries.c.event_id).select_from(_sent).where(to_be_sent_again(run), *its)
        ids = connection.scalars(wanted).all()
        if dry_run or not ids:
            return len(ids), None
        if len(ids) > settings.sending.resend_approval:
            return len(ids), _stored(connection, ids, who, now)
        order_editions(ledger, connection, run, its, now)
    return len(ids), None


def sent_ones(
    *, corrected: bool = False, day: str = "", store: str = "", run: str = "", events: Sequence[str] = ()
) -> list[sa.ColumnElement[bool]]:
    """Conditions on what is sent again, all of which hold; ``events`` are ids of what was sent."""
    late = sa.select(contents.c.key).where(contents.c.state == ContentState.AFTER_SENDING.value)
    asked = (
        (corrected, orders.c.key.in_(late)), (day, orders.c.day == day), (store, orders.c.store_id == store),
        (run, deliveries.c.outcome_run == run), (events, deliveries.c.event_id.in_(events)),
    )  # fmt: skip
    return [condition for given, condition in asked if given]


def approved_list(ledger: Ledger, id: str, digest: str = "") -> ResendList:
    """The list, if it may be sent still.

    :param digest: of what was approved; empty: nobody was asked yet.
    :raises ConfigurationError: there is none, it is older than a day, or it is not the one that was approved.
    """
    its = sa.select(resend_events.c.event_id).where(resend_events.c.resend == id)
    with ledger.read() as connection:
        row = connection.execute(sa.select(resends).where(resends.c.id == id)).first()
        now_in_it = digest_of(connection.scalars(its))
    if row is None:
        raise ConfigurationError(
            f"There is no list of events {kept_text(id)[:36]!r}; make one on the page or by `orders resend`, and give "
            f"its id as param resend_list of DAG {RESEND_DAG}."
        )
    found = ResendList(*row)
    if found.made_at + EXPIRES < datetime.now(timezone.utc):
        raise ConfigurationError(f"The list of {found.events} events is older than a day and expired; make it again.")
    if now_in_it != found.digest or digest not in ("", found.digest):
        raise ConfigurationError("The list is not the one that was approved; nothing was sent. Make it again.")
    return found


def list_in_words(ledger: Ledger, found: ResendList) -> str:
    """What a person has to know of a list before she approves it."""
    days = sa.select(
        sa.func.count(orders.c.key.distinct()), sa.func.min(orders.c.day), sa.func.max(orders.c.day),
        sa.func.count(orders.c.store_id.distinct()),
    )  # fmt: skip
    listed = sa.select(resend_events.c.event_id).where(resend_events.c.resend == found.id)
    with ledger.read() as connection:
        count, first, last, stores = (
            connection.execute(days.select_from(_sent).where(deliveries.c.event_id.in_(listed))).tuples().one()
        )
    return (
        f"{found.events} events of {count} orders of {stores} stores, from {first} to {last}, each beside the one that "
        f"was sent before. Listed by {found.made_by} at {found.made_at:%Y-%m-%d %H:%M} UTC; it expires after a day. "
        f"Digest {found.digest}."
    )


def digest_of(event_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(event_ids)).encode()).hexdigest()


def _stored(connection: sa.Connection, event_ids: Sequence[str], who: str, now: datetime) -> ResendList:
    made = ResendList(str(uuid.uuid4()), now, kept_text(who)[:64], len(event_ids), digest_of(event_ids))
    connection.execute(sa.insert(resends), asdict(made))
    connection.execute(sa.insert(resend_events), [{"resend": made.id, "event_id": each} for each in event_ids])
    return made
