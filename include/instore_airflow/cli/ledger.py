"""``reconcile``: the ledger against the Profile Store."""

from __future__ import annotations

import typer

from include.instore_airflow.cli.context import opened
from include.instore_airflow.cli.options import DryRunOption, JsonOption
from include.instore_airflow.cli.output import print_json


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
    with opened() as ledger:
        from include.instore.model.settings import load_settings
        from include.instore.runs.reconcile import Reconciled, reconcile
        from include.instore_airflow.services import profile_store

        def tell(so_far: Reconciled) -> None:
            typer.echo(f"{so_far.asked} asked, {so_far.sent} shown", err=True)

        settings = load_settings()
        with profile_store(ledger, settings) as destination:
            done = reconcile(destination, ledger, settings, dry_run=dry_run, after_block=tell)
    counts = {"asked": done.asked, "sent": done.sent, "left": done.left, "held": done.held}
    if as_json:
        print_json({"dry_run": dry_run, "counts": counts})
        return
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"{'Dry run: ' if dry_run else ''}{told}")
