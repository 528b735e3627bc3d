"""The faults a test can order (service-bus.md, point 11)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import (
    MessageLockLostError,
    ServiceBusConnectionError,
    ServiceBusError,
    ServiceBusServerBusyError,
)

from sandbox.servicebus import FaultRefused, Faults, ServiceBusStandIn
from tests.sandbox.servicebus.conftest import Bench, cuts_connections, eventually


def test_refused_settlements_lose_the_lock_and_the_messages_come_again(bench: Bench) -> None:
    for _ in range(3):
        bench.send()
    first, second, third = bench.receive(3)
    before = bench.counts["settled"]
    bench.bus.set_faults(refuse_next_settles=2)
    with pytest.raises(MessageLockLostError):
        bench.receiver.complete_message(first)
    with pytest.raises(MessageLockLostError):
        bench.receiver.dead_letter_message(second)
    bench.receiver.complete_message(third)
    after = bench.counts["settled"]
    assert (after["refused"] - before["refused"], after["completed"] - before["completed"]) == (2, 1)
    again = bench.receive(2)
    assert [(each.message_id, each.delivery_count) for each in again] == [(first.message_id, 1), (second.message_id, 1)]
    for message in again:
        bench.receiver.complete_message(message)


def test_every_nth_settlement_can_be_refused_with_another_condition(bench: Bench) -> None:
    for _ in range(4):
        bench.send()
    messages = bench.receive(4)
    bench.bus.set_faults(refuse_every_settle=2, refusal="com.microsoft:server-busy")
    refused = []
    for message in messages:
        try:
            bench.receiver.complete_message(message)
        except ServiceBusServerBusyError:
            refused.append(message)
    assert refused == messages[1::2]
    assert bench.counts["locked"] == 2
    bench.bus.set_faults()
    for message in refused:
        # The link has used the delivery up: the SDK goes through the management link.
        bench.receiver.complete_message(message)
    assert bench.counts["locked"] == 0


def test_latency_holds_every_reply_back(bench: Bench) -> None:
    bench.send()
    message = bench.receive_one()
    bench.bus.set_faults(latency_seconds=0.15)
    start = time.monotonic()
    bench.receiver.complete_message(message)
    assert 0.15 <= time.monotonic() - start < 1


def test_a_delivery_can_come_twice(bench: Bench) -> None:
    bench.bus.set_faults(deliver_twice_next=1)
    ids = [bench.send(), bench.send()]
    first, second, third = bench.receive(3)
    assert [each.message_id for each in (first, second, third)] == [ids[0], ids[0], ids[1]]
    assert first.sequence_number == second.sequence_number
    assert first.lock_token != second.lock_token
    for message in (second, first, third):
        bench.receiver.complete_message(message)
    assert bench.counts["active"] == bench.counts["locked"] == 0


@cuts_connections
def test_a_connection_can_be_cut_behind_a_delivery(bench: Bench, bus: ServiceBusStandIn) -> None:
    for _ in range(3):
        bench.send()
    client = ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0)
    with client, client.get_queue_receiver("work") as receiver:
        bus.set_faults(drop_after_transfers=2, lock_seconds=0.3)
        before = bench.counts["delivered"]
        with pytest.raises(ServiceBusConnectionError):
            receiver.receive_messages(3, max_wait_time=1)
        assert bench.counts["delivered"] == before + 2
    eventually(lambda: bench.counts["active"] == 3)
    bus.set_faults()
    messages = bench.receive(3)
    assert [each.delivery_count for each in messages] == [1, 1, 0]
    for message in messages:
        bench.receiver.complete_message(message)


@cuts_connections
def test_a_connection_can_be_cut_after_a_settlement_was_applied_and_before_it_was_confirmed(
    bench: Bench, bus: ServiceBusStandIn
) -> None:
    bench.send()
    client = ServiceBusClient.from_connection_string(bus.connection_string, retry_backoff_factor=0.02)
    with client, client.get_queue_receiver("work") as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=3)
        before = bench.counts["settled"]["completed"]
        bus.set_faults(drop_after_settles=1)
        # The SDK asks again through the management link, and hears that the lock is lost: it was completed.
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
    assert bench.counts["settled"]["completed"] == before + 1
    assert bench.counts["active"] == bench.counts["locked"] == 0


@cuts_connections
def test_a_connection_can_be_cut_after_a_send_was_kept_and_before_it_was_confirmed(
    bench: Bench, bus: ServiceBusStandIn
) -> None:
    client = ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0)
    with client, client.get_queue_sender("work") as sender:
        bus.set_faults(drop_after_sends=1)
        with pytest.raises(ServiceBusError):
            Bench(bus, "Work", sender, bench.receiver).send("kept", message_id="kept")
    message = bench.receive_one()
    assert message.message_id == "kept"
    bench.receiver.complete_message(message)


@cuts_connections
def test_all_connections_can_be_cut_at_once_and_nothing_is_delivered_to_them_any_more() -> None:
    with ServiceBusStandIn() as bus:
        client = ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0)
        with client, client.get_subscription_receiver("orders", "orderprocessing", prefetch_count=5) as cut:
            assert cut.receive_messages(1, max_wait_time=0.1) == []
            assert bus.state()["connections"] == 1
            bus.drop_connections()
            eventually(lambda: bus.state()["connections"] == 0)
            with client.get_topic_sender("orders") as sender:
                sender.send_messages(ServiceBusMessage("for somebody else"))
        counts = bus.state()["entities"]["orders/Subscriptions/orderprocessing"]
        assert (counts["active"], counts["locked"], counts["delivered"]) == (1, 0, 0)


def test_faults_can_be_ordered_at_construction() -> None:
    for ordered in ({"lock_seconds": 3}, Faults(lock_seconds=3)):
        with ServiceBusStandIn(faults=ordered) as bus:
            assert bus.faults()["lock_seconds"] == 3


@pytest.mark.parametrize(
    "knobs", [{"no_such_knob": 1}, {"latency_seconds": -1}, {"drops": "two"}, {"refusal": None}, {"lock_seconds": True}]
)
def test_an_impossible_fault_is_refused_and_changes_nothing(bus: ServiceBusStandIn, knobs: dict[str, Any]) -> None:
    bus.set_faults(latency_seconds=0.001)
    with pytest.raises(FaultRefused):
        bus.set_faults(**knobs)
    assert bus.faults()["latency_seconds"] == 0.001
    bus.set_faults()


def test_counted_faults_rest_after_their_number() -> None:
    faults = Faults(drop_after_frames=2, drops=2)
    assert [faults.drops_after_frame() for _ in range(7)] == [False, True, False, True, False, False, False]
    endless = Faults(drop_after_transfers=1, drops=None)
    assert all(endless.drops_after_transfer() for _ in range(5))
