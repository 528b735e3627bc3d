"""Messages with a time: scheduled, cancelled, expired (service-bus.md, points 8 and 10)."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.exceptions import MessageNotFoundError

from sandbox.servicebus.config import QueueSpec
from sandbox.servicebus.faults import Faults
from sandbox.servicebus.message import Content
from sandbox.servicebus.model import Environment
from sandbox.servicebus.queues import Queue
from sandbox.servicebus.store import Store
from tests.sandbox.servicebus.conftest import Bench, DeadLetter, eventually


def soon(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)


def test_a_scheduled_message_comes_at_its_time(bench: Bench) -> None:
    numbers = bench.sender.schedule_messages([ServiceBusMessage("now"), ServiceBusMessage("then")], soon(0.4))
    assert len(set(numbers)) == 2
    assert bench.counts["scheduled"] == 2
    assert bench.receiver.receive_messages(1, max_wait_time=0.1) == []
    messages = bench.receive(2)
    assert {str(each) for each in messages} == {"now", "then"}
    for message in messages:
        bench.receiver.complete_message(message)


def test_a_message_sent_with_an_enqueue_time_waits_for_it(bench: Bench) -> None:
    bench.send("later", scheduled_enqueue_time_utc=soon(0.3))
    assert bench.counts["scheduled"] == 1
    message = bench.receive_one()
    assert str(message) == "later"
    bench.receiver.complete_message(message)


def test_a_cancelled_message_never_comes(bench: Bench) -> None:
    numbers = bench.sender.schedule_messages(ServiceBusMessage("never"), soon(60))
    bench.sender.cancel_scheduled_messages(numbers)
    assert bench.counts["scheduled"] == 0
    with pytest.raises(MessageNotFoundError):
        bench.sender.cancel_scheduled_messages(numbers)


def test_an_expired_message_is_dead_lettered(bench: Bench, dead_letter: DeadLetter) -> None:
    bench.send(message_id="stale", time_to_live=datetime.timedelta(seconds=1))
    assert bench.counts["dead_lettered"] == 0
    eventually(lambda: bench.counts["dead_lettered"] == 1)
    assert bench.receiver.receive_messages(1, max_wait_time=0.1) == []
    dead = dead_letter()
    assert (dead.message_id, dead.dead_letter_reason) == ("stale", "TTLExpiredException")


def test_a_message_does_not_expire_while_it_is_locked(bench: Bench, dead_letter: DeadLetter) -> None:
    for name in ("completed", "abandoned"):
        bench.send(message_id=name, time_to_live=datetime.timedelta(seconds=1))
    completed, abandoned = bench.receive(2)
    end = completed.enqueued_time_utc + datetime.timedelta(seconds=1.1)
    eventually(lambda: datetime.datetime.now(datetime.timezone.utc) > end)
    assert bench.counts["locked"] == 2
    bench.receiver.complete_message(completed)
    bench.receiver.abandon_message(abandoned)
    eventually(lambda: bench.counts["dead_lettered"] == 1)
    assert dead_letter().message_id == "abandoned"


def test_an_entity_s_time_to_live_holds_for_messages_without_one() -> None:
    """Without a wire: the SDK cannot tell shorter times than a second."""

    async def expire(dead_letter: bool, message_ttl: int | None, topic_ttl: float | None) -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        environment = Environment(loop, Store(None, loop, lambda: None), Faults())
        spec = QueueSpec("work", lock=60, max_deliveries=3, ttl=0.05, dead_letter_expired=dead_letter)
        queue = Queue(spec, environment)
        queue.send(Content(b"", ttl=message_ttl), topic_ttl)
        assert queue.total == 1
        for _ in range(500):
            if queue.total:
                await asyncio.sleep(0.002)
        queue.close()
        assert queue.dead_letter_queue is not None
        return queue.total, queue.dead_letter_queue.total

    assert asyncio.run(expire(False, None, None)) == (0, 0)
    assert asyncio.run(expire(True, None, None)) == (0, 1)
    assert asyncio.run(expire(True, 3_600_000, None)) == (0, 1)
    assert asyncio.run(expire(True, None, 0.01)) == (0, 1)
