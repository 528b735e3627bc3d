"""Family 7: clocks that are wrong, and dates that are strange.

The shift is made where the code asks for the time (tests/faults/clock.py says how and what it leaves out).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from azure.servicebus import ServiceBusClient

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.proxy import HttpRelay, Trouble
from tests.faults.standins import SUBSCRIPTION
from tests.faults.world import Killer

RUN = {"run_id": "scheduled__clock", "run_type": "scheduled"}
HOUR = 3600.0
TEN_MINUTES = 600.0


@pytest.mark.parametrize("hours", [1, -1])
def test_clock_wrong_by_an_hour(make_world: MakeWorld, hours: int) -> None:
    world, judge = make_world(701)
    world.publish(world.source.take(80))
    world.extract("2017/06/05/orders.csv", world.source.take(80))
    judge.fault_happened()
    world.inject(7, f"the worker's clock is wrong by {hours} h")
    world.run(clock={"seconds": hours * HOUR})
    world.run(clock={"seconds": hours * HOUR})
    world.recover()
    judge.check(at_least=100, deliveries=3, recovered=True)


@pytest.mark.smoke
def test_a_worker_whose_clock_is_behind_tells_what_it_could_not_drain(make_world: MakeWorld) -> None:
    """Found that messages enqueued after its own time, but before its first read, passed for some of the next run."""
    world, judge = make_world(706)
    world.publish(world.source.take(30))
    judge.fault_happened()
    world.sandbox.bus.set_faults(lock_seconds=300)
    world.inject(7, "the worker's clock is ten minutes behind the bus's, and somebody else holds five messages")
    with (
        ServiceBusClient.from_connection_string(world.sandbox.connection_string) as client,
        client.get_subscription_receiver(world.topic, SUBSCRIPTION) as receiver,
    ):
        held = receiver.receive_messages(max_message_count=5, max_wait_time=5)
        drained = world.step("drain_topic", RUN, clock={"seconds": -TEN_MINUTES}).value
        for message in held:
            receiver.abandon_message(message)
    assert (drained["received"], drained["stopped_by"], drained["locked_elsewhere"]) == (25, "drained", 5)
    world.sandbox.bus.set_faults()
    world.recover()
    judge.check(at_least=20, deliveries=1, recovered=True)


@pytest.mark.parametrize("hours", in_smoke([1, -1], 1))
def test_sender_is_killed_and_the_next_try_runs_where_the_clock_is_wrong(make_world: MakeWorld, hours: int) -> None:
    """Its request is taken but does not show yet: patience must not be measured by two machines' clocks.

    Found that with a clock ahead the event was sent again at once, and with one behind the task waited for an hour.
    """
    world, judge = make_world(702, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(60, only="sent"))
    world.sandbox.store.set_faults(ingest_delay=1)
    judge.fault_happened()
    for task in ("load_extracts", "plan_batches"):
        planned = world.step(task, RUN).value
    looked_up = world.step("look_up_customers", RUN, batch=planned[0]).value
    world.inject(7, f"a sender is killed, its second try's clock is wrong by {hours} h")
    point = Killer({"send_events": ["delivery.answered:1"]})
    assert world.step("send_events", RUN, batch=looked_up, killer=point).state == "killed"
    second = world.start_step("send_events", RUN, batch=looked_up, clock={"seconds": hours * HOUR}).wait(seconds=60)
    assert second.state == "success"
    world.recover()
    judge.check(at_least=60, recovered=True)


@pytest.mark.weight(25)
@pytest.mark.parametrize("jump", [HOUR, -HOUR, 86_400.0])
@pytest.mark.parametrize("after", [3, 9, 20])
def test_clock_jumps_in_mid_run(make_world: MakeWorld, jump: float, after: int) -> None:
    world, judge = make_world(703)
    world.publish(world.source.take(60))
    world.extract("2017/06/05/orders.csv", world.source.take(60))
    world.sandbox.store.set_faults(ingest_delay=0.5)
    judge.fault_happened()
    world.inject(7, f"the clock jumps by {jump:.0f} s after {after} looks at it, in every task")
    with HttpRelay(world.sandbox.store.url, [Trouble(), Trouble("lost")]) as relay:
        world.through(store=relay.url)
        world.run(clock={"seconds": 0, "jump_after": after, "jump_to": jump})
        world.recover()
    judge.check(at_least=80, deliveries=3, recovered=True)


@pytest.mark.weight(60)
@pytest.mark.parametrize("seed", range(710, 713))
def test_workers_whose_clocks_are_ten_minutes_apart(make_world: MakeWorld, seed: int) -> None:
    """Two runs at once, each task and each try on the other worker, while senders die and requests are in doubt.

    ``claim_minutes`` is longer than the clocks are apart, as it is by default. Where a clock is ahead, the bus's SDK
    takes every lock for expired: such a worker completes nothing, and what it has landed comes again.
    Reads lag behind for longer than ``verify_after``: were places in the order of leaving told by clocks, an event of
    the worker that is ahead would be a witness of what left after it, and that would be sent twice.
    """
    world, judge = make_world(seed, claim_minutes=15, bulk_events=25, verify_after=2)
    for n in range(2):
        world.arrive_mixed(f"2017/06/{n + 1:02d}/orders.csv", rows=60, messages=60)
        judge.fault_happened()
        world.inject(7, "the clocks of two workers are ten minutes apart")
        world.sandbox.store.set_faults(share=0.2, answers=["lost", "reset"], only=["POST "], ingest_delay=6)
        clocks = world.random.choice(([0, TEN_MINUTES], [TEN_MINUTES, 0], [0, -TEN_MINUTES]))
        killer = Killer({"send_events": ["delivery.answered:3", "delivery.after_sending:2"]})
        with ThreadPoolExecutor(2) as threads:
            june = {"start": "2017-06-01T00:00:00+00:00", "end": "2017-07-01T00:00:00+00:00"}
            both = [
                threads.submit(world.run, f"scheduled__{n}", clocks=clocks, killer=killer),
                threads.submit(world.run, f"backfill__{n}", run_type="backfill", clocks=clocks[::-1], **june),
            ]
            for each in both:
                each.result()
        world.sandbox.store.set_faults()
        world.recover(clocks=[0, TEN_MINUTES, -TEN_MINUTES])
        judge.check(at_least=len(world.published) * 3 // 5, deliveries=4, recovered=True)


STRANGE = {
    "2017-03-26T02:30:00": "the hour that summer time skips",
    "2017-10-29T02:30:00": "the hour that summer time repeats",
    "2017-10-29T02:30:00+02:00": "its first passing, said",
    "2017-10-29T02:30:00+01:00": "its second passing, said",
    "1970-01-01T00:00:00Z": "the epoch",
    "1900-02-28T12:00:00+14:00": "far in the past, at the edge of the offsets",
    "0001-01-02T00:00:00Z": "the second day there is",
    "2017-06-05": "a day without a time",
    "2017-06-05T08:24:19.9964999Z": "more digits than anybody keeps",
}


@pytest.mark.parametrize(
    "zone", in_smoke(["Europe/Stockholm", "America/New_York", "Australia/Lord_Howe"], "Europe/Stockholm")
)
def test_strange_dates(make_world: MakeWorld, zone: str) -> None:
    """Every order reaches its profile once, with a date that the service takes."""
    world, judge = make_world(704, store_timezone=zone, earliest_date="0001-01-01")
    orders = world.source.take(2 * len(STRANGE), only="sent")
    dated = [order.on(date) for order, date in zip(orders, [*STRANGE, *STRANGE], strict=True)]
    for order in dated:
        world.source.drawn[order.number] = order
    world.inject(7, f"strange dates of stores in {zone}", times=len(dated))
    world.publish(dated[: len(STRANGE)])
    world.extract("2017/06/05/orders.csv", dated[len(STRANGE) :])
    judge.fault_happened()
    world.recover()
    judge.check(at_least=len(dated), deliveries=0, recovered=True)


@pytest.mark.parametrize(
    "date",
    [
        "0001-01-01T00:00:00+14:00",
        "2999-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z",
        "9999-12-30T00:00:00-12:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_dates_that_stand_for_none_or_lie_outside_the_calendar_are_set_aside(make_world: MakeWorld, date: str) -> None:
    world, judge = make_world(705, max_bad_share=1)
    good, bad = world.source.take(40, only="sent"), world.source.take(3, only="sent")
    world.inject(7, f"an order of {date}", times=3)
    world.publish(good)
    judge.fault_happened()
    world.publish_malformed([order.on(date).body() for order in bad])
    world.recover()
    judge.check(at_least=40, deliveries=0, recovered=True)
