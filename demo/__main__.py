"""``python -m demo``: the hourly run end to end on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from demo.backfill import demonstrate_backfill
from demo.local_airflow import AirflowFailed
from demo.mixed_week import ORDER_KEY, as_messages, expected, mixed_week, write_members
from demo.mixed_week import faults_in as mixed_faults
from demo.run_checks import faults_in
from demo.runs import DAG, follow, manual_run, scheduled_run, set_aside_table, table
from demo.stage import console, events_of, forget, give_up, held_by_profile_store, sole_use, start, tell_of
from sandbox.processes import Processes
from sandbox.seed import copy_extracts, send, write_cut_extract

_USE = """Command line:   . {folder}/env.sh   then: airflow dags list; python -m include.instore --help
The password is also in {folder}/airflow/passwords.json.
What has died and was started again: make status
Stop: make down (make up goes on with what it held). Forget everything: make reset"""

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

Folder = Annotated[Path, typer.Option(help="Folder for everything it writes.", file_okay=False)]
_KEPT = Path(".demo")
"""What `up` keeps; a demonstration begins with nothing, so it has a folder of its own."""
_FRESH = Path(".demo-run")
Hostile = Annotated[bool, typer.Option(help="A bad day: malformed messages, a cut extract, services that fail.")]


def _settings(words: list[str]) -> list[str]:
    if wrong := [word for word in words if not word.partition("=")[1]]:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE.")
    return words


Settings = Annotated[
    list[str],
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of Airflow's environment.", callback=_settings),
]


class Week(str, Enum):
    """Which week is run."""

    SAMPLE = "sample"
    MIXED = "mixed"


WeekOption = Annotated[
    Week,
    typer.Option(
        "--week",
        help="mixed: the sample week with opted-out members, returns, corrections, a second store of equal numbers.",
    ),
]


@app.command()
def run(folder: Folder = _FRESH, hostile: Hostile = False, week: WeekOption = Week.SAMPLE) -> None:
    """Run the hourly DAG over a week of orders and once more, print what happened, and stop everything."""
    if week is Week.MIXED:
        if hostile:
            raise typer.BadParameter("--hostile is for the sample week.")
        _perform(folder, "result.json", lambda processes: _demonstrate_mixed(folder, processes))
        return
    _perform(folder, "result.json", lambda processes: _demonstrate(folder, processes, hostile))


@app.command()
def backfill(folder: Folder = _FRESH) -> None:
    """Backfill a past day by date beside the hourly run, then again, then again with resend."""
    _perform(folder, "backfill.json", lambda processes: demonstrate_backfill(folder, processes))


@app.command()
def up(folder: Folder = _KEPT, hostile: Hostile = False, settings: Settings = []) -> None:  # noqa: B006  typer's way
    """Start sandbox and Airflow on what they held when they were stopped, and leave them running.

    The first time the DAG is unpaused; afterwards it is as a person left it.
    """
    with sole_use(folder, fresh=False) as processes:
        try:
            set_to = dict(word.split("=", 1) for word in settings)
            sandbox, airflow = start(folder, processes, hostile=hostile, settings=set_to)
            runs = airflow.call("GET", f"/dags/{DAG}/dagRuns", params={"limit": 1})["total_entries"]
            if not runs:
                scheduled_run(airflow)
        except AirflowFailed as error:
            processes.stop()
            give_up(str(error))
        except BaseException:
            processes.stop()
            raise
        tell_of(processes)
        if runs:
            _tell_what_was_kept(sandbox, runs, hostile)
        console.print(_USE.format(folder=folder), highlight=False, markup=False)


@app.command()
def status(folder: Folder = _KEPT) -> None:
    """Say what of ``up`` is running, and what has died."""
    processes = Processes(folder)
    alive = ", ".join(processes.running())
    console.print(f"Running: {alive}." if alive else "Nothing is running.", highlight=False)
    tell_of(processes)


@app.command()
def down(folder: Folder = _KEPT) -> None:
    """Stop what ``up`` left running; the next ``up`` goes on with what it held."""
    processes = Processes(folder)
    tell_of(processes)
    stopped = processes.stop()
    console.print(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.", highlight=False)


@app.command()
def reset(folder: Folder = _KEPT) -> None:
    """Stop what is running in the folder, and forget everything it holds."""
    down(folder)
    if not folder.exists():
        console.print(f"There is no {folder}, so there was nothing to forget.", highlight=False)
        return
    forget(folder)
    console.print(
        f"Removed {folder}: Airflow's runs, connections, logs, password and secrets; the ledger; the sandbox's topic, "
        "extracts, events and keys.",
        highlight=False,
    )


def _tell_what_was_kept(sandbox: dict[str, Any], runs: int, hostile: bool) -> None:
    held = held_by_profile_store(sandbox)["events"]
    console.print(
        f"Kept from before: {runs} runs, connections, ledger, password and secrets; the sandbox's topic, extracts, "
        f"keys and {held} events. Begun anew: the sandbox's fault settings and counters.",
        highlight=False,
    )
    if hostile and not sandbox["seeded"]["hostile"]:
        console.print("The week was seeded without the bad day's messages; for those: make reset", highlight=False)


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


def _demonstrate_mixed(folder: Path, processes: Processes) -> dict[str, Any]:
    mixed, members = mixed_week(), folder / "members.csv"
    wanted = expected(mixed)
    write_members(members, mixed)
    settings = {"INSTORE_ORDER_KEY": ORDER_KEY}
    sandbox, airflow = start(folder, processes, settings=settings, members=members.resolve())
    bus = sandbox["service_bus"]
    copy_extracts(Path(sandbox["extracts"]))
    send(as_messages(mixed.before), bus["connection_string"], bus["topic"])
    time.sleep(1)  # later is by the moment of publishing: of two contents of one moment nobody can tell
    send(as_messages(mixed.corrected), bus["connection_string"], bus["topic"])
    first = follow(airflow, scheduled_run(airflow), console, "first run")
    console.print(table(first, "first run (scheduled)"))
    send(as_messages(mixed.between), bus["connection_string"], bus["topic"])
    second = follow(airflow, manual_run(airflow), console, "second run")
    console.print(table(second, "second run (manual)"))
    for name, counts in (("first", wanted.first), ("second", wanted.second)):
        console.print(f"Expected of the {name} run:", json.dumps(dict(counts)), soft_wrap=True, highlight=False)
    events = [each["event"] for each in events_of(sandbox)]
    console.print(f"Profile Store holds {len(events)} events, expected are {len(wanted.events)}.", highlight=False)
    states = [f"the {run.run_id} run is {run.state}" for run in (first, second) if run.state != "success"]
    return {
        "first_run": asdict(first),
        "second_run": asdict(second),
        "expected": {"first": dict(wanted.first), "second": dict(wanted.second), "events": len(wanted.events)},
        "profile_store": held_by_profile_store(sandbox),
        "faults": states + mixed_faults(wanted, first.counts or {}, second.counts or {}, events),
    }


def _demonstrate(folder: Path, processes: Processes, hostile: bool) -> dict[str, Any]:
    begun = time.monotonic()
    sandbox, airflow = start(folder, processes, hostile=hostile)
    set_up = round(time.monotonic() - begun, 1)
    first = follow(airflow, scheduled_run(airflow), console, "first run")
    console.print(table(first, "first run (scheduled)"))
    if hostile and first.counts:
        console.print(set_aside_table(first.counts))
    if hostile:
        write_cut_extract(Path(sandbox["extracts"]), "none")
        console.print("The cut extract is delivered again, whole.")
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
        "faults": faults_in(first, second, held, hostile=hostile),
    }


if __name__ == "__main__":
    app()
