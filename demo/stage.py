"""The stage of every demonstration: the sandbox and an Airflow connected to it, in one folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import requests
import typer
from instore_provider.provider_info import get_provider_info
from rich.console import Console

from demo import metadata_database
from demo.local_airflow import ROOT, USER, AirflowFailed, LocalAirflow
from demo.processes import Processes, free_port
from demo.runs import DAG

_SANDBOX_SECONDS = 120
_SANDBOX_PORTS = {"service_bus": 5672, "loyalty": 8701, "profile_store": 8702}
_UI_PORT = 8080

console = Console(width=None if sys.stdout.isatty() else 120)


class _Interrupted(Exception):
    """Ctrl-C or a termination signal."""


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[Processes]:
    """The folder, fresh, for this command alone; interruption becomes an error so that everything is stopped."""
    processes = Processes(folder)
    if processes.running():
        give_up(f"Something is running in {folder} already; stop it with: make down")
    forget(folder)
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


def forget(folder: Path) -> None:
    """Remove everything that a stopped Airflow and sandbox have written."""
    metadata_database.remove(folder / "airflow" / "postgresql")
    if folder.exists():
        shutil.rmtree(folder)


def give_up(message: str) -> NoReturn:
    """End the command with a message. :raises typer.Exit: always."""
    console.print(message, style="bold red", highlight=False, markup=False)
    raise typer.Exit(1)


def held_by_profile_store(sandbox: Mapping[str, Any]) -> dict[str, int]:
    """What the Profile Store stand-in says it was sent: events, distinct track ids, distinct lower-cased emails."""
    state = requests.get(f"{sandbox['profile_store']['url']}/sandbox/state", timeout=30).json()
    return {name: state[name] for name in ("events", "track_ids", "emails")}


def start(
    folder: Path,
    processes: Processes,
    *,
    hostile: bool = False,
    settings: Mapping[str, str] | None = None,
    extracts: Path | None = None,
) -> tuple[dict[str, Any], LocalAirflow]:
    """Start the sandbox and Airflow, with the connections between them; what the sandbox says of itself, and Airflow.

    :param settings: environment of Airflow, such as INSTORE_* variables.
    :param extracts: the folder Airflow reads extracts from; the sandbox's own by default.
    :raises AirflowFailed: one of them did not start.
    """
    console.print(f"Starting the sandbox and Airflow in {folder} …", highlight=False)
    sandbox = start_sandbox(folder, processes, hostile)
    airflow = LocalAirflow(folder.resolve() / "airflow", processes, _told_port("the Airflow UI", _UI_PORT), settings)
    airflow.start()
    connect(airflow, sandbox, folder.resolve(), extracts or Path(sandbox["extracts"]))
    airflow.wait_for_dag(DAG)
    console.print(
        f"Airflow UI:     {airflow.url}/dags/{DAG}   user {USER}, password {airflow.password}", highlight=False
    )
    console.print(f"Profile Store:  {sandbox['profile_store']['page']}   what it was sent", highlight=False)
    return sandbox, airflow


def start_sandbox(folder: Path, processes: Processes, hostile: bool) -> dict[str, Any]:
    """Start the stand-ins; what they say of themselves. :raises AirflowFailed: they did not start."""
    ports = ",".join(str(_told_port(f"the sandbox's {name}", port)) for name, port in _SANDBOX_PORTS.items())
    command = [sys.executable, "-m", "sandbox", "up", "--ports", ports]
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


def connect(airflow: LocalAirflow, sandbox: dict[str, Any], folder: Path, extracts: Path) -> None:
    """Create the connections from the pipeline to the sandbox, and to a ledger in the folder."""
    store, loyalty = sandbox["profile_store"], sandbox["loyalty"]
    airflow.connect("instore_service_bus", "azure_service_bus", schema=sandbox["service_bus"]["connection_string"])
    _connect_by_form(airflow, "instore_loyalty", "loyalty", loyalty["url"], loyalty["api_key"])
    _connect_by_form(
        airflow, "instore_profile_store", "profile_store", store["url"], store["key"],
        read_host=store["url"], read_api_key=store["key"], events_page=store["page"],
    )  # fmt: skip
    airflow.connect("instore_extracts", "fs", extra={"path": str(extracts)})
    airflow.connect("instore_ledger", "sqlite", host=str(folder / "ledger.db"))


def _connect_by_form(
    airflow: LocalAirflow, conn_id: str, conn_type: str, host: str, password: str, **filled: str
) -> None:
    """Create a connection as its form does: with every field, or editing it would show those that are stored only.

    Airflow 3.3.2's Test button works for connections with a port only, so there is one, which nobody reads.
    """
    (fields,) = (
        each["conn-fields"] for each in get_provider_info()["connection-types"] if each["connection-type"] == conn_type
    )
    extra = {name: field["schema"].get("default") for name, field in fields.items()} | filled
    airflow.connect(conn_id, conn_type, host=host, password=password, port=0, extra=extra)


def _told_port(what: str, wanted: int) -> int:
    port = free_port(wanted)
    if port != wanted:
        console.print(f"Port {wanted} is in use, so {what} takes {port}.", highlight=False)
    return port
