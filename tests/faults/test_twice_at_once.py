"""Family 9: two runs at once, two drains at once, and a task executed again while the first try still lives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.conftest import MakeWorld
from tests.faults.judge import Judge
from tests.faults.world import Done, Killer, World

RUN = {"run_id": "scheduled__twice", "run_type": "scheduled"}
BACKFILL = {"start": "2017-06-01T00:00:00+00:00", "end": "2017-07-01T00:00:00+00:00"}


def _at_once(*calls: Any) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


@pytest.mark.parametrize("seed", [901])
def test_a_scheduled_run_and_a_backfill_of_the_same_hours(make_world: MakeWorld, seed: int) -> None:
    _two_runs(*make_world(seed))


@pytest.mark.weight(70)
@pytest.mark.parametrize("seed", range(910, 912))
def test_two_runs_at_once_again_and_again(make_world: MakeWorld, seed: int) -> None:
    world, judge = make_world(seed)
    for _ in range(5):
        _two_runs(world, judge)


def _two_runs(world: World, judge: Judge) -> None:
    world.publish(world.source.take(160))
    for n in range(3):
        world.extract(f"2017/06/{world.random.randint(1, 28):02d}/{len(world.runs)}-{n}.csv", world.source.take(60))
    judge.fault_happened()
    world.inject(9, "a scheduled run and a backfill of the same hours at once")
    first = f"scheduled__{len(world.runs)}"
    _at_once(
        lambda: world.run(first),
        lambda: world.run(first.replace("scheduled", "backfill"), run_type="backfill", **BACKFILL),
    )
    world.recover()
    judge.check(at_least=len(world.published) * 2 // 3, deliveries=0, recovered=True)


OTHER_DAG = "instore_orders_of_another_dag"


@pytest.mark.smoke
def test_two_dags_of_one_ledger_run_at_the_same_hour(make_world: MakeWorld) -> None:
    """Airflow makes a run id unique within one DAG only: both have the same, and each its own orders and counts."""
    world, judge = make_world(960)
    world.arrive_mixed("2017/06/05/orders.csv", rows=100, messages=100)
    judge.fault_happened()
    world.inject(9, "two DAGs of one ledger run at the same hour, under the same run id")
    hour = {"start": "2017-06-05T00:00:00+00:00", "end": "2017-06-05T01:00:00+00:00"}
    first, second = _at_once(
        lambda: world.run("scheduled__2017-06-05T01:00:00+00:00", **hour),
        lambda: world.run("scheduled__2017-06-05T01:00:00+00:00", dag_id=OTHER_DAG, **hour),
    )
    reports = [done.report or {} for done in (first, second)]
    world.recover()
    judge.check(at_least=150, deliveries=0, recovered=True)
    # Whoever was first with the file landed it, and both have looked at it.
    assert sum(report["orders"] for report in reports) == len(world.published)
    assert sum(report["sent"] for report in reports) == len(judge.taken)


@pytest.mark.weight(30)
@pytest.mark.parametrize("seed", range(961, 964))
def test_two_dags_at_the_same_hour_and_one_is_killed_and_cleared(make_world: MakeWorld, seed: int) -> None:
    world, judge = make_world(seed, claim_minutes=0.002)
    for n in range(3):
        world.arrive_mixed(f"2017/06/{n + 1:02d}/orders.csv", rows=60, messages=60)
        judge.fault_happened()
        world.inject(9, "two DAGs run at the same hour under the same run id, one is killed")
        killer = Killer(after=world.random.uniform(0.1, 4))
        killed, _ = _at_once(
            lambda n=n, killer=killer: world.run(f"scheduled__{n}", killer=killer, tries=1),
            lambda n=n: world.run(f"scheduled__{n}", dag_id=OTHER_DAG),
        )
        world.run(f"scheduled__{n}", clear_number=1)
        world.run(f"scheduled__{n}", clear_number=1, dag_id=OTHER_DAG)
        world.recover()
        world.timeline.note(f"{killed.kills} tasks were killed")
        judge.check(at_least=len(world.published) * 3 // 5, recovered=True)


@pytest.mark.smoke
def test_two_drains_at_once(make_world: MakeWorld) -> None:
    world, judge = make_world(920)
    world.publish(world.source.take(400))
    judge.fault_happened()
    world.inject(9, "two drains at once")
    run = {"run_id": "manual__other", "run_type": "manual", "params": {}}
    first, second = _at_once(lambda: world.step("drain_topic", RUN), lambda: world.step("drain_topic", run))
    assert first.value["received"] + second.value["received"] == 400
    world.recover()
    judge.check(at_least=280, deliveries=0, recovered=True)


FROZEN = [
    ("drain_topic", "topic.after_receive:2"),
    ("drain_topic", "topic.after_commit:1"),
    ("drain_topic", "topic.between_completes:20"),
    ("load_extracts", "extracts.after_block:1"),
    ("plan_batches", "ledger.after_commit:1"),
    ("plan_batches", "ledger.after_commit:2"),
    ("look_up_customers", "lookup.answered:7"),
    ("look_up_customers", "lookup.remembered:1"),
    ("look_up_customers", "ledger.after_commit:3"),
    ("send_events", "delivery.after_sending:1"),
    ("send_events", "delivery.after_sending:2"),
    ("send_events", "delivery.answered:1"),
    ("send_events", "delivery.answered:25"),
    ("report_run", "report.released:1"),
    ("report_run", "report.closed:1"),
]


@pytest.mark.weight(14)
@pytest.mark.parametrize(("task", "point"), FROZEN)
def test_a_task_thought_dead_goes_on_after_its_second_try(make_world: MakeWorld, task: str, point: str) -> None:
    # A process that is stopped while its other receiver has the write lock of SQLite holds up everybody, rightly.
    receivers = {"drain_receivers": 1} if task == "drain_topic" else {}
    _twice(*make_world(930, **receivers), task, point)


@pytest.mark.smoke
def test_a_sender_thought_dead_goes_on_before_its_request_has_left(make_world: MakeWorld) -> None:
    """Found that a thawed sender sent what its second try had sent already."""
    _twice(*make_world(931), "send_events", "delivery.after_sending:2")


def _twice(world: World, judge: Judge, task: str, point: str) -> None:
    """The first try freezes at a point, the second does all the work, then the first goes on where it was."""
    world.publish(world.source.take(180))
    world.extract("2017/06/05/orders.csv", world.source.take(120))
    judge.fault_happened()
    world.inject(9, f"{task} is executed twice at once, the first frozen at {point}")
    for earlier in ("drain_topic", "load_extracts"):
        if earlier == task:
            break
        assert world.step(earlier, RUN).state == "success"
    frozen = None
    if task in ("drain_topic", "load_extracts"):
        frozen = _freeze(world, task, point)
        _second_try(world, task)
        if task == "drain_topic":
            _second_try(world, "load_extracts")
    planning = _freeze(world, task, point) if task == "plan_batches" else None
    batches = _second_try(world, "plan_batches").value
    for batch in batches:
        if task == "look_up_customers" and frozen is None:
            frozen = _freeze(world, task, point, batch=batch)
        looked_up = _second_try(world, "look_up_customers", batch=batch).value
        if task == "send_events" and frozen is None:
            frozen = _freeze(world, task, point, batch=looked_up)
        _second_try(world, "send_events", batch=looked_up)
    reporting = _freeze(world, task, point) if task == "report_run" else None
    _second_try(world, "report_run")
    for each in (frozen, planning, reporting):
        if each is not None:
            each.thaw()
            each.wait()
    world.recover()
    judge.check(at_least=200, deliveries=1, recovered=True)


def _freeze(world: World, task: str, point: str, **options: Any) -> Any:
    started = world.start_step(task, RUN, fault=f"{point}:STOP", **options)
    started.wait_until_frozen()
    return started


def _second_try(world: World, task: str, **options: Any) -> Done:
    done = world.step(task, RUN, **options)
    assert done.state == "success", f"{done.error}\n{world.timeline}"
    return done


@pytest.mark.smoke
def test_a_sender_thought_dead_is_still_trying(make_world: MakeWorld) -> None:
    """The first try is told to come back later, and does so after the second has found its events missing."""
    world, judge = make_world(940, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(40, only="sent"))
    judge.fault_happened()
    world.inject(9, "send_events is executed again while its first try waits for the service")
    for task in ("load_extracts", "plan_batches"):
        planned = _second_try(world, task).value
    looked_up = _second_try(world, "look_up_customers", batch=planned[0]).value
    world.sandbox.store.set_faults(share=1, answers=[503], retry_after=5, only=["POST "])
    waiting = world.start_step("send_events", RUN, batch=looked_up)
    _until_called(world, "POST /api/v1.0/TrackBulk", "503")
    world.sandbox.store.set_faults()
    second = world.step("send_events", RUN, batch=looked_up)
    world.timeline.note(f"the second try: {second}")
    waiting.wait()
    world.recover()
    judge.check(at_least=40, recovered=True)


def _until_called(world: World, operation: str, outcome: str) -> None:
    from tests.faults.standins import eventually

    before = world.sandbox.store.state()["calls"].get(operation, {}).get(outcome, 0)
    eventually(
        lambda: world.sandbox.store.state()["calls"].get(operation, {}).get(outcome, 0) > before,
        f"{operation} to be answered with {outcome}",
    )


@pytest.mark.weight(20)
@pytest.mark.parametrize("seed", range(950, 953))
def test_two_runs_at_once_and_both_are_killed(make_world: MakeWorld, seed: int) -> None:
    world, judge = make_world(seed, claim_minutes=0.002)
    for n in range(3):
        world.publish(world.source.take(100))
        world.extract(f"2017/06/{n + 1:02d}/orders.csv", world.source.take(100))
        judge.fault_happened()
        world.inject(9, "two runs at once, both killed")
        killers = [Killer(after=world.random.uniform(0.1, 3)) for _ in range(2)]
        _at_once(
            lambda n=n, killer=killers[0]: world.run(f"scheduled__a{n}", killer=killer),
            lambda n=n, killer=killers[1]: world.run(f"backfill__b{n}", run_type="backfill", killer=killer, **BACKFILL),
        )
        world.recover()
        judge.check(at_least=len(world.published) * 2 // 3, recovered=True)
