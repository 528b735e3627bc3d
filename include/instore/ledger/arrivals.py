"""When orders come: how many of each feed and store in each hour, for six weeks.

By the hour in which the source published them, so that an hour in which nothing was fetched is none in which nothing
came. A row an hour and store is little enough to be read whole by every report.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import arrivals, runs, stores

KEPT_HOURS = 6 * 7 * 24
_NAMED = 20
"""So many new stores a line of the log names."""

log = logging.getLogger(__name__)


class Arrived(NamedTuple):
    """Orders of one store that came by one feed in one hour.

    :param hour: since 1970.
    :param feed: ``topic`` or ``extract``.
    """

    hour: int
    feed: str
    store: str
    orders: int


@dataclass(frozen=True)
class Silence:
    """Of a feed or a store: it has brought no order for too long.

    :param hours: full hours without one, but for those in which there never is one.
    :param missed: orders that usually come in these; None without a past.
    :param longest: the most such hours in a row, in its past, that ended on this weekday; None: there were none.
    """

    hours: int
    missed: float | None = None
    longest: int | None = None
    weekday: str = ""


def hour_of(moment: datetime) -> int:
    """Hours since 1970."""
    return int(moment.timestamp() // 3600)


def note_arrivals(ledger: Ledger, connection: sa.Connection, came: Iterable[tuple[datetime, str, str]]) -> None:
    """Count orders, each by when it was published, its feed and its store, in the transaction that lands them."""
    counted = Counter((hour_of(moment), feed, store) for moment, feed, store in came)
    if not counted:
        return
    # In one order for all processes, and the last thing they write: two that land for one store do not wait in a ring.
    rows = [Arrived(*key, count)._asdict() for key, count in sorted(counted.items())]
    values = [{"source": row.pop("feed"), "store_id": row.pop("store"), **row} for row in rows]
    statement = ledger.insert(arrivals)
    statement = statement.on_conflict_do_update(
        index_elements=["hour", "source", "store_id"],
        set_={"orders": arrivals.c.orders + statement.excluded.orders},
    )
    connection.execute(statement, values)


def note_stores(ledger: Ledger, connection: sa.Connection, run_id: str, of_block: Iterable[str]) -> None:
    """Keep which run brought each store's first order, in the transaction that lands them."""
    rows = [{"store_id": store, "first_run": run_id} for store in sorted(of_block)]
    statement = ledger.insert(stores).on_conflict_do_nothing().returning(stores.c.store_id)
    if rows and (new := connection.scalars(statement.values(rows)).all()):
        log.info("first orders of %d stores: %s", len(new), ", ".join(sorted(new)[:_NAMED]))


def recent_arrivals(ledger: Ledger, now: datetime) -> list[Arrived]:
    """What came in the last six weeks; what is older is forgotten."""
    since = hour_of(now) - KEPT_HOURS
    with ledger.write() as connection:
        connection.execute(sa.delete(arrivals).where(arrivals.c.hour < since))
        return [Arrived(*row) for row in connection.execute(sa.select(arrivals).order_by(arrivals.c.hour))]


def first_run_at(ledger: Ledger) -> datetime:
    """When the ledger's first run began."""
    with ledger.read() as connection:
        moment: datetime = connection.execute(sa.select(sa.func.min(runs.c.started_at))).scalar_one()
    return moment
