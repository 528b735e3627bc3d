"""The outside world as processes that can be killed and started again on the same port with the same state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sandbox import remote
from sandbox.keys import Keys, load_keys
from sandbox.servicebus import connection_string
from tests.faults.source import write_members

ROOT = Path(__file__).parents[2]
SUBSCRIPTION = "orderprocessing"
TOPICS = 500
"""One for each world, so that none finds what another one left."""
LOCK_SECONDS = 4
"""Long enough for a block on a busy machine, short enough to wait for after a kill."""
MAX_DELIVERIES = 50
"""A message is given up by the bus after so many deliveries; a suite of kills needs more than the usual ten."""


IMPATIENT = "impatient"
"""A topic whose subscription gives a message up after three deliveries."""


def topic(world: int) -> str:
    """The topic of a world; -1: the impatient one."""
    # Never one of another world's: what is left in it would be taken for this one's.
    assert world < TOPICS, f"more than {TOPICS} worlds; raise TOPICS"
    return IMPATIENT if world < 0 else f"orders{world}"


class StandIn:
    """One stand-in process; its own records are in reach while it runs."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.port = 0
        self._arguments = list(arguments)
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spawn(self) -> None:
        """Start it, without waiting."""
        command = [sys.executable, "-m", "sandbox", *self._arguments, "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def wait(self) -> None:
        """Wait until it is ready."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self.name} did not start: {self._log.read_text()[-500:]}"
        self.port = json.loads(line)["port"]

    def start(self) -> None:
        self.spawn()
        self.wait()

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def freeze(self, frozen: bool) -> None:
        """Stop it in the middle of whatever it does, or let it go on: a machine that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = remote.call(self.url, "GET", "/sandbox/state")
        return state

    def set_faults(self, **knobs: Any) -> None:
        """Set these knobs; those not named are off."""
        remote.change_faults(self.url, knobs, clear=True)


class Sandbox:
    """A Service Bus, a loyalty API and a Profile Store of one session."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.worlds: set[str] = set()
        write_members(folder / "members.csv")
        (folder / "Config.json").write_text(json.dumps(_bus_config()))
        state = ["--state", str(folder / "state")]
        self.bus = StandIn(
            "the Service Bus", ["servicebus", "--config", str(folder / "Config.json"), *state], folder / "bus.log"
        )
        self.loyalty = StandIn(
            "the loyalty API", ["loyalty", "--members", str(folder / "members.csv"), *state], folder / "loyalty.log"
        )
        self.store = StandIn("the Profile Store", ["profile-store", *state], folder / "store.log")
        self.keys: Keys = load_keys(folder / "state")

    @property
    def all(self) -> tuple[StandIn, ...]:
        return self.bus, self.loyalty, self.store

    @property
    def connection_string(self) -> str:
        return connection_string(self.bus.port, key=self.keys.service_bus_key)

    def start(self) -> None:
        for each in self.all:
            each.spawn()
        for each in self.all:
            each.wait()
        self.calm()

    def calm(self) -> None:
        """Take all ordered faults back."""
        for each in self.all:
            each.set_faults()

    def stop(self) -> None:
        for each in self.all:
            each.stop()

    def subscription(self, topic: str) -> dict[str, Any]:
        """What the broker knows of a topic's subscription."""
        entities: dict[str, Any] = self.bus.state()["entities"]
        counts: dict[str, Any] = entities[f"{topic}/Subscriptions/{SUBSCRIPTION}"]
        return counts

    def events(self, after: int) -> list[dict[str, Any]]:
        """Everything the Profile Store accepted behind an id, as it came."""
        found: list[dict[str, Any]] = []
        while True:
            some = remote.call(self.store.url, "GET", f"/sandbox/events?after={after}&limit=10000")
            found += some
            if len(some) < 10_000:
                return found
            after = some[-1]["id"]


def eventually(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Wait until something is true and return it."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return value


def _bus_config() -> dict[str, Any]:
    properties: dict[str, Any] = {"LockDuration": f"PT{LOCK_SECONDS}S", "MaxDeliveryCount": MAX_DELIVERIES}
    properties["DeadLetteringOnMessageExpiration"] = True
    subscription = {"Name": SUBSCRIPTION, "Properties": properties, "Rules": []}
    premium = {"MaxMessageSizeInKilobytes": 1024}
    topics = [{"Name": topic(n), "Properties": premium, "Subscriptions": [subscription]} for n in range(TOPICS)]
    impatient = {**subscription, "Properties": {**properties, "MaxDeliveryCount": 3}}
    topics.append({"Name": IMPATIENT, "Properties": {}, "Subscriptions": [impatient]})
    forwards = {**subscription, "Properties": {**properties, "ForwardTo": topic(0)}}
    topics.append({"Name": "forwards", "Properties": {}, "Subscriptions": [forwards]})
    return {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [], "Topics": topics}]}}
