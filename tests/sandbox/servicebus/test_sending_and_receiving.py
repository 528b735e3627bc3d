"""What comes out is what went in (service-bus.md, points 2, 4, 5, 6 and 9)."""

from __future__ import annotations

import asyncio
import datetime
import threading
import uuid

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient as AioClient
from azure.servicebus.exceptions import MessageSizeExceededError

from sandbox.servicebus import ServiceBusStandIn
from tests.sandbox.servicebus.conftest import Bench, eventually


def test_a_message_arrives_with_its_body_and_every_kind_of_application_property(bench: Bench) -> None:
    at = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    sent = {
        "text": "Grüße",
        "int": 7,
        "float": 1.5,
        "yes": True,
        "uuid": uuid.UUID(int=9),
        "none": None,
        "at": at,
    }
    bench.send("der Körper", application_properties=sent, content_type="application/json", correlation_id="c",
               subject="s", to="t", reply_to="r", message_id="m-1")  # fmt: skip
    message = bench.receive_one()
    assert b"".join(message.body).decode() == "der Körper"
    assert message.application_properties == {
        b"text": "Grüße".encode(), b"int": 7, b"float": 1.5, b"yes": True, b"uuid": uuid.UUID(int=9), b"none": None,
        b"at": int(at.timestamp() * 1000),
    }  # fmt: skip
    assert (message.message_id, message.content_type, message.correlation_id) == ("m-1", "application/json", "c")
    assert (message.subject, message.to, message.reply_to) == ("s", "t", "r")
    bench.receiver.complete_message(message)


def test_a_delivery_says_when_it_was_enqueued_and_until_when_it_is_locked(bench: Bench) -> None:
    bench.send()
    message = bench.receive_one()
    now = datetime.datetime.now(datetime.timezone.utc)
    assert abs((message.enqueued_time_utc - now).total_seconds()) < 2
    assert 55 < (message.locked_until_utc - now).total_seconds() <= 60
    assert message.delivery_count == 0
    assert message.lock_token == uuid.UUID(bytes_le=message._delivery_tag)
    annotated = message.raw_amqp_message.delivery_annotations
    assert annotated == {b"x-opt-lock-token": message.lock_token}
    bench.receiver.complete_message(message)


def test_messages_come_in_sequence_order(bench: Bench) -> None:
    for number in range(5):
        bench.send(str(number))
    messages = bench.receive(5)
    assert [str(each) for each in messages] == ["0", "1", "2", "3", "4"]
    numbers = [each.sequence_number for each in messages]
    assert numbers == sorted(set(numbers))
    for message in messages:
        bench.receiver.complete_message(message)


def test_a_batch_arrives_as_single_messages(bench: Bench) -> None:
    batch = bench.sender.create_message_batch()
    for number in range(20):
        batch.add_message(
            ServiceBusMessage(f"body {number}", message_id=f"b-{number}", application_properties={"n": number})
        )
    bench.sender.send_messages(batch)
    messages = bench.receive(20)
    assert [(str(each), each.message_id, each.application_properties[b"n"]) for each in messages] == [
        (f"body {number}", f"b-{number}", number) for number in range(20)
    ]
    for message in messages:
        bench.receiver.complete_message(message)


def test_a_message_may_have_neither_id_nor_body_nor_properties(bench: Bench) -> None:
    bare = ServiceBusMessage(b"x")
    bare.message_id = None
    bench.sender.send_messages([bare, ServiceBusMessage(None)])
    without_id, without_body = bench.receive(2)
    assert without_id.message_id is None
    assert without_id.application_properties is None
    assert without_id.sequence_number > 0
    for message in (without_id, without_body):
        bench.receiver.complete_message(message)


def test_a_message_of_one_megabyte_passes_in_many_frames(bench: Bench) -> None:
    body = bytes(range(250)) * 4000
    bench.sender.send_messages(ServiceBusMessage(body))
    message = bench.receive_one()
    assert b"".join(message.body) == body
    bench.receiver.complete_message(message)


def test_a_message_above_the_limit_is_refused_and_not_kept(bench: Bench) -> None:
    with pytest.raises(MessageSizeExceededError):
        bench.sender.send_messages(ServiceBusMessage(bytes(1024 * 1024)))
    bench.send("a small one still passes")
    bench.receiver.complete_message(bench.receive_one())


def test_a_message_above_256_kb_is_refused_where_the_configuration_names_no_other_limit(
    client: ServiceBusClient, bus: ServiceBusStandIn
) -> None:
    with client.get_queue_sender("standard") as sender:
        sender.send_messages(ServiceBusMessage(bytes(255 * 1024)))
        with pytest.raises(MessageSizeExceededError):
            sender.send_messages(ServiceBusMessage(bytes(256 * 1024)))
    assert bus.state()["entities"]["Standard"]["active"] == 1


def test_receive_and_delete_leaves_nothing_behind_and_takes_nothing_once_closed(
    bench: Bench, client: ServiceBusClient
) -> None:
    bench.send("gone")
    before = bench.bus.state()["connections"]
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client.get_queue_receiver("work", receive_mode=mode) as receiver:
        assert [str(each) for each in receiver.receive_messages(5, max_wait_time=3)] == ["gone"]
        assert bench.counts["active"] == bench.counts["locked"] == 0
    eventually(lambda: bench.bus.state()["connections"] == before)
    bench.send("stays")
    assert bench.counts["active"] == 1
    bench.receiver.complete_message(bench.receive_one())


def test_a_receiver_that_closes_gives_back_what_it_prefetched(bench: Bench, client: ServiceBusClient) -> None:
    for _ in range(6):
        bench.send()
    with client.get_queue_receiver("work", prefetch_count=5) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=3)
        receiver.complete_message(message)
    eventually(lambda: bench.counts["active"] == 5)
    messages = bench.receive(5)
    assert {each.delivery_count for each in messages} == {0}
    for each in messages:
        bench.receiver.complete_message(each)


def test_iterating_over_a_receiver_yields_what_is_there(bench: Bench) -> None:
    ids = [bench.send() for _ in range(3)]
    seen = []
    for message in bench.receiver:
        seen.append(message.message_id)
        bench.receiver.complete_message(message)
        if len(seen) == 3:
            break
    assert seen == ids


def test_competing_receivers_share_the_messages_and_none_gets_one_twice(bench: Bench, bus: ServiceBusStandIn) -> None:
    batch = [ServiceBusMessage("x", message_id=f"shared-{number}") for number in range(200)]
    bench.sender.send_messages(batch)
    seen: list[list[str]] = []

    def work() -> None:
        mine: list[str] = []
        seen.append(mine)
        own = ServiceBusClient.from_connection_string(bus.connection_string)
        with own, own.get_queue_receiver("work") as receiver:
            while messages := receiver.receive_messages(20, max_wait_time=0.5):
                for message in messages:
                    receiver.complete_message(message)
                    mine.append(message.message_id)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each for mine in seen for each in mine) == sorted(each.message_id for each in batch)


def test_peeking_shows_messages_in_every_state_without_touching_them(bench: Bench) -> None:
    for body in ("locked", "deferred", "active"):
        bench.send(body)
    locked, deferred = bench.receive(2)
    bench.receiver.defer_message(deferred)
    peeked = bench.receiver.peek_messages(10, sequence_number=locked.sequence_number)
    assert [(str(each), each.state.name) for each in peeked] == [
        ("locked", "ACTIVE"),
        ("deferred", "DEFERRED"),
        ("active", "ACTIVE"),
    ]
    assert peeked[0].lock_token is None
    assert bench.receiver.peek_messages(10, sequence_number=peeked[2].sequence_number + 1) == []
    for message in (locked, *bench.receive(1), *bench.receiver.receive_deferred_messages(deferred.sequence_number)):
        bench.receiver.complete_message(message)


def test_the_aio_client_sends_receives_and_settles(bench: Bench, bus: ServiceBusStandIn) -> None:
    async def talk() -> list[str]:
        own = AioClient.from_connection_string(bus.connection_string)
        async with own, own.get_queue_sender("work") as sender, own.get_queue_receiver("work") as receiver:
            await sender.send_messages([ServiceBusMessage(f"aio {number}") for number in range(4)])
            first, second, third, fourth = await receiver.receive_messages(4, max_wait_time=3)
            bodies = [str(each) for each in (first, second, third, fourth)]
            await receiver.complete_message(first)
            await receiver.abandon_message(second)
            await receiver.defer_message(third)
            await receiver.renew_message_lock(fourth)
            await receiver.complete_message(fourth)
            [again] = await receiver.receive_messages(1, max_wait_time=3)
            assert (str(again), again.delivery_count) == ("aio 1", 1)
            await receiver.complete_message(again)
            [put_aside] = await receiver.receive_deferred_messages(third.sequence_number)
            await receiver.complete_message(put_aside)
            return bodies

    assert asyncio.run(talk()) == ["aio 0", "aio 1", "aio 2", "aio 3"]
