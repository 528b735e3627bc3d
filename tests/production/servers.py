"""Redis from Debian's package, as a plain process on loopback; nothing of it is kept."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.processes import free_port
from tests.servers import needed
from tests.storages.standing import wait_for


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Its URL, without the number of a database."""
    port = free_port()
    program = needed("redis-server", "Redis (Debian's redis-server)")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)
