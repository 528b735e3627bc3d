"""`ledger`: what a person does to the ledger itself."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

import typer

from include.instore.ledger.audit import done as audited
from include.instore.ledger.audit import note_done
from include.instore.ledger.keys import adopt, rekey
from include.instore.model.settings import load_settings
from include.instore_airflow.cli.common import (
    DryRunOption,
    JsonOption,
    MaxOption,
    errors_told,
    opened,
    print_done,
    print_rows,
)
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
        if not dry_run:
            note_done(ledger, "ledger rekey", done.orders, f"{done.before} to {done.after}")
    told = f"{done.orders} orders known by {done.after}, before by {done.before}"
    print_done(told, dry_run, as_json, **asdict(done))
    if done.collisions and not as_json:
        typer.echo(
            f"{done.collisions} records collided before; now: python -m include.instore quarantine redrive "
            "--reason collision"
        )


@ledger_app.command("adopt")
def adopt_ledger(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Have the ledger be that of today's INSTORE_PIPELINE, INSTORE_SCOPE and subscription, where these were renamed.

    Orders keep their event ids, so nothing is sent a second time. Another brand's pipeline needs its own ledger.
    """
    with errors_told(), contextlib.closing(open_ledger(by_any_key=True)) as ledger:
        changed = adopt(ledger, load_settings(), dry_run=dry_run)
        told = [f"{name}: {after}, before: {before or 'nothing'}" for name, (before, after) in changed.items()]
        if not dry_run:
            note_done(ledger, "ledger adopt", len(changed), "; ".join(told))
    print_done("; ".join(told) or "nothing to do", dry_run, as_json, changed=changed)


@ledger_app.command("audit")
def list_audit(most: MaxOption = 100, as_json: JsonOption = False) -> None:
    """List what persons did by these commands, the last at the top: when, who, which command, to how many records."""
    with opened() as ledger:
        found = audited(ledger, most)
    print_rows(("at", "who", "what", "records", "detail"), [asdict(each) for each in found], as_json=as_json)
