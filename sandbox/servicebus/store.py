"""The state file: what the broker has confirmed survives `kill -9` of it (service-bus.md, point 10).

SQLite with a write-ahead log and group commit: everything that one turn of the event loop brought is one transaction,
and what depends on it (the confirmations) is called after the commit. A commit hands the data to the operating system
without waiting for the disk, so it outlives the process, not a power cut. Locks are not in it: after a restart every
message is free again, as it is when Service Bus itself fails over.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sandbox.servicebus.errors import StateRefused

_LOG = logging.getLogger(__name__)

_APPLICATION_ID = 0x5B57A7E1
_SCHEMA = """
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    state INTEGER NOT NULL,
    enqueued INTEGER NOT NULL,
    expires INTEGER,
    deliveries INTEGER NOT NULL,
    content BLOB NOT NULL
);
CREATE TABLE sequence (entity TEXT PRIMARY KEY, reserved INTEGER NOT NULL);
"""

# Sequence numbers are reserved in blocks, so that an enqueue need not write its entity's counter.
_BLOCK = 1000


class Row(NamedTuple):
    """One message as it is on disk; times in milliseconds since 1970, expires None for never."""

    id: int
    entity: str
    sequence: int
    state: int
    enqueued: int
    expires: int | None
    deliveries: int
    content: bytes


class Store:
    """Messages on disk; with a path of None it keeps nothing and confirms at once.

    Args:
        path: the state file, made if it is not there.
        loop: the event loop whose turns are the transactions.
        on_failure: called if a transaction cannot be committed; nothing that depended on it is confirmed.

    Raises:
        StateRefused: if the file is another program's or another broker holds it.
    """

    def __init__(self, path: Path | None, loop: asyncio.AbstractEventLoop, on_failure: Callable[[], None]) -> None:
        self._loop = loop
        self._on_failure = on_failure
        self._pending: list[tuple[str, tuple[Any, ...]]] = []
        self._waiting: list[Callable[[], None]] = []
        self._scheduled = False
        self._last_id = 0
        self._reserved: dict[str, int] = {}
        self._database = None if path is None else _open(path)
        if self._database is not None:
            self._last_id = self._database.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()[0]
            self._reserved = dict(self._database.execute("SELECT entity, reserved FROM sequence"))

    def rows(self) -> Iterator[Row]:
        """Every message on disk, by entity and sequence number."""
        if self._database is not None:
            yield from map(Row._make, self._database.execute("SELECT * FROM message ORDER BY entity, sequence"))

    def first_free(self, entity: str) -> int:
        """A sequence number above all that the entity ever gave out."""
        return self._reserved.get(entity, 0) + 1

    def reserve(self, entity: str, sequence: int) -> None:
        """Note that the entity has reached a sequence number."""
        if sequence > self._reserved.get(entity, 0):
            self._reserved[entity] = sequence + _BLOCK
            self._write("INSERT OR REPLACE INTO sequence VALUES (?, ?)", (entity, sequence + _BLOCK))

    def insert(
        self, entity: str, sequence: int, state: int, enqueued: int, expires: int | None, content: Callable[[], bytes]
    ) -> int:
        """Keep a new message; returns its id. The content is only encoded if there is a file."""
        self._last_id += 1
        if self._database is not None:
            values = (self._last_id, entity, sequence, state, enqueued, expires, 0, content())
            self._write("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        return self._last_id

    def change(self, id_: int, state: int, deliveries: int) -> None:
        self._write("UPDATE message SET state = ?, deliveries = ? WHERE id = ?", (state, deliveries, id_))

    def move(self, id_: int, entity: str, deliveries: int, content: Callable[[], bytes]) -> None:
        """Give a message to another entity, active, without an expiry."""
        if self._database is not None:
            self._write(
                "UPDATE message SET entity = ?, state = 0, expires = NULL, deliveries = ?, content = ? WHERE id = ?",
                (entity, deliveries, content(), id_),
            )

    def delete(self, id_: int) -> None:
        self._write("DELETE FROM message WHERE id = ?", (id_,))

    def then(self, callback: Callable[[], None]) -> None:
        """Call back as soon as everything written so far is on disk, in the order of the calls."""
        if self._database is None:
            callback()
            return
        self._waiting.append(callback)
        self._schedule()

    def close(self) -> None:
        """Commit what is pending and release the file."""
        if self._database is not None:
            self._commit()
            self._database.close()
            self._database = None

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        if self._database is not None:
            self._pending.append((statement, values))
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # The next turn of the loop: after everything that is ready in this one.
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        pending, self._pending = self._pending, []
        waiting, self._waiting = self._waiting, []
        if self._database is None:
            return
        if pending:
            try:
                self._database.execute("BEGIN")
                for statement, values in pending:
                    self._database.execute(statement, values)
                self._database.execute("COMMIT")
            except sqlite3.Error as problem:
                _LOG.error("The state file cannot be written (%s): the broker stops.", problem)
                self._on_failure()
                return
        for callback in waiting:
            callback()


def _open(path: Path) -> sqlite3.Connection:
    database: sqlite3.Connection | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN IMMEDIATE")
        known = database.execute("PRAGMA application_id").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and known != _APPLICATION_ID:
            raise StateRefused(f"{path} is not a state file of this stand-in.")
        if not tables:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute("COMMIT")
    except (OSError, sqlite3.Error, StateRefused) as problem:
        if database is not None:
            database.close()
        if isinstance(problem, StateRefused):
            raise
        if "locked" in str(problem):
            raise StateRefused(f"{path} is held by another broker: stop it or use another file.") from None
        raise StateRefused(f"{path} cannot be used as state file: {problem}.") from None
    return database
