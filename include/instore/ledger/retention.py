"""What is kept no longer than the settings say: removed in small commits, beside whatever else is at work.

Of an order its key, its fingerprints and what a rekey needs stay, so that it is known again however late it comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.keys import known_fields
from include.instore.ledger.tables import alerts, contents, customers, deliveries, orders, quarantine, runs
from include.instore.model.codes import SOFT
from include.instore.model.forgotten import without_person
from include.instore.model.settings import RetentionSettings
from include.instore.model.states import DeliveryStatus, RecordState, Status

_CHUNK = 100
_OTHERS = 4
"""Pauses are this many times as long as the chunk before took, so that a run at the same time is hardly slower."""
_OPEN = [each.value for each in (DeliveryStatus.READY, DeliveryStatus.SENDING, DeliveryStatus.HELD)]
_HAS_CONTENT = sa.func.length(quarantine.c.raw) > 0

Change = Callable[[sa.Connection, Sequence[str]], int]


@dataclass(frozen=True)
class Pruned:
    """How many rows lost their content, or were removed.

    :param given_up: quarantined records that nobody had settled until then: they can no longer be redriven.
    """

    orders: int
    contents: int
    customers: int
    quarantine: int
    given_up: int
    reports: int
    alerts: int


def prune(ledger: Ledger, settings: RetentionSettings) -> Pruned:
    """Forget what is older than the settings keep it. What still waits, or is in doubt or held, is never too old.

    :raises RetriableError: the ledger failed; what was removed before is removed.
    """
    given_up = 0

    def empty(connection: sa.Connection, ids: Sequence[str]) -> int:
        nonlocal given_up
        mine = quarantine.c.id.in_(ids)
        waits = connection.execute(
            sa.update(quarantine)
            .where(mine, quarantine.c.state == RecordState.QUARANTINED.value)
            .values(state=RecordState.DISCARDED.value)
        )
        given_up += waits.rowcount
        return connection.execute(sa.update(quarantine).where(mine).values(raw=b"", heading=None)).rowcount

    def removed(table: sa.Table, by: sa.Column[Any], days: float, *where: sa.ColumnElement[bool]) -> int:
        return in_chunks(
            ledger, by, where, days, lambda connection, ids: _delete(connection, table, by.in_(ids), *where)
        )

    arrived, late = (
        _before(settings.retention_days_payloads),
        sa.exists().where(orders.c.key == contents.c.key, orders.c.pruned_at.is_not(None)),
    )
    ended = sa.func.coalesce(runs.c.ended_at, runs.c.started_at) < _before(settings.retention_days_reports)
    return Pruned(
        orders=in_chunks(
            ledger, orders.c.key, (orders.c.received_at < arrived, *_done_with()), settings.retention_days_payloads,
            lambda connection, keys: forget_orders(connection, keys, _done_with()),
        ),
        contents=in_chunks(
            ledger, contents.c.key, (contents.c.received_at < arrived, contents.c.payload != "", late),
            settings.retention_days_payloads, _forget_contents,
        ),
        customers=removed(
            customers, customers.c.loyalty_card, settings.retention_days_customers,
            customers.c.expires_at < _before(settings.retention_days_customers),
        ),
        quarantine=in_chunks(
            ledger, quarantine.c.id,
            (quarantine.c.received_at < _before(settings.retention_days_quarantine), _HAS_CONTENT),
            settings.retention_days_quarantine, empty,
        ),
        given_up=given_up,
        reports=removed(runs, runs.c.run_id, settings.retention_days_reports, ended),
        alerts=removed(
            alerts, alerts.c.run, settings.retention_days_alerts,
            alerts.c.begun_at < _before(settings.retention_days_alerts),
            sa.or_(alerts.c.ended_run.is_not(None), alerts.c.cause.not_in(SOFT)),
        ),
    )  # fmt: skip


def in_chunks(
    ledger: Ledger, by: sa.Column[Any], where: Sequence[sa.ColumnElement[bool]], days: float, change: Change
) -> int:
    """Change rows a chunk a commit, in the order of a column; how many were.

    :param days: 0: none are.
    """
    changed, after = 0, ""
    while days:
        begun = time.monotonic()
        wanted = sa.select(by).where(by > after, *where).order_by(by).limit(_CHUNK).distinct()
        with ledger.read() as connection:
            ids = connection.scalars(wanted).all()
        if not ids:
            break
        with ledger.write() as connection:
            changed += change(connection, ids)
        after = ids[-1]
        time.sleep(_OTHERS * (time.monotonic() - begun))
    return changed


def forget_orders(connection: sa.Connection, keys: Sequence[str], where: Sequence[sa.ColumnElement[bool]] = ()) -> int:
    """Keep of these orders only what they are known again by; how many were changed."""
    rows = connection.execute(
        sa.select(orders.c.key, orders.c.payload)
        .where(orders.c.key.in_(keys), *where)
        .order_by(orders.c.key)
        .with_for_update()
    ).all()
    fields, now = known_fields(connection), datetime.now(timezone.utc)
    changes = [{"of": row.key, "rest": without_person(row.payload, fields)} for row in rows]
    if not changes:
        return 0
    connection.execute(
        sa.update(orders)
        .where(orders.c.key == sa.bindparam("of"))
        .values(payload=sa.bindparam("rest"), loyalty_card=None, email=None, pruned_at=now),
        changes,
    )
    mine = [row.key for row in rows]
    connection.execute(sa.update(deliveries).where(deliveries.c.key.in_(mine)).values(email=None))
    _forget_contents(connection, mine)
    return len(mine)


def _forget_contents(connection: sa.Connection, keys: Sequence[str]) -> int:
    return connection.execute(
        sa.update(contents).where(contents.c.key.in_(keys)).values(payload="", loyalty_card=None, email=None)
    ).rowcount


def _done_with() -> tuple[sa.ColumnElement[bool], ...]:
    """Orders that no run and no person has to do anything with."""
    going = sa.exists().where(deliveries.c.key == orders.c.key, deliveries.c.status.in_(_OPEN))
    searched = sa.or_(orders.c.status != Status.UNMATCHED.value, orders.c.next_attempt.is_(None))
    # Not IS NULL: SQLite would take the index of claims for it, and sort all orders by their keys for each chunk.
    idle = (orders.c.status != Status.PENDING.value, searched, sa.func.coalesce(orders.c.claim_run, "") == "")
    return orders.c.pruned_at.is_(None), *idle, sa.not_(going)


def _delete(connection: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    return connection.execute(sa.delete(table).where(*where)).rowcount


def _before(days: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(days=days)
