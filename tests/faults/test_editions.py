"""Family 1 again: a month is sent again, and killed, cleared and cleared as a whole: one new edition of each order."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.conftest import MakeWorld
from tests.faults.judge import Judge
from tests.faults.world import Killer, RunDone, World

JUNE = {"start": "2017-06-01T00:00:00+00:00", "end": "2017-07-01T00:00:00+00:00"}


def _resend(world: World, *, clear_number: int = 0, killer: Killer | None = None, tries: int = 1) -> RunDone:
    return world.run(
        "backfill__june",
        run_type="backfill",
        params={"resend": True},
        clear_number=clear_number,
        killer=killer,
        tries=tries,
        **JUNE,
    )


def _events(judge: Judge) -> tuple[Counter[str], int]:
    """How many events each order has, and how many of all there are have an id that another one has."""
    judge.look()
    ids = Counter(event["trackId"] for event in judge.taken)
    return Counter(str(event["payload"]["orderNumber"]) for event in judge.taken), len(judge.taken) - len(ids)


@pytest.mark.smoke
def test_a_resend_of_which_a_batch_fails_is_cleared_and_makes_one_edition_of_each_order(make_world: MakeWorld) -> None:
    world, judge = make_world(1301, use_topic=False, batch_orders=25)
    orders = world.source.take(200, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    assert world.run().green
    world.inject(1, "the seventh batch of a resend dies before its events leave")
    failed = _resend(world, killer=Killer({"send_events_6": ["delivery.after_sending:1"]}))
    assert failed.kills == 1
    assert failed.report is not None
    assert 150 < failed.report["resent"] < 200
    assert failed.report["carried_over"] == 200 - failed.report["resent"]
    # What died is in doubt: its first edition's event proves nothing.
    cleared = _resend(world, clear_number=1)
    again = _resend(world, clear_number=2)
    assert (again.report or {})["resent"] == 0
    world.recover(cleared if not world.under_way(cleared) else again)
    seen, twice = _events(judge)
    assert not twice
    assert {order.number: seen[order.number] for order in orders} == {order.number: 2 for order in orders}
    judge.check(at_least=200)


@pytest.mark.weight(60)
def test_a_thousand_orders_are_sent_again_with_kills(make_world: MakeWorld) -> None:
    world, judge = make_world(1302, use_topic=False, batch_orders=100)
    orders = world.source.take(1000, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.recover(world.run())
    plans = {f"send_events_{batch}": ["delivery.answered:2"] for batch in range(0, 10, 3)}
    world.inject(1, "every third batch of a resend dies amid its answers", times=len(plans))
    _resend(world, killer=Killer(plans))
    for number in (1, 2, 3):
        last = _resend(world, clear_number=number)
    world.recover(last)
    seen, twice = _events(judge)
    assert not twice
    assert {seen[order.number] for order in orders} == {2}
    judge.check(at_least=1000)
