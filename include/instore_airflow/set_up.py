"""What must be there before the first run, and after each release: Airflow's pools, and a ledger of this release.

A task whose pool does not exist is never started; Airflow says so on the DAG's page only. A task never migrates a
ledger that is in use: it refuses one of another release.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from include.instore.model.errors import ConfigurationError
from include.instore_airflow.connections import (
    CONNECTIONS,
    HASH_KEY,
    LEDGER,
    PROFILE_STORE,
    SERVICE_BUS,
    get_connection,
    ledger_as_it_is,
    service_bus_admin,
    translated,
)
from include.instore_airflow.destinations import DESTINATIONS

if TYPE_CHECKING:
    from include.instore.model.settings import BusSettings, PoolSettings, Settings

POOL_BUS = "instore_bus"
POOL_LOYALTY = "instore_loyalty"


@dataclass(frozen=True)
class Found:
    """One thing a run needs.

    :param what: ``pool``, ``connection``, ``ledger``, ``subscription``, or ``read-back`` of a destination.
    :param detail: of a pool its slots; of a missing connection what it has to be; of a ledger the revision it had; of
        the subscription what becomes of messages that expire on it.
    """

    what: Literal["pool", "connection", "ledger", "subscription", "read-back"]
    name: str
    state: Literal["created", "changed", "as it was", "there", "missing", "not known"]
    detail: str


def pool_of(destination: str) -> str:
    """The pool of the tasks that send to a destination."""
    return f"instore_{destination}"


def pools(settings: PoolSettings) -> dict[str, tuple[int, str]]:
    """Slots and description of each pool the DAG names."""
    return {
        POOL_BUS: (settings.pool_bus, "Drains of the orders topic at once"),
        POOL_LOYALTY: (settings.pool_loyalty, "Tasks that ask the loyalty API at once"),
        **{pool_of(name): (settings.pool_profile_store, f"Tasks that send to {name} at once") for name in DESTINATIONS},
    }


def set_up(settings: Settings, *, dry_run: bool) -> list[Found]:
    """Make the pools, say which connections are missing, and bring the ledger to this release where it can be opened.

    :raises ConfigurationError: the ledger is of a newer release. :raises RetriableError: it cannot be reached.
    """
    found = [*_make_pools(settings.pools, dry_run), *_connections()]
    missing = {each.name for each in found if each.state == "missing"}
    if PROFILE_STORE not in missing:
        found.append(_reading_side())
    if not missing & {LEDGER, HASH_KEY}:
        found.append(_migrate(settings, dry_run))
    if settings.runs.use_topic and SERVICE_BUS not in missing:
        found.append(_subscription(settings.bus))
    return found


def _subscription(settings: BusSettings) -> Found:
    from include.instore.sources.bus import keeps_expired

    try:
        admin = service_bus_admin()
        keeps = keeps_expired(admin, settings) if admin else None
    except (ValueError, TypeError):  # the tasks say what is wrong with the connection string
        keeps = None
    answers: dict[bool | None, tuple[Literal["there", "missing", "not known"], str]] = {
        True: ("there", "on"),
        False: ("missing", "off; a message that expires unread is gone: switch it on"),
        None: ("not known", "only a key with the Manage right may ask"),
    }
    state, detail = answers[keeps]
    name = f"{settings.topic}/{settings.subscription}"
    return Found("subscription", name, state, f"dead-lettering on expiration: {detail}")


def _reading_side() -> Found:
    from instore_provider.hooks.profile_store import ProfileStoreHook

    detail = "off: read_host is empty, so an event in doubt cannot be asked for; it is held for a person to decide"
    try:
        with translated(), contextlib.closing(ProfileStoreHook(PROFILE_STORE)) as hook:
            if hook.reads_back:
                return Found("read-back", PROFILE_STORE, "there", "")
    except ConfigurationError as error:
        detail = str(error)
    return Found("read-back", PROFILE_STORE, "missing", detail)


def _migrate(settings: Settings, dry_run: bool) -> Found:
    with contextlib.closing(ledger_as_it_is()) as ledger:
        found = ledger.migrate(settings.orders.store_timezone, dry_run=dry_run)
        newest = ledger.newest_revision()
    state: Literal["created", "changed", "as it was"]
    state = "created" if not found else "as it was" if found == newest else "changed"
    return Found("ledger", LEDGER, state, f"revision: {newest}" + (f", before: {found}" if state == "changed" else ""))


def _make_pools(settings: PoolSettings, dry_run: bool) -> list[Found]:
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
