"""Family 1: kill -9 of the task process, at every step boundary and at any moment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

import pytest

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.judge import Judge
from tests.faults.proxy import HttpRelay, Trouble
from tests.faults.totals import TOTALS, count_fault
from tests.faults.world import Killer, Started, World

BOUNDARIES = {
    "drain_topic": (
        "topic.after_receive:1", "topic.after_receive:3", "ledger.before_commit:2", "topic.after_commit:1",
        "topic.after_commit:2", "topic.between_completes:1", "topic.between_completes:45",
    ),
    "load_extracts": ("ledger.before_commit:2", "ledger.before_commit:3", "extracts.after_block:1",
                      "extracts.after_block:2", "extracts.read:1"),
    "plan_batches": ("claims.planned:1", "ledger.after_commit:2"),
    "look_up_customers": ("lookup.answered:1", "lookup.answered:37", "ledger.before_commit:2", "lookup.remembered:1",
                          "ledger.before_commit:3", "ledger.after_commit:3"),
    "send_events": ("ledger.before_commit:2", "delivery.after_sending:1", "delivery.after_sending:3",
                    "delivery.answered:1", "delivery.answered:60", "ledger.before_commit:3", "ledger.after_commit:3"),
    "report_run": ("ledger.before_commit:2", "report.released:1", "ledger.before_commit:3", "report.closed:1"),
}  # fmt: skip
"""The step boundaries of issue 3, family 1. The first commit of every task is the one that makes the run known."""

_SOON = 0.002
"""Minutes after which a dead run's orders go to the next one; two hours in life, and nobody can wait for those here."""


def _round(world: World, judge: Judge, number: int, killer: Killer, *, orders: int, rows: int = 60) -> int:
    """Orders arrive, a run is killed, the next ones finish the work, the judge looks; how often something died."""
    world.arrive_mixed(f"2017/06/{number:04d}.csv", rows=rows, messages=orders)
    judge.fault_happened()
    done = world.run(killer=killer)
    count_fault(1, done.kills)
    judge.nothing_completed_that_is_not_on_disk()
    world.recover(done)
    judge.check(at_least=len(world.published) * 2 // 3, recovered=True)
    return done.kills


def _killed_at(world: World, judge: Judge, task: str, points: Sequence[str]) -> None:
    for number, point in enumerate(points):
        times = world.random.choice((1, 1, 2, 3))  # three: no tries are left, and the next run takes over
        killed = _round(world, judge, number, Killer({task: [point] * times}), orders=180)
        assert killed >= 1, f"{point} was not reached\n{world.timeline}"


@pytest.mark.weight(75)
@pytest.mark.parametrize("task", BOUNDARIES)
def test_killed_at_every_boundary(make_world: MakeWorld, task: str) -> None:
    world, judge = make_world(100, claim_minutes=_SOON)
    _killed_at(world, judge, task, BOUNDARIES[task])


SECONDS = {
    "drain_topic": 2.2, "load_extracts": 0.4, "plan_batches": 0.3, "look_up_customers": 0.5, "send_events": 0.5,
    "report_run": 1.0,
}  # fmt: skip
"""How long the tasks take on a quiet machine, so that the shots are spread over all that they do."""


class Marksman(Killer):
    """Kills tries of some tasks, each at a random moment of its life.

    :param victims: tasks; one that is named twice is shot at in two of its tries.
    """

    def __init__(self, random: Random, victims: Sequence[str]) -> None:
        super().__init__()
        self._random = random
        self._victims = list(victims)

    def plan(self, task: str) -> str:
        kind = task.rstrip("0123456789").rstrip("_")
        self._at = None
        if kind in self._victims:
            self._victims.remove(kind)
            self._at = time.monotonic() + self._random.uniform(0, SECONDS[kind])
        return ""


@pytest.mark.parametrize(
    ("topic", "seed"),
    [pytest.param(True, seed, marks=pytest.mark.weight(110)) for seed in range(200, 204)]
    + [pytest.param(False, seed, marks=pytest.mark.weight(75)) for seed in range(204, 220)],
)
def test_killed_at_any_moment(make_world: MakeWorld, topic: bool, seed: int) -> None:
    """Ten runs in each of which something died; without the topic the runs are short, and the shots hit all tasks."""
    world, judge = make_world(seed, claim_minutes=_SOON, use_topic=topic)
    tasks = list(SECONDS) if topic else list(SECONDS)[1:]
    hit = number = 0
    while hit < 10:
        number += 1
        victims = world.random.choices(tasks, k=world.random.choice((2, 2, 3)))
        world.timeline.note(f"shots at {', '.join(victims)}")
        orders, rows = (70, 30) if topic else (0, 90)
        kills = _round(world, judge, number, Marksman(world.random, victims), orders=orders, rows=rows)
        hit += kills > 0
        TOTALS.runs_killed_at_random += kills > 0


@pytest.mark.weight(60)
@pytest.mark.smoke
def test_killed_once_at_a_boundary_of_each_task(make_world: MakeWorld) -> None:
    world, judge = make_world(11, claim_minutes=_SOON)
    points = {
        "drain_topic": "topic.after_commit:2",
        "load_extracts": "extracts.after_block:1",
        "plan_batches": "claims.planned:1",
        "look_up_customers": "lookup.answered:17",
        "send_events": "delivery.after_sending:2",
        "report_run": "report.released:1",
    }
    for number, (task, point) in enumerate(points.items()):
        assert _round(world, judge, number, Killer({task: [point]}), orders=180) == 1, f"{point} was not reached"


def test_killed_between_commit_and_complete(make_world: MakeWorld) -> None:
    world, judge = make_world(12)
    world.publish(world.source.take(180))
    done = world.run(killer=Killer({"drain_topic": ["topic.between_completes:45"]}))
    assert done.kills == 1
    judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=120, deliveries=1)


@pytest.mark.parametrize("moment", in_smoke(["before", "after"], "before"))
def test_killed_while_a_request_is_under_way(make_world: MakeWorld, moment: str) -> None:
    """The request has left and the service has not seen it yet; or it has answered and nobody has read it."""
    world, judge = make_world(13)
    world.publish(world.source.take(150))
    step: list[Started] = []
    with HttpRelay(world.sandbox.store.url, [Trouble(), Trouble(moment, hook=lambda: step[0].kill())]) as relay:
        world.through(store=relay.url)
        run = {"run_id": "scheduled__0", "run_type": "scheduled"}
        for task in ("drain_topic", "load_extracts"):
            world.step(task, run)
        batch = world.step("plan_batches", run).value[0]
        looked_up = world.step("look_up_customers", run, batch=batch)
        judge.fault_happened()
        step.append(world.start_step("send_events", run, batch=looked_up.value))
        assert step[0].wait().state == "killed"
        assert relay.met == 2
        count_fault(1)
        world.recover()
    judge.check(at_least=100, recovered=True)
