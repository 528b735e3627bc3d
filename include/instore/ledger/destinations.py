"""Which destinations are on, and which orders go there: a delivery is made where an order's customer is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import deliveries, destinations, orders
from include.instore.model.events import first_event_id
from include.instore.model.states import DeliveryStatus, Status
from include.instore.model.windows import Run


def switch_destinations(ledger: Ledger, names: Sequence[str]) -> None:
    """Write down which destinations are on: orders received from now on go to a new one.

    One that was on before goes on with what is received from now on, and what a backfill names.
    """
    wanted = sa.select(destinations.c.name, destinations.c.is_on)
    with ledger.read() as connection:
        known = dict(connection.execute(wanted).tuples().all())
    if {name for name, is_on in known.items() if is_on} == set(names):
        return
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        connection.execute(sa.update(destinations).where(destinations.c.name.not_in(names)).values(is_on=False))
        for name in names:
            if not known.get(name):
                statement = ledger.insert(destinations).values(name=name, since=now, is_on=True)
                statement = statement.on_conflict_do_update(
                    index_elements=["name"], set_={"since": now, "is_on": True}, where=sa.not_(destinations.c.is_on)
                )
                connection.execute(statement)


def destinations_on(ledger: Ledger) -> list[str]:
    """Names of those that are on."""
    with ledger.read() as connection:
        return list(
            connection.scalars(sa.select(destinations.c.name).where(destinations.c.is_on).order_by(destinations.c.name))
        )


def cancel_switched_off(connection: sa.Connection, run_id: str) -> None:
    """What waits for a destination that was switched off does not leave any more; what is in doubt a person decides."""
    off = sa.select(destinations.c.name).where(sa.not_(destinations.c.is_on))
    for found, left in (
        (DeliveryStatus.READY, DeliveryStatus.CANCELLED),
        (DeliveryStatus.SENDING, DeliveryStatus.HELD),
    ):
        connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.status == found.value, deliveries.c.destination.in_(off))
            .values(status=left.value, reason="its destination was switched off", outcome_run=run_id)
        )


def make_deliveries(ledger: Ledger, connection: sa.Connection, found: Mapping[str, tuple[str, datetime]]) -> None:
    """Orders whose customer has been found are ready for every destination that is on and was when they came.

    :param found: key to the order's event id and when it was received.
    """
    on = connection.execute(
        sa.select(destinations.c.name, destinations.c.since).where(destinations.c.is_on).order_by(destinations.c.name)
    ).all()
    rows = [
        ready_for(name, key, first_event_id(event_id, name))
        for name, since in on
        for key, (event_id, received_at) in found.items()
        if received_at >= since
    ]
    if rows:
        connection.execute(ledger.insert(deliveries).on_conflict_do_nothing(), rows)


def order_first_deliveries(
    ledger: Ledger, connection: sa.Connection, run: Run, which: Sequence[sa.ColumnElement[bool]]
) -> None:
    """Make these orders ready for the destination that the run names, where they have never been."""
    there = sa.exists().where(deliveries.c.key == orders.c.key, deliveries.c.destination == run.destination)
    new = sa.select(orders.c.key, orders.c.event_id).where(
        orders.c.status == Status.MATCHED.value, sa.not_(there), *which
    )
    name = str(run.destination)
    rows = [ready_for(name, key, first_event_id(event, name)) for key, event in connection.execute(new).tuples()]
    if rows:
        connection.execute(ledger.insert(deliveries).on_conflict_do_nothing(), rows)
    connection.execute(
        sa.update(deliveries)
        .where(
            deliveries.c.destination == run.destination,
            deliveries.c.status == DeliveryStatus.CANCELLED.value,
            deliveries.c.key.in_(sa.select(orders.c.key).where(*which)),
        )
        .values(status=DeliveryStatus.READY.value, reason=None, outcome_run=None)
    )


def ready_for(destination: str, key: str, event_id: str, edition: int = 1) -> dict[str, Any]:
    """The row of an edition that is ready for a destination."""
    return {
        "key": key,
        "destination": destination,
        "edition": edition,
        "is_latest": True,
        "event_id": event_id,
        "status": DeliveryStatus.READY.value,
        "attempts": 0,
    }
