"""``set-up``: what Airflow needs before the first run."""

from __future__ import annotations

from dataclasses import asdict

import typer

from include.instore_airflow.cli.context import errors_told
from include.instore_airflow.cli.options import DryRunOption, JsonOption
from include.instore_airflow.cli.output import print_json, print_table


def make_set_up(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Make Airflow's pools in the sizes of the settings, and say which connections are missing.

    To be run once after `airflow db migrate`, where that is run, and again when a size is changed. Without its pools
    no drain, look-up or sending task is ever started.
    """
    with errors_told():
        from include.instore.model.settings import load_settings
        from include.instore_airflow.set_up import set_up

        found = set_up(load_settings(), dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "found": [asdict(each) for each in found]})
        return
    print_table(
        ("what", "name", "state", "detail"), [(each.what, each.name, each.state, each.detail) for each in found]
    )
    if dry_run:
        typer.echo("Nothing was changed.")
