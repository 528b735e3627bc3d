"""``suppressions``: the persons nothing may be sent for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.instore.ledger.audit import note_done
from include.instore.ledger.suppressions import COMMAND, FILE, lift, list_suppressed, suppress
from include.instore.model.customer_keys import card_of, email_of
from include.instore.model.errors import FatalError
from include.instore.model.settings import load_settings
from include.instore_airflow.cli.common import (
    DryRunOption,
    JsonOption,
    MaxOption,
    counted_first,
    opened,
    print_counts,
    print_rows,
)

suppressions_app = typer.Typer(
    help="Persons nothing may be sent for, known by keyed hashes of their cards and addresses.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@suppressions_app.command("list")
def list_suppressions(most: MaxOption = 100, as_json: JsonOption = False) -> None:
    """List whom nothing may be sent for, the last at the top: a hash, who said so, why, since when."""
    with opened() as ledger:
        found = list_suppressed(ledger, most)
    rows = [asdict(each) | ({} if as_json else {"id": each.id[:12]}) for each in found]
    print_rows(("id", "source", "cause", "since"), rows, as_json=as_json)


@suppressions_app.command("add")
def add_suppressions(
    file: Annotated[
        typer.FileText,
        typer.Argument(metavar="FILE", help="Cards and addresses, one a line; - reads them as they are typed."),
    ],
    cause: Annotated[str, typer.Option("--cause", help="Why, such as a ticket; nothing of the person.")] = "by command",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have nothing sent any more for these persons, also not what waits; until `suppressions lift` says otherwise.

    They are read from a file, because what is typed behind a command stays in the shell's history.
    """
    with opened() as ledger:
        settings, persons = load_settings(), []
        for number, line in enumerate(file, 1):
            try:
                person = email_of(line, settings.orders) if "@" in line else card_of(line, settings.orders)
            except ValueError as error:
                raise FatalError(f"Line {number} {error}; correct it. Nothing was changed.") from None
            persons += [person] if person else []
        counted_first(persons, "cards and addresses")
        if not dry_run:
            source = COMMAND if file.name == "<stdin>" else FILE
            note_done(ledger, "suppressions add", suppress(ledger, persons, cause[:64], source), cause)
    print_counts("suppressed", len(persons), dry_run, as_json)


@suppressions_app.command("lift")
def lift_suppressions(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="As `list` shows them; their first characters do.")],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let these persons get something again: what was kept back for them is searched and sent by the next run.

    What a loyalty answer said comes back with the next answer that says the same.
    """
    with opened() as ledger:
        known = {each.id for each in list_suppressed(ledger, 1_000_000)}
        found = {id for id in known if any(len(begins) >= 6 and id.startswith(begins) for begins in ids)}
        if len(found) < len(set(ids)):
            raise FatalError("An id is unknown, or shorter than 6 characters; `suppressions list` shows them.")
        counted_first(found, "cards and addresses")
        if not dry_run:
            note_done(ledger, "suppressions lift", lift(ledger, found))
    print_counts("lifted", len(found), dry_run, as_json)
