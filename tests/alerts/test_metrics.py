"""The metrics leave: a real listener hears them as Airflow's own statsd client sends them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from include.instore.ledger import Ledger
from tests.instore import given

ROOT = Path(__file__).parents[2]
REPORT = """
from types import SimpleNamespace
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from include.instore_airflow import tasks
# As the task runner begins each task.
stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
no_window = {"data_interval_start": None, "data_interval_end": None}
run = SimpleNamespace(dag_id="instore_orders", run_id="run-1", run_type="manual", clear_number=0, **no_window)
ti = SimpleNamespace(dag_id="d", run_id="run-1", get_task_states=lambda **_: {})
tasks.report_run(run, {"drain_topic": False}, ti)
"""


def test_counts_and_ages_leave_by_statsd(tmp_path: Path) -> None:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger:
        ledger.migrate()
        documents = [given.document(f"S{number}") for number in range(30)]
        given.landed(ledger, *documents, refusals=[given.refused(reason="bad_value")])
        given.set_orders(ledger, status="ready", received_at=given.hours_ago(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]),
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(listener.getsockname()[1]),
            "AIRFLOW_CONN_INSTORE_LEDGER": json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}),
        }
        done = subprocess.run(
            [sys.executable, "-c", REPORT], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        heard = {}
        while "airflow.instore.ledger.unmatched" not in heard:  # the last that is sent
            name, _, value = listener.recv(1024).decode().partition(":")
            heard[name] = value
    expected = {
        "runs.manual": "1|c",
        "red": "0|c",
        "alerts": "0|c",
        "alerts_failed": "0|c",
        "received": "31|c",
        "orders": "30|c",
        "quarantined": "1|c",
        "quarantined_by_reason.bad_value": "1|c",
        "sent": "0|c",
        "carried_over": "30|c",
        "set_aside.bad_value": "1|g",
        "set_aside.held": "0|g",
        "unread_bytes": "0|c",
        "ledger.ready": "30|g",
        "ledger.sent": "0|g",
    }
    assert {name: heard.get(f"airflow.instore.{name}") for name in expected} == expected
    seconds, _, kind = heard["airflow.instore.oldest_unsent_seconds"].partition("|")
    assert 3600 <= int(seconds) < 3720
    assert kind == "g"
    assert "airflow.instore.oldest_message_seconds" not in heard  # nobody looked at the bus
