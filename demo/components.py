"""``python -m demo.components LOGS PORT``: Airflow's components, each started again when it has died.

``airflow standalone`` does the same but for the starting again.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import psutil

from sandbox.processes import Child, ChildFailedError, Spawn, Supervisor, session

# On a busy machine half a minute passes until one finds out that it cannot start.
_QUICK_SECONDS = 60
_LAST_LINES = 15


def commands(port: int) -> dict[str, list[str]]:
    """The arguments of ``airflow`` by component; the scheduler last, so that it is the first to be stopped.

    The log servers would listen on every address; on one machine the UI reads the files.
    """
    return {
        "api-server": ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        "dag-processor": [],
        "triggerer": ["--skip-serve-logs"],
        "scheduler": ["--skip-serve-logs"],
    }


def main(logs: Path, port: int) -> int:
    """Run until SIGTERM or SIGINT, or until a component dies again and again; the exit code."""

    def start(supervisor: Supervisor) -> None:
        for name, arguments in commands(port).items():
            supervisor.start(name, _spawn(logs / f"{name}.log", [name, *arguments]))

    def tell(error: ChildFailedError) -> None:
        words = (logs / f"{error.name}.log").read_text(errors="replace").splitlines()[-_LAST_LINES:]
        sys.stderr.write("\n".join([f"{_now()} {error.name} dies again and again; its last words:", *words, ""]))

    try:
        return Supervisor(_QUICK_SECONDS).run(start, on_restart=_note, on_failure=tell)
    finally:
        _end_left_behind()


def _spawn(log: Path, command: Sequence[str]) -> Spawn:
    airflow = Path(sys.executable).with_name("airflow")

    def spawn(_: int) -> subprocess.Popen[str]:
        _end_left_behind()
        with log.open("ab") as out:
            return subprocess.Popen(  # noqa: S603  our own command lines
                [airflow, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True
            )

    return spawn


def _end_left_behind() -> None:
    """Kill what dead components left behind: a killed scheduler's workers go on waiting for it."""
    me = psutil.Process()
    everyone = session(me.pid)  # before the living are counted: what is born in between is not left behind
    ours = {me, *me.children(recursive=True)}
    for process in everyone:
        if process not in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _note(child: Child) -> None:
    sys.stderr.write(f"{_now()} {child.name} had died and was started again.\n")


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M:%S}"  # noqa: DTZ005  the time on the wall of who reads it


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
