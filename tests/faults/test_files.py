"""Family 8: files that are damaged, replaced under their reader's hands, and known from the topic meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.source import Order
from tests.faults.world import Killer, World

RUN = {"run_id": "scheduled__files", "run_type": "scheduled"}
NAME = "2017/06/05/orders.csv"
BETWEEN_READINGS = "extracts.read:1"


def _replaced(world: World, before: list[Order]) -> list[Order]:
    """What stands in the file that takes the place of the first: as before, corrected, left out, and new."""
    corrected = [world.source.corrected(order) for order in before[20:40]]
    world.extract(NAME, [*before[:20], *corrected, *world.source.take(20, only="sent")])
    world.inject(8, "a file is replaced by another of the same name: 20 orders corrected, 20 left out, 20 new")
    return before[40:]


@pytest.mark.parametrize(
    "when",
    in_smoke(
        ["its reader was killed between the readings", "its reader hangs between the readings", "it was sent"],
        "its reader hangs between the readings",
    ),
)
def test_a_file_is_replaced(make_world: MakeWorld, when: str) -> None:
    """What was read to its end is what is landed, and the other file is due again, whenever it came."""
    world, judge = make_world(850, use_topic=False)
    before = world.source.take(60, only="sent")
    world.extract(NAME, before)
    judge.fault_happened()
    if when == "it was sent":
        world.recover(world.run())
        judge.check(at_least=60)
        _replaced(world, before)
    elif when == "its reader was killed between the readings":
        killed = world.run(killer=Killer({"load_extracts": [BETWEEN_READINGS]}), tries=1)
        assert killed.kills == 1
        for order in _replaced(world, before):
            del world.published[order.id]  # nobody has seen them
        for order in before[20:40]:
            del world.published[order.id][0]
    else:
        load = world.start_step("load_extracts", RUN, fault=f"{BETWEEN_READINGS}:STOP")
        load.wait_until_frozen()
        _replaced(world, before)
        load.thaw()
        assert load.wait().value["orders"] == 60
    world.recover()
    judge.check(at_least=60)


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a bit of its text": (f"{NAME}.gz", lambda data: data[:-60] + bytes([data[-60] ^ 4]) + data[-59:]),
    "its checksum": (f"{NAME}.gz", lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]),
    "its last half": (f"{NAME}.gz", lambda data: data[: len(data) // 2]),
    "a page of the disk, not compressed": (NAME, lambda data: data[:2000] + b"\xff\xfe\x81" * 170 + data[2510:]),
}


@pytest.mark.parametrize("what", in_smoke(DAMAGE, "a bit of its text"))
def test_a_damaged_file_is_replaced_by_the_whole_one(make_world: MakeWorld, what: str) -> None:
    """Nothing of it is landed and its run is red; a try that was killed and other files in between change nothing."""
    world, judge = make_world(851, use_topic=False, max_bad_share=1)
    name, damage = DAMAGE[what]
    orders = world.source.take(60, only="sent")
    path = world.extract(name, orders)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    world.inject(8, f"of a file, damaged is {what}")
    judge.fault_happened()
    killer = Killer({"load_extracts": [BETWEEN_READINGS]})
    red = world.run(killer=killer)
    assert red.kills == 1
    assert not red.green
    others = world.source.take(20, only="sent")
    world.extract("2017/06/06/orders.csv", others)
    judge.check(at_least=0, settled=False)  # what waits is told of
    world.run()
    landed = judge.look().delivered
    assert {order.id for order in others} <= landed
    assert len(landed) == 20
    path.write_bytes(whole)
    world.timeline.note("the whole file is delivered")
    world.recover()
    judge.check(at_least=80, recovered=True)


@pytest.mark.parametrize("point", [BETWEEN_READINGS, "extracts.after_block:1"])
def test_the_topic_brings_an_order_while_its_file_is_read(make_world: MakeWorld, point: str) -> None:
    """The copies are sent before the file's own are landed; some of them tell a later content than the file."""
    world, judge = make_world(852)
    orders = world.source.take(120, only="sent")
    world.extract(NAME, orders)
    judge.fault_happened()
    world.inject(8, f"a file's reader hangs at {point}, and the topic brings its orders", times=80)
    load = world.start_step("load_extracts", RUN, fault=f"{point}:STOP")
    load.wait_until_frozen()
    world.publish([*orders[:60], *map(world.source.corrected, orders[60:80])])
    drained = world.step("drain_topic", RUN | {"run_id": "scheduled__other"})
    assert drained.value["received"] == 80
    world.run("scheduled__other", only=["plan_batches", "look_up_customers", "send_events", "report_run"])
    sent = judge.look().delivered
    assert {order.id for order in orders[:80]} <= sent
    load.thaw()
    assert load.wait().state == "success"
    world.recover()
    judge.check(at_least=120, deliveries=0)


def test_a_hole_in_the_middle_of_a_file_tells_no_order_short(make_world: MakeWorld) -> None:
    """A page of the disk that was never written: a row is set aside, and the order behind it has lost its first line.

    All other orders' lines make their totals, and its own do not.
    """
    world, judge = make_world(853, use_topic=False)
    orders = world.source.take(60, only="sent")
    path = world.extract(NAME, orders)
    data = path.read_bytes()
    short = next(n for n in range(20, 40) if len(orders[n].lines) > 1)
    first = data.index(orders[short].csv())
    data = data[: first - 20] + bytes(40) + data[first + 20 :]
    path.write_bytes(data)
    world.inject(8, "a page of zeros in the middle of a file")
    world.run()
    verdict = judge.look()
    judge.count(len(verdict.delivered))
    assert not verdict.wrong
