"""The metrics leave: a real listener hears them as Airflow's own statsd and OpenTelemetry clients send them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.instore.ledger import Ledger
from tests.alerts.collector import Collector, Heard
from tests.instore import given
from tests.servers import needed

ROOT = Path(__file__).parents[2]
RULES, DASHBOARD = ROOT / "deploy/prometheus-rules.yaml", ROOT / "deploy/grafana-dashboard.json"
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


COUNTERS = {
    "runs.manual": 1,
    "red": 0,
    "alerts": 0,
    "alerts_failed": 0,
    "received": 31,
    "orders": 30,
    "quarantined": 1,
    "quarantined_by_reason.bad_value": 1,
    "sent": 0,
    "carried_over": 30,
    "unread_bytes": 0,
}
GAUGES = {"set_aside.bad_value": 1, "set_aside.held": 0, "ledger.ready": 30, "ledger.sent": 0}


@pytest.fixture(scope="module")
def ledger_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of thirty orders that wait since an hour, and one record in quarantine."""
    path: Path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with closing(Ledger(f"sqlite:///{path}")) as ledger:
        ledger.migrate()
        documents = [given.document(f"S{number}") for number in range(30)]
        given.landed(ledger, *documents, refusals=[given.refused(reason="bad_value")])
        given.set_orders(ledger, status="ready", received_at=given.hours_ago(1))
    return path


def report(ledger_file: Path, **env: str) -> str:
    """Have task report_run report, in a process of its own; what it logged."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
    ledger = json.dumps({"conn_type": "sqlite", "host": str(ledger_file)})
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "AIRFLOW_CONN_INSTORE_LEDGER": ledger, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_counts_and_ages_leave_by_statsd(ledger_file: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        report(
            ledger_file,
            AIRFLOW__METRICS__STATSD_ON="True",
            AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
            AIRFLOW__METRICS__STATSD_PORT=str(listener.getsockname()[1]),
        )
        heard = {}
        while "airflow.instore.ledger.unmatched" not in heard:  # the last that is sent
            name, _, value = listener.recv(1024).decode().partition(":")
            heard[name] = value
    expected = {name: f"{value}|c" for name, value in COUNTERS.items()}
    expected |= {name: f"{value}|g" for name, value in GAUGES.items()}
    assert {name: heard.get(f"airflow.instore.{name}") for name in expected} == expected
    seconds, _, kind = heard["airflow.instore.oldest_unsent_seconds"].partition("|")
    assert 3600 <= int(seconds) < 3720
    assert kind == "g"
    assert "airflow.instore.oldest_message_seconds" not in heard  # nobody looked at the bus


@pytest.fixture(scope="module")
def collected(ledger_file: Path) -> dict[str, Heard]:
    """What a collector hears of a report, with the switches of docs/runbook.md."""
    with Collector().running() as collector:
        report(
            ledger_file,
            AIRFLOW__METRICS__OTEL_ON="True",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{collector.port}/v1/metrics",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        )
    return collector.heard


def prometheus(name: str) -> str:
    return f"airflow_instore_{name.replace('.', '_')}"


def test_counts_and_ages_leave_by_opentelemetry(collected: dict[str, Heard]) -> None:
    expected = {f"{prometheus(name)}_total": Heard("counter", value) for name, value in COUNTERS.items()}
    expected |= {prometheus(name): Heard("gauge", value) for name, value in GAUGES.items()}
    assert {name: collected.get(name) for name in expected} == expected
    age = collected["airflow_instore_oldest_unsent_seconds"]
    assert age.kind == "gauge"
    assert 3600 <= age.value < 3720


def asked_for() -> dict[str, list[str]]:
    """Page to the queries of its panels or rules."""
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text())
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        RULES.name: [rule["expr"] for group in rules["groups"] for rule in group["rules"]],
        DASHBOARD.name: [target["expr"] for panel in panels for target in panel.get("targets", ())],
    }


@pytest.mark.parametrize("page", [RULES.name, DASHBOARD.name])
def test_dashboard_and_rules_ask_for_metrics_that_a_collector_hears(page: str, collected: dict[str, Heard]) -> None:
    queries = asked_for()[page]
    asked = {name for query in queries for name in re.findall(r"\bairflow_instore_\w+", query)}
    of_runs_of_another_kind = {f"airflow_instore_runs_{kind}_total" for kind in ("scheduled", "backfill", "cleared")}
    only_where_the_bus_is_drained = {"airflow_instore_oldest_message_seconds", "airflow_instore_dead_letters_on_bus"}
    assert len(asked) >= 8
    assert asked - set(collected) <= of_runs_of_another_kind | only_where_the_bus_is_drained


def test_every_rule_says_what_to_do() -> None:
    pages = (ROOT / "docs/runbook.md").read_text()
    headings = {re.sub(r"[^\w\- ]", "", line[3:].lower()).replace(" ", "-") for line in pages.splitlines()}
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"].endswith(".")
            page, _, section = rule["annotations"]["runbook"].partition("#")
            assert (page, section in headings) == ("docs/runbook.md", True), rule["alert"]


def test_prometheus_takes_the_rules_and_they_fire_as_they_say() -> None:
    promtool = needed("promtool", "promtool (Debian's prometheus)")
    for command in (
        ["check", "rules", str(RULES)],
        ["test", "rules", str(RULES.with_name("prometheus-rules-test.yaml"))],
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
