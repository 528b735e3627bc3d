"""What a person on call does, as functions: types a command, triggers or clears a run, keeps a copy of the ledger."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from include.instore_airflow.cli import app
from tests.faults.postgres import PostgresServer
from tests.faults.world import RunDone, World

HOUR = {"start": "2017-06-05T10:00:00+00:00", "end": "2017-06-05T11:00:00+00:00"}
"""The interval of an hourly run that is cleared: it loads the extracts of that day again, and no others."""

LEFT_ALONE = {"drain_topic": False}
"""Params of a run that needs no bus: each look at it costs two seconds."""

SUFFIXES = ("", "-wal", "-shm")


def command(world: World, *arguments: str, **settings: Any) -> Result:
    """Type a command where a worker runs.

    :param settings: INSTORE_* variables before the command.
    """
    environment = world.environment() | {f"INSTORE_{name.upper()}": str(value) for name, value in settings.items()}
    result = CliRunner().invoke(app, list(arguments), env=environment | {"_AIRFLOW_PROCESS_CONTEXT": ""})
    with (world.logs / "commands.log").open("a") as log:  # the judge reads it
        log.write(result.output)
    world.timeline.note(f"{' '.join(arguments)} ends with {result.exit_code}: {result.output.strip()[-200:]}")
    return result


def printed(world: World, *arguments: str, **settings: Any) -> Any:
    """What a command prints as JSON."""
    result = command(world, *arguments, "--json", **settings)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def trigger(world: World, **params: Any) -> RunDone:
    """Press Trigger, with the form filled in like this."""
    return world.run(f"manual__{len(world.runs)}", run_type="manual", params=params)


def only_the_drain(world: World) -> RunDone:
    """A run of which only its first task matters."""
    return world.run(tries=1, only=("drain_topic",))


def clear(world: World, done: RunDone, **run: Any) -> RunDone:
    """Select the run, Clear: all of its tasks."""
    return world.run(done.run_id, clear_number=1, **{**HOUR, **run})


def clear_failed(world: World, done: RunDone) -> RunDone:
    """Select the run, Clear, only failed: the tasks that failed run once more, nothing below them, and the report."""
    failed = [key for key, state in done.states.items() if state == "failed" and key != "report_run"]
    if "plan_batches" in failed:  # what waited for it has never run
        below = ("look_up_customers", "send_events", "report_run")
        return clear(world, done, only=(*failed, *below))
    run = {"run_id": done.run_id, "run_type": "scheduled", "clear_number": 1, **HOUR}
    again = RunDone(done.run_id, states=dict(done.states))
    for key in failed:
        task, batch = key, {}
        if key.startswith("batch."):
            task, _, number = key.removeprefix("batch.").rpartition("_")
            batch = {"batch": {"batch": int(number), "orders": 0}}
        last = world.step(task, run, key=key, **batch)
        again.tries.append((key, last))
        again.states[key] = last.state
    last = world.step("report_run", run, task_states={**again.states, "report_run": "running"})
    again.tries.append(("report_run", last))
    again.states["report_run"] = last.state
    again.report = last.value if last.state == "success" else last.pushed
    world.runs.append(again)
    return again


def status(done: RunDone) -> dict[str, int]:
    """The ledger by status, as the run's report has it."""
    assert done.report is not None
    counts: dict[str, int] = done.report["ledger"]
    return counts


def failures(done: RunDone) -> dict[str, str]:
    """The last sentence of each task that failed, but for the report."""
    return {key: each.error for key, each in done.tries if each.state == "failed" and key != "report_run"}


def keep_copy(world: World, server: PostgresServer | None = None) -> Path:
    """Back the ledger up: the file with its -wal, or what pg_dump makes of the database.

    :param server: where it is on PostgreSQL.
    """
    copy = world.folder / f"copy-{len(world.runs)}.db"
    if server:
        server.run("pg_dump", "-Fc", "-f", copy, world.ledger["schema"])
        return copy
    for suffix in SUFFIXES[:2]:
        if Path(f"{world.ledger['host']}{suffix}").exists():
            shutil.copy(f"{world.ledger['host']}{suffix}", f"{copy}{suffix}")
    return copy


def put_back(world: World, copy: Path, server: PostgresServer | None = None) -> None:
    """Restore the ledger from a copy of it."""
    if server:
        for program in ("dropdb", "createdb"):
            server.run(program, world.ledger["schema"])
        server.run("pg_restore", "-d", world.ledger["schema"], copy)
    else:
        ledger = Path(world.ledger["host"])
        for suffix in SUFFIXES:  # what is left of the newer one does not belong to the older one
            Path(f"{ledger}{suffix}").unlink(missing_ok=True)
            if Path(f"{copy}{suffix}").exists():
                shutil.copy(f"{copy}{suffix}", f"{ledger}{suffix}")
    world.timeline.note(f"the ledger is restored from {copy.name}")
