"""The operator's command line: set-up; the ledger against the Profile Store; the quarantine and the dead-letter queue.

Ledger, bus and Profile Store are those of the tasks: the Airflow connections ``instore_ledger``,
``instore_service_bus`` and ``instore_profile_store``, from the environment, a secrets backend or Airflow's own
database. ``INSTORE_*`` settings hold as they do for the tasks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.log_levels import at_level

if TYPE_CHECKING:
    from include.instore.ledger.quarantined import Quarantined, Wanted
    from include.instore.quarantine import Outcome

EXIT_TRY_AGAIN = 1
EXIT_CHANGE_SOMETHING = 2

_DOC = """In-store orders: set-up, the ledger against the Profile Store, the quarantine, and the dead-letter queue.

Every command prints a table, or JSON with `--json`. Those that change something take `--dry-run`, which only says what
would happen. Exit codes: 0 done; 1 a service failed, try again; 2 something has to be changed first, the message says
what.

The connections are Airflow's `instore_ledger`, `instore_service_bus` and `instore_profile_store`; the settings are the
environment's INSTORE_*.
"""

app = typer.Typer(
    help=_DOC,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # a traceback with locals would show records
)
quarantine_app = typer.Typer(
    help="Records that are not orders, kept in the ledger: messages, and rows of extracts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
dead_letters_app = typer.Typer(
    help="Messages in the subscription's dead-letter queue, where nothing expires.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(dead_letters_app, name="dead-letters")


class State(str, Enum):
    """Of a quarantined record."""

    QUARANTINED = "quarantined"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    ANY = "any"


class Source(str, Enum):
    """Where a record came from."""

    TOPIC = "topic"
    EXTRACT = "extract"


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for another program.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen; change nothing.")]
MaxOption = Annotated[int, typer.Option("--max", min=1, max=100_000, help="Records at most, the oldest first.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only those of this reason, such as too_large.")]
SourceOption = Annotated[Source | None, typer.Option("--source", help="Only those from here.")]
RunOption = Annotated[str | None, typer.Option("--run", help="Only those of this run, by its run id.")]
IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Ids as `list` shows them; their first characters do.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, up to --max, where no id or filter is given.")]


@app.command("set-up")
def make_set_up(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Make Airflow's pools in the sizes of the settings, and say which connections are missing.

    To be run once after `airflow db migrate`, where that is run, and again when a size is changed. Without its pools
    no drain, look-up or sending task is ever started.
    """
    with _told():
        from include.instore.settings import load_settings
        from include.set_up import set_up

        found = set_up(load_settings(), dry_run=dry_run)
    if as_json:
        _print_json({"dry_run": dry_run, "found": [asdict(each) for each in found]})
        return
    _print_table(
        ("what", "name", "state", "detail"), [(each.what, each.name, each.state, each.detail) for each in found]
    )
    if dry_run:
        typer.echo("Nothing was changed.")


@app.command("reconcile")
def reconcile_ledger(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Ask the Profile Store for every order that the ledger takes for not sent, and mark those it shows as sent.

    After a restored backup, which does not know what was sent since: the next run would send it a second time. What
    the Profile Store does not show stays as it is, and nothing is ever sent by this.

    Before it: switch tracking off (INSTORE_ENABLE_TRACK_EVENTS), so that no run sends meanwhile, and let what was sent
    last be INSTORE_VERIFY_AFTER seconds old, or it may not show yet. It asks for one order after the other, as many a
    second as the connection grants; stopped half way, it can simply be started again.

    Counts: asked; sent, those of them that the Profile Store shows; left, the others; held, not asked for, because a
    run that gave a sign of life within INSTORE_CLAIM_MINUTES holds them.
    """
    with _opened() as ledger:
        from include.instore.reconcile import Reconciled, reconcile
        from include.instore.settings import load_settings
        from include.tasks import profile_store

        def tell(so_far: Reconciled) -> None:
            typer.echo(f"{so_far.asked} asked, {so_far.sent} shown", err=True)

        settings = load_settings()
        with profile_store(ledger, settings) as destination:
            done = reconcile(destination, ledger, settings, dry_run=dry_run, after_block=tell)
    counts = {"asked": done.asked, "sent": done.sent, "left": done.left, "held": done.held}
    if as_json:
        _print_json({"dry_run": dry_run, "counts": counts})
        return
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"{'Dry run: ' if dry_run else ''}{told}")


@quarantine_app.command("list")
def list_quarantine(
    reason: ReasonOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    state: Annotated[State, typer.Option("--state", help="Only those in this state.")] = State.QUARANTINED,
    most: MaxOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List quarantined records, oldest first: where each came from and why it is no order; never the record itself."""
    with _opened() as ledger:
        from include.instore.ledger.quarantined import find

        rows = find(ledger, _wanted((), reason, source, run, most, state))
    if as_json:
        _print_json([_shown(row) for row in rows])
    else:
        _print_table(
            ("id", "received", "source", "reference", "reason", "detail", "state"),
            [
                (row.id[:12], _moment(row.received_at), row.source, row.reference, row.reason, row.detail, row.state)
                for row in rows
            ],
        )


@quarantine_app.command("show")
def show_quarantined(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it; its first characters do.")],
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Print the record itself as well. It HOLDS PERSONAL DATA (card, email, purchases): not into a ticket, "
            "a chat or a shared log.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one quarantined record: all that is known of it, and only with `--raw` the record itself."""
    with _opened() as ledger:
        from include.instore.ledger.quarantined import Wanted, find

        (row,) = find(ledger, Wanted(ids=(id,)), with_raw=raw)
    shown = _shown(row)
    if raw:
        shown["raw"] = (row.heading + row.raw).decode("utf-8", "backslashreplace")
    if as_json:
        _print_json(shown)
        return
    for name, value in shown.items():
        typer.echo(f"{name:12} {_printable(str(value), lines=name == 'raw')}")


@quarantine_app.command("redrive")
def redrive_quarantine(
    ids: IdsArgument = None,
    reason: ReasonOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    everything: AllOption = False,
    most: MaxOption = 1000,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read quarantined records again with today's settings, and land those that are orders now.

    An order lands like any other, in a run of kind redrive, and the next hourly run sends it. What is still refused
    stays, with today's reason. A broken_file cannot be redriven: have the ERP deliver the file again.

    The dead letter of a redriven message stays on the bus: `dead-letters redrive` knows its order and removes it.
    """
    with _opened() as ledger:
        from include.instore.quarantine import redrive
        from include.instore.settings import load_settings

        wanted = _chosen(ids, reason, source, run, everything, most)
        outcomes = redrive(ledger, wanted, load_settings(), dry_run=dry_run)
    _print_outcomes(outcomes, dry_run, as_json)


@quarantine_app.command("discard")
def discard_quarantine(
    ids: IdsArgument = None,
    reason: ReasonOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    everything: AllOption = False,
    most: MaxOption = 1000,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give up quarantined records: they are kept, but never redriven, and their dead letters are removed unlanded."""
    with _opened() as ledger:
        from include.instore.quarantine import discard

        outcomes = discard(ledger, _chosen(ids, reason, source, run, everything, most), dry_run=dry_run)
    _print_outcomes(outcomes, dry_run, as_json)


@dead_letters_app.command("list")
def list_dead_letters(most: MaxOption = 100, as_json: JsonOption = False) -> None:
    """List the oldest dead letters: id, number, reason; never the message itself. They stay as they are."""
    with _told():
        from include.instore.dead_letters import list_dead_letters
        from include.instore.settings import load_settings
        from include.tasks import service_bus_client

        letters = list_dead_letters(service_bus_client(), load_settings(), most)
    if as_json:
        _print_json([asdict(letter) for letter in letters])
    else:
        _print_table(
            ("message id", "number", "enqueued", "reason", "description", "bytes"),
            [
                (
                    letter.message_id, str(letter.sequence_number), _moment(letter.enqueued_at), letter.reason,
                    letter.description, str(letter.size),
                )
                for letter in letters
            ],
        )  # fmt: skip


@dead_letters_app.command("redrive")
def redrive_dead_letters(
    most: MaxOption = 100,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish",
            help="Publish them to the topic again instead of landing them: EVERY subscription of the topic gets them. "
            "Ids and properties are kept; needs the Send right.",
        ),
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Land dead letters that are orders by today's settings, and only then take them off the bus.

    What is still refused stays in the dead-letter queue and in quarantine, with today's reason; discarded there, the
    next redrive removes it. Stopped half way, it can simply be started again: nothing lands twice.
    """
    with _opened() as ledger:
        from include.instore.dead_letters import redrive_dead_letters
        from include.instore.settings import load_settings
        from include.tasks import service_bus_client

        redriven = redrive_dead_letters(
            service_bus_client(), ledger, load_settings(), limit=most, publish=publish, dry_run=dry_run
        )
    _print_outcomes(
        redriven.outcomes, dry_run, as_json, completed=redriven.completed, settle_failed=redriven.settle_failed
    )


@contextlib.contextmanager
def _opened() -> Iterator[Any]:
    """The ledger; and every error of ours as one sentence."""
    with _told():
        from include.tasks import open_ledger

        with contextlib.closing(open_ledger()) as ledger:
            yield ledger


@contextlib.contextmanager
def _told() -> Iterator[None]:
    from include.instore.errors import FatalError, RetriableError

    # Connections made in Airflow's UI are in its database, which it reads for what it takes for one of its servers.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        # Airflow's hooks log to standard output, where only what was asked for belongs.
        with (
            contextlib.redirect_stdout(sys.stderr),
            at_level(logging.WARNING, "azure", "alembic", "include", "airflow.task.hooks"),
        ):
            yield
    except FatalError as error:
        typer.echo(_printable(str(error)), err=True)
        raise typer.Exit(EXIT_CHANGE_SOMETHING) from None
    except RetriableError as error:
        typer.echo(_printable(str(error)), err=True)
        raise typer.Exit(EXIT_TRY_AGAIN) from None


def _chosen(
    ids: list[str] | None, reason: str | None, source: Source | None, run: str | None, everything: bool, most: int
) -> Wanted:
    """What to change has to be said: nothing is redriven or discarded by leaving something out."""
    from include.instore.errors import FatalError

    filtered = reason is not None or source is not None or run is not None
    if ids and (filtered or everything):
        raise FatalError("Give ids, or a filter, not both.")
    if not ids and not filtered and not everything:
        raise FatalError("Say which: ids, --reason, --source, --run or --all.")
    return _wanted(tuple(ids or ()), reason, source, run, most, State.QUARANTINED)


def _wanted(
    ids: tuple[str, ...], reason: str | None, source: Source | None, run: str | None, most: int, state: State
) -> Wanted:
    from include.instore.ledger.quarantined import Wanted

    return Wanted(
        ids=ids,
        reason=reason,
        source=source.value if source else None,
        run=run,
        state=None if state is State.ANY else state.value,
        limit=most,
    )


def _shown(row: Quarantined) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name not in ("raw", "heading")}


def _print_outcomes(outcomes: Sequence[Outcome], dry_run: bool, as_json: bool, **counts: int) -> None:
    tally = dict(sorted(Counter(outcome.outcome for outcome in outcomes).items()))
    if as_json:
        _print_json({"dry_run": dry_run, "counts": tally, **counts, "records": [asdict(each) for each in outcomes]})
        return
    _print_table(
        ("id", "reference", "would be" if dry_run else "outcome", "reason", "detail"),
        [(each.id[:36], each.reference, each.outcome, each.reason, each.detail) for each in outcomes],
    )
    parts = [f"{count} {name}" for name, count in {**tally, **counts}.items()]
    typer.echo(f"{'Dry run: ' if dry_run else ''}{', '.join(parts) or 'nothing to do'}")


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, default=_moment, indent=2)
    sys.stdout.write("\n")


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [heads, *[[_printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _printable(text: str, *, lines: bool = False) -> str:
    """Foreign text without the control characters that a terminal would obey."""
    return "".join(
        each if each.isprintable() or (lines and each == "\n") else each.encode("unicode_escape").decode()
        for each in text
    )


def _moment(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value or "")
