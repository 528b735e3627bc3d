"""Settlement, locks and the dead-letter queue (service-bus.md, points 6, 7, 8 and 10)."""

from __future__ import annotations

import datetime
import uuid

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import MessageLockLostError, MessageNotFoundError

from sandbox.servicebus import ServiceBusStandIn
from tests.sandbox.servicebus.conftest import Bench, DeadLetter, cuts_connections, eventually


def test_a_completed_message_is_gone(bench: Bench) -> None:
    bench.send()
    bench.receiver.complete_message(bench.receive_one())
    assert bench.counts["active"] == bench.counts["locked"] == 0
    assert bench.receiver.receive_messages(1, max_wait_time=0.1) == []


def test_an_abandoned_message_comes_again_with_its_delivery_counted(bench: Bench) -> None:
    bench.send()
    bench.receiver.abandon_message(bench.receive_one())
    again = bench.receive_one()
    assert again.delivery_count == 1
    bench.receiver.complete_message(again)


def test_a_deferred_message_comes_only_when_asked_for_by_number(bench: Bench) -> None:
    bench.send("later")
    message = bench.receive_one()
    bench.receiver.defer_message(message)
    assert bench.counts["deferred"] == 1
    assert bench.receiver.receive_messages(1, max_wait_time=0.1) == []
    [fetched] = bench.receiver.receive_deferred_messages(message.sequence_number)
    assert str(fetched) == "later"
    with pytest.raises(MessageNotFoundError):
        bench.receiver.receive_deferred_messages(message.sequence_number)
    bench.receiver.abandon_message(fetched)
    [fetched] = bench.receiver.receive_deferred_messages(message.sequence_number)
    bench.receiver.complete_message(fetched)


def test_a_dead_letter_tells_reason_and_description_and_keeps_id_and_properties(
    bench: Bench, dead_letter: DeadLetter
) -> None:
    sent = {"n": 1, "DeadLetterReason": "of a former life", "uuid": uuid.UUID(int=3)}
    bench.send("unreadable", message_id="dl-1", application_properties=sent, subject="s")
    message = bench.receive_one()
    bench.receiver.dead_letter_message(message, reason="InvalidOrder", error_description="no order number")
    dead = dead_letter()
    assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("InvalidOrder", "no order number")
    assert (str(dead), dead.message_id, dead.subject) == ("unreadable", "dl-1", "s")
    assert dead.application_properties == {
        b"n": 1, b"uuid": uuid.UUID(int=3), b"DeadLetterReason": b"InvalidOrder",
        b"DeadLetterErrorDescription": b"no order number",
    }  # fmt: skip
    assert dead.sequence_number == message.sequence_number


def test_a_message_may_be_dead_lettered_without_a_reason(bench: Bench, dead_letter: DeadLetter) -> None:
    bench.send(message_id="dl-2", application_properties={"DeadLetterReason": "of a former life", "n": 1})
    bench.receiver.dead_letter_message(bench.receive_one())
    dead = dead_letter()
    assert (dead.message_id, dead.dead_letter_reason) == ("dl-2", None)
    assert dead.application_properties == {b"n": 1}


def test_too_many_deliveries_end_in_the_dead_letter_queue(bench: Bench, dead_letter: DeadLetter) -> None:
    bench.send(message_id="poison")
    counted = []
    for _ in range(3):
        message = bench.receive_one()
        counted.append(message.delivery_count)
        bench.receiver.abandon_message(message)
    assert counted == [0, 1, 2]
    assert bench.receiver.receive_messages(1, max_wait_time=0.1) == []
    dead = dead_letter()
    assert (dead.message_id, dead.dead_letter_reason) == ("poison", "MaxDeliveryCountExceeded")
    assert "3 delivery attempts" in (dead.dead_letter_error_description or "")


def test_a_lock_that_expires_frees_the_message_and_counts_the_delivery(bench: Bench) -> None:
    bench.bus.set_faults(lock_seconds=0.2)
    bench.send()
    lost = bench.receive_one()
    assert bench.counts["locked"] == 1
    eventually(lambda: bench.counts["active"] == 1)
    bench.bus.set_faults()
    again = bench.receive_one()
    assert (again.message_id, again.delivery_count) == (lost.message_id, 1)
    with pytest.raises(MessageLockLostError):
        bench.receiver.renew_message_lock(lost)
    bench.receiver.complete_message(again)


def test_settling_after_the_lock_expired_is_told_by_the_broker_on_both_ways(bench: Bench) -> None:
    bench.bus.set_faults(lock_seconds=0.2)
    for _ in range(2):
        bench.send()
    on_the_link, through_management = bench.receive(2)
    eventually(lambda: bench.counts["active"] == 2)
    bench.bus.set_faults()
    before = bench.counts["settled"]["lock_lost"]
    for message in (on_the_link, through_management):
        # The SDK looks at its own clock first: a skewed clock lies.
        message._expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
    through_management._is_deferred_message = True
    for message in (on_the_link, through_management):
        with pytest.raises(MessageLockLostError):
            bench.receiver.complete_message(message)
    assert bench.counts["settled"]["lock_lost"] == before + 2
    for message in bench.receive(2):
        bench.receiver.complete_message(message)


def test_a_renewed_lock_lasts_longer(bench: Bench) -> None:
    bench.bus.set_faults(lock_seconds=0.3)
    bench.send()
    message = bench.receive_one()
    first = message.locked_until_utc
    expired = bench.counts["locks_expired"]
    while datetime.datetime.now(datetime.timezone.utc) < first + datetime.timedelta(seconds=0.3):
        assert bench.receiver.renew_message_lock(message) >= first
    assert message.locked_until_utc > first + datetime.timedelta(seconds=0.3)
    bench.receiver.complete_message(message)
    assert bench.counts["locks_expired"] == expired


@cuts_connections
def test_after_a_cut_connection_a_message_is_completed_through_the_management_link(
    bench: Bench, bus: ServiceBusStandIn
) -> None:
    bench.send()
    own = ServiceBusClient.from_connection_string(bus.connection_string, retry_backoff_factor=0.02)
    with own, own.get_queue_receiver("work") as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=3)
        before = bench.counts["settled"]["completed"]
        bus.set_faults(drop_after_frames=1)
        receiver.complete_message(message)
        assert bus.faults()["drops"] == 0
        assert bench.counts["settled"]["completed"] == before + 1
        assert bench.counts["locked"] == 0


def test_locks_outlive_their_receiver(bench: Bench, client: ServiceBusClient) -> None:
    bench.bus.set_faults(lock_seconds=2.5)
    bench.send()
    with client.get_queue_receiver("work") as receiver:
        receiver.receive_messages(1, max_wait_time=3)
    assert bench.counts["locked"] == 1
    again = bench.receive_one()
    assert again.delivery_count == 1
    bench.receiver.complete_message(again)


def test_a_dead_letter_can_be_settled_and_redriven(bench: Bench, client: ServiceBusClient) -> None:
    bench.send("twice lucky", message_id="redrive")
    bench.receiver.dead_letter_message(bench.receive_one(), reason="TryAgain")
    with client.get_queue_receiver("WORK", sub_queue="deadletter") as receiver:
        [dead] = receiver.receive_messages(1, max_wait_time=3)
        receiver.abandon_message(dead)
        [dead] = receiver.receive_messages(1, max_wait_time=3)
        bench.sender.send_messages(ServiceBusMessage(b"".join(dead.body), message_id=dead.message_id))
        receiver.complete_message(dead)
    message = bench.receive_one()
    assert (str(message), message.message_id, message.dead_letter_reason) == ("twice lucky", "redrive", None)
    bench.receiver.complete_message(message)
    assert bench.counts["dead_lettered"] == 0
