"""Family 2: the outside world dies and comes back; the scheduler's part is in test_scheduler.py."""

from __future__ import annotations

import threading

import pytest

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.standins import StandIn
from tests.faults.totals import TOTALS
from tests.faults.world import Killer, World


class _Dies(threading.Thread):
    """kill -9 of stand-ins some seconds into a run, and their return some seconds later."""

    def __init__(self, world: World, victims: list[StandIn], after: float, away: float) -> None:
        super().__init__()
        self._world = world
        self._victims = victims
        self._after = after
        self._away = away
        self._halt = threading.Event()
        world.inject(
            2, f"{', '.join(v.name for v in victims)} dies after {after:.2f} s, for {away:.2f} s", len(victims)
        )

    def run(self) -> None:
        self._halt.wait(self._after)
        for victim in self._victims:
            victim.kill()
            TOTALS.kills += 1
        self._world.timeline.note("FAULT killed: " + ", ".join(victim.name for victim in self._victims))
        self._halt.wait(self._away)
        for victim in self._victims:
            victim.spawn()
        for victim in self._victims:
            victim.wait()
        self._world.timeline.note("back again")


def _victims(world: World, who: str) -> list[StandIn]:
    sandbox = world.sandbox
    return {"bus": [sandbox.bus], "loyalty": [sandbox.loyalty], "store": [sandbox.store], "all": list(sandbox.all)}[who]


@pytest.mark.parametrize("who", in_smoke(["loyalty", "store"], "store"))
def test_service_dies_and_comes_back(make_world: MakeWorld, who: str) -> None:
    world, judge = make_world(201, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(200))
    judge.fault_happened()
    death = _Dies(world, _victims(world, who), 0.25, 0.5)
    death.start()
    world.run()
    death.join()
    world.recover()
    judge.check(at_least=130, recovered=True)


@pytest.mark.weight(45)
@pytest.mark.parametrize("seed", range(210, 212))
@pytest.mark.parametrize("who", ["bus", "loyalty", "store", "all"])
def test_dies_at_any_moment(make_world: MakeWorld, who: str, seed: int) -> None:
    world, judge = make_world(seed)
    for n in range(2):
        world.publish(world.source.take(150))
        world.extract(f"2017/06/{n + 1:02d}/orders.csv", world.source.take(150))
        world.hang_up()
        judge.fault_happened()
        after = world.random.uniform(0.1, 3.0 if who in ("bus", "all") else 4.0)
        death = _Dies(world, _victims(world, who), after, world.random.uniform(0.2, 2.0))
        death.start()
        world.run(tries=2)
        death.join()
        judge.nothing_completed_that_is_not_on_disk()
        world.recover()
        judge.check(at_least=len(world.published) * 2 // 3, deliveries=6)


@pytest.mark.weight(40)
@pytest.mark.parametrize("seed", range(220, 222))
def test_the_whole_machine_at_once(make_world: MakeWorld, seed: int) -> None:
    """Every process of the sandbox and the task that runs die in the same moment."""
    world, judge = make_world(seed, claim_minutes=0.002)
    for n in range(3):
        world.publish(world.source.take(120))
        world.extract(f"2017/06/{n + 1:02d}/orders.csv", world.source.take(120))
        world.hang_up()
        judge.fault_happened()
        after = world.random.uniform(0.3, 3.0)
        death = _Dies(world, _victims(world, "all"), after, 0.3)
        death.start()
        killed = world.run(killer=Killer(after=after), tries=1)
        world.timeline.note(f"{killed.kills} task processes died with them")
        death.join()
        judge.nothing_completed_that_is_not_on_disk()
        world.recover()
        judge.check(at_least=len(world.published) * 2 // 3, deliveries=6)
