"""Families 1 and 2 through the real scheduler: a few deaths, because each takes most of a minute to be noticed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from demo import metadata_database
from demo.local_airflow import AirflowFailed, LocalAirflow
from demo.runs import DAG, manual_run
from sandbox.processes import Processes
from tests.faults.conftest import MakeWorld
from tests.faults.judge import Judge
from tests.faults.standins import eventually
from tests.faults.totals import TOTALS
from tests.faults.world import World

NOTICE = {
    # A task whose process has died is noticed by its missing heartbeats: five minutes in life.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "INSTORE_RETRY_FIRST_WAIT": "1",
    "INSTORE_CLAIM_MINUTES": "0.02",
    "INSTORE_BATCH_ORDERS": "60",
}


class KillableAirflow(LocalAirflow):
    """A real Airflow whose components can be killed with everything below them; its supervisor starts them again."""

    def component(self, name: str) -> psutil.Process:
        """The process of a component, once it is there."""

        def found() -> psutil.Process | None:
            for process in self._processes.running()["airflow"].children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if name in " ".join(process.cmdline()).replace("_", "-"):
                        return process
            return None

        process: psutil.Process = eventually(found, f"the {name}", 30)
        return process

    def kill(self, *names: str) -> None:
        family: list[psutil.Process] = []
        for name in names:
            component = self.component(name)
            family += [component, *component.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        TOTALS.kills += len(names)

    def task_process(self, task: str) -> psutil.Process | None:
        """The process that executes a task at this moment: a supervisor's child, known by its open task log."""
        for process in self.component("scheduler").children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.children() and any(f"task_id={task}" in each.path for each in process.open_files()):
                    return process.children()[0]
        return None

    def state(self, run_id: str) -> str:
        try:
            return str(self.call("GET", f"/dags/{DAG}/dagRuns/{run_id}")["state"])
        except (AirflowFailed, requests.RequestException):
            return "unknown"  # the API server is away at the moment


def start_airflow(
    world: World, request: pytest.FixtureRequest, folder: Path, settings: Mapping[str, str]
) -> KillableAirflow:
    """A real Airflow on the world, its DAG not paused; it ends with the test. :param settings: beside the world's."""
    processes = Processes(folder)
    airflow = KillableAirflow(folder / "home", processes, settings=world.environment() | dict(settings))
    world.logs = folder
    request.addfinalizer(lambda: metadata_database.remove(folder / "home" / "postgresql"))
    request.addfinalizer(processes.stop)
    airflow.start()
    airflow.wait_for_dag(DAG)
    airflow.call("PATCH", f"/dags/{DAG}", json={"is_paused": False})
    return airflow


@pytest.mark.weight(400)
@pytest.mark.timeout(900)
def test_deaths_under_the_real_scheduler(make_world: MakeWorld, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    world, judge = make_world(250)
    airflow = start_airflow(world, request, tmp_path / "airflow", NOTICE)
    everything = ("api-server", "scheduler", "dag-processor", "triggerer")

    def kill_task(task: str) -> None:
        process = eventually(lambda: airflow.task_process(task), f"the process of {task}", 60)
        process.kill()
        TOTALS.kills += 1

    def restart_all() -> None:
        for stand_in in world.sandbox.all:
            stand_in.kill()
        airflow.kill(*everything)
        TOTALS.kills += 3
        for stand_in in world.sandbox.all:
            stand_in.start()

    _day(world, judge, airflow, 1, "the process of send_events", lambda: kill_task("batch.send_events"), recovered=True)
    _day(world, judge, airflow, 1, "the process of drain_topic", lambda: kill_task("drain_topic"), when="drain_topic")
    _day(world, judge, airflow, 2, "the scheduler with its tasks", lambda: airflow.kill("scheduler"))
    _day(world, judge, airflow, 2, "the API server", lambda: airflow.kill("api-server"))
    _day(world, judge, airflow, 2, "everything at once", restart_all)


def _day(
    world: World,
    judge: Judge,
    airflow: KillableAirflow,
    family: int,
    victim: str,
    kill: Callable[[], Any],
    *,
    when: str = "send_events",
    recovered: bool = False,
) -> None:
    """Orders arrive, a run is in the middle of it, something dies and comes back; the next runs finish the work."""
    world.publish(world.source.take(120))
    world.extract(f"2017/06/{len(world.published):04d}.csv", world.source.take(120))
    world.hang_up()
    world.sandbox.store.set_faults(latency=0.4)
    before = world.sandbox.store.state()["events"]
    run_id = manual_run(airflow)
    if when == "send_events":
        eventually(lambda: world.sandbox.store.state()["events"] > before, "the first events", 120)
    judge.fault_happened()
    world.inject(family, f"kill -9 of {victim}")
    kill()
    world.sandbox.store.set_faults()
    world.crashes += 1
    for _ in range(5):
        eventually(lambda run_id=run_id: airflow.state(run_id) in ("success", "failed"), f"the end of {run_id}", 240)
        world.timeline.note(f"{run_id} has ended: {airflow.state(run_id)}")
        world.wait_for_locks()
        counts = world.sandbox.subscription(world.topic)
        if not judge.look().lost and not counts["active"] and airflow.state(run_id) == "success":
            break
        # Orders keep coming: an event in doubt is proven missing only by others that left after it.
        world.publish(world.source.take(8))
        world.hang_up()
        run_id = manual_run(airflow)
        TOTALS.runs += 1
    TOTALS.runs += 1
    judge.check(at_least=len(world.published) * 2 // 3, recovered=recovered)
