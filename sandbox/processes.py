"""Starting processes, looking after them and stopping them by their own ids: of the sandbox, and of the demo above it.

Supervisor   children of this process: waits until each is ready, brings back one that died, stops all
Processes    those of a folder: a later command stops them as well
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .keys import write_private

_GRACE_SECONDS = 15
_PARENT_POLL_SECONDS = 0.25
READY_SECONDS = 30
_STOP_SECONDS = 5
_POLL_SECONDS = 0.1
_RESTART_PAUSE = 0.5
_QUICK_DEATHS = 3


# Given the port, the started process.
Spawn = Callable[[int], "subprocess.Popen[str]"]


class ChildFailedError(RuntimeError):
    """A child did not become ready, or keeps dying. name: the child's. code: the exit code to pass on."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} did not start.")
        self.name = name
        self.code = code


class StopAskedError(Exception):
    """The supervisor was told to stop while a child was still starting."""


@dataclass
class Child:
    """One child. ready: its ready line, once it was waited for. process: the latest one, when it was brought back."""

    name: str
    spawn: Spawn
    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    quick_deaths: int = 0

    @property
    def place(self) -> dict[str, Any]:
        """Its process and port."""
        return {"port": self.ready["port"], "pid": self.process.pid}


class Supervisor:
    """Starts children in this process's own group, and looks after them until SIGTERM or SIGINT.

    quick_seconds: a child that lives no longer has died quickly; one that does so three times in a row is given up.
    """

    def __init__(self, quick_seconds: float = 5) -> None:
        self._stopping = threading.Event()
        self._quick_seconds = quick_seconds
        self.children: list[Child] = []

    def start(self, name: str, spawn: Spawn, port: int = 0) -> Child:
        """Start a child and return it at once; `wait` tells when it is ready.

        port: 0 picks a free one, which it keeps when it is brought back.
        """
        child = Child(name, spawn, spawn(port))
        self.children.append(child)
        return child

    def wait(self, child: Child) -> None:
        """Wait until a child is ready, and keep what it said.

        Raises ChildFailedError, and StopAskedError when it was told to stop meanwhile.
        """
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_forward, args=(child.process, lines), daemon=True).start()
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._stopping.is_set():
                raise StopAskedError
            try:
                line = lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if not line:
                raise ChildFailedError(child.name, child.process.wait(_STOP_SECONDS) or 1)
            child.ready = json.loads(line)
            return
        raise ChildFailedError(child.name, 1)

    def run(
        self,
        start: Callable[[Supervisor], None],
        *,
        on_restart: Callable[[Child], None],
        on_failure: Callable[[ChildFailedError], None],
        restart: bool = True,
    ) -> int:
        """Start children, bring back, on its own port, each that dies, and stop all in the end; return the exit code.

        restart: False leaves a dead child dead.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        try:
            start(self)
            self._watch(restart, on_restart)
        except StopAskedError:
            pass
        except ChildFailedError as error:
            on_failure(error)
            return error.code
        finally:
            self._stop()
        return 0

    def _watch(self, restart: bool, on_restart: Callable[[Child], None]) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            for child in self.children if restart else ():
                if child.process.poll() is not None and not self._stopping.wait(_RESTART_PAUSE):
                    self._bring_back(child)
                    on_restart(child)

    def _bring_back(self, child: Child) -> None:
        quick = time.monotonic() - child.started < self._quick_seconds
        child.quick_deaths = child.quick_deaths + 1 if quick else 0
        if child.quick_deaths >= _QUICK_DEATHS:
            raise ChildFailedError(child.name, 1)
        child.process = child.spawn(int(child.ready.get("port", 0)))
        child.started = time.monotonic()
        if child.ready:
            self.wait(child)

    def _stop(self) -> None:
        """Stop the children one after another, the last started first, and wait until they are gone."""
        for child in reversed(self.children):
            with contextlib.suppress(psutil.NoSuchProcess):
                _end([psutil.Process(child.process.pid)], signal.SIGTERM, _STOP_SECONDS)
            child.process.wait()


def _forward(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Hand on the first line (or "" when there is none), and keep the pipe empty so that the child never blocks."""
    if process.stdout is None:
        return
    with process.stdout:
        lines.put(process.stdout.readline())
        for _ in process.stdout:
            pass


def die_with(parent_pid: int) -> None:
    """End this process as soon as its parent is no longer the given process.

    Polled, because it works the same on Linux and macOS; a killed parent can tell nobody.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_PARENT_POLL_SECONDS)
        # Not sys.exit: this is not the main thread, and nothing here has to be saved.
        os._exit(0)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()


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
            _end(family, signal.Signals(number) if family[0].pid == pid else None, _GRACE_SECONDS)
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


def _end(family: Sequence[psutil.Process], ask: signal.Signals | None, seconds: float) -> None:
    """Ask the first of them to end, and after so many seconds kill what is left of all. ask: None kills at once."""
    left = list(family)
    if ask is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            left[0].send_signal(ask)
        _, left = psutil.wait_procs(left, timeout=seconds)
    for each in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(left, timeout=_STOP_SECONDS)


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
