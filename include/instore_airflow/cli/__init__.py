"""The operator's command line: set-up; the ledger against the Profile Store; the quarantine and the dead-letter queue.

Ledger, bus and Profile Store are those of the tasks: the Airflow connections ``instore_ledger``,
``instore_service_bus`` and ``instore_profile_store``, from the environment, a secrets backend or Airflow's own
database. ``INSTORE_*`` settings hold as they do for the tasks.
"""

from __future__ import annotations

import typer

from include.instore_airflow.cli.dead_letters import dead_letters_app
from include.instore_airflow.cli.ledger import reconcile_ledger
from include.instore_airflow.cli.quarantine import quarantine_app
from include.instore_airflow.cli.set_up import make_set_up

_DOC = """In-store orders: set-up, the ledger against the Profile Store, the quarantine, and the dead-letter queue.

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
app.command("set-up")(make_set_up)
app.command("reconcile")(reconcile_ledger)
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(dead_letters_app, name="dead-letters")
