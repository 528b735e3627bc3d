"""
# Many events are sent again

What is to be sent again, and is more than `INSTORE_RESEND_APPROVAL` events, is listed on the page "In-store orders" or
by `python -m include.instore orders resend`, and is sent by this DAG once a person has approved the list. The page
triggers it; after the command trigger it with the list's id.

`approve` waits for a day, with the number of events, their days and the list's digest; answer under *Required
Actions*. Nothing is claimed while it waits. *Reject*, and nothing is sent. What is approved is the stored list: the
plan takes what is on it and is still sent as it was listed, each once, as a new edition beside the first.

## When it is red

Nobody answered within a day, or the list is older than that or not the one that was approved: make it again. All else
is as in `instore_orders`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, dag, task

from include.instore_airflow import alerting, tasks
from include.instore_airflow.batches import TASK_DEFAULTS, send_and_report

PARAMS = {
    # A default: without one Airflow 3.3.2 makes no context for the callback of a run that failed.
    "resend_list": Param("", type="string", title="List", description="Its id, as the page or the command says it.")
}


@dag(
    schedule=None,
    start_date=datetime(1970, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,  # it never runs by itself
    on_failure_callback=alerting.run_failed,
    default_args=TASK_DEFAULTS,
    doc_md=__doc__,
    tags=["in-store", "profile-store"],
    params=PARAMS,
)
def instore_resend() -> None:
    described = task(tasks.describe_list, multiple_outputs=False)()
    approve = ApprovalOperator(
        task_id="approve",
        subject="Send these events again?",
        body="{{ ti.xcom_pull(task_ids='describe_list')['text'] }}",
        response_timeout=timedelta(days=1),
        ignore_downstream_trigger_rules=True,
        retries=0,
        doc_md="Wait until a person approves the list.",
    )
    planned = task(tasks.plan_batches)(approved=described)
    described >> approve >> planned
    send_and_report(planned)


instore_resend()
