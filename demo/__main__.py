"""``python -m demo``: the hourly run end to end on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from demo.backfill import demonstrate_backfill
from demo.local_airflow import AirflowFailed
from demo.processes import Processes
from demo.run_checks import faults_in
from demo.runs import follow, manual_run, scheduled_run, table
from demo.stage import console, give_up, held_by_profile_store, sole_use, start

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

Folder = Annotated[Path, typer.Option(help="Folder for everything it writes.", file_okay=False)]
Hostile = Annotated[bool, typer.Option(help="A bad day: malformed messages, a cut extract, services that fail.")]


@app.command()
def run(folder: Folder = Path(".demo"), hostile: Hostile = False) -> None:
    """Run the hourly DAG over a week of orders and once more, print what happened, and stop everything."""
    _perform(folder, "result.json", lambda processes: _demonstrate(folder, processes, hostile))


@app.command()
def backfill(folder: Folder = Path(".demo")) -> None:
    """Backfill a past day by date beside the hourly run, then again, then again with resend."""
    _perform(folder, "backfill.json", lambda processes: demonstrate_backfill(folder, processes))


@app.command()
def up(folder: Folder = Path(".demo"), hostile: Hostile = False) -> None:
    """Start sandbox and Airflow, unpause the DAG, and leave them running for a person to click through."""
    with sole_use(folder) as processes:
        try:
            _, airflow = start(folder, processes, hostile=hostile)
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


def _perform(folder: Path, name: str, demonstration: Callable[[Processes], dict[str, Any]]) -> None:
    """Run a demonstration, stop everything it started, and keep its result as JSON."""
    with sole_use(folder) as processes:
        try:
            result = demonstration(processes)
        except AirflowFailed as error:
            give_up(str(error))
        finally:
            processes.stop()
        (folder / name).write_text(json.dumps(result, indent=2) + "\n")
        console.print(f"The same as JSON: {folder / name}", highlight=False)
        if result["faults"]:
            give_up("The demo did not end as it must: " + "; ".join(result["faults"]))


def _demonstrate(folder: Path, processes: Processes, hostile: bool) -> dict[str, Any]:
    begun = time.monotonic()
    sandbox, airflow = start(folder, processes, hostile=hostile)
    set_up = round(time.monotonic() - begun, 1)
    first = follow(airflow, scheduled_run(airflow), console, "first run")
    console.print(table(first, "first run (scheduled)"))
    second = follow(airflow, manual_run(airflow), console, "second run")
    console.print(table(second, "second run (manual)"))
    held = held_by_profile_store(sandbox)
    for name, finished in (("first run", first), ("second run", second)):
        console.print(f"{name} counts:", json.dumps(finished.counts, sort_keys=True), soft_wrap=True, highlight=False)
    console.print("Profile Store holds:", json.dumps(held), highlight=False)
    return {
        "hostile": hostile,
        "set_up_seconds": set_up,
        "first_run": asdict(first),
        "second_run": asdict(second),
        "profile_store": held,
        "seeded": sandbox["seeded"],
        "faults": faults_in(first, second, held),
    }


if __name__ == "__main__":
    app()
