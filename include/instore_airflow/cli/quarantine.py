"""``quarantine``: the records that are not orders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from include.instore.ledger import Ledger
from include.instore.ledger.audit import note_done
from include.instore.ledger.known_again import AcceptAs
from include.instore.ledger.quarantined import Quarantined, Wanted, find
from include.instore.model.errors import FatalError
from include.instore.model.settings import load_settings
from include.instore.model.states import RecordState, Source
from include.instore.sources.quarantine import Outcome, discard, order_numbers, redrive, tallied
from include.instore_airflow.cli.common import (
    AllOption,
    CsvOption,
    DryRunOption,
    IdsArgument,
    JsonOption,
    MaxOption,
    ReasonOption,
    RunOption,
    SourceOption,
    counted_first,
    opened,
    print_json,
    print_outcomes,
    print_rows,
    printable,
)
from include.instore_airflow.connections import blobs

quarantine_app = typer.Typer(
    help="Records that are not orders, kept in the ledger: messages, and rows of extracts.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@quarantine_app.command("list")
def list_quarantine(
    reason: ReasonOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    state: Annotated[RecordState, typer.Option("--state", help="Only those in this state.")] = RecordState.QUARANTINED,
    most: MaxOption = 100,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List quarantined records, oldest first: where each came from and why it is no order; never the record itself.

    With its order number, where one can be read in it.
    """
    with opened() as ledger:
        rows = find(ledger, _wanted(None, reason, source, run, most, state))
        numbers = order_numbers(ledger, rows, load_settings())
    shown = [_shown(row) | {"order_number": numbers.get(row.id, "")} for row in rows]
    heads = ("id", "received_at", "source", "reference", "order_number", "reason", "detail", "state")
    if not (as_json or as_csv):
        shown = [row | {"id": row["id"][:12]} for row in shown]
    print_rows(heads, shown, as_json=as_json, as_csv=as_csv)


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
    with opened() as ledger:
        (row,) = find(ledger, Wanted(ids=(id,)), with_raw=raw)
    shown = _shown(row)
    if raw:
        shown["raw"] = (row.heading + row.raw).decode("utf-8", "backslashreplace")
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        typer.echo(f"{name:12} {printable(str(value), lines=name == 'raw')}")


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
    with _changing("quarantine redrive", dry_run, as_json) as (ledger, outcomes):
        wanted = _chosen(ledger, _wanted(ids, reason, source, run, most), everything)
        settings = load_settings()
        outcomes += redrive(ledger, wanted, settings, blobs(settings), dry_run=dry_run)


@quarantine_app.command("accept-as")
def accept_quarantined(
    what: Annotated[AcceptAs, typer.Argument(metavar="correction|new-order", help="What they are.")],
    ids: IdsArgument = None,
    reason: ReasonOption = None,
    source: SourceOption = None,
    run: RunOption = None,
    everything: AllOption = False,
    most: MaxOption = 1000,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what records are that have another order's key: that order, corrected, or orders of their own.

    A correction takes the known order's place where that has not been sent; where it has, it is listed as
    corrected_after_sent, and `orders resend --corrected` sends it. A new order gets its own key and event id;
    a suspected twin is a new order, or is discarded.
    """
    with _changing(f"quarantine accept-as {what.value}", dry_run, as_json) as (ledger, outcomes):
        wanted = _chosen(ledger, _wanted(ids, reason, source, run, most), everything)
        settings = load_settings()
        outcomes += redrive(ledger, wanted, settings, blobs(settings), dry_run=dry_run, accept_as=what)


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
    with _changing("quarantine discard", dry_run, as_json) as (ledger, outcomes):
        wanted = _chosen(ledger, _wanted(ids, reason, source, run, most), everything)
        outcomes += discard(ledger, wanted, dry_run=dry_run)


@contextlib.contextmanager
def _changing(command: str, dry_run: bool, as_json: bool) -> Iterator[tuple[Ledger, list[Outcome]]]:
    """The ledger, and the list for what became of each record: afterwards it is written down and printed."""
    outcomes: list[Outcome] = []
    with opened() as ledger:
        yield ledger, outcomes
        if not dry_run:
            note_done(ledger, command, len(outcomes), tallied(outcomes))
    print_outcomes(outcomes, dry_run, as_json)


def _chosen(ledger: Ledger, wanted: Wanted, everything: bool) -> Wanted:
    """What to change has to be said: nothing is redriven or discarded by leaving something out."""
    filtered = (wanted.reason, wanted.source, wanted.run) != (None, None, None)
    if wanted.ids and (filtered or everything):
        raise FatalError("Give ids, or a filter, not both.")
    if not wanted.ids and not filtered and not everything:
        raise FatalError("Choose one: ids, --reason, --source, --run or --all.")
    counted_first(find(ledger, wanted), "records")
    return wanted


def _wanted(
    ids: list[str] | None,
    reason: str | None,
    source: Source | None,
    run: str | None,
    most: int,
    state: RecordState = RecordState.QUARANTINED,
) -> Wanted:
    state_of = None if state is RecordState.ANY else state.value
    return Wanted(tuple(ids or ()), reason, source.value if source else None, run, state_of, most)


def _shown(row: Quarantined) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name not in ("raw", "heading")}
