"""Redriving dead letters by the real SDK: what is completed is safe, what is no order stays.

The first test is on both databases, and so is what the ledger does (test_quarantine.py); opening and closing the
SDK's links takes seconds, so the others are on one.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSender
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._pyamqp.message import Header, Message

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.intake import land
from include.instore.ledger.quarantined import Wanted
from include.instore.ledger.tables import orders
from include.instore.model.errors import ConfigurationError, RecordRefused, RetriableError
from include.instore.model.settings import Settings
from include.instore.sources.dead_letters import Redriven, list_dead_letters, redrive_dead_letters
from include.instore.sources.quarantine import discard, redrive
from include.instore.sources.service_bus import drain
from sandbox.servicebus import ServiceBusStandIn
from tests.instore import given
from tests.instore.sources import encoded
from tests.instore.sources.encoded import send_encoded, undecodable

SUBSCRIPTIONS = 40
_subscriptions = itertools.count()


def _entities() -> dict[str, Any]:
    subscriptions = [
        {
            "Name": name,
            "Properties": {"MaxDeliveryCount": 10, "LockDuration": "PT1M", "DeadLetteringOnMessageExpiration": True},
            "Rules": [
                {"Name": "own", "Properties": {"FilterType": "Correlation", "CorrelationFilter": {"Label": name}}}
            ],
        }
        for name in (f"d{number}" for number in range(SUBSCRIPTIONS))
    ]
    topic = {"Name": "orders", "Properties": {}, "Subscriptions": subscriptions}
    return {"UserConfig": {"Namespaces": [{"Name": "ns", "Queues": [], "Topics": [topic]}]}}


class Bus:
    """A subscription of its own."""

    def __init__(self, broker: ServiceBusStandIn, sender: ServiceBusSender, settings: Settings) -> None:
        self.broker = broker
        self.settings = settings
        self._sender = sender

    def client(self) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self.broker.connection_string, retry_total=0)

    def expire(self, *bodies: bytes) -> None:
        """Leave dead letters behind that nobody has ever received."""
        for number, body in enumerate(bodies):
            self._send(number, body, time_to_live=timedelta(milliseconds=1))
        eventually_dead(self, len(bodies))

    def refuse(self, ledger: Ledger, *bodies: bytes) -> None:
        """Leave dead letters behind, and their rows in quarantine, without the seconds that a drain takes."""
        self.expire(*bodies)
        open_run(ledger, given.run())
        too_large = RecordRefused("too_large", "by the limit of that day")
        land(
            ledger, "run-1", [],
            [given.set_aside(too_large, body, f"m{n}#{n + 1}") for n, body in enumerate(bodies)],
        )  # fmt: skip

    def _send(self, number: int, body: bytes, **properties: Any) -> None:
        properties = {"message_id": f"m{number}", "subject": self.settings.bus.subscription, **properties}
        self._sender.send_messages(ServiceBusMessage(body, **properties))

    def refuse_in_a_drain(self, ledger: Ledger, *bodies: bytes, **properties: Any) -> None:
        """Publish, and drain with a limit that no order keeps to: they are dead-lettered and in quarantine."""
        for number, body in enumerate(bodies):
            self._send(number, body, **properties)
        open_run(ledger, given.run())
        tight = self.settings.having(max_message_bytes=10)
        assert drain([self.client()], ledger, "run-1", tight).dead_lettered == len(bodies)

    def defer(self, *bodies: bytes) -> None:
        """Somebody else defers messages."""
        for number, body in enumerate(bodies):
            self._send(number, body)
        with (
            self.client() as client,
            client.get_subscription_receiver("orders", self.settings.bus.subscription) as receiver,
        ):
            for message in receiver.receive_messages(len(bodies), max_wait_time=5):
                receiver.defer_message(message)

    def refuse_undecodable(self, ledger: Ledger) -> dict[str, bytes]:
        """Dead letters that cannot be decoded, and one behind them that can."""
        kinds = undecodable(self.settings.bus.subscription)
        send_encoded(self._sender, *kinds.values())
        open_run(ledger, given.run())
        assert drain([self.client()], ledger, "run-1", self.settings).dead_lettered == len(kinds)
        self._send(1, given.body("S2"), time_to_live=timedelta(milliseconds=1))
        eventually_dead(self, len(kinds) + 1)
        return kinds

    def redrive(self, ledger: Ledger, *, limit: int = 100, **options: Any) -> Redriven:
        return redrive_dead_letters(self.client(), ledger, self.settings, limit=limit, **options)

    @property
    def counts(self) -> dict[str, Any]:
        entities: dict[str, dict[str, Any]] = self.broker.state()["entities"]
        (found,) = (each for name, each in entities.items() if name.endswith(f"/{self.settings.bus.subscription}"))
        return found

    @property
    def dead(self) -> int:
        return int(self.counts["dead_lettered"])

    def take(self) -> ServiceBusReceivedMessage:
        """The next message of the live subscription."""
        with (
            self.client() as client,
            client.get_subscription_receiver(
                "orders", self.settings.bus.subscription, receive_mode="receiveanddelete"
            ) as receiver,
        ):
            return receiver.receive_messages(1, max_wait_time=5)[0]


def eventually_dead(bus: Bus, count: int) -> None:
    """Wait until so many messages are dead letters."""
    end = time.monotonic() + 5
    while bus.dead < count:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def _broker() -> Iterator[ServiceBusStandIn]:
    with ServiceBusStandIn(_entities()) as running:
        yield running


@pytest.fixture(scope="module")
def _sender(_broker: ServiceBusStandIn) -> Iterator[ServiceBusSender]:
    with (
        ServiceBusClient.from_connection_string(_broker.connection_string) as client,
        client.get_topic_sender("orders") as sender,
    ):
        yield sender


@pytest.fixture
def bus(_broker: ServiceBusStandIn, _sender: ServiceBusSender, settings: Callable[..., Settings]) -> Iterator[Bus]:
    name = f"d{next(_subscriptions)}"
    yield Bus(_broker, _sender, settings(subscription=name, drain_wait=0.2, drain_empty_reads=1))
    _broker.set_faults()


on_one_database = pytest.mark.parametrize("databases", ["sqlite"], indirect=True)


def outcomes(done: Redriven) -> dict[str, str]:
    return {each.id: each.outcome for each in done.outcomes}


def states(ledger: Ledger) -> list[str]:
    return [row["state"] for row in given.rows(ledger, "quarantine")]


def test_orders_land_and_are_completed_and_what_is_no_order_stays_with_today_s_reason(ledger: Ledger, bus: Bus) -> None:
    bus.refuse_in_a_drain(ledger, given.body("S1"), b'{"no": "order at all"}', given.body("S2"))
    done = bus.redrive(ledger)
    assert outcomes(done) == {"m0": "landed", "m1": "refused", "m2": "landed"}
    assert (done.completed, done.settle_failed) == (2, 0)
    assert given.statuses(ledger) == {"S1": "pending", "S2": "pending"}
    assert sorted(states(ledger)) == ["quarantined", "redriven", "redriven"]
    assert [row["reason"] for row in given.rows(ledger, "quarantine") if row["state"] == "quarantined"] == [
        "missing_field"
    ]
    assert (bus.dead, bus.counts["dead_letter_queue"]["locked"]) == (1, 0)
    given.assert_every_record_is_in_one_place(ledger)


@on_one_database
def test_a_message_redriven_from_quarantine_is_not_landed_again_from_the_bus(ledger: Ledger, bus: Bus) -> None:
    bus.refuse(ledger, given.body("S1"))
    redrive(ledger, Wanted(), bus.settings)
    assert outcomes(bus.redrive(ledger)) == {"m0": "known"}
    assert states(ledger) == ["redriven"]
    assert (len(given.on_the_way(ledger)), bus.dead) == (1, 0)
    given.assert_every_record_is_in_one_place(ledger)


@on_one_database
def test_a_dead_letter_that_the_bus_does_not_let_go_is_landed_once_and_completed_later(
    ledger: Ledger, bus: Bus
) -> None:
    bus.refuse(ledger, given.body("S1"))
    bus.broker.set_faults(refuse_every_settle=1)
    done = bus.redrive(ledger)
    assert (outcomes(done), done.completed, done.settle_failed) == ({"m0": "landed"}, 0, 1)
    assert (given.statuses(ledger), bus.dead) == ({"S1": "pending"}, 1)
    bus.broker.set_faults()
    again = bus.redrive(ledger)
    assert (outcomes(again), again.completed, bus.dead) == ({"m0": "known"}, 1, 0)


@on_one_database
def test_nothing_is_completed_that_the_ledger_did_not_take(ledger: Ledger, bus: Bus) -> None:
    bus.refuse(ledger, given.body("S1"))
    with ledger.engine.begin() as connection:
        orders.drop(connection)
    with pytest.raises(RetriableError, match="instore_ledger"):
        bus.redrive(ledger)
    assert (bus.dead, bus.counts["dead_letter_queue"]["locked"]) == (1, 0)


@on_one_database
def test_of_a_dead_letter_with_several_orders_each_refused_one_goes_into_quarantine_alone(
    ledger: Ledger, bus: Bus
) -> None:
    bus.refuse(ledger, json.dumps([given.document("S1"), {"orderNumber": "S2"}, given.document("S3")]).encode())
    redriven = bus.redrive(ledger)
    assert ([each.outcome for each in redriven.outcomes], redriven.completed, bus.dead) == (["landed"], 1, 0)
    assert sorted(given.statuses(ledger)) == ["S1", "S3"]
    states = {row["reference"]: row["state"] for row in given.rows(ledger, "quarantine")}
    assert states == {"m0#1": "redriven", "m0#1[1]": "quarantined"}


def test_a_redrive_looks_at_no_more_than_it_was_told_to(ledger: Ledger, bus: Bus) -> None:
    bus.refuse(ledger, *(given.body(f"S{number}") for number in range(4)))
    assert bus.redrive(ledger, limit=3).completed == 3
    assert bus.dead == 1


@on_one_database
def test_a_dry_run_says_what_would_happen_and_locks_nothing(ledger: Ledger, bus: Bus) -> None:
    bus.refuse(ledger, given.body("S1"), b"{}" * 20)
    before = {table: given.rows(ledger, table) for table in given.TABLES}
    done = bus.redrive(ledger, dry_run=True)
    assert outcomes(done) == {"m0": "landed", "m1": "refused"}
    assert {table: given.rows(ledger, table) for table in given.TABLES} == before
    queue = bus.counts["dead_letter_queue"]
    assert (queue["active"], queue["locked"], queue["delivered"]) == (2, 0, 0)


@on_one_database
def test_what_was_discarded_in_quarantine_is_completed_without_landing(ledger: Ledger, bus: Bus) -> None:
    bus.refuse(ledger, given.body("S1"))
    discard(ledger, Wanted(reason="too_large"))
    assert outcomes(bus.redrive(ledger)) == {"m0": "discarded"}
    assert (given.statuses(ledger), bus.dead, states(ledger)) == ({}, 0, ["discarded"])


@on_one_database
def test_what_no_run_has_ever_read_is_in_quarantine_once_it_was_refused_and_can_be_given_up(
    ledger: Ledger, bus: Bus
) -> None:
    bus.expire(b"not an order", b"not an order")
    assert outcomes(bus.redrive(ledger)) == {"m0": "refused", "m1": "refused"}
    assert outcomes(bus.redrive(ledger)) == {"m0": "refused", "m1": "refused"}
    rows = given.rows(ledger, "quarantine")
    assert [(row["reason"], row["raw"], row["state"]) for row in rows] == [
        ("not_json", b"not an order", "quarantined")
    ] * 2
    given.assert_every_record_is_in_one_place(ledger)
    discard(ledger, Wanted())
    assert outcomes(bus.redrive(ledger)) == {"m0": "discarded", "m1": "discarded"}
    assert bus.dead == 0


@on_one_database
def test_a_published_dead_letter_keeps_its_id_and_properties_and_loses_those_of_the_dead(
    ledger: Ledger, bus: Bus
) -> None:
    bus.refuse_in_a_drain(
        ledger, given.body("S1"), application_properties={"store": "0404", "try": 2}, correlation_id="c-1",
        content_type="application/json",
    )  # fmt: skip
    done = bus.redrive(ledger, publish=True)
    assert (outcomes(done), done.completed, bus.dead) == ({"m0": "published"}, 1, 0)
    # It has landed as well: a topic that detects duplicates may drop what is published under an id that it knows.
    assert (states(ledger), set(given.statuses(ledger))) == (["redriven"], {"S1"})
    message = bus.take()
    assert (message.message_id, message.correlation_id, message.content_type) == ("m0", "c-1", "application/json")
    assert message.application_properties == {b"store": b"0404", b"try": 2}
    assert b"".join(message.body) == given.body("S1")


@on_one_database
def test_dead_letters_are_listed_without_their_bodies_and_stay(ledger: Ledger, bus: Bus) -> None:
    bus.refuse(ledger, given.body("S1", emailAddress=f"{given.CANARY}@example.com"))
    (letter,) = list_dead_letters(bus.client(), bus.settings.bus, 10)
    assert (letter.message_id, letter.reason) == ("m0", "TTLExpiredException")
    assert letter.size > 100
    assert given.CANARY not in repr(letter)
    assert bus.dead == 1


@on_one_database
def test_the_list_and_the_redrive_go_on_past_what_cannot_be_decoded(ledger: Ledger, bus: Bus) -> None:
    kinds = bus.refuse_undecodable(ledger)
    listed = list_dead_letters(bus.client(), bus.settings.bus, 100)
    assert len(listed) == len(kinds) + 1
    assert listed[-1].reason == "TTLExpiredException"
    assert {letter.reason for letter in listed[:-1]} <= {"undecodable", ""}
    assert min(letter.size for letter in listed) > 10

    dry = bus.redrive(ledger, dry_run=True)
    done = bus.redrive(ledger)
    fates = [outcome.outcome for outcome in done.outcomes]
    # The body of six of them is whole: the same order.
    assert (fates.count("landed"), fates.count("known"), fates.count("refused")) == (2, 5, 3)
    assert [outcome.outcome for outcome in dry.outcomes].count("refused") == 3
    assert {outcome.reason for outcome in done.outcomes if outcome.outcome == "refused"} == {"undecodable"}
    assert set(given.statuses(ledger)) == {"S1", "S2"}
    assert (bus.dead, done.completed, states(ledger).count("quarantined")) == (3, 7, 3)


@on_one_database
def test_a_dead_letter_s_id_and_reason_may_be_anything(ledger: Ledger, bus: Bus) -> None:
    head = bytes(encode_payload(bytearray(), Message(header=Header(ttl=1))))
    reason = encoded.section(encoded.APPLICATION, encoded.map_of({"DeadLetterReason": b"\xa1\x02\xff\xfe"}))
    for number, odd in enumerate((uuid.UUID(int=7), 7, b"\xff")):
        body = encoded.data(given.body(f"S{number}"))
        send_encoded(bus._sender, head + encoded.properties(bus.settings.bus.subscription, odd) + reason + body)
    eventually_dead(bus, 3)
    listed = list_dead_letters(bus.client(), bus.settings.bus, 10)
    assert [letter.message_id for letter in listed] == [str(uuid.UUID(int=7)), "7", "\ufffd"]
    done = bus.redrive(ledger)
    assert {outcome.outcome for outcome in done.outcomes} == {"landed"}
    assert all(isinstance(outcome.id, str) for outcome in done.outcomes)


@on_one_database
def test_what_cannot_be_decoded_is_not_published_without_what_could_not_be_read(ledger: Ledger, bus: Bus) -> None:
    kinds = bus.refuse_undecodable(ledger)
    done = bus.redrive(ledger, publish=True)
    assert [outcome.outcome for outcome in done.outcomes] == ["refused"] * len(kinds) + ["published"]
    assert (bus.dead, bus.counts["active"]) == (len(kinds), 1)
    bus.take()


@on_one_database
def test_an_undecodable_message_is_redriven_from_quarantine_as_well(ledger: Ledger, bus: Bus) -> None:
    bus.refuse_undecodable(ledger)
    for _ in range(2):  # what stays keeps the reason by which it is read
        outcomes = [each.outcome for each in redrive(ledger, Wanted(source="topic"), bus.settings)]
    assert (outcomes, set(given.statuses(ledger))) == (["refused"] * 3, {"S1"})
    assert bus.redrive(ledger).completed == 7


@on_one_database
def test_deferred_messages_are_landed_and_completed_and_what_is_no_order_stays(ledger: Ledger, bus: Bus) -> None:
    bus.defer(given.body("S1"), b"no order", given.body("S2"))
    bus._send(9, given.body("S9"))
    dry = bus.redrive(ledger, deferred=True, dry_run=True)
    assert outcomes(dry) == {"m0": "landed", "m1": "refused", "m2": "landed"}
    assert (bus.counts["deferred"], given.statuses(ledger)) == (3, {})
    done = bus.redrive(ledger, deferred=True)
    assert (outcomes(done), done.completed) == (outcomes(dry), 2)
    assert (set(given.statuses(ledger)), states(ledger)) == ({"S1", "S2"}, ["quarantined"])
    assert (bus.counts["deferred"] + bus.counts["locked"], bus.counts["active"]) == (1, 1)
    bus.take()


@on_one_database
def test_a_subscription_that_is_not_there_is_named(ledger: Ledger, bus: Bus) -> None:
    bus.settings = bus.settings.having(subscription="nobody")
    with pytest.raises(ConfigurationError, match="INSTORE_SUBSCRIPTION"):
        bus.redrive(ledger)
