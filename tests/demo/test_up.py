"""`make up`, as a person uses it: with commands beside it, a component that dies, a crash, and an end."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from demo.local_airflow import LocalAirflow
from demo.runs import DAG
from sandbox.processes import Processes
from tests.demo.product import Product, demo

ROOT = Path(__file__).parents[2]
_SECONDS = 400

pytestmark = pytest.mark.timeout(900)


def shell(folder: Path, command: str) -> str:
    """What a command prints beside the running Airflow, in a shell that has read env.sh."""
    script = f". {folder}/env.sh && cd / && {command}"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def held(folder: Path) -> dict[str, object]:
    """What must outlive a crash, as the command line tells it."""
    with closing(sqlite3.connect(folder / "ledger.db")) as database:
        orders = database.execute("SELECT * FROM orders ORDER BY 1").fetchall()
    return {
        # On the last line; Airflow's warnings come before it.
        "connections": shell(folder, "airflow connections list --show-values --output json").splitlines()[-1],
        "ledger": orders,
        "password": (folder / "airflow/passwords.json").read_text(),
        "secrets": (folder / "airflow/secrets.json").read_text(),
        "keys": (folder / "sandbox/keys.json").read_text(),
    }


def states(folder: Path) -> dict[str, str]:
    """The runs in the API, as the UI lists them."""
    runs = LocalAirflow.running(folder).call("GET", f"/dags/{DAG}/dagRuns", params={"limit": 100})["dag_runs"]
    return {run["dag_run_id"]: run["state"] for run in runs}


def wait_for_the_end(folder: Path) -> dict[str, str]:
    """The states of all runs, once none is under way."""
    until = time.monotonic() + _SECONDS
    while {"queued", "running"} & {*(found := states(folder)).values()}:
        assert time.monotonic() < until, found
        time.sleep(0.5)
    return found


def test_a_shell_has_the_secrets_from_a_file_that_is_its_owners_alone(product: Product) -> None:
    folder = product.folder
    assert f". {folder}/env.sh" in product.told.replace("\n", "")
    assert "instore_bus" in shell(folder, "python -m include.instore set-up --dry-run --json")
    for name in ("env.sh", "airflow/passwords.json", "airflow/secrets.json", "sandbox/keys.json", "sandbox.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name


def test_a_component_that_dies_is_started_again_and_status_says_so(product: Product) -> None:
    wait_for_the_end(product.folder)  # with nothing to do, or what it had begun would be carried over to the next run
    components = Processes(product.folder).running()["airflow"].children()
    next(each for each in components if "scheduler" in each.cmdline()).kill()
    until = time.monotonic() + 20
    while "scheduler had died and was started again" not in (said := demo("status", product.folder)):
        assert time.monotonic() < until, said
    assert "Running: sandbox, postgresql, airflow." in said


def test_a_crash_amid_a_backfill_loses_nothing_and_a_reset_forgets_everything(product: Product) -> None:
    folder = product.folder
    wait_for_the_end(folder)
    before, events = held(folder), product.events()
    hours = {"from_date": "2017-06-05T08:00:00Z", "to_date": "2017-06-05T09:00:00Z"}
    product.airflow.call("POST", "/backfills", json={"dag_id": DAG, "dag_run_conf": {}, **hours})
    # In its first second: a report that is killed is not begun again, and its run is red.
    while "running" not in (begun := states(folder)).values():
        time.sleep(0.1)
    unfinished = [run for run, state in begun.items() if state in ("queued", "running")]
    for process in Processes(folder).running().values():
        family = [process, *process.children(recursive=True)]
        for each in family:
            each.kill()
        psutil.wait_procs(family, timeout=10)
    told = " ".join(demo("up", folder).split())
    assert f"Kept from before: {len(begun)} runs" in told
    assert f"and {events} events" in told
    assert begun.keys() <= states(folder).keys()
    ended = wait_for_the_end(folder)
    assert {ended[run] for run in unfinished} == {"success"}
    assert held(folder) == before
    place = (folder / "airflow/postgresql").resolve()
    assert "Stopped airflow, postgresql, sandbox." in " ".join(demo("reset", folder).split())
    assert not folder.exists()
    assert not place.exists()
