"""The stage of every demonstration: the sandbox and an Airflow connected to it, in one folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
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
from demo.runs import DAG
from sandbox.processes import Processes, free_port

_SANDBOX_SECONDS = 120
_SANDBOX_PORTS = {"service_bus": 5672, "loyalty": 8701, "profile_store": 8702}
_SANDBOX = "sandbox.json"
_UI_PORT = 8080
_NOTES = 5

console = Console(width=None if sys.stdout.isatty() else 120)


class _Interrupted(Exception):
    """Ctrl-C or a termination signal."""


@contextlib.contextmanager
def sole_use(folder: Path, *, fresh: bool = True) -> Iterator[Processes]:
    """The folder for this command alone; interruption becomes an error so that everything is stopped.

    What is left of a demo of which a part has ended is stopped first.

    :param fresh: forget what the folder holds.
    """
    _hold(folder)
    processes = Processes(folder)
    if processes.running() and not processes.ended():
        give_up(f"It is running in {folder} already; look with: make status; stop it with: make down")
    tell_of(processes)
    processes.stop()
    if fresh:
        forget(folder)
        _hold(folder)

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


def _hold(folder: Path) -> None:
    """Make the folder, and lock it until this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        give_up(f"Another command is running in {folder} already; wait for its end, or interrupt it.")


def tell_of(processes: Processes) -> None:
    """Print what has died in this folder: for good, and what was started again lately."""
    for name in processes.ended():
        console.print(f"{name} has stopped by itself; its last words:", highlight=False)
        console.print(processes.log_tail(name), highlight=False, markup=False)
    for name in ("sandbox", "airflow"):
        for line in [each for each in processes.log_lines(name) if " had died " in each][-_NOTES:]:
            console.print(line, highlight=False, markup=False)


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


def events_of(sandbox: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every event the Profile Store stand-in accepted, as it came."""
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["id"] if found else 0
        url = f"{sandbox['profile_store']['url']}/sandbox/events?after={after}&limit=10000"
        some = requests.get(url, timeout=60).json()
        found += some
        if len(some) < 10_000:
            return found


def start(
    folder: Path,
    processes: Processes,
    *,
    hostile: bool = False,
    settings: Mapping[str, str] | None = None,
    extracts: Path | None = None,
    members: Path | None = None,
) -> tuple[dict[str, Any], LocalAirflow]:
    """Start the sandbox and Airflow, with the connections between them; what the sandbox says of itself, and Airflow.

    :param settings: environment of Airflow, such as INSTORE_* variables.
    :param extracts: the folder Airflow reads extracts from; the sandbox's own by default.
    :param members: whom the loyalty API knows, where the sandbox is not to send the sample week by itself.
    :raises AirflowFailed: one of them did not start.
    """
    console.print(f"Starting the sandbox and Airflow in {folder} …", highlight=False)
    before = _ports(_said_by_sandbox(folder))
    begin_sandbox(folder, processes, before, hostile, members)
    airflow = LocalAirflow(folder.resolve() / "airflow", processes, _told_port("the Airflow UI", _UI_PORT), settings)
    airflow.start()
    sandbox = wait_for_sandbox(folder, processes)
    moved = bool(before) and before != _ports(sandbox)
    if moved:
        console.print("The sandbox has other ports now, so the connections to it are made anew.", highlight=False)
    connect(airflow, sandbox, folder.resolve(), extracts or Path(sandbox["extracts"]), anew=moved)
    airflow.write_environment(folder / "env.sh")
    airflow.wait_for_dag(DAG)
    console.print(
        f"Airflow UI:     {airflow.url}/dags/{DAG}   user {USER}, password {airflow.password}", highlight=False
    )
    console.print(f"Profile Store:  {sandbox['profile_store']['page']}   what it was sent", highlight=False)
    return sandbox, airflow


def begin_sandbox(
    folder: Path, processes: Processes, before: Mapping[str, int], hostile: bool, members: Path | None = None
) -> None:
    """Begin to start it, on the ports it had before where they are free."""
    wanted = {**_SANDBOX_PORTS, **before}
    ports = ",".join(str(_told_port(f"the sandbox's {name}", wanted[name])) for name in _SANDBOX_PORTS)
    command = [sys.executable, "-m", "sandbox", "up", "--ports", ports]
    command += ["--state", str(folder.resolve() / "sandbox"), *(["--hostile"] if hostile else [])]
    command += ["--no-seed", "--members", str(members)] if members else []
    ready = folder / _SANDBOX
    processes.start("sandbox", command, os.environ | {"PYTHONPATH": str(ROOT)}, stdout=ready)
    ready.chmod(0o600)  # it holds the sandbox's keys


def wait_for_sandbox(folder: Path, processes: Processes) -> dict[str, Any]:
    """What the stand-ins say of themselves once they are ready. :raises AirflowFailed: they did not start."""
    until = time.monotonic() + _SANDBOX_SECONDS
    while not (document := _said_by_sandbox(folder)):
        if processes.dead() or time.monotonic() > until:
            raise AirflowFailed(f"The sandbox did not start:\n{processes.log_tail('sandbox')}")
        time.sleep(0.1)
    return document


def _said_by_sandbox(folder: Path) -> dict[str, Any]:
    """What the sandbox said of itself when it was ready, nothing where it was not yet."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        document: dict[str, Any] = json.loads((folder / _SANDBOX).read_text())
        return document
    return {}


def _ports(sandbox: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(sandbox[name]["port"]) for name in _SANDBOX_PORTS if name in sandbox}


def connect(
    airflow: LocalAirflow, sandbox: dict[str, Any], folder: Path, extracts: Path, *, anew: bool = False
) -> None:
    """Create the connections from the pipeline to the sandbox, and to a ledger in the folder.

    :param anew: change those to the sandbox where they are there already.
    """
    store, loyalty, bus = sandbox["profile_store"], sandbox["loyalty"], sandbox["service_bus"]
    connect_by_form(airflow, "instore_service_bus", "service_bus", anew, schema=bus["connection_string"])
    connect_by_form(airflow, "instore_loyalty", "loyalty", anew, host=loyalty["url"], password=loyalty["api_key"])
    connect_by_form(
        airflow, "instore_profile_store", "profile_store", anew, host=store["url"], password=store["key"],
        read_host=store["url"], read_api_key=store["key"], events_page=store["page"],
    )  # fmt: skip
    airflow.connect("instore_extracts", "fs", extra={"path": str(extracts)})
    airflow.connect("instore_ledger", "sqlite", host=str(folder / "ledger.db"))
    airflow.connect("instore_hash_key", "generic", password=_hash_key(folder))


def _hash_key(folder: Path) -> str:
    """The key of the ledger in the folder, made with it: another one is refused."""
    path = folder / "hash_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


def connect_by_form(airflow: LocalAirflow, conn_id: str, conn_type: str, anew: bool = False, **filled: str) -> None:
    """Create a connection as its form does: with every field, or editing it would show those that are stored only."""
    (fields,) = (
        each["conn-fields"] for each in get_provider_info()["connection-types"] if each["connection-type"] == conn_type
    )
    standard = {name: filled.pop(name) for name in ("host", "password", "schema") if name in filled}
    extra = {name: field["schema"].get("default") for name, field in fields.items()} | filled
    airflow.connect(conn_id, conn_type, extra=extra, anew=anew, **standard)


def _told_port(what: str, wanted: int) -> int:
    port = free_port(wanted)
    if port != wanted:
        console.print(f"Port {wanted} is in use, so {what} takes {port}.", highlight=False)
    return port
