"""A subscription that requires sessions: each is drained by one receiver at a time, in order, and nothing is lost."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSender

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import Settings
from include.instore.sources.bus import look
from include.instore.sources.dead_letters import redrive_dead_letters
from include.instore.sources.service_bus import Drained, drain, peek
from sandbox.servicebus import ServiceBusStandIn
from tests.instore import given

ROOT = Path(__file__).parents[3]
SUBSCRIPTIONS = 20

pytestmark = [
    pytest.mark.parametrize("databases", ["sqlite"], indirect=True),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


def _entities(**topic: Any) -> dict[str, Any]:
    subscriptions = [
        {
            "Name": f"s{number}",
            "Properties": {"RequiresSession": True, "MaxDeliveryCount": 10, "LockDuration": "PT1M"},
            "Rules": [
                {
                    "Name": "own",
                    "Properties": {"FilterType": "Correlation", "CorrelationFilter": {"Label": f"s{number}"}},
                }
            ],
        }
        for number in range(SUBSCRIPTIONS)
    ]
    topic = {"Name": "orders", "Properties": topic, "Subscriptions": subscriptions}
    return {"UserConfig": {"Namespaces": [{"Name": "ns", "Queues": [], "Topics": [topic]}]}}


class Bus:
    """A subscription that requires sessions, with an open sender."""

    def __init__(self, broker: ServiceBusStandIn, sender: ServiceBusSender, settings: Settings) -> None:
        self.broker = broker
        self.settings = settings
        self._sender = sender

    def send(self, *orders: tuple[str | None, str], **properties: Any) -> None:
        """Orders of a session, by their numbers."""
        self._sender.send_messages(
            [
                ServiceBusMessage(
                    given.body(number), session_id=session, subject=self.settings.bus.subscription, **properties
                )
                for session, number in orders
            ]
        )

    def client(self) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self.broker.connection_string, retry_total=0)

    def drain(self, ledger: Ledger, run_id: str = "run-1", receivers: int = 1, **changes: Any) -> Drained:
        open_run(ledger, given.run(run_id))
        clients = [self.client() for _ in range(receivers)]
        return drain(clients, ledger, run_id, self.settings.having(**changes))

    @contextlib.contextmanager
    def held(self, session: str, *, defer: int = 0) -> Iterator[None]:
        """Somebody else holds a session, and has deferred so many of its messages."""
        names = ("orders", self.settings.bus.subscription)
        with self.client() as client, client.get_subscription_receiver(*names, session_id=session) as receiver:
            for message in receiver.receive_messages(defer, max_wait_time=5) if defer else ():
                receiver.defer_message(message)
            yield

    @property
    def counts(self) -> dict[str, Any]:
        entities: dict[str, dict[str, Any]] = self.broker.state()["entities"]
        return entities[f"orders/Subscriptions/{self.settings.bus.subscription}"]


@pytest.fixture(scope="module")
def _broker() -> Iterator[tuple[ServiceBusStandIn, ServiceBusSender]]:
    with (
        ServiceBusStandIn(_entities()) as broker,
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_topic_sender("orders") as sender,
    ):
        yield broker, sender


_subscriptions = itertools.count()


@pytest.fixture
def bus(_broker: tuple[ServiceBusStandIn, ServiceBusSender], settings: Callable[..., Settings]) -> Iterator[Bus]:
    name = f"s{next(_subscriptions)}"
    yield Bus(*_broker, settings(subscription=name, drain_wait=0.2, drain_empty_reads=2))
    _broker[0].set_faults()


def landed(ledger: Ledger) -> list[str]:
    """The numbers of the orders, as they landed one after the other."""
    with ledger.read() as connection:
        return list(connection.scalars(sa.text("SELECT order_number FROM orders ORDER BY rowid")))


def by_session(numbers: list[str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for number in numbers:
        found[number.partition("-")[0]].append(number)
    return dict(found)


def test_each_session_lands_in_order_and_the_bus_says_that_none_is_left(ledger: Ledger, bus: Bus) -> None:
    sent = [(f"s{number % 5}", f"s{number % 5}-{number:03}") for number in range(60)]
    bus.send(*sent)
    drained = bus.drain(ledger, receivers=2, drain_block=5)
    assert (drained.landed.orders, drained.stopped_by, drained.not_drained) == (60, "drained", 0)
    assert (drained.locked_elsewhere, drained.deferred, drained.settle_failed) == (0, 0, 0)
    assert by_session(landed(ledger)) == by_session([number for _, number in sent])
    assert (bus.counts["active"], bus.counts["settled"]["completed"]) == (0, 60)
    assert bus.counts["max_delivery_count_seen"] == 0


def test_a_session_s_lock_is_renewed_while_its_messages_are_settled(ledger: Ledger, bus: Bus) -> None:
    bus.send(*(("a", f"a-{number:03}") for number in range(60)))
    bus.broker.set_faults(lock_seconds=2.0, latency_seconds=0.06)
    drained = bus.drain(ledger)
    assert (drained.landed.orders, drained.settle_failed, bus.counts["locks_expired"]) == (60, 0, 0)
    assert (drained.stopped_by, bus.counts["active"]) == ("drained", 0)


def test_a_session_whose_lock_is_lost_comes_again_and_is_known(ledger: Ledger, bus: Bus) -> None:
    bus.send(("a", "a-1"), ("a", "a-2"), ("b", "b-1"))
    bus.broker.set_faults(refuse_every_settle=1)
    first = bus.drain(ledger)
    # A session that cannot be settled is tried twice and stops no other; the bus would give up its messages.
    assert (first.landed.orders, first.stopped_by, first.locked_elsewhere) == (3, "drained", 0)
    assert (first.settle_failed, first.landed.duplicates, bus.counts["max_delivery_count_seen"]) == (5, 2, 2)
    bus.broker.set_faults()
    second = bus.drain(ledger, "run-2")
    assert (second.landed.orders, second.landed.duplicates, second.settle_failed) == (0, 3, 0)
    assert (landed(ledger), bus.counts["active"]) == (["a-1", "a-2", "b-1"], 0)
    given.assert_every_record_is_in_one_place(ledger)


def test_a_lock_that_expires_between_landing_and_settling_costs_nothing(ledger: Ledger, bus: Bus) -> None:
    bus.send(*(("a", f"a-{number:03}") for number in range(30)))
    bus.broker.set_faults(lock_seconds=2.0)

    def write() -> None:
        with ledger.write():  # so nothing lands meanwhile
            while not bus.counts["locks_expired"]:
                time.sleep(0.05)

    open_run(ledger, given.run())
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        drained = drain([bus.client()], ledger, "run-1", bus.settings)
    writing.result()
    assert (drained.settle_failed, drained.landed.orders, drained.landed.duplicates) == (30, 30, 30)
    assert (landed(ledger), bus.counts["active"]) == ([f"a-{number:03}" for number in range(30)], 0)


def test_what_somebody_else_holds_and_what_is_deferred_is_counted(ledger: Ledger, bus: Bus) -> None:
    bus.send(("a", "a-1"), ("a", "a-2"), ("b", "b-1"), ("c", "c-1"), ("c", "c-2"))
    with bus.held("c", defer=1):
        pass
    with bus.held("a"):
        drained = bus.drain(ledger, receivers=2)
        assert (drained.stopped_by, drained.not_drained, drained.locked_elsewhere) == ("drained", 0, 1)
        assert landed(ledger) in (["b-1", "c-2"], ["c-2", "b-1"])
    assert bus.drain(ledger, "run-2").landed.orders == 2
    redriven = redrive_dead_letters(bus.client(), ledger, bus.settings, limit=10, deferred=True)
    # The bus lists no session that has only deferred messages; a new one in it brings them.
    assert redriven.outcomes == []
    bus.send(("c", "c-3"))
    dry = redrive_dead_letters(bus.client(), ledger, bus.settings, limit=10, deferred=True, dry_run=True)
    redriven = redrive_dead_letters(bus.client(), ledger, bus.settings, limit=10, deferred=True)
    assert [each.outcome for each in (*dry.outcomes, *redriven.outcomes)] == ["landed", "landed"]
    assert (bus.counts["deferred"], bus.counts["active"], redriven.completed) == (0, 1, 1)


def test_a_budget_leaves_the_rest_and_says_how_much(ledger: Ledger, bus: Bus) -> None:
    bus.send(*((f"s{number}", f"s{number}-{at}") for number in range(3) for at in range(4)))
    drained = bus.drain(ledger, drain_max_messages=6)
    assert (drained.landed.orders, drained.stopped_by, drained.not_drained) == (6, "count", 6)
    assert bus.drain(ledger, "run-2").landed.orders == 6


def test_a_bus_that_cannot_be_asked_is_not_known_to_be_drained(ledger: Ledger, bus: Bus) -> None:
    bus.send(("a", "a-1"), ("b", "b-1"))
    bus.broker.set_faults(refuse_peeks=1)
    drained = bus.drain(ledger, drain_max_messages=1)
    assert (drained.landed.orders, drained.stopped_by, drained.not_drained) == (1, "count", None)


def test_a_look_and_a_dry_run_see_all_sessions_and_take_nothing(ledger: Ledger, bus: Bus) -> None:
    bus.send((None, "x"), ("a", "a-1"), ("b", "b-1"), ("b", "b-2"))
    time.sleep(0.3)
    seen = look((bus.client(), bus.client()), bus.settings)
    assert (seen.oldest_message > 0.2, seen.dead_letters) == (True, 1)
    open_run(ledger, given.run())
    peeked = peek(bus.client(), ledger, "run-1", bus.settings)
    assert (peeked.landed.orders, peeked.landed.received) == (3, 3)
    assert (bus.counts["active"], set(bus.counts["settled"].values())) == (3, {0})


@contextlib.contextmanager
def another_bus(entities: dict[str, Any], settings: Settings) -> Iterator[Bus]:
    with (
        ServiceBusStandIn(entities) as broker,
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_topic_sender("orders") as sender,
    ):
        yield Bus(broker, sender, settings)


@pytest.mark.parametrize("sessions", [True, False])
def test_a_partitioned_entity_is_drained_and_counted(
    ledger: Ledger, settings: Callable[..., Settings], sessions: bool
) -> None:
    entities = _entities(EnablePartitioning=True)
    entities["UserConfig"]["Namespaces"][0]["Topics"][0]["Subscriptions"][0]["Properties"]["RequiresSession"] = sessions
    own = settings(subscription="s0", drain_wait=0.2, drain_empty_reads=2)
    with another_bus(entities, own) as bus:
        bus.send(*((f"s{number}", f"s{number}-{at}") for number in range(4) for at in range(5)))
        first = bus.drain(ledger, drain_max_messages=7)
        assert (first.landed.orders, first.not_drained) == (7, 13)
        second = bus.drain(ledger, "run-2", receivers=2)
        assert (second.landed.orders, second.stopped_by, second.not_drained) == (13, "drained", 0)
        assert bus.counts["active"] == 0
    numbers = by_session(landed(ledger))
    assert all(numbers[f"s{session}"] == [f"s{session}-{at}" for at in range(5)] for session in range(4))


def test_duplicate_detection_loses_no_dead_letter_that_is_published_again(
    ledger: Ledger, settings: Callable[..., Settings]
) -> None:
    own = settings(subscription="s0", drain_wait=0.2, drain_empty_reads=2)
    with another_bus(_entities(RequiresDuplicateDetection=True), own) as bus:
        bus.send((None, "x-1"), message_id="m-1")
        bus.send(("a", "a-1"), message_id="m-1")
        bus.send(("a", "a-2"), message_id="m-2")
        drained = bus.drain(ledger)
        assert (drained.landed.received, drained.not_drained, landed(ledger)) == (1, 0, ["a-2"])
        # The topic remembers m-1 and drops it, while it says that it was taken.
        redriven = redrive_dead_letters(bus.client(), ledger, bus.settings, limit=10, publish=True)
        assert ([each.outcome for each in redriven.outcomes], redriven.completed) == (["published"], 1)
        assert bus.drain(ledger, "run-2").landed.received == 0
    assert landed(ledger) == ["a-2", "x-1"]


def test_a_subscription_that_forwards_its_messages_is_named(ledger: Ledger, settings: Callable[..., Settings]) -> None:
    entities = _entities()
    topics = entities["UserConfig"]["Namespaces"][0]["Topics"]
    topics.append({"Name": "all", "Properties": {}, "Subscriptions": [{"Name": "kept", "Properties": {}}]})
    topics[0]["Subscriptions"][0]["Properties"] = {"ForwardTo": "all"}
    with another_bus(entities, settings(subscription="s0", drain_wait=0.2)) as bus:
        bus.send(("a", "a-1"), ("b", "b-1"))
        with pytest.raises(ConfigurationError, match="'s0' of topic 'orders' has auto-forwarding on"):
            bus.drain(ledger)
        bus.settings = bus.settings.having(topic="all", subscription="kept")
        drained = bus.drain(ledger)
    assert (drained.landed.orders, drained.stopped_by) == (2, "drained")


def test_two_drains_and_a_kill_lose_nothing_and_double_nothing(
    ledger: Ledger, settings: Callable[..., Settings]
) -> None:
    sent = [(f"s{number % 50:02}", f"s{number % 50:02}-{number // 50:02}") for number in range(2000)]
    with another_bus(_entities(), settings(subscription="s0")) as bus:
        for begin in range(0, len(sent), 100):
            bus.send(*sent[begin : begin + 100])

        def start(run_id: str, place: str = "") -> subprocess.Popen[str]:
            arguments = (bus.broker.connection_string, str(ledger.engine.url), run_id, place)
            command = [sys.executable, "-m", "tests.instore.sources.draining", *arguments]
            return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)

        drains = [start("run-1"), start("run-2", "topic.between_completes:333")]
        said = [each.communicate(timeout=240)[0] for each in drains]
        assert [each.returncode for each in drains] == [0, -9]
        assert said[0].split()[0] in ("drained", "not known")
        last = start("run-3")
        assert (last.communicate(timeout=240)[0], last.returncode) == ("drained 0 0\n", 0)
        assert (bus.counts["active"], bus.counts["settled"]["completed"]) == (0, 2000)
    numbers = landed(ledger)
    assert (len(numbers), len(set(numbers))) == (2000, 2000)
    assert by_session(numbers) == by_session([number for _, number in sent])
    assert len(given.on_the_way(ledger)) == 2000
    given.assert_every_record_is_in_one_place(ledger)
