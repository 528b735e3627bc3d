"""A past day again, by date: beside the hourly run, once more, and once more with resend."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from demo.local_airflow import AirflowFailed, LocalAirflow
from demo.runs import DAG, follow, manual_run, report_of, scheduled_run
from demo.stage import console, held_by_profile_store, start
from sandbox.processes import Processes

DAY = "2017-06-05"
_BACKFILL_SECONDS = 900
_RUNS_AT_ONCE = "4"


def demonstrate_backfill(folder: Path, processes: Processes) -> dict[str, Any]:
    """Drain the week's topic with tracking off, then backfill one day of it three ways.

    The hourly runs keep tracking off throughout; a backfill switches it on for itself by its conf. The day's extract
    arrives late, after the topic was drained.

    :raises AirflowFailed: a run or a backfill did not end.
    """
    arrived = folder.resolve() / "extracts"
    arrived.mkdir()
    settings = {"INSTORE_ENABLE_TRACK_EVENTS": "False"}
    sandbox, airflow = start(folder, processes, settings=settings, extracts=arrived)
    drained = follow(airflow, scheduled_run(airflow), console, "hourly run, tracking off")
    shutil.copytree(sandbox["extracts"], arrived, dirs_exist_ok=True)

    hourly = manual_run(airflow)  # beside the first backfill
    first = _backfill(airflow, "first backfill", {"track_events": "on"})
    beside = follow(airflow, hourly, console, "hourly run beside it")
    second = _backfill(airflow, "second backfill", {"track_events": "on"}, again=True)
    resent = _backfill(airflow, "backfill with resend", {"track_events": "on", "resend": True}, again=True)
    held = held_by_profile_store(sandbox)
    result = {
        "day": DAY,
        "drained": drained.counts,
        "hourly_beside": {"state": beside.state, "sent": beside.counts.get("sent")},
        "first": first,
        "second": second,
        "resend": resent,
        "profile_store": held,
        "faults": [],
    }
    result["faults"] = _faults(result)
    for name in ("first", "second", "resend"):
        console.print(f"{name}:", json.dumps(result[name]), soft_wrap=True, highlight=False)
    console.print("Profile Store holds:", json.dumps(held), highlight=False)
    return result


def _backfill(airflow: LocalAirflow, title: str, conf: dict[str, Any], *, again: bool = False) -> dict[str, Any]:
    """Backfill the day by the command line and add up what its runs report."""
    begun = time.monotonic()
    command = [
        "backfill", "create", "--dag-id", DAG, "--from-date", f"{DAY}T00:00:00+00:00",
        "--to-date", f"{DAY}T23:00:00+00:00", "--max-active-runs", _RUNS_AT_ONCE,
        "--reprocess-behavior", "completed" if again else "none", "--dag-run-conf", json.dumps(conf),
    ]  # fmt: skip
    airflow.run(*command)
    runs = wait_for_backfill(airflow, title)
    reports = [report_of(airflow, run["dag_run_id"]) for run in runs]
    in_window = [report["window_orders"] for report in reports]
    return {
        "runs": len(runs),
        "states": sorted({run["state"] for run in runs}),
        "seconds": round(time.monotonic() - begun, 1),
        "orders": sum(sum(statuses.values()) for statuses in in_window),
        "unmatched": sum(statuses.get("unmatched", 0) for statuses in in_window),
        "received": sum(report["received"] for report in reports),
        "sent": sum(report["sent"] for report in reports),
        "resent": sum(report["resent"] for report in reports),
    }


def newest_backfill(airflow: LocalAirflow) -> dict[str, Any]:
    """The backfill that was made last. :raises AirflowFailed: there is none."""
    backfills = airflow.call("GET", "/backfills", params={"dag_id": DAG})["backfills"]
    if not backfills:
        raise AirflowFailed("There is no backfill.")
    return dict(max(backfills, key=lambda each: int(each["id"])))


def wait_for_backfill(airflow: LocalAirflow, title: str) -> list[dict[str, Any]]:
    """The runs of the newest backfill, once Airflow has registered its end. :raises AirflowFailed: it does not end."""
    until = time.monotonic() + _BACKFILL_SECONDS
    shown = ""
    while time.monotonic() < until:
        newest = newest_backfill(airflow)
        runs = airflow.call(
            "GET", f"/dags/{DAG}/dagRuns", params={"run_type": "backfill", "limit": 100, "order_by": "run_after"}
        )["dag_runs"]
        done = sum(run["state"] in ("success", "failed") for run in runs)
        line = f"{title}: {done}/{len(runs)} runs"
        if line != shown:
            console.print(line, highlight=False)
            shown = line
        if newest["completed_at"] is not None and runs:
            return list(runs)
        airflow.check()
        time.sleep(1)
    raise AirflowFailed(f"The {title} did not end within {_BACKFILL_SECONDS} s.")


def _faults(result: dict[str, Any]) -> list[str]:
    """Where a backfill did not do what it promises."""
    faults = [
        f"a run of the {name} backfill is {result[name]['states']}"
        for name in ("first", "second", "resend")
        if result[name]["states"] != ["success"]
    ]
    if result["second"]["sent"] or result["second"]["resent"]:
        faults.append("the second backfill sent something")
    if result["resend"]["resent"] != result["first"]["sent"]:
        faults.append("resend did not send again what was sent before")
    if result["profile_store"]["track_ids"] != result["first"]["sent"] + result["resend"]["resent"]:
        faults.append("the Profile Store does not hold each of the day's orders once in each of its two editions")
    return faults
