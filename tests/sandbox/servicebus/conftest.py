"""One broker for most tests, with links that stay open: opening and closing one takes the SDK a second."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSender,
)
from azure.servicebus.exceptions import ServiceBusError

from sandbox.servicebus import ServiceBusStandIn, connection_string

ROOT = Path(__file__).parents[3]


def config(*, queues: list[Any] | None = None, topics: list[Any] | None = None) -> dict[str, Any]:
    """A Config.json of Microsoft's emulator."""
    return {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": queues or [], "Topics": topics or []}]}}


def queue(name: str, **properties: Any) -> dict[str, Any]:
    return {"Name": name, "Properties": properties}


def subscription(name: str, *rules: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"Name": name, "Properties": properties, "Rules": list(rules)}


def topic(name: str, *subscriptions: dict[str, Any]) -> dict[str, Any]:
    return {"Name": name, "Properties": {}, "Subscriptions": list(subscriptions)}


def eventually(condition: Callable[[], Any], seconds: float = 5) -> Any:
    """Wait until something is true and return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.005)
    return value


DeadLetter = Callable[[], ServiceBusReceivedMessage]


class Bench:
    """A queue with an open sender and an open receiver, and what the broker says about it."""

    def __init__(self, bus: ServiceBusStandIn, name: str, sender: ServiceBusSender, receiver: ServiceBusReceiver):
        self.bus = bus
        self.name = name
        self.sender = sender
        self.receiver = receiver
        self._received: list[ServiceBusReceivedMessage] = []

    def send(self, body: str = "a body", **properties: Any) -> str:
        """Send one message; returns its id."""
        properties.setdefault("message_id", uuid.uuid4().hex)
        self.sender.send_messages(ServiceBusMessage(body, **properties))
        return str(properties["message_id"])

    def receive(self, count: int = 1) -> list[ServiceBusReceivedMessage]:
        messages = self.receiver.receive_messages(count, max_wait_time=3)
        self._received += messages
        assert len(messages) == count
        return messages

    def receive_one(self) -> ServiceBusReceivedMessage:
        return self.receive()[0]

    def clear(self) -> None:
        """Settle what a failed test left behind, so that the next one starts with an empty queue."""
        received, self._received = self._received, []
        for message in received:
            if not message._settled:
                with contextlib.suppress(ServiceBusError):
                    self.receiver.complete_message(message)
        for _ in range(10):
            if left := self.counts["active"]:
                for message in self.receiver.receive_messages(left, max_wait_time=1):
                    self.receiver.complete_message(message)

    @property
    def counts(self) -> dict[str, Any]:
        return self.bus.state()["entities"][self.name]


@pytest.fixture(scope="session")
def bus() -> Iterator[ServiceBusStandIn]:
    """A broker without a state file."""
    work = queue("Work", MaxDeliveryCount=3, DeadLetteringOnMessageExpiration=True, MaxMessageSizeInKilobytes=1024)
    entities = config(
        queues=[work, queue("Standard"), queue("Sessions", RequiresSession=True)],
        topics=[topic("orders", subscription("orderprocessing", MaxDeliveryCount=10))],
    )
    with ServiceBusStandIn(entities) as running:
        yield running


@pytest.fixture(scope="session")
def client(bus: ServiceBusStandIn) -> Iterator[ServiceBusClient]:
    # Without retries: a refusal that the SDK would repeat three times is seen at once.
    with ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0) as opened:
        yield opened


@pytest.fixture(scope="session")
def _bench(bus: ServiceBusStandIn, client: ServiceBusClient) -> Iterator[Bench]:
    with client.get_queue_sender("Work") as sender, client.get_queue_receiver("Work") as receiver:
        yield Bench(bus, "Work", sender, receiver)


@pytest.fixture
def bench(_bench: Bench) -> Iterator[Bench]:
    """The queue Work, empty and without faults at the start."""
    yield _bench
    _bench.bus.set_faults()
    _bench.clear()
    counts = _bench.counts
    left = {each: counts[each] for each in ("active", "locked", "deferred", "scheduled") if counts[each]}
    assert not left, "messages are left behind"


@pytest.fixture(scope="session")
def dead_letter(client: ServiceBusClient) -> Iterator[DeadLetter]:
    """Takes the next message from Work's dead-letter queue. One at a time: credit that is left over would take what a
    later test sends there."""
    with client.get_queue_receiver("work", sub_queue="deadletter", receive_mode="receiveanddelete") as receiver:
        yield lambda: receiver.receive_messages(1, max_wait_time=3)[0]


@pytest.fixture
def _collected() -> Iterator[None]:
    yield
    gc.collect()


def cuts_connections(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test in which connections break: the SDK forgets to close the socket of one that did (`_disconnect` does
    nothing once the state is END), and the collector complains."""
    ignored = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    return ignored(pytest.mark.usefixtures("_collected")(test))


class BrokerProcess:
    """The broker in a process of its own, which can be killed and started again on the same port and state."""

    def __init__(self, folder: Path, entities: dict[str, Any]) -> None:
        self.state = folder / "bus.db"
        self.port = 0
        self._config = folder / "Config.json"
        self._config.write_text(json.dumps(entities))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "sandbox.servicebus", "--config", str(self._config)]
        command += ["--state", str(self.state), "--port", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = json.loads(self._process.stdout.readline())["port"]

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def terminate(self) -> tuple[int, str]:
        """SIGTERM; returns the exit code and everything it printed after the ready line."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> tuple[int, str]:
        if self._process is None:
            return 0, ""
        process, self._process = self._process, None
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        return process.returncode, out + err

    @property
    def connection_string(self) -> str:
        return connection_string(self.port)


@pytest.fixture
def broker_process(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, config(queues=[queue("work", MaxDeliveryCount=3)]))
    yield process
    process.kill()
