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
from demo.runs import FinishedRun, follow, manual_run, scheduled_run, table
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
        "faults": _faults(first, second, held),
    }


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


if __name__ == "__main__":
    app()
