"""Whose ledger this is, and by which key it knows its orders: written into it once, and changed by command only."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import contents, deliveries, editions, orders, pipeline, quarantine
from include.instore.model.codes import COLLISION
from include.instore.model.errors import ConfigurationError, RecordRefused
from include.instore.model.order_keys import key_fields, order_key
from include.instore.model.orders import order_of_payload
from include.instore.model.settings import Settings
from include.instore.model.states import RecordState

_SETTING = "order_key"
_BEFORE_KEYS = "orderNumber"
"""What a ledger was keyed by before this was written into it."""
_ON_THE_WAY = "rekeyed:"
_CHUNK = 1000


@dataclass(frozen=True)
class Rekeyed:
    """What a change of the key came to.

    :param collisions: records in quarantine that had another order's key, to be redriven now.
    """

    before: str
    after: str
    orders: int
    collisions: int


def known_fields(connection: sa.Connection) -> list[str]:
    """The fields of the key by which the ledger knows its orders, in camelCase."""
    return (_known(connection) or _BEFORE_KEYS).split(",")


def check_key(ledger: Ledger, settings: Settings) -> None:
    """Write the key's fields into a new ledger. :raises ConfigurationError: it has orders by other fields."""
    wanted = ",".join(key_fields(settings.orders.order_key))
    known = written_once(ledger, _SETTING, lambda is_new: wanted if is_new else _BEFORE_KEYS)
    if known != wanted:
        raise ConfigurationError(
            f"The ledger knows its orders by {known}, and INSTORE_ORDER_KEY says {wanted}; set it back, or change the "
            "ledger with: python -m include.instore ledger rekey."
        )


def written_once(ledger: Ledger, setting: str, first: Callable[[bool], str]) -> str | None:
    """What is written of a setting. :param first: what to write where there is nothing, of a ledger without orders."""
    with ledger.read() as connection:
        known = _known(connection, setting)
    if known is None:
        with ledger.write() as connection:
            is_new = connection.scalar(sa.select(orders.c.key).limit(1)) is None
            values = {"setting": setting, "value": first(is_new)}
            connection.execute(ledger.insert(pipeline).values(values).on_conflict_do_nothing())
            known = _known(connection, setting)
    return known


def check_pipeline(ledger: Ledger, settings: Settings) -> None:
    """Write into a ledger without orders whose it is. :raises ConfigurationError: it has orders of another pipeline."""
    changed = _changed(ledger, settings)
    if not changed:
        return
    with ledger.read() as connection:
        is_new = connection.scalar(sa.select(orders.c.key).limit(1)) is None
    said = [(name, known, wanted) for name, (known, wanted) in changed.items() if known is not None]
    if said and not is_new:
        name, known, wanted = said[0]
        raise ConfigurationError(
            f"The ledger (connection instore_ledger) has orders of {name} {known!r}, and the settings say {wanted!r}; "
            "another pipeline needs a ledger of its own. Where this one was renamed: python -m include.instore ledger "
            "adopt."
        )
    adopt(ledger, settings)


def adopt(ledger: Ledger, settings: Settings, *, dry_run: bool = False) -> dict[str, tuple[str | None, str]]:
    """Write the settings' pipeline into the ledger; what changes by it, before and after. Event ids stay."""
    changed = _changed(ledger, settings)
    if changed and not dry_run:
        with ledger.write() as connection:
            for name, (_, wanted) in changed.items():
                _write(ledger, connection, name, wanted)
    return changed


def _changed(ledger: Ledger, settings: Settings) -> dict[str, tuple[str | None, str]]:
    wanted = {"pipeline": settings.runs.pipeline, "scope": settings.events.scope}
    if settings.runs.use_topic:
        wanted["subscription"] = f"{settings.bus.topic}/{settings.bus.subscription}"
    with ledger.read() as connection:
        known = dict(connection.execute(sa.select(pipeline.c.setting, pipeline.c.value)).tuples().all())
    return {name: (known.get(name), value) for name, value in wanted.items() if known.get(name) != value}


def rekey(ledger: Ledger, settings: Settings, *, dry_run: bool = False) -> Rekeyed:
    """Compute the key of every order anew, by today's ``INSTORE_ORDER_KEY``, in one commit; event ids stay.

    :raises ConfigurationError: an order lacks a field of the key, or two orders would become one; nothing is changed.
    """
    fields = key_fields(settings.orders.order_key)
    keys: dict[str, str] = {}
    references: dict[str, str] = {}
    with ledger.write() as connection:
        before = _known(connection) or _BEFORE_KEYS
        rows = connection.execute(
            # Those that a person accepted beside another, whose keys are longer, behind it.
            sa.select(orders.c.key, orders.c.reference, orders.c.payload).order_by(
                sa.func.length(orders.c.key), orders.c.key
            )
        )
        for row in rows:
            try:
                key = order_key(order_of_payload(row.payload), fields, settings.orders.store_timezone)
            except RecordRefused as error:
                raise ConfigurationError(
                    f"The order from {row.reference} has no such key ({error.detail}); name other fields in "
                    "INSTORE_ORDER_KEY."
                ) from None
            apart = json.loads(row.key)[len(before.split(",")) : -1]
            if key in references and apart:
                *elements, order_type = json.loads(key)
                key = json.dumps([*elements, *apart, order_type], ensure_ascii=False)
            if key in references:
                raise ConfigurationError(
                    f"The orders from {references[key]} and {row.reference} would become one; name more fields in "
                    "INSTORE_ORDER_KEY."
                )
            keys[row.key], references[key] = key, row.reference
        collided = sa.select(sa.func.count()).where(
            quarantine.c.reason == COLLISION, quarantine.c.state == RecordState.QUARANTINED.value
        )
        done = Rekeyed(before, ",".join(fields), len(keys), connection.scalar(collided) or 0)
        if not dry_run:
            _change(connection, keys)
            _write(ledger, connection, _SETTING, done.after)
    return done


def _change(connection: sa.Connection, keys: dict[str, str]) -> None:
    # In two steps: a new key may be one that another order gives up in the same change.
    changes = [{"old": old, "new": _ON_THE_WAY + new} for old, new in keys.items()]
    for table in (orders, contents, deliveries, editions):
        statement = sa.update(table).where(table.c.key == sa.bindparam("old")).values(key=sa.bindparam("new"))
        for start in range(0, len(changes), _CHUNK):
            connection.execute(statement, changes[start : start + _CHUNK])
        connection.execute(
            sa.update(table)
            .where(table.c.key.startswith(_ON_THE_WAY))
            .values(key=sa.func.substr(table.c.key, len(_ON_THE_WAY) + 1))
        )


def _write(ledger: Ledger, connection: sa.Connection, name: str, value: str) -> None:
    values = {"setting": name, "value": value}
    statement = ledger.insert(pipeline).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["setting"], set_=values))


def _known(connection: sa.Connection, setting: str = _SETTING) -> str | None:
    return connection.scalar(sa.select(pipeline.c.value).where(pipeline.c.setting == setting))
