"""A run that fails together with its report, in Airflow's own hands: the DAG's callback tells it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.alerts.channels import Webhook

ROOT = Path(__file__).parents[2]


def test_a_run_whose_report_fails_as_well_is_told_by_the_dag_s_callback(
    tmp_path: Path, webhook: Webhook, airflow_database: Path
) -> None:
    """The connection of the ledger is missing, without which not even the report can run."""
    shutil.copy(airflow_database, tmp_path / "airflow.db")
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW_CONN_INSTORE_ALERTS": json.dumps({"conn_type": "generic", "password": webhook.url}),
        "INSTORE_DEADLINE_MINUTES": "0",  # dag.test() of 3.3.2 breaks on any deadline: it never gave it an id
    }
    script = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        "run = DagBag('dags').dags['instore_orders'].test()\n"
        "print(run.state.value, run.logical_date, run.run_id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state, _, run_id = done.stdout.splitlines()[-1].partition(" ")
    assert state == "failed"
    assert webhook.titles == ["The run failed without a report"]
    told = webhook.told[0]["message"]
    assert "docs/runbook.md#the-run-failed-without-a-report" in told
    assert run_id.split()[-1].partition("__")[0] in told
