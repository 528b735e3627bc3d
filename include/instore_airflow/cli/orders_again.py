"""``orders``: what a person has done with orders that wait, or were corrected."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import typer

from include.instore.ledger.audit import note_done
from include.instore.ledger.customers import search_again
from include.instore.ledger.editions import keep_corrected, resend_corrected
from include.instore.model.codes import CODES, Kind
from include.instore.model.errors import FatalError
from include.instore.model.windows import Run
from include.instore_airflow.cli.common import DryRunOption, JsonOption, opened, print_counts

orders_again_app = typer.Typer(
    help="Orders that find no customer, or were corrected after they were sent.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_Corrected = Annotated[bool, typer.Option("--corrected", help="Those corrected after they were sent: required.")]


@orders_again_app.command("resend")
def resend_orders(corrected: _Corrected = False, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Have the next run send the latest content of orders that were corrected after they were sent.

    Each is sent as a second event. One whose first event is in doubt, held or rejected
    waits until that is settled.
    """
    now = datetime.now(timezone.utc)
    with opened() as ledger:
        _said(corrected)
        run = Run(f"resend__{now.isoformat()}", "manual", None, False, False, "own", resend=True)
        count = resend_corrected(ledger, run, dry_run=dry_run)
        if not dry_run:
            note_done(ledger, "orders resend", count, "corrected")
    print_counts("resent", count, dry_run, as_json)


@orders_again_app.command("keep")
def keep_orders(corrected: _Corrected = False, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Let the events stand as they were sent; the later contents stay in the ledger."""
    with opened() as ledger:
        _said(corrected)
        count = keep_corrected(ledger, dry_run=dry_run)
        if not dry_run:
            note_done(ledger, "orders keep", count, "corrected")
    print_counts("kept", count, dry_run, as_json)


@orders_again_app.command("search-again")
def search_orders_again(
    reason: Annotated[str, typer.Option("--reason", help="Why they have no customer, such as look_up_failed.")],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have the next run ask for the cards of orders without a customer, whenever they would be asked for again."""
    with opened() as ledger:
        if reason not in CODES or CODES[reason].kind is not Kind.ORDER:
            raise FatalError(f"{reason[:32]!r} is not a reason for a missing customer; docs/codes.md lists them.")
        count = search_again(ledger, reason, dry_run=dry_run)
        if not dry_run:
            note_done(ledger, "orders search-again", count, reason)
    print_counts("to be searched", count, dry_run, as_json)


def _said(corrected: bool) -> None:
    if not corrected:
        raise FatalError("Choose one: --corrected.")
