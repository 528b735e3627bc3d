"""Draining: the real SDK over a real socket. A message is settled only after its row is committed (invariant 1)."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import socket
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from azure.servicebus import ServiceBusClient, ServiceBusReceivedMessage, ServiceBusSender
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageProperties
from azure.servicebus.management import ServiceBusAdministrationClient

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.quarantined import Wanted
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import Settings, load_settings
from include.instore.runs.report import report_run
from include.instore.sources.bus import keeps_expired, look
from include.instore.sources.extracts import Storage
from include.instore.sources.extracts.storage import storage_errors
from include.instore.sources.quarantine import redrive
from include.instore.sources.service_bus import Drained, drain, peek
from sandbox.servicebus import ServiceBusStandIn, connection_string
from tests.instore import given
from tests.instore.conftest import DATABASES
from tests.instore.sources.encoded import send_encoded, undecodable
from tests.sandbox.servicebus.test_http import PlainHttp

SUBSCRIPTIONS = 100
"""One per test, at most: each test has an empty one, and opening a broker and a sender for each would take a second."""


def _entities() -> dict[str, Any]:
    subscriptions = [
        {
            "Name": name,
            "Properties": {"MaxDeliveryCount": 10, "LockDuration": "PT1M"},
            "Rules": [
                {"Name": "own", "Properties": {"FilterType": "Correlation", "CorrelationFilter": {"Label": name}}}
            ],
        }
        for name in (f"s{number}" for number in range(SUBSCRIPTIONS))
    ]
    topic = {"Name": "orders", "Properties": {}, "Subscriptions": subscriptions}
    return {"UserConfig": {"Namespaces": [{"Name": "ns", "Queues": [], "Topics": [topic]}]}}


class Bus:
    """A subscription of a broker with an open sender, and drains of it."""

    def __init__(self, broker: ServiceBusStandIn, sender: ServiceBusSender, settings: Settings) -> None:
        self.broker = broker
        self.settings = settings
        self.connection_string = broker.connection_string
        self._sender = sender

    def send(self, *bodies: bytes | AmqpAnnotatedMessage, message_id: Any = None) -> None:
        label = self.settings.bus.subscription
        for each in bodies:
            message = each if isinstance(each, AmqpAnnotatedMessage) else AmqpAnnotatedMessage(data_body=each)
            message.properties = AmqpMessageProperties(subject=label, message_id=message_id)
            self._sender.send_messages(message)

    def send_encoded(self, *messages: bytes) -> None:
        send_encoded(self._sender, *messages)

    @contextlib.contextmanager
    def held(self, count: int, *, defer: bool = False) -> Iterator[None]:
        """Somebody else holds so many of the messages, or has deferred them."""
        with (
            self.client() as client,
            client.get_subscription_receiver("orders", self.settings.bus.subscription) as receiver,
        ):
            messages = receiver.receive_messages(count, max_wait_time=5)
            assert len(messages) == count
            for message in messages:
                if defer:
                    receiver.defer_message(message)
            yield

    def drain(self, ledger: Ledger, run_id: str = "run-1", receivers: int = 1, **changes: Any) -> Drained:
        open_run(ledger, given.run(run_id))
        clients = [self.client() for _ in range(receivers)]
        return drain(clients, ledger, run_id, self.settings.having(**changes))

    def client(self) -> ServiceBusClient:
        # Without retries: a refusal that the SDK would repeat three times is seen at once.
        return ServiceBusClient.from_connection_string(self.connection_string, retry_total=0)

    def dead_letters(self, count: int) -> list[ServiceBusReceivedMessage]:
        with (
            self.client() as client,
            client.get_subscription_receiver(
                "orders", self.settings.bus.subscription, sub_queue="deadletter", receive_mode="receiveanddelete"
            ) as receiver,
        ):
            return receiver.receive_messages(count, max_wait_time=5)

    def set_faults(self, **knobs: Any) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.broker.port}/sandbox/faults", json.dumps(knobs).encode(), method="PUT"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    @property
    def counts(self) -> dict[str, Any]:
        entities: dict[str, dict[str, Any]] = self.broker.state()["entities"]
        (found,) = (each for name, each in entities.items() if name.endswith(f"/{self.settings.bus.subscription}"))
        return found

    @property
    def left(self) -> int:
        """Messages on the subscription, locked ones as well."""
        return int(self.counts["active"])


@pytest.fixture(scope="session")
def _brokers() -> Iterator[list[tuple[ServiceBusStandIn, ServiceBusSender]]]:
    """A broker for either database, so that both have their own faults."""
    with contextlib.ExitStack() as opened:
        brokers = [opened.enter_context(ServiceBusStandIn(_entities())) for _ in DATABASES]
        clients = [
            opened.enter_context(ServiceBusClient.from_connection_string(broker.connection_string))
            for broker in brokers
        ]
        senders = [opened.enter_context(client.get_topic_sender("orders")) for client in clients]
        yield list(zip(brokers, senders, strict=True))


_subscriptions = itertools.count()


@pytest.fixture
def buses(
    _brokers: list[tuple[ServiceBusStandIn, ServiceBusSender]],
    settings: Callable[..., Settings],
    request: pytest.FixtureRequest,
) -> Iterator[list[Bus]]:
    """A subscription nobody used yet, on either broker; both behave."""
    own = settings(
        subscription=f"s{next(_subscriptions)}",
        drain_wait=0.2,
        drain_empty_reads=2,
        settle_in_blocks=getattr(request, "param", True),
    )
    yield [Bus(broker, sender, own) for broker, sender in _brokers]
    for broker, _ in _brokers:
        broker.set_faults()


@pytest.fixture
def bus(buses: list[Bus]) -> Bus:
    return buses[0]


def on_both_databases(test: Callable[[Bus, Ledger], None]) -> Callable[..., None]:
    """Runs a test on SQLite and on PostgreSQL at the same time: nearly all of it is the SDK's own waiting."""

    def on_both(buses: list[Bus], both_ledgers: list[Ledger]) -> None:
        with ThreadPoolExecutor(len(DATABASES)) as threads:
            running = [threads.submit(test, *place) for place in zip(buses, both_ledgers, strict=True)]
        faults = {name: fault for name, each in zip(DATABASES, running, strict=True) if (fault := each.exception())}
        for name, fault in faults.items():
            raise AssertionError(f"on {name}") from fault

    on_both.__name__, on_both.__doc__, on_both.__module__ = test.__name__, test.__doc__, test.__module__
    return on_both


settled_both_ways = pytest.mark.parametrize("buses", [True, False], indirect=True, ids=["in-blocks", "one-by-one"])


@pytest.fixture
def _collected() -> Iterator[None]:
    yield
    gc.collect()


def cuts_connections(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test in which connections break: the SDK forgets to close their sockets, and the collector complains."""
    ignored = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    return ignored(pytest.mark.usefixtures("_collected")(test))


@contextmanager
def failing_ledger(ledger: Ledger) -> Iterator[Ledger]:
    """The same ledger, which nobody can write to: another process holds its lock, or a trigger refuses."""
    if ledger.engine.dialect.name == "sqlite":
        impatient = Ledger(ledger.engine.url, busy_seconds=0.1)
        with ledger.write():
            yield impatient
        impatient.close()
        return
    with ledger.write() as connection:
        connection.execute(
            sa.text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'disk full'; END $$"
            )
        )
        connection.execute(sa.text("CREATE TRIGGER full_disk BEFORE INSERT ON orders EXECUTE FUNCTION refuse()"))
    yield ledger
    with ledger.write() as connection:
        connection.execute(sa.text("DROP TRIGGER full_disk ON orders"))


def wait_for_locks_to_expire(bus: Bus) -> None:
    """Until no message is locked any more; the broker tells."""
    deadline = time.monotonic() + 10
    while bus.counts["locked"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@on_both_databases
def test_blocks_become_small_enough_for_their_locks_on_a_slow_bus(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(30)))
    bus.set_faults(latency_seconds=0.15, lock_seconds=1)
    drained = bus.drain(ledger, drain_block=30, drain_wait=1, settle_in_blocks=False)
    assert drained.settle_failed > 0, "the locks lasted: it proves nothing"
    assert drained.landed.orders == 30
    assert bus.left == 0
    # Each delivery more is one of the few after which the bus makes a message a dead letter.
    assert bus.counts["max_delivery_count_seen"] <= 3


@on_both_databases
def test_a_block_is_completed_by_one_request(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(120)))
    bus.set_faults(latency_seconds=0.1)
    begun = time.monotonic()
    drained = bus.drain(ledger, drain_block=120, drain_wait=1)
    assert (drained.landed.orders, drained.settle_failed, bus.left) == (120, 0, 0)
    assert bus.counts["settled"]["completed"] == 120
    assert time.monotonic() - begun < 120 * 0.1


@on_both_databases
def test_a_lock_lost_within_a_block_brings_its_own_message_again_and_no_other(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(5)))
    bus.set_faults(refuse_every_settle=3)
    drained = bus.drain(ledger)
    # The third one, twice: as the third of its block, and when it has come again.
    assert (drained.landed.orders, drained.landed.duplicates, drained.settle_failed) == (5, 2, 2)
    assert (bus.counts["settled"]["completed"], bus.left) == (5, 0)


@on_both_databases
def test_a_bus_that_completes_no_blocks_is_asked_for_one_once(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(4)))
    bus.set_faults(refuse_next_settles=1, refusal="amqp:not-implemented")
    drained = bus.drain(ledger, drain_block=2)
    assert (drained.landed.orders, drained.settle_failed, bus.left) == (4, 0, 0)


@settled_both_ways
@on_both_databases
def test_several_receivers_drain_everything_between_them(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(120)))
    drained = bus.drain(ledger, receivers=4, drain_block=10)
    assert (drained.landed.received, drained.landed.orders, drained.landed.duplicates) == (120, 120, 0)
    assert (drained.stopped_by, drained.settle_failed, drained.dead_lettered) == ("drained", 0, 0)
    assert set(given.statuses(ledger)) == {f"S{number}" for number in range(120)}
    assert (bus.left, bus.counts["locked"], bus.counts["settled"]["completed"]) == (0, 0, 120)
    given.assert_every_record_is_in_one_place(ledger)


@on_both_databases
def test_an_empty_subscription_is_drained_at_once(bus: Bus, ledger: Ledger) -> None:
    nothing = Drained(stopped_by="drained", not_drained=0, locked_elsewhere=0, deferred=0)
    assert bus.drain(ledger, receivers=2, drain_wait=0.1) == nothing
    assert given.on_the_way(ledger) == []


@settled_both_ways
@on_both_databases
def test_a_message_is_completed_only_after_its_row_is_committed(bus: Bus, ledger: Ledger) -> None:
    bus.send(given.body("S1"), given.body("S2"), b"not json")
    open_run(ledger, given.run())
    with failing_ledger(ledger) as failing:
        bus.set_faults(lock_seconds=1.0)
        with pytest.raises(RetriableError, match="instore_ledger"):
            drain([bus.client()], failing, "run-1", bus.settings)
        settled = bus.counts["settled"]
        assert (settled["completed"], settled["dead_lettered"], bus.left) == (0, 0, 3)
    assert given.on_the_way(ledger) == given.rows(ledger, "quarantine") == []
    wait_for_locks_to_expire(bus)

    bus.set_faults()
    drained = bus.drain(ledger)
    assert (drained.landed.received, drained.landed.orders) == (3, 2)
    assert (drained.landed.duplicates, drained.landed.quarantined) == (0, 1)
    assert bus.dead_letters(1)[0].delivery_count == 1
    assert bus.left == 0
    given.assert_every_record_is_in_one_place(ledger)


@settled_both_ways
@on_both_databases
def test_a_message_of_several_orders_is_settled_once_and_none_is_lost(bus: Bus, ledger: Ledger) -> None:
    bad = {"orderNumber": "S3"}
    bus.send(json.dumps([given.document("S1"), given.document("S2"), bad, given.document("S4")]).encode())
    bus.send(given.body("S5"), b"no order")
    drained = bus.drain(ledger)
    assert (drained.landed.received, drained.landed.orders, drained.landed.quarantined) == (6, 4, 2)
    assert (drained.dead_lettered, bus.left) == (1, 0)
    assert sorted(given.statuses(ledger)) == ["S1", "S2", "S4", "S5"]
    kept = {row["reference"][-3:]: row for row in given.rows(ledger, "quarantine")}
    assert json.loads(kept["[2]"]["raw"]) == bad
    assert given.row(ledger, "S4")["reference"].endswith("[3]")
    (letter,) = bus.dead_letters(1)
    assert letter.dead_letter_reason == "not_json"
    given.assert_every_record_is_in_one_place(ledger)


def test_messages_with_a_new_field_and_other_dates_are_told(bus: Bus, ledger: Ledger) -> None:
    told = []
    for number, changes in enumerate(
        ({}, {"crmId": "7", "date": "/Date(1571234567890+0200)/"}, {"crmId": "7", "date": "/Date(1571234567890+0200)/"})
    ):
        bus.send(*(given.body(f"S{number}x{at}", **changes) for at in range(25)))
        run = given.run(f"run-{number}")
        assert bus.drain(ledger, run.run_id, receivers=2).landed.orders == 25
        told.append(report_run(ledger, run, [], bus.settings).document["changed_fields"])
    assert told == [0, 1, 0]


def test_a_message_that_points_to_a_blob_lands_the_blob_s_order(bus: Bus, ledger: Ledger, tmp_path: Path) -> None:
    declared, folder = tmp_path / "claim.yaml", tmp_path / "blobs"
    folder.mkdir()
    declared.write_text("format: json\nblob: data.blob\norders: order\n")
    (folder / "large.json").write_bytes(b"[" + b" " * 3000 + b"]")
    (folder / "a").write_text(json.dumps({"order": given.document("S1")}))
    (folder / "bad").write_text(json.dumps({"order": given.document("S2", currency="EURO")}))
    (tmp_path / "outside").write_text(json.dumps({"order": given.document("S9")}))
    names = ["a", "bad", "late", "large.json", "../outside", None]
    bus.send(*(json.dumps({"data": {"blob": name}}).encode() for name in names))
    chosen = bus.settings.having(topic_adapter=str(declared), max_message_bytes=2048)
    blobs = Storage.local(folder).read
    open_run(ledger, given.run())
    drained = drain([bus.client()], ledger, "run-1", chosen, blobs)
    assert (drained.landed.orders, drained.landed.quarantined, drained.dead_lettered, bus.left) == (1, 5, 5, 0)
    kept = {row["reason"]: row for row in given.rows(ledger, "quarantine")}
    assert sorted(row["reason"] for row in given.rows(ledger, "quarantine")) == [
        "bad_value", "blob_missing", "blob_missing", "missing_field", "too_large",
    ]  # fmt: skip
    assert kept["bad_value"]["adapter"] == "claim@", "the blob itself is kept"
    assert json.loads(kept["too_large"]["raw"]) == {"data": {"blob": "large.json"}}

    (folder / "late").write_text(json.dumps({"order": given.document("S3")}))
    (folder / "bad").unlink()
    outcomes = redrive(ledger, Wanted(), chosen, blobs)
    assert sorted((each.outcome, each.reason) for each in outcomes) == [
        ("landed", ""), ("refused", "bad_value"), ("refused", "blob_missing"), ("refused", "missing_field"),
        ("refused", "too_large"),
    ]  # fmt: skip
    given.assert_every_record_is_in_one_place(ledger)


def test_a_message_whose_blob_cannot_be_read_now_comes_again(bus: Bus, ledger: Ledger, tmp_path: Path) -> None:
    declared = tmp_path / "claim.yaml"
    declared.write_text("format: json\nblob: blob\n")
    (tmp_path / "a").write_bytes(given.body("S1"))
    bus.send(b'{"blob": "a"}')
    bus.set_faults(lock_seconds=1)
    chosen = bus.settings.having(topic_adapter=str(declared))
    open_run(ledger, given.run())

    def failing(name: str, most: int) -> bytes | None:
        with storage_errors():
            raise TimeoutError

    with pytest.raises(RetriableError, match="instore_extracts"):
        drain([bus.client()], ledger, "run-1", chosen, failing)
    assert (given.rows(ledger, "orders"), given.rows(ledger, "quarantine")) == ([], [])
    wait_for_locks_to_expire(bus)
    assert bus.left == 1
    assert drain([bus.client()], ledger, "run-1", chosen, Storage.local(tmp_path).read).landed.orders == 1
    assert bus.left == 0


def test_messages_are_read_by_the_topic_s_adapter(bus: Bus, ledger: Ledger, tmp_path: Path) -> None:
    declared = tmp_path / "envelope.yaml"
    declared.write_text("format: json\norders: message.orders\n")
    orders = [given.document("S1"), given.document("S2", currency="EURO")]
    bus.send(json.dumps({"message": {"orders": orders}}).encode(), given.body("S3"))
    drained = bus.drain(ledger, topic_adapter=str(declared))
    assert (drained.landed.orders, drained.landed.quarantined, drained.dead_lettered) == (1, 2, 1)
    assert {row["adapter"] for row in given.rows(ledger, "quarantine")} == {"envelope", "envelope[]"}
    (letter,) = bus.dead_letters(1)
    assert "nothing is at message.orders" in str(letter.dead_letter_error_description)


def test_an_order_known_already_is_a_duplicate_and_leaves_the_bus(bus: Bus, ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), source="extract")
    bus.send(given.body("S1"), given.body("S1", total="9.99"))
    drained = bus.drain(ledger)
    assert (drained.landed.orders, drained.landed.duplicates, drained.landed.corrections) == (0, 1, 1)
    assert bus.counts["settled"]["completed"] == 2


@settled_both_ways
@on_both_databases
def test_refused_messages_are_dead_lettered_with_their_reason_and_kept_with_their_raw_bytes(
    bus: Bus, ledger: Ledger
) -> None:
    raw = {
        "not_json": b"\xef\xbb\xbf\xff\x00 not json",
        "not_an_object": b"[1]",
        "missing_field": given.body("S1", total=None),
        "bad_value": given.body("S2", total="ten"),
        "unsupported_type": given.body("S3", orderType="exchange"),
        "too_large": given.body("S4", storeName="x" * 3000),
    }
    bus.send(*raw.values(), given.body("good"))
    drained = bus.drain(ledger, max_message_bytes=2048)
    assert (drained.landed.orders, drained.landed.quarantined, drained.dead_lettered) == (1, 6, 6)
    kept = {row["reason"]: row for row in given.rows(ledger, "quarantine")}
    assert {reason: row["raw"] for reason, row in kept.items()} == raw
    letters = {str(letter.dead_letter_reason): letter for letter in bus.dead_letters(6)}
    assert {reason: b"".join(letter.body) for reason, letter in letters.items()} == raw
    assert letters["missing_field"].dead_letter_error_description == "total is required"
    for reason, letter in letters.items():
        assert letter.dead_letter_error_description == kept[reason]["detail"]
        assert kept[reason]["reference"].endswith(f"#{letter.sequence_number}")
    given.assert_every_record_is_in_one_place(ledger)


@on_both_databases
def test_a_body_that_is_no_bytes_is_read_or_refused(bus: Bus, ledger: Ledger) -> None:
    bus.send(
        AmqpAnnotatedMessage(value_body=given.body("text").decode()),
        AmqpAnnotatedMessage(data_body=[given.body("sections")[:40], given.body("sections")[40:]]),
        AmqpAnnotatedMessage(value_body={"orderNumber": "map"}),
        AmqpAnnotatedMessage(value_body=7),
        AmqpAnnotatedMessage(sequence_body=[["a"], ["b"]]),
    )
    bus.send(AmqpAnnotatedMessage(value_body=given.document("a whole order")))
    drained = bus.drain(ledger)
    assert set(given.statuses(ledger)) == {"text", "sections", "a whole order"}
    assert (drained.landed.quarantined, drained.dead_lettered) == (3, 3)
    # What was sent can be told from what is kept.
    raws = {bytes(row["raw"]) for row in given.rows(ledger, "quarantine")}
    assert raws == {b'{"orderNumber": "map"}', b"7", b'[["a"], ["b"]]'}


@on_both_databases
def test_no_message_can_stop_the_others(bus: Bus, ledger: Ledger) -> None:
    odd = (b'{"a":' * 600 + b"1" + b"}" * 600, b"1e1000000", b'"\\ud800"')
    for number, value in enumerate(odd):
        bus.send(given.body(f"odd{number}", extra="ODD").replace(b'"ODD"', value))
    # An id that PostgreSQL does not take, with a good and a bad body.
    bus.send(given.body("S1"), b"{", message_id="m\0")
    for number, odd_id in enumerate((uuid.UUID(int=7), 7, b"\xff\xfe")):
        bus.send(given.body(f"id{number}"), message_id=odd_id)
    bus.send(given.body("S2"), message_id="m-2")
    bus.send(given.body("S3"))
    drained = bus.drain(ledger)
    assert drained.landed.received == 10
    assert set(given.statuses(ledger)) == {"odd1", "S1", "S2", "S3", "id0", "id1", "id2"}
    assert (bus.left, bus.counts["locked"]) == (0, 0)
    # A message without an id is known by its sequence number.
    references = {number: given.row(ledger, number)["reference"] for number in ("S2", "S3")}
    assert (references["S2"].partition("#")[0], references["S3"].partition("#")[0]) == ("m-2", "-")
    assert references["S3"].partition("#")[2].isdigit()


@on_both_databases
def test_a_message_that_cannot_be_decoded_is_set_aside_and_stops_nobody(bus: Bus, ledger: Ledger) -> None:
    kinds = undecodable(bus.settings.bus.subscription)
    bus.send(given.body("before"))
    bus.send_encoded(*kinds.values())
    bus.send(given.body("after"))
    drained = bus.drain(ledger)
    landed = drained.landed
    assert (landed.received, landed.orders, landed.quarantined) == (len(kinds) + 2, 2, len(kinds))
    assert (drained.dead_lettered, drained.settle_failed, drained.stopped_by) == (len(kinds), 0, "drained")
    assert (bus.left, bus.counts["locked"], bus.counts["max_delivery_count_seen"]) == (0, 0, 0)
    kept = given.rows(ledger, "quarantine")
    assert {row["reason"] for row in kept} == {"undecodable"}
    assert {row["reference"].partition("#")[2].isdigit() for row in kept} == {True}
    sent = {kind: raw for kind, raw in kinds.items() if kind != "an annotation of no type"}
    assert set(sent.values()) < {bytes(row["raw"]) for row in kept}
    letters = bus.dead_letters(len(kinds))
    assert {letter.dead_letter_reason for letter in letters} <= {"undecodable", None}
    given.assert_every_record_is_in_one_place(ledger)


@on_both_databases
def test_an_undecodable_message_that_comes_again_is_known(bus: Bus, ledger: Ledger) -> None:
    bus.send_encoded(*undecodable(bus.settings.bus.subscription).values())
    bus.set_faults(refuse_every_settle=1)
    first = bus.drain(ledger, drain_max_messages=9)
    bus.set_faults()
    second = bus.drain(ledger, "run-2")
    assert (first.landed.quarantined, second.landed.quarantined, second.landed.duplicates) == (9, 0, 9)
    assert bus.left == 0


@on_both_databases
def test_a_dry_run_tells_of_a_message_that_cannot_be_decoded(bus: Bus, ledger: Ledger) -> None:
    bus.send_encoded(*undecodable(bus.settings.bus.subscription).values())
    bus.send(given.body("S1"))
    open_run(ledger, given.run())
    seen = peek(bus.client(), ledger, "run-1", bus.settings)
    assert (seen.landed.orders, seen.landed.quarantined) == (1, 9)


@on_both_databases
def test_an_empty_read_does_not_say_that_nothing_is_there(bus: Bus, ledger: Ledger) -> None:
    bus.send(given.body("S1"))
    bus.set_faults(latency_seconds=0.5)
    drained = bus.drain(ledger, drain_wait=0.05, drain_empty_reads=1)
    assert (drained.landed.orders, drained.stopped_by, drained.not_drained) == (1, "drained", 0)


@on_both_databases
def test_what_somebody_else_holds_is_counted_apart(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(5)))
    with bus.held(2):
        drained = bus.drain(ledger, receivers=2)
    assert (drained.landed.orders, drained.stopped_by) == (3, "drained")
    assert (drained.not_drained, drained.locked_elsewhere, drained.deferred) == (0, 2, 0)
    assert (given.tally(ledger)["drain"], given.tally(ledger)["locked_elsewhere"]) == ("drained", 2)


@settled_both_ways
@on_both_databases
def test_what_landed_and_was_not_settled_is_not_held_by_somebody_else(bus: Bus, ledger: Ledger) -> None:
    bus.send(given.body("S1"))
    bus.set_faults(refuse_every_settle=1, refusal="com.microsoft:server-busy")
    drained = bus.drain(ledger)
    assert (drained.settle_failed, drained.locked_elsewhere, drained.not_drained) == (1, 0, 0)


@on_both_databases
def test_deferred_messages_are_counted_and_a_dry_run_does_not_count_them_as_orders(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(3)))
    with bus.held(2, defer=True):
        pass
    open_run(ledger, given.run())
    seen = peek(bus.client(), ledger, "run-1", bus.settings)
    assert (seen.landed.received, seen.landed.orders, seen.deferred) == (1, 1, 2)
    drained = bus.drain(ledger)
    assert (drained.landed.received, drained.deferred, drained.stopped_by) == (1, 2, "drained")
    assert (drained.not_drained, drained.locked_elsewhere, given.tally(ledger)["deferred"]) == (0, 0, 2)


def test_a_message_behind_many_deferred_ones_waits_as_any_other(bus: Bus) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(111)))
    with bus.held(110, defer=True):
        pass
    time.sleep(0.5)
    assert look((bus.client(), bus.client()), bus.settings).oldest_message > 0.5


@on_both_databases
def test_a_bus_that_cannot_be_asked_is_not_known_to_be_drained(bus: Bus, ledger: Ledger) -> None:
    bus.send(given.body("S1"))
    bus.set_faults(refuse_peeks=1)
    drained = bus.drain(ledger)
    assert (drained.landed.orders, drained.stopped_by) == (1, "not known")
    assert (drained.not_drained, drained.locked_elsewhere, drained.deferred) == (None, None, None)
    assert bus.drain(ledger, drain_max_messages=0).stopped_by == "count"


@on_both_databases
def test_a_budget_that_was_just_enough_is_drained(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(3)))
    drained = bus.drain(ledger, drain_max_messages=3)
    assert (drained.landed.orders, drained.stopped_by, drained.not_drained) == (3, "drained", 0)


@on_both_databases
def test_a_count_bounds_what_one_run_takes_and_the_rest_stays(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(10)))
    drained = bus.drain(ledger, receivers=2, drain_block=2, drain_max_messages=5)
    assert (drained.landed.received, drained.stopped_by, drained.not_drained) == (5, "count", 5)
    assert bus.counts["settled"]["completed"] == 5
    assert bus.counts["locked"] == 0
    assert bus.drain(ledger, "run-2").landed.orders == 5
    assert len(given.on_the_way(ledger)) == 10


@on_both_databases
def test_time_bounds_what_one_run_takes_and_the_rest_stays(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(60)))
    bus.set_faults(latency_seconds=0.04)
    drained = bus.drain(ledger, drain_block=1, drain_max_seconds=2.0)
    assert 0 < drained.landed.received < 60
    assert drained.stopped_by == "time"
    assert bus.counts["settled"]["completed"] == drained.landed.received
    assert bus.left == 60 - drained.landed.received


@settled_both_ways
@on_both_databases
def test_a_settlement_that_is_refused_brings_the_message_again_as_a_duplicate(bus: Bus, ledger: Ledger) -> None:
    bus.send(given.body("S1"), given.body("S2"), b"not json")
    bus.set_faults(refuse_every_settle=1)
    first = bus.drain(ledger, drain_max_messages=3)
    assert (first.landed.orders, first.landed.quarantined, first.settle_failed) == (2, 1, 3)
    assert bus.left == 3
    bus.set_faults()
    second = bus.drain(ledger, "run-2")
    assert (second.landed.orders, second.landed.duplicates, second.landed.quarantined) == (0, 3, 0)
    assert (second.settle_failed, bus.left) == (0, 0)
    given.assert_every_record_is_in_one_place(ledger)


@on_both_databases
def test_a_look_lands_what_is_there_and_takes_nothing_off(bus: Bus, ledger: Ledger) -> None:
    bus.send(given.body("S1"), given.body("S2"), b"not json")
    open_run(ledger, given.run())
    for orders, duplicates in ((2, 0), (0, 3)):
        seen = peek(bus.client(), ledger, "run-1", bus.settings.having(drain_block=2))
        assert (seen.landed.received, seen.landed.orders, seen.landed.duplicates) == (3, orders, duplicates)
    assert (bus.left, bus.counts["locked"], set(bus.counts["settled"].values())) == (3, 0, {0})
    assert bus.drain(ledger).landed.duplicates == 3
    assert bus.dead_letters(1)[0].delivery_count == 0


@settled_both_ways
@on_both_databases
def test_a_message_delivered_twice_is_one_order(bus: Bus, ledger: Ledger) -> None:
    bus.set_faults(deliver_twice_next=2)
    bus.send(given.body("S1"), given.body("S2"))
    drained = bus.drain(ledger)
    assert (drained.landed.received, drained.landed.orders, drained.landed.duplicates) == (4, 2, 2)
    assert bus.left == 0


@settled_both_ways
@cuts_connections
@on_both_databases
def test_a_connection_cut_in_the_middle_loses_nothing_and_doubles_nothing(bus: Bus, ledger: Ledger) -> None:
    bus.send(*(given.body(f"S{number}") for number in range(12)))
    bus.set_faults(drop_after_settles=3, drops=1, lock_seconds=2.0)
    with contextlib.suppress(RetriableError):
        bus.drain(ledger, drain_block=4)
    wait_for_locks_to_expire(bus)
    bus.drain(ledger, "run-2")
    assert len(given.on_the_way(ledger)) == 12
    assert bus.left == 0
    given.assert_every_record_is_in_one_place(ledger)


def _broken(bus: Bus, connection: str, settings: Settings, receivers: int = 2) -> BaseException:
    """What a drain over this connection string raises; the ledger is never reached."""
    clients = [ServiceBusClient.from_connection_string(connection, retry_total=0) for _ in range(receivers)]
    ledger = Ledger("sqlite://")
    with pytest.raises((ConfigurationError, RetriableError)) as caught:
        drain(clients, ledger, "run-1", settings)
    ledger.close()
    return caught.value


@cuts_connections
def test_a_wrong_key_is_a_configuration_error_that_names_the_connection(bus: Bus) -> None:
    error = _broken(bus, connection_string(bus.broker.port, key=given.CANARY), bus.settings)
    assert isinstance(error, ConfigurationError)
    assert "instore_service_bus" in str(error)
    assert given.CANARY not in str(error)


@cuts_connections
@pytest.mark.parametrize(("setting", "name"), [("subscription", "INSTORE_SUBSCRIPTION"), ("topic", "INSTORE_TOPIC")])
def test_an_unknown_entity_is_a_configuration_error_that_names_the_setting(bus: Bus, setting: str, name: str) -> None:
    error = _broken(bus, bus.connection_string, bus.settings.having(**{setting: "missing"}))
    assert isinstance(error, ConfigurationError)
    assert name in str(error)
    assert "'missing'" in str(error)
    assert "refused" not in str(error)


@cuts_connections
def test_an_unreachable_host_is_an_error_to_try_again(bus: Bus) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, nobody answers
        error = _broken(bus, connection_string(taken.getsockname()[1], key=given.CANARY), bus.settings, receivers=1)
    assert isinstance(error, RetriableError)
    assert "instore_service_bus" in str(error)
    assert given.CANARY not in str(error)


def test_no_key_card_email_or_body_is_in_a_log_record(
    buses: list[Bus], both_ledgers: list[Ledger], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="include.instore")
    logging.getLogger("azure").setLevel(logging.WARNING)
    order = given.body(
        "S1", loyaltyCardNumber=given.CANARY, emailAddress=f"{given.CANARY}@x.org", storeName=given.CANARY
    )
    for bus, ledger in zip(buses, both_ledgers, strict=True):
        bus.send(order, given.CANARY.encode(), given.body("S2", total=given.CANARY))
        bus.set_faults(refuse_next_settles=1)
        drained = bus.drain(ledger)
        assert (drained.landed.received >= 3, drained.settle_failed) == (True, 1)
    messages = [record.getMessage() for record in caplog.records]
    assert any("received=" in message for message in messages)
    assert any("was not settled" in message for message in messages)
    key = bus.connection_string.partition("SharedAccessKey=")[2].partition(";")[0]
    for secret in (given.CANARY, key, "orderNumber"):
        assert not [message for message in messages if secret in message]


@cuts_connections
@on_both_databases
def test_the_first_error_of_several_receivers_is_told(bus: Bus, ledger: Ledger) -> None:
    wrong: Sequence[ServiceBusClient] = [
        ServiceBusClient.from_connection_string(text, retry_total=0)
        for text in (bus.connection_string, connection_string(bus.broker.port, key="wrong"))
    ]
    open_run(ledger, given.run())
    with pytest.raises(ConfigurationError):
        drain(wrong, ledger, "run-1", bus.settings)


@pytest.mark.parametrize("keeps", [True, False])
def test_whether_what_expires_becomes_a_dead_letter_is_asked_where_the_key_may(keeps: bool) -> None:
    entities = _entities()
    entities["UserConfig"]["Namespaces"][0]["Topics"][0]["Subscriptions"] = [
        {"Name": "s", "Properties": {"DeadLetteringOnMessageExpiration": keeps}}
    ]
    with ServiceBusStandIn(entities) as broker:
        for key, answer in ((None, keeps), ("wrong", None)):
            string = connection_string(broker.port, key=key) if key else broker.connection_string
            client = ServiceBusAdministrationClient.from_connection_string(string, transport=PlainHttp())
            assert keeps_expired(client, load_settings(subscription="s").bus) is answer
