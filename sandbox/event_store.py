"""What the Profile Store stand-in remembers: every event it accepted, in sqlite, exactly as it came."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from .odata import OPERATORS, PAYLOAD, Condition, Page, payload_holds
from .track_event import TrackEvent, parse_time

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_us INTEGER NOT NULL,
    visible_us INTEGER NOT NULL,
    track_id TEXT NOT NULL, device_id TEXT NOT NULL, event_type TEXT NOT NULL,
    event_time TEXT NOT NULL, event_time_us INTEGER NOT NULL,
    value TEXT NOT NULL, scope TEXT NOT NULL, email TEXT NOT NULL, user_name TEXT NOT NULL,
    order_number TEXT NOT NULL, store TEXT NOT NULL, profile_id TEXT NOT NULL,
    payload TEXT NOT NULL, raw TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_track_id ON events (track_id);
CREATE INDEX IF NOT EXISTS events_email ON events (email);
CREATE INDEX IF NOT EXISTS events_order_number ON events (order_number);
CREATE INDEX IF NOT EXISTS events_event_time ON events (event_time_us);
CREATE INDEX IF NOT EXISTS events_profile ON events (profile_id);
CREATE TABLE IF NOT EXISTS tallies (name TEXT PRIMARY KEY, n INTEGER NOT NULL);
"""

_COLUMNS = {
    "TrackId": "track_id",
    "DeviceId": "device_id",
    "EventType": "event_type",
    "EventTime": "event_time_us",
    "Scope": "scope",
    "User.Email": "email",
}
_PROFILE_COLUMNS = {"ProfileId": "profile_id", "Scope": "scope", "Info.Email": "email"}
EVENT_FIELDS = frozenset({*_COLUMNS, PAYLOAD})
EVENT_ORDER = frozenset(_COLUMNS)
PROFILE_FIELDS = frozenset(_PROFILE_COLUMNS)
_ORDER_NUMBER = PAYLOAD + "orderNumber"

Row = sqlite3.Row


class EventStore:
    """Events on disk. What `add` returned from survives a killed process; one thread may use it at a time.

    path: the sqlite file, or None to keep everything in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        # With WAL a commit is in the operating system's hands at once: a killed process loses nothing. Only a power
        # cut could, and waiting for the disk at every commit would slow the benchmarks for nothing.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._db.create_function("payload_holds", 4, _payload_holds, deterministic=True)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(
        self, events: Sequence[TrackEvent], *, received_us: int, visible_us: Sequence[int], ignored: int = 0
    ) -> None:
        """Commit events, and the number of those that were accepted but silently ignored."""
        rows = [
            (
                *(received_us, visible, event.track_id, event.device_id, event.event_type, event.event_time),
                *(event.event_time_us, event.value, event.scope, event.email, event.user_name, event.order_number),
                *(event.store, event.profile_id, event.payload, event.raw),
            )
            for event, visible in zip(events, visible_us, strict=True)
        ]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO events (received_us, visible_us, track_id, device_id, event_type, event_time,"
                " event_time_us, value, scope, email, user_name, order_number, store, profile_id, payload, raw)"
                f" VALUES ({', '.join('?' * 16)})",
                rows,
            )
            if ignored:
                self._db.execute(
                    "INSERT INTO tallies VALUES ('ignored', ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n",
                    (ignored,),
                )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def find(
        self, conditions: Iterable[Condition], order: Iterable[tuple[str, bool]], page: Page, now_us: int
    ) -> tuple[int, list[Row]]:
        """Return how many visible events meet the conditions, and those of the page.

        Raises ValueError for a condition with a bad time.
        """
        where, values = _where(conditions, _COLUMNS, now_us)
        by = [f"{_COLUMNS[field]} {'DESC' if down else 'ASC'}" for field, down in order]
        total = self._db.execute(f"SELECT count(*) FROM events WHERE {where}", values).fetchone()[0]
        rows = self._db.execute(
            f"SELECT * FROM events WHERE {where} ORDER BY {', '.join([*by, 'id'])} LIMIT ? OFFSET ?",
            (*values, page.top, page.skip),
        ).fetchall()
        return total, rows

    def profiles(self, conditions: Iterable[Condition], page: Page, now_us: int) -> tuple[int, list[Row]]:
        """Return how many profiles visible events have made, under the conditions, and those of the page."""
        where, values = _where(conditions, _PROFILE_COLUMNS, now_us)
        grouped = f"FROM events WHERE {where} AND profile_id <> '' GROUP BY profile_id"
        total = self._db.execute(f"SELECT count(*) FROM (SELECT 1 {grouped})", values).fetchone()[0]
        rows = self._db.execute(
            "SELECT profile_id, scope, email, max(user_name) AS user_name, min(event_time) AS first_seen,"
            f" max(event_time) AS last_seen, count(*) AS visits {grouped} ORDER BY min(id) LIMIT ? OFFSET ?",
            (*values, page.top, page.skip),
        ).fetchall()
        return total, rows

    def delete(self, scope: str, track_id: str) -> int:
        """Delete the events with this track id in this scope, and return how many there were."""
        return self._db.execute("DELETE FROM events WHERE scope = ? AND track_id = ?", (scope, track_id)).rowcount

    def after(self, last_id: int, limit: int) -> list[Row]:
        """Return events, visible or not, in the order in which they came, beginning after the id."""
        return self._db.execute("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", (last_id, limit)).fetchall()

    def latest(self, term: str, limit: int) -> list[Row]:
        """Return the latest events; with a term only those of exactly this order number or email."""
        where = "WHERE order_number = :term OR email = :term COLLATE NOCASE" if term else ""
        return self._db.execute(
            f"SELECT * FROM events {where} ORDER BY id DESC LIMIT :limit", {"term": term, "limit": limit}
        ).fetchall()

    def totals(self) -> dict[str, int]:
        """Return the counts over everything accepted, visible or not."""
        row = self._db.execute(
            "SELECT count(*) AS events, count(DISTINCT track_id) AS track_ids,"
            " count(DISTINCT nullif(lower(email), '')) AS emails FROM events"
        ).fetchone()
        ignored = self._db.execute("SELECT coalesce(sum(n), 0) FROM tallies WHERE name = 'ignored'").fetchone()[0]
        return {**dict(row), "ignored": ignored}

    def counts_by(self, column: str) -> list[tuple[str, int]]:
        """Return (value, events) of "event_type" or "store", most first."""
        if column not in ("event_type", "store"):
            raise ValueError("events are counted by event_type or store")
        rows = self._db.execute(
            f"SELECT {column}, count(*) AS n FROM events GROUP BY {column} ORDER BY n DESC, {column}"
        )
        return [(value, n) for value, n in rows]


def _where(conditions: Iterable[Condition], columns: dict[str, str], now_us: int) -> tuple[str, list[Any]]:
    parts, values = ["visible_us <= ?"], [now_us]  # type: tuple[list[str], list[Any]]
    for condition in conditions:
        column = columns.get(condition.field)
        if condition.field == _ORDER_NUMBER and condition.operator == "eq":
            # The question that is asked most has an index; the payload is still asked, for its exact spelling.
            parts.append("order_number = ?")
            values.append(condition.value)
        if column is None:
            parts.append("payload_holds(payload, ?, ?, ?)")
            values += [condition.field, condition.operator, condition.value]
            continue
        parts.append(f"{column} {OPERATORS[condition.operator]} ?")
        values.append(parse_time(condition.value) if condition.field == "EventTime" else condition.value)
    return " AND ".join(parts), values


def _payload_holds(payload: str, field: str, operator: str, value: str) -> bool:
    return payload_holds(json.loads(payload, parse_float=Decimal), Condition(field, operator, value))
