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


def ended(home: Path, airflow_database: Path, webhook: Webhook, **more: str) -> tuple[str, str]:
    """A run of the DAG by dag.test(): its state, logical date and id; and what its tasks logged."""
    shutil.copy(airflow_database, home / "airflow.db")
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW_CONN_INSTORE_ALERTS": json.dumps({"conn_type": "generic", "password": webhook.url}),
        "INSTORE_DEADLINE_MINUTES": "0",  # dag.test() of 3.3.2 breaks on any deadline: it never gave it an id
        **more,
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
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_a_run_whose_report_fails_as_well_is_told_by_the_dag_s_callback(
    tmp_path: Path, webhook: Webhook, airflow_database: Path
) -> None:
    """The connection of the ledger is missing, without which not even the report can run."""
    last, _ = ended(tmp_path, airflow_database, webhook)
    state, _, run_id = last.partition(" ")
    assert state == "failed"
    assert webhook.titles == ["The run failed without a report"]
    told = webhook.told[0]["message"]
    assert "docs/runbook.md#the-run-failed-without-a-report" in told
    assert run_id.split()[-1].partition("__")[0] in told


def test_a_failing_task_ends_its_log_in_one_sentence_which_its_alert_has_as_well(
    tmp_path: Path, webhook: Webhook, airflow_database: Path
) -> None:
    ledger = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")})
    last, log = ended(
        tmp_path, airflow_database, webhook, AIRFLOW_CONN_INSTORE_LEDGER=ledger, INSTORE_USE_TOPIC="False"
    )
    assert last.startswith("failed")
    why = "Connection instore_extracts is missing; create it"
    assert webhook.titles == ["Task load_extracts failed"]
    told = webhook.told[0]["message"]
    assert f"Task load_extracts failed, tried once: {why}" in told  # nobody can mend it by trying again
    assert "/tasks/load_extracts?try_number=1" in told
    of_task = log[log.index("Traceback") :].partition("Task failed with exception")[0]  # behind it the report's own
    assert why in of_task.splitlines()[-2], of_task
    assert "alerting.callbacks" in of_task.splitlines()[-2]


def test_logs_are_lines_of_json_where_airflow_is_told_so(
    tmp_path: Path, webhook: Webhook, airflow_database: Path
) -> None:
    ledger = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")})
    told_so = {"AIRFLOW__LOGGING__JSON_LOGS": "True", "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"}
    last, log = ended(
        tmp_path, airflow_database, webhook, AIRFLOW_CONN_INSTORE_LEDGER=ledger, INSTORE_USE_TOPIC="False", **told_so
    )
    lines = [json.loads(line) for line in log.splitlines() if line != last]
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    errors = [line["event"] for line in lines if line["level"] == "error"]
    assert [each for each in errors if each.startswith("Connection instore_extracts is missing; create it")]
