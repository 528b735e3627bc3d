"""What only Airflow's callbacks can see: a run that ended without its report, and one that is not done in time.

``run_failed`` runs in the dag-processor, ``deadline_missed`` in the triggerer. Airflow swallows an error in those, so
they use no templates and stand on their own feet.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from include.instore.model.codes import NO_REPORT
from include.instore.model.errors import ConfigurationError
from include.instore.model.windows import Run, RunParams, resolve_run
from include.instore_airflow.alerting.channels import deliver_unremembered, deliver_waiting, harmless, run_link, text_of
from include.instore_airflow.connections import open_ledger

if TYPE_CHECKING:
    from include.instore.ledger import Ledger
    from include.instore.model.settings import Settings
    from include.instore.runs.alerts import Alert

log = logging.getLogger(__name__)


def run_failed(context: Mapping[str, Any]) -> None:
    """The DAG's failure callback: tell what the report did not tell, and try again what could not be delivered."""
    from include.instore.runs.alerts import no_report_alert

    dag_run = context.get("dag_run") or _bare_dag_run(context["dag"].dag_id, context["run_id"])
    _tell(no_report_alert(str(context.get("reason") or "")), _run_of(dag_run), context["dag"].dag_id)


def maintenance_failed(context: Mapping[str, Any]) -> None:
    """The failure callback of the DAGs beside the hourly one: one alert for each failed run."""
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    text = (
        f"A run of DAG {dag_id} failed. The log of its task ends in one sentence that says why and what to do.\n"
        f"Runbook: A maintenance run failed\n{run_link(dag_id, run_id)}"
    )
    deliver_unremembered((f"In-store orders: {dag_id} failed", text))


def say_why(context: Mapping[str, Any]) -> None:
    """A task's failure and retry callback: its sentence as the last line of its log, behind Airflow's traceback."""
    if isinstance(error := context.get("exception"), Exception):
        log.error("%s", harmless(error))


async def deadline_missed(context: Mapping[str, Any]) -> None:
    """The deadline's callback, in the triggerer, whose loop must not wait for a mail server."""
    import asyncio

    await asyncio.to_thread(_tell_deadline, context)


def deadline() -> Any:
    """The DAG's deadline, counted from when the run was queued: that moment every run has. None: switched off."""
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert
    from instore_provider.deadlines import RunQueuedDeadline

    minutes = _settings().alerts.deadline_minutes
    if not minutes:
        return None
    return DeadlineAlert(
        reference=RunQueuedDeadline(), interval=timedelta(minutes=minutes), callback=AsyncCallback(deadline_missed)
    )


def _tell_deadline(context: Mapping[str, Any]) -> None:
    from include.instore.runs.alerts import deadline_alert

    told = context["dag_run"]
    if told["state"] in ("success", "failed"):
        return  # it ended meanwhile; a red run has sent its own alert
    if told["run_type"] == "backfill" and told["state"] == "queued":
        return  # many are created at once and wait for their turn
    settings, queued_at = _settings().alerts, _moment(told.get("queued_at"))
    if queued_at is not None and datetime.now(timezone.utc) - queued_at < timedelta(minutes=settings.deadline_minutes):
        return  # it was cleared meanwhile; who clears a run looks at it
    dates = ("data_interval_start", "data_interval_end", "logical_date", "run_after")
    fields = {name: _moment(told.get(name)) for name in dates}
    fields |= {"dag_id": told["dag_id"], "run_id": told["dag_run_id"], "run_type": told["run_type"]}
    dag_run = SimpleNamespace(conf=told.get("conf"), clear_number=0, **fields)
    _tell(deadline_alert(settings.deadline_minutes, told["state"]), _run_of(dag_run), told["dag_id"])


def _tell(alert: Alert, run: Run, dag_id: str) -> None:
    """Deliver it, and remember that; a run of which it is known why it failed has no use for one without a report."""
    from include.instore.ledger.alerts import knows_why, remember

    text = text_of(alert, run, None, _settings().alerts, dag_id)
    with _ledger_if_possible() as ledger:
        if ledger is None:
            deliver_unremembered(text)
            return
        if alert.cause != NO_REPORT or not knows_why(ledger, run.tries[-1]):
            remember(ledger, run, red={alert.cause: text})
        deliver_waiting(ledger, run.tries[-1])


def _run_of(dag_run: Any) -> Run:
    """The run behind a callback's dag run, also where its params or dates are wrong, which may be why it failed."""
    try:
        return resolve_run(dag_run, RunParams.of(dag_run.conf or {}))
    except ConfigurationError:
        bare = _bare_dag_run(dag_run.dag_id, dag_run.run_id)
        bare.run_type, bare.clear_number = dag_run.run_type, dag_run.clear_number
        return resolve_run(bare, RunParams())


def _bare_dag_run(dag_id: str, run_id: str) -> Any:
    """Airflow hands a callback no dag run where no task of it ever was."""
    kind, no_dates = run_id.partition("__")[0], dict.fromkeys(("data_interval_start", "data_interval_end"))
    kind = kind if kind in ("manual", "backfill", "asset_triggered") else "scheduled"
    return SimpleNamespace(dag_id=dag_id, run_id=run_id, run_type=kind, clear_number=0, conf=None, **no_dates)


def _settings() -> Settings:
    """The settings, or their defaults where one is wrong: every task says so, and it must not hide an alert."""
    from include.instore.model.settings import Settings, load_settings

    try:
        return load_settings()
    except ConfigurationError:
        return Settings.model_construct()


@contextlib.contextmanager
def _ledger_if_possible() -> Iterator[Ledger | None]:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        ledger = open_ledger(_settings(), by_any_key=True)
    except Exception as error:
        log.warning("the ledger cannot be used, so this alert may be sent twice: %s", harmless(error))
        yield None
        return
    with contextlib.closing(ledger):
        yield ledger


def _moment(value: Any) -> datetime | None:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
