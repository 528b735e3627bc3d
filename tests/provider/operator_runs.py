"""Run as a process of its own: one DAG after the other through `dag.test()`, what Airflow stored of each as JSON lines.

The wires are in the parent process; each DAG has a connection `store_<dag_id>` in the environment.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from instore_provider.operators.profile_store import ProfileStoreTrackOperator

MARK = "@@@ "
ONCE = {"max_attempts": 1, "first_wait": 0.001}


def orders(count: int) -> list[dict[str, Any]]:
    return [
        {
            "eventType": "StorePurchase",
            "user": {"email": f"canary{n}@example.com"},
            "payload": {"orderNumber": f"S{n}", "note": "{{ 1/0 }} and {{ ds"},
        }
        for n in range(count)
    ]


def tracked(count: int) -> list[dict[str, Any]]:
    return [{**event, "trackId": f"t{n}"} for n, event in enumerate(orders(count))]


def dags() -> dict[str, DAG]:
    made: dict[str, DAG] = {}

    def send(dag_id: str, events: Any, **arguments: Any) -> None:
        with DAG(dag_id, schedule=None) as dag:

            @task(show_return_value_in_logs=False)  # or Airflow logs every event
            def fetch() -> Any:
                return events

            ProfileStoreTrackOperator(
                task_id="send",
                events=fetch(),
                profile_store_conn_id="store_{{ dag.dag_id }}",
                retries=1,
                retry_delay=timedelta(0),
                hook_params=ONCE,
                **arguments,
            )
        made[dag_id] = dag

    send("from_upstream", orders(2))
    send("refused", tracked(3))
    send("refused_allowed", tracked(3), fail_on_refused=False)
    send("outage", tracked(4), bulk_size=2)
    send("wrong_key", tracked(2))
    send("verify", tracked(2), verify_after=0.2, verify_every=0.05)
    send("verify_later", tracked(2), verify_after=0.01)
    send("verify_unclear", tracked(2), verify_after=0.01)
    send("timed_out", tracked(2), verify_after=0.01, execution_timeout=timedelta(seconds=1.5))
    send("verify_without_reading", tracked(2))
    send("hold", tracked(2), on_ambiguous="hold")
    send("resend", tracked(2), on_ambiguous="resend")
    send("switched_off", tracked(2), enable=False)
    send("one_by_one", tracked(2), bulk_size=1)

    with DAG("literal", schedule=None) as literal:
        ProfileStoreTrackOperator(
            task_id="send", events=orders(2), profile_store_conn_id="store_literal", hook_params=ONCE
        )
    made["literal"] = literal

    with DAG("mapped", schedule=None) as mapped:

        @task(show_return_value_in_logs=False)  # or Airflow logs every event
        def fetch_batches() -> Any:
            return [tracked(1), tracked(2)]

        ProfileStoreTrackOperator.partial(
            task_id="send", profile_store_conn_id="store_mapped", hook_params=ONCE
        ).expand(events=fetch_batches())
    made["mapped"] = mapped
    return made


def stored_of(dag_id: str, run_id: str) -> dict[str, Any]:
    """What Airflow keeps of a run, for everybody who may see it."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        instances = session.query(TaskInstance).filter_by(run_id=run_id, dag_id=dag_id, task_id="send").all()
        xcoms = session.query(XComModel).filter_by(run_id=run_id, dag_id=dag_id, task_id="send").all()
        rendered = session.query(RenderedTaskInstanceFields).filter_by(run_id=run_id, dag_id=dag_id).all()
        serialized = session.query(SerializedDagModel).filter_by(dag_id=dag_id).first()
        return {
            "states": [each.state for each in instances],
            "tries": [each.try_number for each in instances],
            "xcoms": [{"key": each.key, "value": each.value} for each in xcoms],
            "rendered": [each.rendered_fields for each in rendered if each.task_id == "send"],
            "serialized": json.dumps(serialized.data) if serialized else "",
        }


def main() -> None:
    for dag_id, dag in dags().items():
        sys.stderr.flush()
        print(f"{MARK}{dag_id}", flush=True)  # noqa: T201
        run = dag.test()
        print(f"{MARK}{json.dumps(stored_of(dag_id, run.run_id), default=str)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
