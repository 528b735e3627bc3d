"""Family 5: what a bus does to its receivers."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from azure.servicebus import ServiceBusClient, ServiceBusReceivedMessage

from tests.faults.conftest import MakeWorld
from tests.faults.judge import LedgerLook
from tests.faults.standins import SUBSCRIPTION, eventually
from tests.faults.world import Killer
from tests.instore.sources.encoded import undecodable
from tests.runbook.oncall import printed

KNOBS: dict[str, tuple[dict[str, Any], int]] = {
    "settles refused, the lock lost": ({"refuse_every_settle": 7}, 10),
    "settles refused, the server busy": ({"refuse_every_settle": 9, "refusal": "com.microsoft:server-busy"}, 10),
    "every third message delivered twice": ({"deliver_twice_every": 3}, 3),
    "replies so late that reads come back empty": ({"latency_seconds": 0.4}, 4),
    "the connection dropped behind a delivery": ({"drop_after_transfers": 37, "drops": 3}, 4),
    "the connection dropped on a frame": ({"drop_after_frames": 90, "drops": 3}, 4),
    "the connection dropped instead of a settle's reply": ({"drop_after_settles": 23, "drops": 3}, 4),
}
"""Knobs, and how often one message may be delivered again because of them."""


@pytest.mark.weight(18)
@pytest.mark.parametrize("what", KNOBS)
def test_knob(make_world: MakeWorld, what: str) -> None:
    _knob(make_world, what, orders=180)


def _knob(make_world: MakeWorld, what: str, orders: int) -> None:
    knobs, again = KNOBS[what]
    world, judge = make_world(501)
    world.publish(world.source.take(orders))
    world.hang_up()
    judge.fault_happened()
    world.sandbox.bus.set_faults(**knobs)
    world.inject(5, what)
    world.run()
    judge.nothing_completed_that_is_not_on_disk()
    world.run()
    world.sandbox.bus.set_faults()
    world.recover()
    judge.check(at_least=orders * 2 // 3, deliveries=again, recovered=True)


@pytest.mark.smoke
def test_locks_expire_in_mid_block(make_world: MakeWorld) -> None:
    """The block is on disk, its locks run out before it is completed: all of it comes again, and is known."""
    world, judge = make_world(502)
    world.publish(world.source.take(100))
    world.sandbox.bus.set_faults(lock_seconds=1)
    judge.fault_happened()
    world.inject(5, "locks of one second run out while a drain hangs behind its commit")
    run = {"run_id": "scheduled__locks", "run_type": "scheduled"}
    drain = world.start_step("drain_topic", run, fault="topic.after_commit:1:STOP")
    drain.wait_until_frozen()
    time.sleep(1.5)
    drain.thaw()
    done = drain.wait()
    world.sandbox.bus.set_faults()
    assert done.state == "success"
    assert done.value["settle_failed"] > 0
    world.recover()
    judge.check(at_least=65, deliveries=3, recovered=True)


@pytest.mark.weight(40)
def test_a_message_that_kills_its_receiver_again_and_again_becomes_a_dead_letter(make_world: MakeWorld) -> None:
    """The bus gives up on a message after so many deliveries. It is a dead letter then, which is not lost."""
    world, judge = make_world(503, index=-1)
    doomed = world.source.take(20, only="sent")
    world.publish(doomed)
    for _ in range(3):
        world.inject(5, "a drain is killed with the messages in its hands, and the bus counts")
        assert world.run(killer=Killer({"drain_topic": ["topic.after_receive:1"]}), tries=1).kills == 1
        world.wait_for_locks()
    counts = world.sandbox.subscription(world.topic)
    assert counts["dead_lettered"] == 20
    world.publish(world.source.take(60))
    for order in doomed:
        del world.published[order.number]
    world.recover()
    judge.check(at_least=40, dead_lettered=20)


def test_a_message_of_a_megabyte(make_world: MakeWorld) -> None:
    """Just under the bound it is an order, truncated to its summary on the way out; above it, it is set aside."""
    world, judge = make_world(504, max_message_bytes=1_000_000)
    fat, *others = world.source.take(50, only="sent")
    document = json.loads(fat.body())
    huge = json.dumps({**document, "orderNumber": "HUGE-000000", "note": "x" * 1_040_000}).encode()
    world.published[fat.number] = [fat]
    world.on_bus[fat.number] += 1
    world.inject(5, "messages of a megabyte", times=2)
    judge.fault_happened()
    world.send_raw([(json.dumps({**document, "note": "x" * 990_000}).encode(), fat.number)])
    world.publish_malformed([huge])
    world.publish(others)
    world.recover()
    judge.truncated = {fat.number}
    judge.check(at_least=50, recovered=True)


@pytest.mark.smoke
def test_messages_without_an_id(make_world: MakeWorld) -> None:
    world, judge = make_world(505)
    orders = world.source.take(80)
    judge.fault_happened()
    world.inject(5, "messages without an id, some of them twice")
    world.publish(orders, message_id=False)
    world.publish(orders[:20], message_id=False)
    world.publish_malformed([b"not json"] * 3)
    judge.fault_happened()
    world.recover()
    judge.check(at_least=50, deliveries=0, recovered=True)


def test_messages_that_cannot_be_decoded(make_world: MakeWorld) -> None:
    """Each is set aside alone, once, also where the drain is killed with them on disk."""
    world, judge = make_world(507, max_bad_share=1)
    world.publish(world.source.take(60))
    # The bus writes annotations anew on every delivery; all others are kept byte for byte.
    world.publish_undecodable([raw for what, raw in undecodable("").items() if "annotation" not in what])
    world.publish(world.source.take(60))
    judge.fault_happened()
    world.inject(5, "messages that the SDK cannot decode, in the hands of a drain that is killed", times=8)
    assert world.run(killer=Killer({"drain_topic": ["topic.after_commit:1"]})).kills == 1
    world.recover()
    judge.check(at_least=75, recovered=True)


def test_messages_that_expire_or_that_another_program_defers_or_holds(make_world: MakeWorld) -> None:
    """None of them is called drained, each kind is counted, and all arrive once its remedy is typed."""
    world, judge = make_world(508)
    world.publish(world.source.take(40))
    world.publish(world.source.take(20), time_to_live=timedelta(seconds=1))
    judge.fault_happened()
    world.sandbox.bus.set_faults(lock_seconds=300)
    world.inject(5, "of sixty messages ten are deferred, ten held by another program, and twenty expire", times=40)
    with (
        ServiceBusClient.from_connection_string(world.sandbox.connection_string) as client,
        client.get_subscription_receiver(world.topic, SUBSCRIPTION) as receiver,
    ):
        taken: list[ServiceBusReceivedMessage] = []
        while len(taken) < 20:
            taken += receiver.receive_messages(max_message_count=20 - len(taken), max_wait_time=5)
        for message in taken[:10]:
            receiver.defer_message(message)
        time.sleep(1.5)
        report = world.run().report or {}
        for message in taken[10:]:
            receiver.abandon_message(message)
    left = ("drain", "received", "deferred", "locked_elsewhere", "expired_on_bus", "red")
    assert [report[name] for name in left] == ["drained", 20, 10, 10, 20, []]
    with LedgerLook(world.ledger) as ledger:
        assert ledger is not None
        causes = set(ledger.scalars(sa.text("select cause from alerts")))
    assert causes >= {"deferred", "dead_letters"}
    assert printed(world, "dead-letters", "redrive", "--deferred")["counts"] == {"landed": 10}
    assert printed(world, "dead-letters", "redrive")["counts"] == {"landed": 20}
    world.sandbox.bus.set_faults()
    world.recover()
    judge.check(at_least=40, deliveries=1, recovered=True)


@pytest.mark.weight(60)
def test_bus_gone_for_longer_than_the_retry_window(make_world: MakeWorld) -> None:
    world, judge = make_world(506)
    world.publish(world.source.take(120))
    world.extract("2017/06/05/orders.csv", world.source.take(100))
    world.hang_up()
    world.sandbox.bus.kill()
    world.inject(5, "the bus is gone during a whole run")
    done = world.run(tries=1)
    world.sandbox.bus.start()
    assert done.states["drain_topic"] == "failed"
    # The other source goes on without it.
    assert done.report is not None
    assert done.report["sent"] >= 60
    judge.fault_happened()
    world.recover()
    judge.check(at_least=145, deliveries=1, recovered=True)


@pytest.mark.weight(40)
@pytest.mark.parametrize("seed", range(510, 512))
def test_bus_that_hangs(make_world: MakeWorld, seed: int) -> None:
    """The broker's machine freezes for some seconds in the middle of a drain."""
    world, judge = make_world(seed)
    world.publish(world.source.take(200))
    world.hang_up()
    judge.fault_happened()
    run = {"run_id": "scheduled__hang", "run_type": "scheduled"}
    drain = world.start_step("drain_topic", run)
    eventually(lambda: world.sandbox.subscription(world.topic)["delivered"] > 0, "a delivery")
    world.sandbox.bus.freeze(True)
    world.inject(5, "the bus hangs for five seconds")
    time.sleep(5)
    world.sandbox.bus.freeze(False)
    drain.wait()
    judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=130, deliveries=3, recovered=True)
