"""``erase``: a person who wants to be forgotten."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.instore.customers.erasing import forget_person
from include.instore.ledger.audit import note_done
from include.instore.model.settings import load_settings
from include.instore_airflow.cli.common import DryRunOption, JsonOption, opened, print_done
from include.instore_airflow.erasing import eraser_on_bus


def erase_person(
    emails: Annotated[list[str] | None, typer.Option("--email", help="Of the person; may be given again.")] = None,
    cards: Annotated[list[str] | None, typer.Option("--card", help="Of the person; may be given again.")] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Forget a person: orders, loyalty answers, quarantine, dead letters on the bus, unsent events, dry runs.

    Of her orders it stays known that they were there, so that none is landed or sent again. From now on nothing is
    kept of, or sent for, her. Her other cards and addresses are found by those that are given. The receipt, which says
    nothing of who it was, is written to INSTORE_ERASURE_RECEIPTS: after a restored backup it erases her again.

    Not touched: events at a destination, which has its own deletion; the ERP's own files; messages that no run
    has drained yet, of which nothing is kept when one does.
    """
    settings = load_settings()
    with opened() as ledger:
        done = forget_person(
            ledger,
            settings,
            cards=cards or (),
            emails=emails or (),
            on_bus=eraser_on_bus(ledger, settings),
            dry_run=dry_run,
        )
        if not dry_run:
            note_done(ledger, "erase", done.orders, done.receipt)
    told = ", ".join(f"{name}: {count}" for name, count in asdict(done).items() if count != "")
    print_done(told, dry_run, as_json, **asdict(done))
