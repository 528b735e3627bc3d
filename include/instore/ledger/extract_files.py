"""The files of extracts: which are known, which wait because they could not be read, and what a person decided."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import extracts, feeds, kept_text
from include.instore.model.states import ExtractState

RELEASED = "released:"
"""Before the version of a file that is due though it is known: a person has released it."""

NOT_LOADED = (ExtractState.WAITING, ExtractState.LEFT)


@dataclass(frozen=True)
class WaitingFile:
    """One file that was not loaded, as it is kept; ``orders`` are those before the fault.

    :param loaded_at: when it was found so for the first time.
    """

    path: str
    version: str
    orders: int
    detail: str
    state: str
    run: str
    loaded_at: datetime


def feed_before(ledger: Ledger, feed: str) -> dict[str, float]:
    """What is kept of the orders of this feed; empty: it is a new one."""
    with ledger.read() as connection:
        kept = connection.scalar(sa.select(feeds.c.fields).where(feeds.c.feed == feed))
    return dict(json.loads(kept)) if kept else {}


def note_feed(ledger: Ledger, connection: sa.Connection, run_id: str, looks: Mapping[str, str], changed: bool) -> None:
    """Keep a feed's row, and which run found that its orders are other than before."""
    new = {**looks, **({"changed_run": run_id} if changed else {})}
    statement = ledger.insert(feeds).values(new)
    connection.execute(statement.on_conflict_do_update(index_elements=["feed"], set_=new))


def known_versions(ledger: Ledger, paths: Sequence[str]) -> dict[str, str]:
    """Path to version of those of the files that are not due again unless they change; see :data:`RELEASED`."""
    query = sa.select(extracts.c.path, extracts.c.version, extracts.c.state).where(
        extracts.c.path.in_(paths), extracts.c.state != ExtractState.LEFT.value
    )
    with ledger.read() as connection:
        return {
            path: f"{RELEASED}{version}" if state == ExtractState.RELEASED.value else version
            for path, version, state in connection.execute(query)
        }


def is_released(ledger: Ledger, path: str, version: str) -> bool:
    """Whether a person wants what is before the fault of this very version."""
    query = sa.select(extracts.c.path).where(
        extracts.c.path == path, extracts.c.version == version, extracts.c.state == ExtractState.RELEASED.value
    )
    with ledger.read() as connection:
        return connection.scalar(query) is not None


def was_loaded(ledger: Ledger, path: str, version: str, digest: str) -> bool:
    """Whether the same was loaded already, from this path; it is known by its new version from now on."""
    same = (extracts.c.path == path, extracts.c.state == ExtractState.LOADED.value, extracts.c.digest == digest)
    with ledger.write() as connection:
        return connection.execute(sa.update(extracts).where(*same).values(version=version)).rowcount > 0


def note_waiting(ledger: Ledger, run_id: str, path: str, version: str, orders: int, detail: str) -> None:
    """Commit that this file could not be read to its end, and nothing of it was landed."""
    values = {
        "path": path,
        "version": version,
        "orders": orders,
        "bad_rows": 0,
        "state": ExtractState.WAITING.value,
        "detail": kept_text(detail),
        "run": run_id,
        "loaded_at": datetime.now(timezone.utc),
    }
    with ledger.write() as connection:
        statement = ledger.insert(extracts).values(values)
        connection.execute(statement.on_conflict_do_update(index_elements=["path"], set_=values))


def note_left(
    ledger: Ledger, run_id: str, left: Mapping[str, tuple[str, str]], due: Collection[str] | None = None
) -> None:
    """Commit which files are not read yet; since when they are not is kept.

    :param left: by path its version, and why. :param due: those read now, where all files were looked at: what is in
        neither is gone.
    """
    wanted = sa.select(extracts.c.path).where(extracts.c.state == ExtractState.LEFT.value)
    with ledger.read() as connection:
        gone = [] if due is None else sorted(set(connection.scalars(wanted)) - left.keys() - set(due))
    rows = [
        {"path": path, "version": version, "detail": kept_text(why), "state": ExtractState.LEFT.value, "run": run_id,
         "orders": 0, "bad_rows": 0, "loaded_at": datetime.now(timezone.utc)}
        for path, (version, why) in sorted(left.items())
    ]  # fmt: skip
    if not (rows or gone):
        return
    statement = ledger.insert(extracts)
    new = {name: statement.excluded[name] for name in rows[0]} if rows else {}
    since = sa.case((extracts.c.state == ExtractState.LEFT.value, extracts.c.loaded_at), else_=new.get("loaded_at"))
    with ledger.write() as connection:
        if rows:
            statement = statement.on_conflict_do_update(index_elements=["path"], set_={**new, "loaded_at": since})
            connection.execute(statement, rows)
        for path in gone:
            connection.execute(sa.delete(extracts).where(extracts.c.path == path))


def waiting_files(
    ledger: Ledger,
    paths: Sequence[str] = (),
    *,
    states: Collection[ExtractState] = NOT_LOADED,
    run_id: str = "",
    since: datetime | None = None,
    limit: int = 100,
) -> list[WaitingFile]:
    """Files that wait, the one that was found first at the top.

    :param paths: only these; empty: all. :param run_id: only those that this run found. :param since: those that have
        waited since then, or longer.
    """
    query = sa.select(*(extracts.c[name] for name in WaitingFile.__dataclass_fields__))
    query = query.where(extracts.c.state.in_([state.value for state in states]))
    if since:
        query = query.where(extracts.c.loaded_at <= since)
    if paths:
        query = query.where(extracts.c.path.in_(paths))
    if run_id:
        query = query.where(extracts.c.run == run_id)
    with ledger.read() as connection:
        rows = connection.execute(query.order_by(extracts.c.loaded_at, extracts.c.path).limit(limit))
        return [WaitingFile(*row) for row in rows]


def move_waiting(ledger: Ledger, paths: Sequence[str], state: ExtractState) -> int:
    """Commit what a person decided of files that wait; how many did still."""
    with ledger.write() as connection:
        moved = connection.scalars(
            sa.update(extracts)
            .where(extracts.c.path.in_(paths), extracts.c.state.in_([state.value for state in NOT_LOADED]))
            .values(state=state.value)
            .returning(extracts.c.path)
        )
        return len(moved.all())
