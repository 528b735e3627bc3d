"""The sandbox's command line: `python -m sandbox --help`."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from . import remote, status, week
from .faults import FaultSettings
from .keys import load_keys
from .processes import die_with
from .serving import EXIT_BAD_ENVIRONMENT, LOOPBACK, PortTakenError, listen, serve

DEFAULT_STATE = Path(".demo/sandbox")

app = typer.Typer(
    help=(
        "Stand-ins for the outside world, on loopback: Service Bus (AMQP 1.0), a loyalty API and a Profile Store, "
        "with a week of sample orders.\n\n"
        "`up` runs all three; each also runs alone. Every service prints one line of JSON when it is ready."
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",  # the default would swallow the brackets in the examples
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

StateOption = Annotated[Path, typer.Option("--state", help="Folder for keys, events and messages.")]
HostOption = Annotated[str, typer.Option("--host", help="Address to listen on. Leave it: the sandbox is for loopback.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help='A fault setting, its value in JSON: share=0.1, answers=[503,"lost"], script={"S1":[503,200]}, '
        'retry_after=1, refuse=["S1"], latency=0.05, only=["POST "]. Can be repeated.',
    ),
]
ParentOption = Annotated[int, typer.Option("--parent", hidden=True, help="End when this process is not the parent.")]
SettingsT = TypeVar("SettingsT", bound=FaultSettings)


class Service(str, Enum):
    """The stand-ins with fault knobs."""

    SERVICE_BUS = "service-bus"
    LOYALTY = "loyalty"
    PROFILE_STORE = "profile-store"


class CutKind(str, Enum):
    """How the hostile extract breaks off."""

    LINE = "line"
    GZIP = "gzip"


def _fail(error: Exception | str) -> typer.Exit:
    typer.echo(str(error), err=True)
    return typer.Exit(EXIT_BAD_ENVIRONMENT)


def _settings(kind: type[SettingsT], texts: list[str] | None) -> SettingsT:
    try:
        return kind.model_validate_json(json.dumps(remote.parse_changes(texts or [])))
    except remote.ChangeRefusedError as error:
        raise _fail(error) from None
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        raise _fail(f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}") from None


@app.command()
def up(
    state: StateOption = DEFAULT_STATE,
    extracts: Annotated[
        Path | None, typer.Option(help="Where the ERP's extracts appear. Default: STATE/extracts.")
    ] = None,
    ports: Annotated[
        str, typer.Option(metavar="BUS,LOYALTY,STORE", help="Ports of the three; 0 picks a free one.")
    ] = "5672,8701,8702",
    hostile: Annotated[
        bool,
        typer.Option(
            "--hostile",
            help="A bad day: malformed messages, a cut extract, every 10th call failing, three orders refused.",
        ),
    ] = False,
    seed: Annotated[bool, typer.Option(help="Send the sample week, once per state folder.")] = True,
    restart: Annotated[bool, typer.Option(help="Bring a stand-in that died back on its port.")] = True,
    members: Annotated[Path, typer.Option(help="The members the loyalty API knows, as CSV.")] = week.MEMBERS,
    host: HostOption = LOOPBACK,
) -> None:
    """Run all three stand-ins until Ctrl-C, and print one JSON line with URLs, connection string and keys."""
    from .up import Plan, Ports, run

    try:
        chosen = Ports(*(int(port) for port in ports.split(",")))
    except (TypeError, ValueError):
        raise _fail("--ports takes three numbers: BUS,LOYALTY,STORE.") from None
    state = state.resolve()
    plan = Plan(
        state=state,
        extracts=(extracts or state / "extracts").resolve(),
        ports=chosen,
        host=host,
        hostile=hostile,
        seed=seed,
        restart=restart,
        members=members.resolve(),
    )
    raise typer.Exit(run(plan))


@app.command()
def servicebus(
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 5672,
    state: StateOption = DEFAULT_STATE,
    config: Annotated[Path | None, typer.Option(help="A Config.json of Microsoft's emulator.")] = None,
    host: HostOption = LOOPBACK,
    parent_pid: ParentOption = 0,
) -> None:
    """Run the Service Bus stand-in alone. Its shared access key is in STATE/keys.json, or given as
    SANDBOX_SERVICE_BUS_KEY."""
    from .servicebus import StandInError, run

    keys = load_keys(state)
    if parent_pid:
        die_with(parent_pid)
    try:
        run(config, state / "servicebus.sqlite", port, host, key=keys.service_bus_key)
    except StandInError as error:
        raise _fail(error) from None


@app.command()
def loyalty(
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8701,
    state: StateOption = DEFAULT_STATE,
    members: Annotated[Path, typer.Option(help="The members it knows, as CSV.")] = week.MEMBERS,
    faults: SetOption = None,
    host: HostOption = LOOPBACK,
    parent_pid: ParentOption = 0,
) -> None:
    """Run the loyalty API alone. Its keys are in STATE/keys.json, or given as SANDBOX_LOYALTY_API_KEY, ..._CLIENT_ID
    and ..._CLIENT_SECRET."""
    from .loyalty import LoyaltyFaults, LoyaltyKeys, loyalty_app, read_members

    keys = load_keys(state)
    known = LoyaltyKeys(keys.loyalty_api_key, keys.loyalty_client_id, keys.loyalty_client_secret)
    settings = _settings(LoyaltyFaults, faults)
    if not members.is_file():
        raise _fail(f"There is no members file at {members}.")
    _serve("loyalty", loyalty_app(read_members(members), known, settings), port, host, parent_pid)


@app.command("profile-store")
def profile_store(
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8702,
    state: StateOption = DEFAULT_STATE,
    faults: SetOption = None,
    host: HostOption = LOOPBACK,
    parent_pid: ParentOption = 0,
) -> None:
    """Run the Profile Store alone: Tracking API, Profile Store API and a page for people. Its key is in
    STATE/keys.json, or given as SANDBOX_PROFILE_STORE_KEY; further settings are ingest_delay=2 and
    blacklist=["a@example.com"]."""
    from .event_store import EventStore
    from .profile_store import ProfileStoreFaults, profile_store_app

    keys = load_keys(state)
    settings = _settings(ProfileStoreFaults, faults)
    store = EventStore(state / "profile-store.sqlite")
    _serve("profile_store", profile_store_app(store, keys.profile_store_key, settings), port, host, parent_pid)
    store.close()


def _serve(name: str, service: Any, port: int, host: str, parent_pid: int) -> None:
    try:
        listener = listen(port, host)
    except PortTakenError as error:
        raise _fail(error) from None
    if parent_pid:
        die_with(parent_pid)
    serve(service, listener, {"service": name})


@app.command()
def seed(
    state: StateOption = DEFAULT_STATE,
    connection_string: Annotated[
        str | None, typer.Option(envvar="SANDBOX_SERVICE_BUS", help="Default: that of the running sandbox.")
    ] = None,
    extracts: Annotated[Path | None, typer.Option(help="Default: that of the running sandbox.")] = None,
    hostile: Annotated[bool, typer.Option("--hostile", help="Add malformed messages and a cut extract.")] = False,
    cut: Annotated[CutKind, typer.Option(help="How the cut extract breaks off.")] = CutKind.LINE,
    messages: Annotated[bool, typer.Option("--messages/--no-messages", help="Send the messages.")] = True,
    files: Annotated[bool, typer.Option("--files/--no-files", help="Copy the extracts.")] = True,
) -> None:
    """Send the sample week to the topic and copy its extracts, and print what was seeded as JSON."""
    from azure.servicebus.exceptions import ServiceBusError

    from .seed import seed as sow

    try:
        if messages and connection_string is None:
            connection_string = remote.read_running(state)["service_bus"]["connection_string"]
        if files and extracts is None:
            extracts = Path(remote.read_running(state)["extracts"])
        seeded = sow(
            connection_string=connection_string if messages else None,
            extracts=extracts if files else None,
            hostile=hostile,
            cut=cut.value,
        )
    except remote.NotReachableError as error:
        raise _fail(error) from None
    except ServiceBusError as error:
        raise _fail(f"The topic cannot be reached ({type(error).__name__}).") from None
    typer.echo(json.dumps(seeded.as_json()))


@app.command()
def faults(
    service: Annotated[Service, typer.Argument(help="Whose knobs.")],
    changes: SetOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take back all faults first.")] = False,
    state: StateOption = DEFAULT_STATE,
    url: Annotated[str | None, typer.Option(help="Of the stand-in. Default: that of the running sandbox.")] = None,
) -> None:
    """Show the fault knobs of a running stand-in as JSON, after changing them."""
    try:
        place = url or remote.read_running(state)[service.value.replace("-", "_")]["url"]
        if changes or clear:
            shown = remote.change_faults(place, remote.parse_changes(changes or []), clear=clear)
        else:
            shown = remote.call(place, "GET", "/sandbox/faults")
    except (remote.NotReachableError, remote.ChangeRefusedError) as error:
        raise _fail(error) from None
    typer.echo(json.dumps(shown))


@app.command("state")
def show_state(
    state: StateOption = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of a table.")] = False,
) -> None:
    """Show what the running stand-ins have seen: messages, members, events and calls."""
    try:
        counts = status.collect(remote.read_running(state))
    except remote.NotReachableError as error:
        raise _fail(error) from None
    if as_json:
        typer.echo(json.dumps(counts))
    else:
        status.show(counts)


if __name__ == "__main__":
    sys.exit(app(prog_name="python -m sandbox"))
