"""Runs child processes: waits until each is ready, brings back one that died, stops all by pid."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
    """Starts children in this process's own group, and looks after them.

    stopping: set from outside (a signal handler) to end everything. quick_seconds: a child that lives no longer has
    died quickly; one that does so three times in a row is given up.
    """

    def __init__(self, stopping: threading.Event, quick_seconds: float = 5) -> None:
        self._stopping = stopping
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

        Raises ChildFailedError, and StopAskedError when stopping was set meanwhile.
        """
        child.ready = self._ready_line(child)

    def _ready_line(self, child: Child) -> dict[str, Any]:
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
            ready: dict[str, Any] = json.loads(line)
            return ready
        raise ChildFailedError(child.name, 1)

    def watch(self, *, restart: bool, on_restart: Callable[[Child], None]) -> None:
        """Return when stopping is set. Until then bring back, on its own port, every child that died.

        restart: False leaves a dead child dead.
        Raises ChildFailedError for one that keeps dying.
        """
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

    def stop(self) -> None:
        """Stop the children one after another, the last started first, and wait until they are gone."""
        for child in reversed(self.children):
            child.process.terminate()
            try:
                child.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _forward(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Hand on the first line (or "" when there is none), and keep the pipe empty so that the child never blocks."""
    if process.stdout is None:
        return
    with process.stdout:
        lines.put(process.stdout.readline())
        for _ in process.stdout:
            pass
