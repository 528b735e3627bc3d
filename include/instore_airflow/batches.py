"""What the DAGs that send share: the defaults of their tasks, and those behind a plan: look up, send, report."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import TriggerRule, result, task_group
from airflow.sdk import task as task_

from include.instore.model.destinations import PROFILE_STORE
from include.instore_airflow import alerting, tasks
from include.instore_airflow.destinations import DESTINATIONS
from include.instore_airflow.page_links import RunPageLink
from include.instore_airflow.retry_policy import RetryByKind
from include.instore_airflow.set_up import POOL_LOYALTY, pool_of

TASK_DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_policy": RetryByKind(),
    "on_failure_callback": alerting.say_why,
    "on_retry_callback": alerting.say_why,
}

task: Any = task_  # whose type does not know an operator's arguments


def send_and_report(planned: Any) -> None:
    """Look up and send each batch of the plan, and report the run."""

    @task_group
    def batch(batch: dict[str, int]) -> None:
        look_up = task(
            tasks.look_up_customers,
            map_index_template="batch {{ task.op_kwargs.batch.batch }}, {{ task.op_kwargs.batch.orders }} orders",
            pool=POOL_LOYALTY,
            multiple_outputs=False,
        )
        look_up(batch=batch) >> [
            tasks.SendEventsOperator(
                task_id="send_events" if destination == PROFILE_STORE else f"send_events_to_{destination}",
                batch=batch,
                destination=destination,
                # A loyalty API that is down must not hold up whose customer is known.
                trigger_rule=TriggerRule.ALL_DONE,
                map_index_template="batch {{ task.batch.batch }}, {{ task.batch.orders }} orders",
                pool=pool_of(destination),
                doc_md="Send the events of the batch's orders that are ready for it, and record what became of each.",
            )
            for destination in DESTINATIONS
        ]

    batches: Any = batch.expand(batch=planned)
    report = result(
        task(
            tasks.report_run, trigger_rule=TriggerRule.ALL_DONE, retries=0, multiple_outputs=False,
            outlets=[tasks.REPORTED],
        )
    )()  # fmt: skip
    report.operator.operator_extra_links = (RunPageLink(),)
    # The report waits for the plan itself, because Airflow counts a mapped task that an earlier time of the run had as
    # done; and for the look-ups, which may be cleared alone.
    [planned, batches, batches.get_child_by_label("look_up_customers")] >> report
