"""``check-connections``: what a person runs before the first run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.instore.model.settings import load_settings
from include.instore_airflow.checking import check_connections
from include.instore_airflow.cli.common import EXIT_CHANGE_SOMETHING, JsonOption, errors_told, print_rows


def check(
    test_alert: Annotated[
        bool, typer.Option("--test-alert", help="Send a test alert to each channel of connection instore_alerts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Use every connection once, with the rights it needs: one line each, and what to do where one does not work.

    It peeks at the subscription and its dead letters, writes to the ledger, lists the extracts and reads one byte,
    asks the loyalty API for a card that cannot exist and for the card to test with, sends an empty bulk to the Profile
    Store and reads from it. A warning is about what works and should be otherwise, such as a key that may do more than
    it needs to. Exit code 2: something failed.
    """
    with errors_told():
        checked = list(check_connections(load_settings(), test_alert=test_alert))
    print_rows(("conn_id", "state", "said"), [asdict(each) for each in checked], as_json=as_json)
    if any(each.state == "failed" for each in checked):
        raise typer.Exit(EXIT_CHANGE_SOMETHING)
