"""``orders`` and ``customers``: where an order is, what is on its way, and what was sent for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from include.instore.ledger.audit import note_done
from include.instore.ledger.read_figures import undelivered
from include.instore.ledger.read_orders import find_orders, known_of_person, life, list_orders
from include.instore.model.customer_keys import masked
from include.instore.model.errors import FatalError
from include.instore.model.settings import load_settings
from include.instore.sources.quarantine import quarantined_as
from include.instore_airflow.cli.common import (
    CsvOption,
    JsonOption,
    MaxOption,
    ReasonOption,
    RunOption,
    UnmaskOption,
    cell,
    opened,
    print_json,
    print_rows,
    printable,
)

orders_app = typer.Typer(help="Orders: where they are, and what happens next.", no_args_is_help=True)
customers_app = typer.Typer(help="Customers: what was sent for them.", no_args_is_help=True)

_LISTED = ("order_number", "order_time", "store_id", "status", "reason", "source", "reference", "event_id")


@orders_app.command("show")
def show_order(
    number: Annotated[
        str, typer.Argument(metavar="NUMBER", help="The order's number, or the id of one of its events.")
    ],
    unmask: UnmaskOption = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show an order's whole life: where it came from, its customer, every delivery, and what happens next.

    All orders of this number are shown, and records in quarantine that bear it.
    """
    with opened() as ledger:
        settings = load_settings()
        found = find_orders(ledger, settings.orders, number=number)
        found = found or find_orders(ledger, settings.orders, event_id=number)
        lives = [each.shown(_mask(unmask)) | life(ledger, each, settings) for each in found]
        aside = quarantined_as(ledger, number, settings)
        if not lives and not aside:
            raise FatalError(f"No order and no record in quarantine has the number {printable(number)[:64]}.")
        if unmask:
            note_done(ledger, "orders show --unmask", len(lives), number)
    kept = [{name: getattr(row, name) for name in ("id", "reference", "reason", "detail")} for row in aside]
    if as_json:
        print_json({"orders": lives, "quarantined": kept})
        return
    if as_csv:
        steps = [{"order_number": each["order_number"], **step} for each in lives for step in each["steps"]]
        print_rows(("order_number", "at", "what", "detail"), steps, as_csv=True)
        return
    for each in lives:
        _print_life(each)
    for row in kept:
        typer.echo(printable(f"In quarantine: {row['id'][:12]} {row['reference']}: {row['reason']}, {row['detail']}"))


def _print_life(shown: dict[str, Any]) -> None:
    for name, value in shown.items():
        if name not in ("steps", "next"):
            typer.echo(f"{name.replace('_', ' '):15}{printable(cell(value))}")
    print_rows(("at", "what", "detail"), shown["steps"])
    typer.echo(f"Next: {printable(shown['next'])}\n")


@orders_app.command("list")
def list_some(
    status: Annotated[str, typer.Option("--status", help="Such as unmatched, ready, sent, held or rejected.")] = "",
    store: Annotated[str, typer.Option("--store", help="Only those of this store.")] = "",
    day: Annotated[
        str, typer.Option("--day", help="Only those of this day, in the stores' time zone: 2017-06-05.")
    ] = "",
    reason: ReasonOption = None,
    run: RunOption = None,
    most: MaxOption = 100,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List orders, the last one at the top: of a day, of a run, or of a status that few orders have."""
    with opened() as ledger:
        asked = {"status": status, "store": store, "day": day, "reason": reason or "", "run": run or ""}
        found = list_orders(ledger, limit=most, **asked)
    print_rows(_LISTED, [each.shown() for each in found], as_json=as_json, as_csv=as_csv)


@orders_app.command("undelivered")
def list_undelivered(as_json: JsonOption = False, as_csv: CsvOption = False) -> None:
    """List what has not arrived, by cause: how much, since when, and when or by whom it will be gone."""
    with opened() as ledger:
        causes = undelivered(ledger, load_settings())
    print_rows(("cause", "reason", "count", "oldest", "gone"), causes, as_json=as_json, as_csv=as_csv)


@customers_app.command("show")
def show_customer(
    card: Annotated[str, typer.Option("--card", help="Her loyalty card.")] = "",
    email: Annotated[str, typer.Option("--email", help="Her email address.")] = "",
    most: MaxOption = 100,
    unmask: UnmaskOption = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show what was sent, or will be, for the person with this card or this email, the last order at the top.

    Orders that have only the other of the two are found by that one. The shell keeps in its history what is typed.
    """
    with opened() as ledger:
        if bool(card) == bool(email):
            raise FatalError("Give --card or --email, one of the two.")
        settings = load_settings()
        known: dict[str, Any] = known_of_person(ledger, settings.orders, card=card, email=email)
        found = find_orders(ledger, settings.orders, card=card, email=email, limit=most)
        if unmask:
            numbers = ", ".join(each.row["order_number"] for each in found)
            note_done(ledger, "customers show --unmask", len(found), numbers)
    if known["answer"]:
        known["answer"]["email"] = _mask(unmask)(known["answer"]["email"])
    rows = [each.shown(_mask(unmask)) for each in found]
    if as_json:
        print_json(known | {"orders": rows})
        return
    if not as_csv:
        told = [("card answered", known["answer"]), *(("suppressed", each) for each in known["suppressed"])]
        for name, value in told:
            if value:
                typer.echo(f"{name}: {printable(', '.join(cell(each) for each in value.values()))}")
    print_rows((*_LISTED, "card", "email"), rows, as_csv=as_csv)


def _mask(unmask: bool) -> Callable[[str | None], str]:
    return (lambda text: text or "") if unmask else masked
