"""Sessions, partitions, duplicate detection and forwarding (service-bus.md, points 0, 5 and 8)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage, ServiceBusReceiver
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from sandbox.servicebus import ConfigRefused, ServiceBusStandIn
from tests.sandbox.servicebus.conftest import config, cuts_connections, eventually, queue, subscription, topic

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


def entities(**properties: Any) -> dict[str, Any]:
    sessions = subscription("s", RequiresSession=True, MaxDeliveryCount=3, **properties)
    return config(queues=[queue("q", RequiresSession=True)], topics=[topic("t", sessions)])


@pytest.fixture
def bus() -> Iterator[ServiceBusStandIn]:
    with ServiceBusStandIn(entities(LockDuration="PT20S")) as running:
        yield running


@pytest.fixture
def client(bus: ServiceBusStandIn) -> Iterator[ServiceBusClient]:
    with ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0) as opened:
        yield opened


def send(client: ServiceBusClient, *bodies: tuple[str | None, str]) -> None:
    with client.get_topic_sender("t") as sender:
        sender.send_messages([ServiceBusMessage(body, session_id=session) for session, body in bodies])


def session(client: ServiceBusClient, wanted: Any = NEXT_AVAILABLE_SESSION, wait: float = 2) -> ServiceBusReceiver:
    return client.get_subscription_receiver("t", "s", session_id=wanted, max_wait_time=wait)


def texts(receiver: ServiceBusReceiver, count: int = 10, *, complete: bool = True) -> list[str]:
    messages = receiver.receive_messages(count, max_wait_time=1)
    for message in messages if complete else ():
        receiver.complete_message(message)
    return [str(each) for each in messages]


def counts(bus: ServiceBusStandIn) -> dict[str, Any]:
    return dict(bus.state()["entities"]["t/Subscriptions/s"])


def test_a_receiver_has_one_session_whose_messages_come_in_order_and_nobody_else_gets_it(
    client: ServiceBusClient, bus: ServiceBusStandIn
) -> None:
    send(client, ("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2"), ("a", "a3"))
    with session(client) as first, session(client) as second:
        assert (first.session.session_id, second.session.session_id) == ("a", "b")
        assert first.session.locked_until_utc.timestamp() == pytest.approx(time.time() + 20, abs=2)
        with pytest.raises(SessionCannotBeLockedError), session(client, "a"):
            pass
        assert sorted(client.list_subscription_sessions("t", "s")) == ["a", "b"]
        assert [str(each) for each in second.peek_messages(10, sequence_number=1)] == ["b1", "b2"]
        assert (texts(first), texts(second)) == (["a1", "a2", "a3"], ["b1", "b2"])
        assert list(client.list_subscription_sessions("t", "s")) == []
    assert counts(bus)["settled"]["completed"] == 5


def test_waiting_for_a_session_ends_in_time_or_with_one(client: ServiceBusClient) -> None:
    began = time.monotonic()
    with pytest.raises(OperationTimeoutError), session(client, wait=1):
        pass
    assert 0.9 < time.monotonic() - began < 3
    send(client, ("a", "a1"))
    with session(client, "a") as held:
        with pytest.raises(OperationTimeoutError), session(client, wait=1):
            pass
        assert texts(held) == ["a1"]


def test_a_session_given_back_comes_again_and_its_deliveries_do_not_count(
    client: ServiceBusClient, bus: ServiceBusStandIn
) -> None:
    send(client, ("a", "a1"), ("a", "a2"))
    for _ in range(4):
        with session(client) as receiver:
            assert texts(receiver, complete=False) == ["a1", "a2"]
    assert (counts(bus)["active"], counts(bus)["max_delivery_count_seen"]) == (2, 0)


def test_a_renewed_lock_holds_all_messages_of_the_session(client: ServiceBusClient, bus: ServiceBusStandIn) -> None:
    bus.set_faults(lock_seconds=1.5)
    send(client, ("a", "a1"), ("a", "a2"))
    with session(client) as receiver:
        messages = receiver.receive_messages(2, max_wait_time=1)
        for _ in range(3):
            time.sleep(0.7)
            until = receiver.session.renew_lock()
        assert until == receiver.session.locked_until_utc
        for message in messages:
            receiver.complete_message(message)
    assert counts(bus)["settled"]["completed"] == 2


@cuts_connections
def test_a_lock_that_expires_takes_the_session_away_and_counts(
    client: ServiceBusClient, bus: ServiceBusStandIn
) -> None:
    bus.set_faults(lock_seconds=0.5)
    send(client, ("a", "a1"))
    with session(client) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=1)
        eventually(lambda: counts(bus)["locks_expired"] == 1)
        for lost in (lambda: receiver.complete_message(message), receiver.session.renew_lock):
            with pytest.raises(SessionLockLostError):
                lost()
    bus.set_faults()
    with session(client, "a") as receiver:
        (again,) = receiver.receive_messages(1, max_wait_time=1)
        assert again.delivery_count == 1


def test_deferred_and_dead_messages_of_a_session(client: ServiceBusClient, bus: ServiceBusStandIn) -> None:
    send(client, ("a", "a1"), ("a", "a2"))
    with session(client) as receiver:
        first, second = receiver.receive_messages(2, max_wait_time=1)
        receiver.defer_message(first)
        receiver.dead_letter_message(second, reason="no order")
        assert list(client.list_subscription_sessions("t", "s")) == []
        (deferred,) = receiver.receive_deferred_messages([first.sequence_number or 0])
        receiver.complete_message(deferred)
    with client.get_subscription_receiver("t", "s", sub_queue="deadletter") as dead:
        (letter,) = dead.receive_messages(1, max_wait_time=1)
        assert (letter.session_id, letter.dead_letter_reason) == ("a", "no order")


def test_a_message_without_a_session_is_refused_by_a_queue_and_dead_in_a_subscription(
    client: ServiceBusClient, bus: ServiceBusStandIn
) -> None:
    send(client, (None, "x"), ("a", "a1"))
    with client.get_subscription_receiver("t", "s", sub_queue="deadletter") as dead:
        (letter,) = dead.receive_messages(1, max_wait_time=1)
        assert (str(letter), letter.dead_letter_reason) == ("x", "Session ID is null.")
    with client.get_queue_sender("q") as sender, pytest.raises(ServiceBusError, match="SessionId was not set"):
        sender.send_messages(ServiceBusMessage("x"))
    assert counts(bus)["active"] == 1


def test_a_partitioned_entity_has_the_partition_in_its_sequence_numbers() -> None:
    partitioned = {**topic("t", subscription("s")), "Properties": {"EnablePartitioning": True}}
    with (
        ServiceBusStandIn(config(topics=[partitioned])) as bus,
        ServiceBusClient.from_connection_string(bus.connection_string) as client,
    ):
        send(client, *((None, f"m{number}") for number in range(20)))
        with client.get_subscription_receiver("t", "s") as receiver:
            numbers = [each.sequence_number or 0 for each in receiver.receive_messages(20, max_wait_time=1)]
    assert (len({number >> 48 for number in numbers}), len(set(numbers))) == (16, 20)


def test_a_message_id_that_is_remembered_is_dropped_and_its_sender_told_it_was_taken() -> None:
    detects = {"RequiresDuplicateDetection": True, "DuplicateDetectionHistoryTimeWindow": "PT1S"}
    with (
        ServiceBusStandIn(config(topics=[{**topic("t", subscription("s")), "Properties": detects}])) as bus,
        ServiceBusClient.from_connection_string(bus.connection_string) as client,
        client.get_topic_sender("t") as sender,
    ):
        for _ in range(2):
            sender.send_messages(ServiceBusMessage("m", message_id="m-1"))
            sender.send_messages(ServiceBusMessage("m"))
        assert (counts(bus)["active"], bus.state()["entities"]["t"]["duplicates"]) == (3, 1)
        time.sleep(1.1)
        sender.send_messages(ServiceBusMessage("m", message_id="m-1"))
        assert counts(bus)["active"] == 4


def test_messages_and_dead_letters_are_forwarded_and_nothing_is_received_where_they_were() -> None:
    forwards = subscription("s", ForwardTo="t2")
    kept = subscription("s", ForwardDeadLetteredMessagesTo="letters")
    entities = config(queues=[queue("letters")], topics=[topic("t", forwards), topic("t2", kept)])
    with (
        ServiceBusStandIn(entities) as bus,
        ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0) as client,
    ):
        send(client, (None, "m"))
        with (
            pytest.raises(ServiceBusError, match="auto-forwarding"),
            client.get_subscription_receiver("t", "s"),
        ):
            pass
        with client.get_subscription_receiver("t2", "s") as receiver:
            (message,) = receiver.receive_messages(1, max_wait_time=1)
            receiver.dead_letter_message(message, reason="no order")
        with client.get_queue_receiver("letters") as receiver:
            (letter,) = receiver.receive_messages(1, max_wait_time=1)
            assert (str(letter), letter.dead_letter_reason) == ("m", "no order")
        assert counts(bus)["forwarded"] == 1


def test_forwarding_to_nowhere_is_refused_at_start() -> None:
    with pytest.raises(ConfigRefused, match="'nowhere', which is no queue or topic"):
        ServiceBusStandIn(config(topics=[topic("t", subscription("s", ForwardTo="nowhere"))]))
