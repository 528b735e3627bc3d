"""Telling that a run of a DAG beside the hourly one failed, in the dag-processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from include.instore_airflow.alerting.channels import deliver_unremembered, run_link


def maintenance_failed(context: Mapping[str, Any]) -> None:
    """The failure callback of those DAGs: one alert for each failed run."""
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    text = (
        f"A run of DAG {dag_id} failed. The log of its task ends in one sentence that says why and what to do.\n"
        f"Runbook: A maintenance run failed\n{run_link(dag_id, run_id)}"
    )
    deliver_unremembered(f"{dag_id}/{run_id}", (f"In-store orders: {dag_id} failed", text))
