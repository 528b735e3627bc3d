"""
# Are the connections right?

Trigger it by hand before the first run, and whenever a connection or a key was changed. It uses every connection once,
with the rights it needs: it peeks at the subscription and its dead letters, writes to the ledger, lists the extracts
and reads one byte, asks the loyalty API for a card that cannot exist and for the card to test with, sends an empty bulk
to the Profile Store and reads from it.

The task's log has one line a connection: ok, a warning (it works, and its key may do more than it needs to), or the
sentence that says what to change. It is red when one does not work. `python -m include.instore check-connections` says
the same in a terminal.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk import Param, dag, task

from include.instore_airflow import maintenance

PARAMS = {
    "test_alert": Param(
        False,
        type="boolean",
        title="Send a test alert",
        description="On: one to each channel of connection instore_alerts.",
    ),
}


@dag(
    schedule=None,
    start_date=datetime(1970, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    doc_md=__doc__,
    tags=["in-store"],
    params=PARAMS,
)
def instore_check_connections() -> None:
    task(maintenance.check_connections, retries=0, multiple_outputs=False)()


instore_check_connections()
