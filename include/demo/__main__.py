"""``python -m include.demo``: the hourly run end to end on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import requests
import typer
from rich.console import Console

from include.demo.local_airflow import ROOT, USER, AirflowFailed, LocalAirflow
from include.demo.processes import Processes, free_port
from include.demo.runs import DAG, FinishedRun, follow, manual_run, scheduled_run, table

_SANDBOX_SECONDS = 120
_SANDBOX_PORTS = {"service_bus": 5672, "loyalty": 8701, "profile_store": 8702}
_UI_PORT = 8080

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
console = Console(width=None if sys.stdout.isatty() else 120)

Folder = Annotated[Path, typer.Option(help="Folder for everything it writes.", file_okay=False)]
Hostile = Annotated[bool, typer.Option(help="A bad day: malformed messages, a cut extract, services that fail.")]


class _Interrupted(Exception):
    """Ctrl-C or a termination signal."""


@app.command()
def run(folder: Folder = Path(".demo"), hostile: Hostile = False) -> None:
    """Run the hourly DAG over a week of orders and once more, print what happened, and stop everything."""
    with _sole_use(folder) as processes:
        try:
            result = _demonstrate(folder, processes, hostile)
        except AirflowFailed as error:
            _give_up(str(error))
        finally:
            processes.stop()
        (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        console.print(f"The same as JSON: {folder / 'result.json'}", highlight=False)
        if result["faults"]:
            _give_up("The demo did not end as it must: " + "; ".join(result["faults"]))


@app.command()
def up(folder: Folder = Path(".demo"), hostile: Hostile = False) -> None:
    """Start sandbox and Airflow, unpause the DAG, and leave them running for a person to click through."""
    with _sole_use(folder) as processes:
        try:
            _, airflow = _start(folder, processes, hostile)
            scheduled_run(airflow)
        except BaseException:
            processes.stop()
            raise
        console.print("Running. Stop it with: make down", highlight=False)


@app.command()
def down(folder: Folder = Path(".demo")) -> None:
    """Stop what ``up`` left running."""
    stopped = Processes(folder).stop()
    console.print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.", highlight=False)


def _demonstrate(folder: Path, processes: Processes, hostile: bool) -> dict[str, Any]:
    begun = time.monotonic()
    sandbox, airflow = _start(folder, processes, hostile)
    set_up = round(time.monotonic() - begun, 1)
    first = follow(airflow, scheduled_run(airflow), console, "first run")
    console.print(table(first, "first run (scheduled)"))
    second = follow(airflow, manual_run(airflow), console, "second run")
    console.print(table(second, "second run (manual)"))
    store = requests.get(f"{sandbox['profile_store']['url']}/sandbox/state", timeout=30).json()
    held = {name: store[name] for name in ("events", "track_ids", "emails")}
    for name, finished in (("first run", first), ("second run", second)):
        console.print(f"{name} counts:", json.dumps(finished.counts), soft_wrap=True, highlight=False)
    console.print("Profile Store holds:", json.dumps(held), highlight=False)
    return {
        "hostile": hostile,
        "set_up_seconds": set_up,
        "first_run": _document(first),
        "second_run": _document(second),
        "profile_store": held,
        "seeded": sandbox["seeded"],
        "faults": _faults(first, second, held),
    }


def _document(run: FinishedRun) -> dict[str, Any]:
    return asdict(run)


def _faults(first: FinishedRun, second: FinishedRun, held: dict[str, int]) -> list[str]:
    """Where the runs and the Profile Store's own records do not agree that every order is accounted for."""
    faults = [f"{run.run_id} is {run.state}" for run in (first, second) if run.state != "success"]
    if not (first.counts and second.counts):
        return [*faults, "a run reported no counts"]
    counts = first.counts
    if counts["received"] != counts["orders"] + counts["duplicates"] + counts["quarantined"]:
        faults.append("what was received is not orders, duplicates and quarantined together")
    settled = sum(counts[name] for name in ("sent", "unmatched", "rejected", "suppressed", "carried_over"))
    if counts["orders"] != settled:
        faults.append(f"of {counts['orders']} orders {settled} are accounted for")
    sent = counts["sent"] + second.counts["sent"]
    if not sent == held["events"] == held["track_ids"]:
        faults.append(f"{sent} orders were sent, the Profile Store holds {held['events']} events")
    if second.counts["received"]:
        faults.append("the second run received something")
    return faults


def _start(folder: Path, processes: Processes, hostile: bool) -> tuple[dict[str, Any], LocalAirflow]:
    """Start the sandbox and Airflow, with the connections between them."""
    console.print(f"Starting the sandbox and Airflow in {folder} …", highlight=False)
    sandbox = _start_sandbox(folder, processes, hostile)
    airflow = LocalAirflow(folder.resolve() / "airflow", processes, _told_port("the Airflow UI", _UI_PORT))
    airflow.start()
    _connect(airflow, sandbox, folder.resolve())
    airflow.wait_for_dag(DAG)
    console.print(
        f"Airflow UI:     {airflow.url}/dags/{DAG}   user {USER}, password {airflow.password}", highlight=False
    )
    console.print(f"Profile Store:  {sandbox['profile_store']['page']}   what it was sent", highlight=False)
    return sandbox, airflow


def _start_sandbox(folder: Path, processes: Processes, hostile: bool) -> dict[str, Any]:
    ports = ",".join(str(_told_port(f"the sandbox's {name}", port)) for name, port in _SANDBOX_PORTS.items())
    command = [sys.executable, "-m", "include.sandbox", "up", "--ports", ports]
    command += ["--state", str(folder.resolve() / "sandbox"), *(["--hostile"] if hostile else [])]
    ready = folder / "sandbox.json"
    processes.start("sandbox", command, os.environ | {"PYTHONPATH": str(ROOT)}, stdout=ready)
    ready.chmod(0o600)  # it holds the sandbox's keys
    until = time.monotonic() + _SANDBOX_SECONDS
    while True:
        with contextlib.suppress(json.JSONDecodeError):
            document: dict[str, Any] = json.loads(ready.read_text())
            return document
        if processes.dead() or time.monotonic() > until:
            raise AirflowFailed(f"The sandbox did not start:\n{processes.log_tail('sandbox')}")
        time.sleep(0.1)


def _connect(airflow: LocalAirflow, sandbox: dict[str, Any], folder: Path) -> None:
    store, loyalty = sandbox["profile_store"], sandbox["loyalty"]
    airflow.connect("instore_service_bus", "azure_service_bus", schema=sandbox["service_bus"]["connection_string"])
    airflow.connect("instore_loyalty", "loyalty", host=loyalty["url"], password=loyalty["api_key"])
    airflow.connect(
        "instore_profile_store",
        "profile_store",
        host=store["url"],
        password=store["key"],
        extra={"read_host": store["url"], "read_api_key": store["key"]},
    )
    airflow.connect("instore_extracts", "fs", extra={"path": sandbox["extracts"]})
    airflow.connect("instore_ledger", "sqlite", host=str(folder / "ledger.db"))


def _told_port(what: str, wanted: int) -> int:
    port = free_port(wanted)
    if port != wanted:
        console.print(f"Port {wanted} is in use, so {what} takes {port}.", highlight=False)
    return port


@contextlib.contextmanager
def _sole_use(folder: Path) -> Iterator[Processes]:
    """The folder, fresh, for this command alone; interruption becomes an error so that everything is stopped."""
    processes = Processes(folder)
    if processes.running():
        _give_up(f"Something is running in {folder} already; stop it with: make down")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)

    def interrupt(_signal: int, _frame: Any) -> NoReturn:
        # Once is enough: a second signal must not cut the stopping short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Interrupted

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield processes
    except _Interrupted:
        console.print("Interrupted; everything it started is stopped.", highlight=False)
        raise typer.Exit(130) from None


def _give_up(message: str) -> NoReturn:
    console.print(message, style="bold red", highlight=False, markup=False)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
