"""
# A person wants to be forgotten

1. Under Admin, Variables, make a Variable `instore_erase_secret` with her cards and addresses, spaces between them.
   Airflow keeps what is typed into this form for ever, so it is not for them; a Variable is encrypted, and this one is
   removed when it is done.
2. Trigger this DAG; first with *Only count*, which leaves the Variable.

It takes her out of the ledger (orders, loyalty answers, quarantine, unsent events), the dry runs' ledgers and the
dead letters on the bus. That her orders were there stays known, so that none is landed or sent again, and nothing is
kept of, or sent for, her from now on. Her other cards and addresses are found by those that are given.

The receipt in `INSTORE_ERASURE_RECEIPTS` says nothing of who it was. Every run looks there: after a restored backup she
is erased again. What the Profile Store got is deleted there.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import Param, dag, task

from include.instore_airflow import alerting, maintenance
from include.instore_airflow.retry_policy import RetryByKind

PARAMS = {
    "variable": Param(
        "instore_erase_secret",
        type="string",
        minLength=1,
        title="Variable",
        description="Name of the Variable with the person's cards and addresses; not these themselves.",
    ),
    "dry_run": Param(True, type="boolean", title="Only count", description="Off: the person is erased."),
}


@dag(
    schedule=None,
    start_date=datetime(1970, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    on_failure_callback=alerting.maintenance_failed,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30), "retry_policy": RetryByKind()},
    doc_md=__doc__,
    tags=["in-store"],
    params=PARAMS,
)
def instore_erase() -> None:
    task(maintenance.erase, multiple_outputs=False)()


instore_erase()
