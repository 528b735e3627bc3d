"""Family 2 with nothing but waking: whoever looks, plans or works dies, and orders reach their profiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from demo.local_airflow import AirflowFailed
from demo.runs import DAG, report_of
from tests.faults.conftest import MakeWorld
from tests.faults.standins import eventually
from tests.faults.test_scheduler import NOTICE, KillableAirflow, start_airflow
from tests.faults.totals import TOTALS
from tests.faults.world import World

KILLS = int(os.environ.get("WAKE_UP_KILLS", "3"))
"""`make wake-up` has fifteen."""

_SETTINGS = {
    **NOTICE,
    "INSTORE_WAKE_UP": "true",
    # A watcher is known once the file of a DAG that is not paused is read.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
}


@pytest.mark.weight(300)
@pytest.mark.timeout(1200 + 300 * KILLS)
def test_deaths_while_runs_are_woken(make_world: MakeWorld, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    world, judge = make_world(251)
    airflow = start_airflow(world, request, tmp_path / "airflow", _SETTINGS)
    eventually(lambda: _ended(airflow, "scheduled"), "the first hourly run", 240)

    deaths: dict[str, Callable[[], None]] = {
        "the triggerer": lambda: airflow.kill("triggerer"),
        "the scheduler with its tasks": lambda: airflow.kill("scheduler"),
        "the process of a task": lambda: _kill_a_task(airflow),
    }
    for number, (victim, kill) in enumerate(islice(cycle(deaths.items()), KILLS)):
        woken = len(_runs(airflow, "asset_triggered"))
        if number % 2:
            world.extract(f"2017/06/{number:04d}.csv", world.source.take(20))
        else:
            _publish(world, 20)
        judge.fault_happened()
        world.inject(2, f"kill -9 of {victim} while runs are woken")
        kill()
        world.crashes += 1
        eventually(lambda woken=woken: len(_runs(airflow, "asset_triggered")) > woken, f"a run after {victim}", 300)
        for _ in range(5):
            eventually(lambda: _is_quiet(airflow), "the end of all runs", 240)
            world.wait_for_locks()
            if not judge.look().lost and not world.sandbox.subscription(world.topic)["active"]:
                break
            # What a dead one held comes again without waking anybody, and a doubt wants events that left after it.
            _publish(world, 8)
            time.sleep(6)
    _make_the_hour_full(airflow)
    eventually(lambda: len(_ended(airflow, "scheduled")) > 1, "the hourly run", 240)
    eventually(lambda: _is_quiet(airflow), "the end of all runs", 240)
    judge.check(at_least=KILLS * 10)
    woken = _runs(airflow, "asset_triggered")
    TOTALS.runs += len(woken)
    assert {run["state"] for run in [*woken, *_runs(airflow, "scheduled")]} == {"success"}
    assert {report_of(airflow, run["dag_run_id"])["run_kind"] for run in woken} == {"woken"}


def _publish(world: World, orders: int) -> None:
    world.publish(world.source.take(orders))
    world.hang_up()


def _runs(airflow: KillableAirflow, run_type: str) -> list[dict[str, Any]]:
    asked = {"run_type": run_type, "limit": 100}
    try:
        found: list[dict[str, Any]] = airflow.call("GET", f"/dags/{DAG}/dagRuns", params=asked)["dag_runs"]
    except (AirflowFailed, requests.RequestException):
        return []  # it answers again soon
    assert sum(run["state"] == "queued" for run in found) <= 1, "runs pile up"
    return found


def _ended(airflow: KillableAirflow, run_type: str) -> list[dict[str, Any]]:
    return [run for run in _runs(airflow, run_type) if run["state"] in ("success", "failed")]


def _is_quiet(airflow: KillableAirflow) -> bool:
    """Whether a run has ended last, and none is under way or waits."""
    return all(_runs(airflow, kind) == _ended(airflow, kind) != [] for kind in ("scheduled", "asset_triggered"))


def _kill_a_task(airflow: KillableAirflow) -> None:
    tasks = ("drain_topic", "load_extracts", "plan_batches", "send_events", "report_run")
    process = eventually(lambda: next(filter(None, map(airflow.task_process, tasks)), None), "a task of a run", 120)
    process.kill()
    TOTALS.kills += 1


def _make_the_hour_full(airflow: KillableAirflow) -> None:
    """The scheduler finds that its next hourly run is due."""
    with sa.create_engine(airflow.database, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("UPDATE dag SET next_dagrun_create_after = now() WHERE dag_id = :dag"), {"dag": DAG})
