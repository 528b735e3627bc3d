"""One task of the pipeline in a process of its own, as Airflow runs it: the real functions of the glue.

The process is forked from a warm one that has everything imported, so a step costs tens of milliseconds instead of
three seconds; connections come from ``AIRFLOW_CONN_*``, the dag run is a plain object, and no scheduler is involved.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import traceback
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WARM = [
    "include.instore_airflow.tasks",
    "include.instore.destinations.delivery",
    "include.instore.sources.extracts",
    "include.instore_airflow.alerting",
    "include.instore.sources.bus",
    "include.instore.ledger.alerts",
    "include.instore.ledger.claims",
    "include.instore.ledger.services",
    "include.instore.runs.planning",
    "include.instore.customers.lookup",
    "include.instore.runs.report",
    "include.instore.sources.service_bus",
    "include.instore.model.windows",
    "instore_provider.hooks.loyalty",
    "instore_provider.hooks.profile_store",
    "instore_provider.breaker",
    "airflow.providers.microsoft.azure.fs.adls",
    "airflow.providers.microsoft.azure.fs.msgraph",
    "airflow.providers.microsoft.azure.hooks.asb",
    "airflow.sdk.exceptions",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.lineage",
    "airflow.sdk.observability.stats",
    "alembic.command",
    "alembic.config",
    "azure.servicebus._pyamqp",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "upath.implementations.local",
    "fsspec.implementations.local",
    "email.mime.text",
    "tests.faults.clock",
    "tests.faults.step",
]
"""What the warm process imports before it forks."""


def run_step(spec: Mapping[str, Any], result: str, log: str) -> None:
    """Run one task and write what it came to: ``{"state": "success", "value": …}`` or failed with its reason.

    A process that was killed leaves no result.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, force=True, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    logging.captureWarnings(True)
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "INSTORE_"))]:
        del os.environ[name]
    os.environ.update(spec["env"])
    if limit := spec.get("file_size_limit"):
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with EFBIG instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if pragma := spec.get("pragma"):
        _on_every_sqlite_connection(pragma)
    if shift := spec.get("clock"):
        from tests.faults.clock import shift_clock

        shift_clock(**shift)
    if fault := spec.get("fault"):
        from tests.faults.fatal_place import FatalPlace

        FatalPlace(fault)
    document = _outcome(spec)
    part = Path(f"{result}.part")
    part.write_text(json.dumps(document))
    part.replace(result)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # like a task process that is done; interpreter teardown would only cost time


def _on_every_sqlite_connection(pragma: str) -> None:
    """A disk that is full or read-only, without the right to mount one: SQLite's own errors for both."""
    import sqlalchemy as sa

    sa.event.listen(sa.engine.Engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))


def _outcome(spec: Mapping[str, Any]) -> dict[str, Any]:
    from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

    ti = _TaskInstance(spec)
    try:
        value = _call(spec, ti)
    except AirflowRescheduleException:
        return {"state": "rescheduled"}
    except AirflowFailException as error:
        _tell(error)
        return {"state": "failed", "fatal": True, "error": str(error), "kind": type(error).__name__, "pushed": ti.xcom}
    except Exception as error:
        _tell(error)
        return {"state": "failed", "fatal": False, "error": str(error), "kind": type(error).__name__, "pushed": ti.xcom}
    return {"state": "success", "value": value}


def _tell(error: Exception) -> None:
    # As the task log has it: the whole traceback, with everything an exception may carry.
    logging.getLogger("task").error("Task failed\n%s", "".join(traceback.format_exception(error)))


def _call(spec: Mapping[str, Any], ti: _TaskInstance) -> Any:
    from include.instore_airflow import tasks

    run = spec["run"]
    dag_run = SimpleNamespace(
        dag_id=run.get("dag_id", "instore_orders"),
        run_id=run["run_id"],
        run_type=run["run_type"],
        data_interval_start=_moment(run.get("start")),
        data_interval_end=_moment(run.get("end")),
        clear_number=run.get("clear_number", 0),
    )
    params, task = run.get("params", {}), spec["task"]
    if task == "send_events":
        operator = tasks.SendEventsOperator(task_id="send_events", batch=spec["batch"], destination="profile_store")
        return operator.execute({"dag_run": dag_run, "params": params, "ti": ti})  # type: ignore[typeddict-item]
    if task == "look_up_customers":
        return tasks.look_up_customers(dag_run, params, spec["batch"])
    if task == "report_run":
        return tasks.report_run(dag_run, params, ti)
    return getattr(tasks, task)(dag_run, params)


class _TaskInstance:
    """What the tasks ask of Airflow's own."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.dag_id = spec["run"].get("dag_id", "instore_orders")
        self.run_id = spec["run"]["run_id"]
        self._states = spec.get("task_states", {})
        self.xcom: Any = None

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str]]:
        return {self.run_id: self._states}

    def xcom_pull(self, **_: Any) -> list[Any]:
        return []

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.xcom = value


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
