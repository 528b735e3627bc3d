"""The scratch ledgers of dry runs: what is due in the run's window, and of each arrival what is known of it.

Beside the file on SQLite, in a schema of its own on PostgreSQL. Removed at the run's end; of one that was killed by the
next run that begins.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.claims import wanted_by
from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import (
    claims,
    contents,
    customers,
    deliveries,
    destinations,
    editions,
    extracts,
    metadata,
    orders,
    pipeline,
    quarantine,
    suppressions,
)
from include.instore.model.windows import Run

_WHOLE = (pipeline, destinations, suppressions, extracts, claims)
"""Tables without a row an order."""
_OF_ORDERS = (contents, deliveries, editions)
_BEGAN = "dry_run_began"
_CHUNK = 500
_LOCK = 7_305_104_219  # any fixed number: PostgreSQL's advisory lock around making one
_FILES = ("", "-wal", "-shm", "-journal")


class Scratch(Ledger):
    """A dry run's own ledger, which looks its arrivals up in the real one; nothing is written there."""

    def __init__(self, real: Ledger, name: str) -> None:
        super().__init__(_url(real, name), hash_key=real.hash_key)
        self.name = name
        self._real = real

    def know(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]], refused: Collection[str]) -> None:
        of_these = [orders.c[name].in_([row[name] for row in rows]) for name in ("key", "event_id", "number_root")]
        cards = [row["loyalty_card"] for row in rows if row["loyalty_card"]]
        with self._real.read() as real:
            _bring_orders(self, real, connection, sa.or_(*of_these))
            _bring(self, real, connection, customers, customers.c.loyalty_card.in_(cards))
            _bring(self, real, connection, quarantine, quarantine.c.id.in_(refused))


def scratch(real: Ledger, run: Run) -> Scratch:
    """The scratch ledger of a dry run, for all its tasks; made and filled by the first that asks.

    :raises RetriableError: as :meth:`Ledger.write`.
    """
    name = f"{_prefix(real)}{hashlib.sha256(run.tries[-1].encode()).hexdigest()[:16]}"
    if real.engine.dialect.name == "postgresql":
        made = Scratch(real, name)
        with made.write() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            if not sa.inspect(connection).has_schema(name):
                connection.execute(sa.schema.CreateSchema(name))
                _fill(made, real, connection, run)
        return made
    path = _file(real, name)
    if not path.exists():
        draft = f"{name}.{uuid.uuid4().hex}"
        try:
            with contextlib.closing(Scratch(real, draft)) as made, made.write() as connection:
                _fill(made, real, connection, run)
            with contextlib.suppress(FileExistsError):
                os.link(_file(real, draft), path)  # another task may have been quicker, and its ledger is in use
        finally:
            _unlink(_file(real, draft))  # half of it as well, on a disk that is full
    return Scratch(real, name)


def discard(ledger: Ledger) -> None:
    """Remove a scratch ledger and close it. :raises ValueError: it is none."""
    if not isinstance(ledger, Scratch):
        raise ValueError("not a dry run's ledger")
    if ledger.engine.dialect.name == "postgresql":
        with ledger.write() as connection:
            connection.execute(sa.schema.DropSchema(ledger.name, cascade=True, if_exists=True))
    ledger.close()
    if ledger.engine.dialect.name == "sqlite":
        _unlink(Path(str(ledger.engine.url.database)))


def discard_dead(real: Ledger, minutes: float) -> int:
    """Remove the scratch ledgers of dry runs that gave no sign of life for so long; how many were."""
    dead = datetime.now(timezone.utc) - timedelta(minutes=minutes)
    found = [name for name, last_sign in _all(real).items() if last_sign <= dead]
    for name in found:
        discard(Scratch(real, name))
    return len(found)


def _fill(made: Scratch, real: Ledger, connection: sa.Connection, run: Run) -> None:
    metadata.create_all(connection, checkfirst=False)
    due = wanted_by(run)
    with real.read() as source:
        for table in _WHOLE:
            _bring(made, source, connection, table, sa.true())
        _bring_orders(made, source, connection, due)
        cards = sa.select(orders.c.loyalty_card).where(due, orders.c.loyalty_card.is_not(None))
        _bring(made, source, connection, customers, customers.c.loyalty_card.in_(cards))
    began = datetime.now(timezone.utc).isoformat()
    connection.execute(sa.insert(pipeline).values(setting=_BEGAN, value=began))


def _bring_orders(made: Ledger, real: sa.Connection, connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    _bring(made, real, connection, orders, which)
    keys = sa.select(orders.c.key).where(which)
    for table in _OF_ORDERS:
        _bring(made, real, connection, table, table.c.key.in_(keys))


def _bring(
    made: Ledger, real: sa.Connection, connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]
) -> None:
    rows = real.execution_options(yield_per=_CHUNK).execute(sa.select(table).where(which)).mappings()
    statement = made.insert(table).on_conflict_do_nothing()
    for chunk in rows.partitions():
        connection.execute(statement, [dict(row) for row in chunk])


def _all(real: Ledger) -> dict[str, datetime]:
    """The scratch ledgers beside a ledger, each with its last sign of life."""
    if real.engine.dialect.name == "sqlite":
        files = Path(str(real.engine.url.database))
        found: dict[str, datetime] = {}
        for path in files.parent.glob(f"{glob.escape(files.name)}.{_prefix(real)}*"):
            name = re.sub(r"-(wal|shm|journal)$", "", path.name.removeprefix(f"{files.name}."))
            with contextlib.suppress(FileNotFoundError):
                changed = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
                found[name] = max(found.get(name, changed), changed)
        return found
    with real.read() as connection:
        schemas: sa.Select[Any] = sa.select(sa.column("nspname")).select_from(sa.table("pg_namespace"))
        names = connection.scalars(schemas.where(sa.column("nspname").startswith(_prefix(real), autoescape=True))).all()
        return {name: _last_sign(connection, name) for name in names}


def _last_sign(connection: sa.Connection, schema: str) -> datetime:
    began, alive = (table.to_metadata(sa.MetaData(), schema=schema) for table in (pipeline, claims))
    began_at = datetime.fromisoformat(
        connection.scalar(sa.select(began.c.value).where(began.c.setting == _BEGAN)) or "1970-01-01T00:00:00+00:00"
    )
    last: datetime | None = connection.scalar(sa.select(sa.func.max(alive.c.alive_at)))
    return max(began_at, last or began_at)


def _prefix(real: Ledger) -> str:
    """Of the scratch ledgers of this one: there may be others, of another brand, in other schemas of the database."""
    schema = str(real.engine.url.query.get("options", ""))
    return f"dry_{hashlib.sha256(schema.encode()).hexdigest()[:6]}_"


def _url(real: Ledger, name: str) -> sa.URL:
    if real.engine.dialect.name == "sqlite":
        return real.engine.url.set(database=f"{real.engine.url.database}.{name}")
    return real.engine.url.update_query_dict({"options": f"-csearch_path={name}"})


def _file(real: Ledger, name: str) -> Path:
    return Path(str(_url(real, name).database))


def _unlink(path: Path) -> None:
    for ending in _FILES:
        Path(f"{path}{ending}").unlink(missing_ok=True)
