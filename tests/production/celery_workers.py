"""The week on CeleryExecutor: two workers, Redis, the ledger on PostgreSQL; one worker killed in the middle.

Not one of ``make test``, since it takes minutes: ``make test-production``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from demo.local_airflow import LocalAirflow
from demo.runs import DAG, manual_run, report_of, scheduled_run
from demo.stage import events_of, start
from sandbox import week
from sandbox.processes import Processes
from tests.faults.postgres import postgres_server
from tests.production.servers import redis

SECONDS = 900
ENDED = ("success", "failed")


def settings(queue: str, ledger: dict[str, Any]) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": f"{queue}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"{queue}/1",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
        # On a busy machine the queue's second and the API's five are too little.
        "AIRFLOW__CELERY__OPERATION_TIMEOUT": "30",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        # What a killed worker had is found missing within a minute, not in five and ten.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
        "AIRFLOW_CONN_INSTORE_LEDGER": json.dumps(ledger),
        "INSTORE_BATCH_ORDERS": "100",
        "INSTORE_DEADLINE_MINUTES": "0",
    }


def start_worker(airflow: LocalAirflow, processes: Processes, name: str) -> psutil.Process:
    command = [Path(sys.executable).with_name("airflow"), "celery", "worker", "--skip-serve-logs"]
    command += ["--celery-hostname", f"{name}@%h"]
    return psutil.Process(processes.start(name, [str(each) for each in command], airflow._env).pid)


def kill(worker: psutil.Process) -> None:
    """The worker and all that it has started, as when its machine is lost."""
    for process in [worker, *worker.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_for(airflow: LocalAirflow, run_id: str, until: Any) -> list[dict[str, Any]]:
    """Its task instances once they, or the run's state, are so."""
    path = f"/dags/{DAG}/dagRuns/{run_id}"
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        instances = airflow.call("GET", f"{path}/taskInstances", params={"limit": 200})["task_instances"]
        if until(airflow.call("GET", path)["state"], instances):
            return list(instances)
        airflow.check()
        time.sleep(0.5)
    raise AssertionError(Counter((each["task_id"], each["state"]) for each in instances))


def sending(state: str, instances: list[dict[str, Any]]) -> bool:
    """Some events are being sent, and others wait."""
    assert state not in ENDED, "it was over before a worker could be killed"
    states = [each["state"] for each in instances if each["task_id"] == "batch.send_events"]
    return "running" in states and states.count("success") < len(states) - 2


@pytest.mark.timeout(2 * SECONDS)
def test_a_week_on_two_workers_of_which_one_is_killed(tmp_path: Path, record_property: Any) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    processes = Processes(folder)
    with redis(tmp_path) as queue, postgres_server() as server:
        ledger = server.ledger()
        try:
            sandbox, airflow = start(folder, processes, settings=settings(queue, ledger))
            workers = [start_worker(airflow, processes, name) for name in ("worker-1", "worker-2")]
            begun = time.monotonic()
            run_id = scheduled_run(airflow)
            instances = wait_for(airflow, run_id, sending)
            kill(workers[0])
            processes._started.pop("worker-1").wait(20)  # it is meant to be dead
            killed = Counter(each["state"] for each in instances)
            instances = wait_for(airflow, run_id, lambda state, _: state in ENDED)
            seconds = round(time.monotonic() - begun)
            counts = report_of(airflow, run_id)
            hosts = Counter(each["hostname"] for each in instances if each["hostname"])
            # What a task that finally failed left is the next run's.
            second = manual_run(airflow)
            wait_for(airflow, second, lambda state, _: state in ENDED)
            again = report_of(airflow, second)
            events = events_of(sandbox)
        finally:
            processes.stop()
        known = json.loads((Path(week.__file__).parent / "week/counts.json").read_text())
        with server.engine(ledger["schema"]).connect() as connection:
            rows = connection.execute(sa.text("SELECT status, count(*) FROM deliveries GROUP BY status")).all()
            orders = connection.scalar(sa.text("SELECT count(*) FROM orders"))
    assert counts["orders"] + again["orders"] == orders == known["orders"]
    sent = counts["sent"] + again["sent"]
    tracked = {each["event"]["trackId"] for each in events}
    assert dict(tuple(row) for row in rows) == {"sent": sent}, "every event that was due has left"
    assert (len(events), len(tracked)) == (sent, sent), "each once"
    assert again["red"] == []
    assert {"running", "success"} <= set(killed), "one was killed in the middle"
    document = {"sent": sent, "orders": orders, "seconds": seconds, "killed_at": dict(killed), "hosts": len(hosts)}
    record_property("production", json.dumps(document))
