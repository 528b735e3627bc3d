"""Reading the quarantine, and moving its rows: quarantined to redriven or discarded."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import kept_text, orders, quarantine
from include.instore.model.errors import FatalError
from include.instore.model.states import RecordState, Source

QUARANTINED, REDRIVEN, DISCARDED = (each.value for each in RecordState if each is not RecordState.ANY)

_SHORTEST_PREFIX = 6
_MOST_READ = 65_536
"""Bytes of a record that is looked into; the rest of a broken file may have megabytes."""


class NotInQuarantine(FatalError):
    """No row, or more than one, has an id that begins like this; the message says which."""


@dataclass(frozen=True)
class Quarantined:
    """One record that is not an order, as it is kept.

    :param size: bytes of the raw record.
    :param raw: the record itself, which holds personal data: never logged, never shown unasked.
    """

    id: str
    source: str
    reference: str
    reason: str
    detail: str
    run: str
    received_at: datetime
    state: str
    size: int
    raw: bytes = field(default=b"", repr=False)
    heading: bytes = field(default=b"", repr=False)
    adapter: str = ""


@dataclass(frozen=True)
class Wanted:
    """Which rows: those of these ids (their first characters do), or all of a reason, source and run."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    source: str | None = None
    run: str | None = None
    state: str | None = QUARANTINED
    limit: int = 100


_SHOWN = (
    quarantine.c.id, quarantine.c.source, quarantine.c.reference, quarantine.c.reason, quarantine.c.detail,
    quarantine.c.run, quarantine.c.received_at, quarantine.c.state, quarantine.c.adapter,
    sa.func.length(quarantine.c.raw).label("size"),
)  # fmt: skip


def find(ledger: Ledger, wanted: Wanted, *, with_raw: bool = False) -> list[Quarantined]:
    """The rows that are wanted, oldest first, or in the order of the ids.

    :raises NotInQuarantine: an id fits no row, or several.
    """
    columns: tuple[Any, ...] = (*_SHOWN, quarantine.c.raw, quarantine.c.heading) if with_raw else _SHOWN
    selected = sa.select(*columns)
    with ledger.read() as connection:
        if wanted.ids:
            return [_only(connection, selected, prefix) for prefix in wanted.ids]
        for column in ("reason", "source", "run", "state"):
            if (value := getattr(wanted, column)) is not None:
                selected = selected.where(quarantine.c[column] == value)
        selected = selected.order_by(quarantine.c.received_at, quarantine.c.id).limit(wanted.limit)
        return [_of(row) for row in connection.execute(selected).mappings()]


def looked_into(ledger: Ledger, ids: Collection[str] = (), *, holding: str = "") -> list[Quarantined]:
    """Rows with their raw records, but for large ones: those of these ids, or any that still holds this text."""
    wanted = sa.select(*_SHOWN, quarantine.c.raw, quarantine.c.heading)
    if holding:
        place_of = sa.func.instr if ledger.engine.dialect.name == "sqlite" else sa.func.pg_catalog.position
        spelt = {holding, json.dumps(holding)[1:-1]}  # as JSON may have it
        holds = [place_of(quarantine.c.raw, each.encode(errors="replace")) > 0 for each in sorted(spelt)]
        wanted = wanted.where(quarantine.c.state == QUARANTINED, sa.or_(*holds))
    else:
        wanted = wanted.where(quarantine.c.id.in_(ids))
    with ledger.read() as connection:
        rows = connection.execute(wanted.where(sa.func.length(quarantine.c.raw) <= _MOST_READ).limit(1000)).mappings()
        return [_of(row) for row in rows]


def of_message(ledger: Ledger, message_id: str | None, reference: str, raw: bytes) -> list[Quarantined]:
    """The rows that a message left behind, whatever their state.

    A message keeps its id in the dead-letter queue; its number there may be another, so that its bytes decide.
    """
    number_less = kept_text(f"{message_id or '-'}#")
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(*_SHOWN).where(
                quarantine.c.source == Source.TOPIC.value,
                sa.or_(
                    quarantine.c.reference == kept_text(reference),
                    sa.and_(quarantine.c.reference.startswith(number_less, autoescape=True), quarantine.c.raw == raw),
                ),
            )
        )
        return [_of(row) for row in rows.mappings()]


def known_keys(ledger: Ledger, keys: Collection[str]) -> set[str]:
    """Those of the keys whose orders the ledger has."""
    with ledger.read() as connection:
        return set(connection.scalars(sa.select(orders.c.key).where(orders.c.key.in_(keys))))


def move(ledger: Ledger, ids: Sequence[str], state: str) -> list[str]:
    """Move rows that are still quarantined; the ids of those that were."""
    with ledger.write() as connection:
        return list(
            connection.scalars(
                sa.update(quarantine)
                .where(quarantine.c.id.in_(ids), quarantine.c.state == QUARANTINED)
                .values(state=state)
                .returning(quarantine.c.id)
            )
        )


def note_reason(ledger: Ledger, id: str, reason: str, detail: str) -> None:
    """Write down why a row is refused by today's settings."""
    with ledger.write() as connection:
        connection.execute(
            sa.update(quarantine)
            .where(quarantine.c.id == id, quarantine.c.state == QUARANTINED)
            .values(reason=reason, detail=kept_text(detail))
        )


def _only(connection: sa.Connection, selected: sa.Select[Any], prefix: str) -> Quarantined:
    shown = kept_text(prefix)[:64]
    if len(prefix) < _SHORTEST_PREFIX:
        raise NotInQuarantine(f"The id {shown!r} is too short; give at least {_SHORTEST_PREFIX} characters of it.")
    rows = connection.execute(
        selected.where(quarantine.c.id.startswith(kept_text(prefix), autoescape=True)).limit(2)
    ).mappings()
    found = [_of(row) for row in rows]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotInQuarantine(f"Several quarantined records have an id beginning with {shown!r}; give more of it.")
    raise NotInQuarantine(f"No quarantined record has an id beginning with {shown!r}; `quarantine list` shows them.")


def _of(row: Any) -> Quarantined:
    values = dict(row)
    values["adapter"] = values["adapter"] or ""
    return Quarantined(**values | {name: bytes(values.get(name) or b"") for name in ("raw", "heading")})
