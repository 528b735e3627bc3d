"""
# What is kept no longer

Every night this DAG removes what is older than the settings keep it (`INSTORE_RETENTION_DAYS_*`): the content, card and
email of orders of which nothing waits any more; loyalty answers; the content of quarantined records; runs' reports;
alerts. It works in small commits beside the hourly run; for four times as long as each took, others have the
ledger.

A pruned order stays known: it is not landed or sent a second time, however late it comes, and the ledger can still be
given another order key. It cannot be sent again, so a backfill with resend leaves it out.

## When it is red

Quarantined records that nobody had settled were too old and were given up: the log says how many. Or the ledger cannot
be reached: clear the task, or let the next night do it.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.instore_airflow import alerting, maintenance
from include.instore_airflow.retry_policy import RetryByKind


@dag(
    schedule=CronDataIntervalTimetable("20 3 * * *", timezone="UTC"),
    start_date=datetime(1970, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    on_failure_callback=alerting.maintenance_failed,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30), "retry_policy": RetryByKind()},
    doc_md=__doc__,
    tags=["in-store"],
)
def instore_maintenance() -> None:
    task(maintenance.prune, multiple_outputs=False)()


instore_maintenance()
