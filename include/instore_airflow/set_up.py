"""What Airflow must have before the first run: the pools, in its metadata database, sized by the settings.

A task whose pool does not exist is never started; Airflow says so on the DAG's page only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from include.instore.model.errors import ConfigurationError
from include.instore_airflow.connections import CONNECTIONS, get_connection

if TYPE_CHECKING:
    from include.instore.model.settings import Settings

POOL_BUS = "instore_bus"
POOL_LOYALTY = "instore_loyalty"
POOL_PROFILE_STORE = "instore_profile_store"


@dataclass(frozen=True)
class Found:
    """One thing a run needs.

    :param what: ``pool`` or ``connection``.
    :param detail: of a pool its slots; of a missing connection what it has to be.
    """

    what: Literal["pool", "connection"]
    name: str
    state: Literal["created", "changed", "as it was", "there", "missing"]
    detail: str


def pools(settings: Settings) -> dict[str, tuple[int, str]]:
    """Slots and description of each pool the DAG names."""
    return {
        POOL_BUS: (settings.pool_bus, "Drains of the orders topic at once"),
        POOL_LOYALTY: (settings.pool_loyalty, "Tasks that ask the loyalty API at once"),
        POOL_PROFILE_STORE: (settings.pool_profile_store, "Tasks that send to the Profile Store at once"),
    }


def set_up(settings: Settings, *, dry_run: bool) -> list[Found]:
    """Make the pools, and say which connections are missing."""
    return [*_make_pools(settings, dry_run), *_connections()]


def _make_pools(settings: Settings, dry_run: bool) -> list[Found]:
    from airflow.models.pool import Pool

    made = []
    for name, (slots, description) in pools(settings).items():
        there = Pool.get_pool(name)
        detail = f"slots: {slots}"
        if there is None:
            made.append(Found("pool", name, "created", detail))
        elif there.slots != slots:
            made.append(Found("pool", name, "changed", f"{detail}, before: {there.slots}"))
        else:
            made.append(Found("pool", name, "as it was", detail))
        if not dry_run and made[-1].state != "as it was":
            Pool.create_or_update_pool(name, slots, description, include_deferred=False)
    return made


def _connections() -> list[Found]:
    found = []
    for conn_id, kind in CONNECTIONS.items():
        try:
            get_connection(conn_id)
        except ConfigurationError:
            found.append(Found("connection", conn_id, "missing", kind))
        else:
            found.append(Found("connection", conn_id, "there", ""))
    return found
