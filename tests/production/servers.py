"""Redis and PostgreSQL from Debian's packages, as plain processes on loopback; nothing of them is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.processes import free_port
from tests.storages.standing import wait_for

_POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_AS_POSTGRES = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root


def missing() -> list[str]:
    """Debian's packages that are not installed."""
    wanted = {"redis-server": shutil.which("redis-server"), "postgresql": _POSTGRESQL}
    return [name for name, found in wanted.items() if not found]


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Its URL, without the number of a database."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def postgresql() -> Iterator[int]:
    """Its port on loopback; the only login is ``postgres``, who has a database ``ledger``."""
    port, bin = free_port(), _POSTGRESQL[-1]
    data = Path(tempfile.mkdtemp(prefix="instore-pg-"))  # the tests' own folder is closed to another user
    if _AS_POSTGRES:
        shutil.chown(data, "postgres")

    def run(*command: str | Path) -> None:
        subprocess.run([*_AS_POSTGRES, *map(str, command)], check=True, cwd="/", stdout=subprocess.DEVNULL)

    run(bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data}"
    run(bin / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")
    try:
        run(bin / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "ledger")
        yield port
    finally:
        run(bin / "pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
        shutil.rmtree(data)
