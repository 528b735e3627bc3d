"""What the commands share: their options, the ledger, errors as one sentence with an exit code, tables and JSON."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from instore_provider.log_levels import at_level

from include.instore.ledger import Ledger
from include.instore.model.errors import FatalError, RetriableError
from include.instore.model.states import Source
from include.instore.sources.quarantine import Outcome, tally_of
from include.instore_airflow.connections import open_ledger

EXIT_TRY_AGAIN = 1
EXIT_CHANGE_SOMETHING = 2


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for another program.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")]
UnmaskOption = Annotated[
    bool, typer.Option("--unmask", help="Show cards and emails in full; who looked is written down (ledger audit).")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen; change nothing.")]
MaxOption = Annotated[int, typer.Option("--max", min=1, max=100_000, help="Records at most, the oldest first.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only those of this reason, such as too_large.")]
SourceOption = Annotated[Source | None, typer.Option("--source", help="Only those from here.")]
RunOption = Annotated[str | None, typer.Option("--run", help="Only those of this run, by its run id.")]
IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Ids as `list` shows them; their first characters do.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, up to --max, where no id or filter is given.")]


@contextlib.contextmanager
def opened() -> Iterator[Ledger]:
    """The ledger; and every error of ours as one sentence."""
    with errors_told(), contextlib.closing(open_ledger()) as ledger:
        yield ledger


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    # Connections made in Airflow's UI are in its database, which it reads for what it takes for one of its servers.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        # Airflow's hooks log to standard output, where only what was asked for belongs.
        with (
            contextlib.redirect_stdout(sys.stderr),
            at_level(logging.WARNING, "azure", "alembic", "include", "airflow.task.hooks"),
        ):
            yield
    except (FatalError, RetriableError) as error:
        typer.echo(printable(str(error)), err=True)
        code = EXIT_TRY_AGAIN if isinstance(error, RetriableError) else EXIT_CHANGE_SOMETHING
        raise typer.Exit(code) from None


def counted_first(found: Sized, what: str) -> None:
    """Say how many it is about before anything is changed."""
    typer.echo(f"{len(found)} {what}", err=True)


def print_counts(what: str, count: int, dry_run: bool, as_json: bool, **more: str) -> None:
    print_done(f"{count} {what}", dry_run, as_json, counts={what: count}, **more)


def print_done(told: str, dry_run: bool, as_json: bool, **document: Any) -> None:
    """What a command has done, or with a dry run would do. :param document: the same as JSON."""
    if as_json:
        print_json({"dry_run": dry_run, **document})
    else:
        typer.echo(f"{'Dry run: ' if dry_run else ''}{told}")


def print_outcomes(outcomes: Sequence[Outcome], dry_run: bool, as_json: bool, **counts: int) -> None:
    tally = tally_of(outcomes)
    if as_json:
        print_json({"dry_run": dry_run, "counts": tally, **counts, "records": [asdict(each) for each in outcomes]})
        return
    print_table(
        ("id", "reference", "would be" if dry_run else "outcome", "reason", "detail"),
        [(each.id[:36], each.reference, each.outcome, each.reason, each.detail) for each in outcomes],
    )
    parts = [f"{count} {name}" for name, count in {**tally, **counts}.items()]
    typer.echo(f"{'Dry run: ' if dry_run else ''}{', '.join(parts) or 'nothing to do'}")


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, default=moment, indent=2)
    sys.stdout.write("\n")


def print_rows(
    heads: Sequence[str], rows: Sequence[Mapping[str, Any]], *, as_json: bool = False, as_csv: bool = False
) -> None:
    """These columns as a table or as CSV, or all there is as JSON."""
    if as_json:
        print_json(rows)
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(heads)
        for row in rows:
            # A spreadsheet takes a cell that begins like this for a formula, and the ERP's text is not ours.
            cells = [cell(row[head]) for head in heads]
            writer.writerow([f"'{each}" if each[:1] in ("=", "+", "-", "@") else each for each in cells])
    else:
        print_table([head.replace("_", " ") for head in heads], [[cell(row[head]) for head in heads] for row in rows])


def cell(value: Any) -> str:
    """A value as it is shown to a person."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, int):
        return str(value)
    return f"{value:.1%}" if isinstance(value, float) else moment(value)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [heads, *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(text: str, *, lines: bool = False) -> str:
    """Foreign text without the control characters that a terminal would obey."""
    return "".join(
        each if each.isprintable() or (lines and each == "\n") else each.encode("unicode_escape").decode()
        for each in text
    )


def moment(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value or "")
