"""Starting processes that are stopped again by their own id, also by a later command."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from sandbox.keys import write_private

_GRACE_SECONDS = 15


class Processes:
    """The processes of one folder; their ids are on disk, so that another command can stop them.

    :param folder: where the ids and one log file per process are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._ids = folder / "processes.json"
        self.logs = folder / "logs"
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str], stdout: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own; what it says goes to its log file."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as files:
            log = files.enter_context((self.logs / f"{name}.log").open("ab"))
            out = files.enter_context(stdout.open("wb")) if stdout else log
            process = subprocess.Popen(  # noqa: S603  our own command lines
                list(command),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        self._started[name] = process
        self.adopt(name, process.pid)
        return process

    def adopt(self, name: str, pid: int, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """Have a process stopped with the others that was started in another way."""
        # The start time tells this process from another that gets its number later.
        known = self._known() | {name: (pid, psutil.Process(pid).create_time(), int(stop_signal))}
        write_private(self._ids, json.dumps(known))

    def dead(self) -> str | None:
        """The name of a process of this command that has ended by itself, if any."""
        for name, process in self._started.items():
            if process.poll() is not None:
                return name
        return None

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines a process wrote, as far as it has a log here."""
        return "\n".join(self.log_lines(name)[-lines:])

    def log_lines(self, name: str) -> list[str]:
        """All that a process wrote, also before it was stopped the last time."""
        log = self.logs / f"{name}.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    def running(self) -> dict[str, psutil.Process]:
        """Those of this folder that are alive, whoever started them."""
        known = self._known().items()
        return {name: process for name, (pid, created, _) in known if (process := _alive(pid, created))}

    def ended(self) -> list[str]:
        """The names of those of this folder that have ended without being stopped."""
        return [name for name in self._known() if name not in self.running()]

    def stop(self) -> list[str]:
        """Stop all of this folder, newest first, with their children; the names of those that were alive.

        What one that was killed has left behind is killed as well.

        A signal that comes meanwhile is heeded afterwards: a second Ctrl-C must not leave half of them behind.
        """
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            return self._stop()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _stop(self) -> list[str]:
        alive = []
        for name, (pid, created, number) in reversed(self._known().items()):
            family = _family(pid, created)
            if not family:
                continue
            alive.append(name)
            if family[0].pid == pid:
                with contextlib.suppress(psutil.NoSuchProcess):
                    family[0].send_signal(number)
                _, family = psutil.wait_procs(family, timeout=_GRACE_SECONDS)
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, timeout=5)
        for started in self._started.values():
            started.wait(timeout=_GRACE_SECONDS)  # as their parent this command has to take note of their end
        self._started.clear()
        self._ids.unlink(missing_ok=True)
        return alive

    def _known(self) -> dict[str, tuple[int, float, int]]:
        """Process id, start time and the signal that stops it, by name."""
        if not self._ids.exists():
            return {}
        return {
            name: (pid, created, number) for name, (pid, created, number) in json.loads(self._ids.read_text()).items()
        }


def session(leader: int) -> list[psutil.Process]:
    """Those of the session that this process began, itself among them; it may have ended."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _alive(pid: int, created: float) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _family(pid: int, created: float) -> list[psutil.Process]:
    """A process with all its descendants, itself first; where it was killed, what is left of its session."""
    leader = _alive(pid, created)
    with contextlib.suppress(psutil.NoSuchProcess):
        if leader:
            return [leader, *{*leader.children(recursive=True), *session(pid)} - {leader}]
        if abs(psutil.Process(pid).create_time() - created) >= 1:
            return []  # the number is another process's by now
    # Before a restart of the machine numbers were given anew.
    return [] if created < psutil.boot_time() else [each for each in session(pid) if each.pid != pid]


def free_port(wanted: int = 0) -> int:
    """The wanted port on loopback where it is free, otherwise another; no other demo is given it meanwhile."""
    for candidate in (wanted, *[0] * 20):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                port: int = probe.getsockname()[1]
                if _reserve(port):
                    return port
    raise OSError("No port is free on 127.0.0.1.")


def _reserve(port: int) -> bool:
    """Hold a lock on the port's number until this process ends: seconds pass before a server listens on it."""
    file = (Path(tempfile.gettempdir()) / f"instore-demo-port-{port}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    atexit.register(file.close)  # until then it is locked, and with it the port
    return True
