"""Watching one DAG run through the public API, and what it came to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.local_airflow import AirflowFailed, LocalAirflow
from include.instore.model.codes import COMMAND, Code, Told, code_of

DAG = "instore_orders"
_RUN_SECONDS = 900
_TASKS = ("drain_topic", "load_extracts", "plan_batches", "batch.look_up_customers", "batch.send_events", "report_run")
_ORDERS = {
    "drain_topic": "received",
    "load_extracts": "received",
    "report_run": "orders",
}


@dataclass(frozen=True)
class FinishedRun:
    """One run that has ended; ``tasks`` has a row per task: name, instances, state, orders and seconds."""

    run_id: str
    state: str
    seconds: float
    counts: dict[str, Any]
    tasks: list[dict[str, Any]]


def scheduled_run(airflow: LocalAirflow) -> str:
    """The id of the run the scheduler makes once the DAG is unpaused."""
    airflow.call("PATCH", f"/dags/{DAG}", json={"is_paused": False})
    until = time.monotonic() + 60
    while time.monotonic() < until:
        runs = airflow.call("GET", f"/dags/{DAG}/dagRuns", params={"limit": 1, "order_by": "run_after"})["dag_runs"]
        if runs:
            return str(runs[0]["dag_run_id"])
        airflow.check()
        time.sleep(0.2)
    raise AirflowFailed("The scheduler made no run within 60 s of unpausing the DAG.")


def manual_run(airflow: LocalAirflow, **params: Any) -> str:
    """Trigger a run as the Trigger form does."""
    run = airflow.call("POST", f"/dags/{DAG}/dagRuns", json={"logical_date": None, "conf": params})
    return str(run["dag_run_id"])


def follow(airflow: LocalAirflow, run_id: str, console: Console, title: str) -> FinishedRun:
    """Show the run's progress until it has ended. :raises AirflowFailed: it takes longer than a demo may."""
    path = f"/dags/{DAG}/dagRuns/{run_id}"
    until = time.monotonic() + _RUN_SECONDS
    with _display(console) as show:
        while True:
            run = airflow.call("GET", path)
            instances = airflow.call("GET", f"{path}/taskInstances", params={"limit": 200})["task_instances"]
            show(_progress(title, run, instances))
            if run["state"] in ("success", "failed"):
                break
            airflow.check()
            if time.monotonic() > until:
                raise AirflowFailed(f"Run {run_id} did not end within {_RUN_SECONDS} s.")
            time.sleep(1)
    counts = report_of(airflow, run_id)
    seconds = (_moment(run["end_date"]) - _moment(run["queued_at"])).total_seconds()
    return FinishedRun(run_id, run["state"], round(seconds, 1), counts, _rows(airflow, path, instances))


def report_of(airflow: LocalAirflow, run_id: str) -> dict[str, Any]:
    """The counts a run reported, none where its report did not get that far."""
    return _xcom(airflow, f"/dags/{DAG}/dagRuns/{run_id}", "report_run") or {}


def table(run: FinishedRun, title: str) -> Table:
    """One table a run: task, orders, seconds."""
    rows = Table(title=f"{title}: {run.state} in {run.seconds} s", title_justify="left")
    for column, justify in (("task", "left"), ("instances", "right"), ("state", "left")):
        rows.add_column(column, justify=justify)  # type: ignore[arg-type]
    rows.add_column("orders", justify="right")
    rows.add_column("seconds", justify="right")
    for row in run.tasks:
        orders = "" if row["orders"] is None else str(row["orders"])
        rows.add_row(row["task"], str(row["instances"]), row["state"], orders, f"{row['seconds']:.1f}")
    return rows


def set_aside(counts: Mapping[str, Any]) -> dict[Code, int]:
    """What waits for a person after a run, whatever limits there are, by code."""
    found = {code_of(word): count for word, count in counts["set_aside"].items()}
    return {code: count for code, count in found.items() if code.alert and code.alert.told in (Told.RED, Told.SOFT)}


def set_aside_table(counts: Mapping[str, Any]) -> Table:
    """One row for each thing a person can do about what a run has set aside: code, how many, when, command."""
    rows = Table(
        title=f"Set aside, and what to do ({COMMAND} ...; --dry-run says what it would do)", title_justify="left"
    )
    for column in ("code", "how many", "what it is", "where", "command"):
        rows.add_column(column, justify="right" if column == "how many" else "left", no_wrap=column == "command")
    for code, count in set_aside(counts).items():
        for first, (where, command) in enumerate(code.remedies):
            said = ("", "", "") if first else (str(code), str(count), code.heading)
            rows.add_row(*said, where, command)
    return rows


def _rows(airflow: LocalAirflow, path: str, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for task in _TASKS:
        mine = [each for each in instances if each["task_id"] == task]
        started = [_moment(each["start_date"]) for each in mine if each["start_date"]]
        ended = [_moment(each["end_date"]) for each in mine if each["end_date"]]
        states = sorted({each["state"] or "none" for each in mine})
        rows.append(
            {
                "task": task.removeprefix("batch."),
                "instances": len(mine),
                "state": ", ".join(states),
                "orders": _orders(airflow, path, task, mine),
                "seconds": round((max(ended) - min(started)).total_seconds(), 1) if started and ended else 0.0,
            }
        )
    return rows


def _orders(airflow: LocalAirflow, path: str, task: str, instances: list[dict[str, Any]]) -> int | None:
    """How many orders a task handled, from what it returned."""
    values = [
        value
        for each in instances
        if each["state"] == "success" and (value := _xcom(airflow, path, task, each["map_index"])) is not None
    ]
    if not values:
        return None
    if task == "plan_batches":
        return sum(int(batch["orders"]) for value in values for batch in value)
    if task == "batch.send_events":
        return sum(int(value["sent"]) + int(value["rejected"]) for value in values)
    return sum(int(value[_ORDERS.get(task, "orders")]) for value in values)


def _xcom(airflow: LocalAirflow, path: str, task: str, map_index: int = -1) -> Any:
    try:
        entry = airflow.call(
            "GET",
            f"{path}/taskInstances/{task}/xcomEntries/return_value",
            params={"map_index": map_index, "deserialize": "false", "stringify": "false"},
        )
    except AirflowFailed:
        return None  # the task did not get as far as returning something
    return entry["value"]


def _progress(title: str, run: dict[str, Any], instances: list[dict[str, Any]]) -> str:
    parts = []
    for task in _TASKS:
        mine = [each["state"] for each in instances if each["task_id"] == task]
        done = sum(state in ("success", "skipped", "failed", "upstream_failed") for state in mine)
        retried = " (retrying)" if "up_for_retry" in mine else ""
        parts.append(f"{task.removeprefix('batch.')} {done}/{len(mine)}{retried}")
    return f"{title}: {run['state']} | " + " > ".join(parts)


@contextmanager
def _display(console: Console) -> Iterator[Any]:
    """One line that changes on a terminal, one line per change elsewhere."""
    if console.is_terminal:
        with Live(console=console, transient=True, refresh_per_second=4) as live:
            yield live.update
        return
    shown = [""]

    def show(line: str) -> None:
        if line != shown[0]:
            console.print(line, soft_wrap=True, highlight=False)
            shown[0] = line

    yield show


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
