"""`ledger`: what a person does to the ledger itself."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

import typer

from include.instore.ledger.keys import rekey
from include.instore.model.settings import load_settings
from include.instore_airflow.cli.common import DryRunOption, JsonOption, errors_told, print_json
from include.instore_airflow.connections import open_ledger

ledger_app = typer.Typer(help="Changes of the ledger itself.", no_args_is_help=True)


@ledger_app.command("rekey")
def rekey_ledger(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Know every order by today's INSTORE_ORDER_KEY, where runs found orders that have another order's key.

    Pause the DAG before it. All keys change in one commit, or none: two orders that would become one are named, and so
    is an order without one of the fields. Event ids stay, so nothing is sent a second time. What collided before can
    be redriven afterwards.
    """
    with errors_told(), contextlib.closing(open_ledger(by_any_key=True)) as ledger:
        done = rekey(ledger, load_settings(), dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, **asdict(done)})
        return
    told = f"{done.orders} orders known by {done.after}, before by {done.before}"
    typer.echo(f"{'Dry run: ' if dry_run else ''}{told}")
    if done.collisions:
        typer.echo(
            f"{done.collisions} records collided before; now: python -m include.instore quarantine redrive "
            "--reason collision"
        )
