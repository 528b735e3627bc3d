"""The operator's command line: set-up; where orders are; the ledger against the Profile Store; the quarantine, the
dead-letter queue and held events.

Ledger, bus and Profile Store are those of the tasks: the Airflow connections ``instore_ledger``,
``instore_service_bus`` and ``instore_profile_store``, from the environment, a secrets backend or Airflow's own
database. ``INSTORE_*`` settings hold as they do for the tasks.
"""

from __future__ import annotations

from dataclasses import asdict

import typer

from include.instore.ledger.audit import note_done
from include.instore.model.destinations import PROFILE_STORE
from include.instore.model.settings import load_settings
from include.instore.runs.reconcile import Reconciled, reconcile
from include.instore_airflow.cli.check import check_files
from include.instore_airflow.cli.checking import check
from include.instore_airflow.cli.common import (
    DryRunOption,
    JsonOption,
    errors_told,
    opened,
    print_done,
    print_json,
    print_rows,
)
from include.instore_airflow.cli.dead_letters import dead_letters_app
from include.instore_airflow.cli.deliveries import deliveries_app
from include.instore_airflow.cli.erase import erase_person
from include.instore_airflow.cli.extracts import extracts_app
from include.instore_airflow.cli.ledger import ledger_app
from include.instore_airflow.cli.orders import customers_app, orders_app
from include.instore_airflow.cli.orders_again import orders_again_app
from include.instore_airflow.cli.quarantine import quarantine_app
from include.instore_airflow.cli.reports import print_report, runs_app
from include.instore_airflow.cli.suppressions import suppressions_app
from include.instore_airflow.destinations import profile_store
from include.instore_airflow.set_up import set_up

_DOC = """In-store orders: where they are and what happens next, set-up, the ledger against the Profile Store, the
quarantine, the dead-letter queue, and held events.

Every command prints a table, or JSON with `--json`. Those that change something take `--dry-run`, which only says what
would happen. Exit codes: 0 done; 1 a service failed, try again; 2 something has to be changed first, the message says
what.

The connections are Airflow's `instore_ledger`, `instore_service_bus` and `instore_profile_store`; the settings are the
environment's INSTORE_*.
"""

app = typer.Typer(
    help=_DOC,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # a traceback with locals would show records
)


@app.command("set-up")
def make_set_up(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Make Airflow's pools in the sizes of the settings, and say which connections are missing.

    To be run once after `airflow db migrate`, where that is run, and again when a size is changed. Without its pools
    no drain, look-up or sending task is ever started.
    """
    with errors_told():
        found = set_up(load_settings(), dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "found": [asdict(each) for each in found]})
        return
    print_rows(("what", "name", "state", "detail"), [asdict(each) for each in found])
    if dry_run:
        typer.echo("Nothing was changed.")


@app.command("reconcile")
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

        def tell(so_far: Reconciled) -> None:
            typer.echo(f"{so_far.asked} asked, {so_far.sent} shown", err=True)

        settings = load_settings()
        with profile_store.opened(ledger, settings) as destination:
            done = reconcile(destination, PROFILE_STORE, ledger, settings, dry_run=dry_run, after_block=tell)
        if not dry_run:
            note_done(ledger, "reconcile", done.sent)
    counts = {"asked": done.asked, "sent": done.sent, "left": done.left, "held": done.held}
    print_done(", ".join(f"{count} {name}" for name, count in counts.items()), dry_run, as_json, counts=counts)


app.command("check")(check_files)
app.command("report")(print_report)
orders_app.add_typer(orders_again_app)
app.add_typer(orders_app, name="orders")
app.add_typer(customers_app, name="customers")
app.add_typer(runs_app, name="runs")
app.command("check-connections")(check)
app.command("erase")(erase_person)
app.add_typer(ledger_app, name="ledger")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(deliveries_app, name="deliveries")
app.add_typer(extracts_app, name="extracts")
app.add_typer(suppressions_app, name="suppressions")
