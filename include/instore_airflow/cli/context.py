"""What a command runs in: the ledger, and every error of ours as one sentence with an exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import typer

from include.instore_airflow.cli.output import printable
from include.instore_airflow.log_levels import at_level

EXIT_TRY_AGAIN = 1
EXIT_CHANGE_SOMETHING = 2


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """The ledger; and every error of ours as one sentence."""
    with errors_told():
        from include.instore_airflow.connections import open_ledger

        with contextlib.closing(open_ledger()) as ledger:
            yield ledger


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    from include.instore.model.errors import FatalError, RetriableError

    # Connections made in Airflow's UI are in its database, which it reads for what it takes for one of its servers.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        # Airflow's hooks log to standard output, where only what was asked for belongs.
        with (
            contextlib.redirect_stdout(sys.stderr),
            at_level(logging.WARNING, "azure", "alembic", "include", "airflow.task.hooks"),
        ):
            yield
    except FatalError as error:
        typer.echo(printable(str(error)), err=True)
        raise typer.Exit(EXIT_CHANGE_SOMETHING) from None
    except RetriableError as error:
        typer.echo(printable(str(error)), err=True)
        raise typer.Exit(EXIT_TRY_AGAIN) from None
