"""``orders``: what a person has done with orders that wait, or were corrected."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from include.instore.ledger.audit import note_done, person_here
from include.instore.ledger.customers import search_again
from include.instore.ledger.editions import keep_corrected
from include.instore.ledger.resends import resend, sent_ones
from include.instore.model.codes import CODES, Kind
from include.instore.model.errors import FatalError
from include.instore.model.settings import load_settings
from include.instore.model.windows import RESEND_DAG
from include.instore_airflow.cli.common import DryRunOption, JsonOption, opened, print_counts

orders_again_app = typer.Typer(
    help="Orders that find no customer, or were corrected after they were sent.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_Corrected = Annotated[bool, typer.Option("--corrected", help="Those corrected after they were sent.")]
_OfRun = Annotated[str, typer.Option("--run", help="Those that this run sent, by its run id.")]
_OfDay = Annotated[str, typer.Option("--day", help="Those of this day, in the stores' time zone: 2017-06-05.")]
_OfStore = Annotated[str, typer.Option("--store", help="Of the day or the run only those of this store.")]


@orders_again_app.command("resend")
def resend_orders(
    corrected: _Corrected = False, day: _OfDay = "", store: _OfStore = "", run: _OfRun = "",
    dry_run: DryRunOption = False, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Have the next run send the latest content of orders again: of those corrected after they were sent, a day or run.

    Each is sent as a second event. One whose first event is in doubt, held or rejected
    waits until that is settled. More than INSTORE_RESEND_APPROVAL become a list, which DAG instore_resend has approved.
    """
    with opened() as ledger:
        if not (corrected or day or run):
            raise FatalError("Say which: --corrected, --day or --run.")
        count, listed = resend(
            ledger, load_settings(), sent_ones(corrected=corrected, day=day, store=store, run=run), person_here(),
            dry_run=dry_run,
        )  # fmt: skip
        if not dry_run:
            which = "corrected" if corrected else day or run
            note_done(ledger, "orders resend", count, f"list {listed.id}" if listed else which)
    print_counts("listed" if listed else "resent", count, dry_run, as_json, **({"list": listed.id} if listed else {}))
    if listed and not as_json:
        conf = json.dumps({"resend_list": listed.id})
        typer.echo(f"They need approval; within a day: airflow dags trigger {RESEND_DAG} --conf '{conf}'")


@orders_again_app.command("keep")
def keep_orders(corrected: _Corrected = False, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Let the events stand as they were sent; the later contents stay in the ledger."""
    with opened() as ledger:
        if not corrected:
            raise FatalError("Say which: --corrected.")
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
