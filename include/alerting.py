"""Telling a person: what :mod:`include.instore.alerts` judges, through Apprise, and the metrics.

Everything is told by the report task, which sees all others. Only what it cannot see comes by callbacks: a run that
ended without its report (``run_failed``, in the dag-processor) and one that is not done in time (``deadline_missed``,
in the triggerer). Airflow swallows an error in those, so they use no templates and stand on their own feet.

The channels are the URLs of connection ``instore_alerts``. They hold tokens and are never logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from include.log_levels import at_level

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from include.instore.alerts import Ages, Alert
    from include.instore.ledger import Ledger
    from include.instore.ledger.alerts import Waiting
    from include.instore.report import Report
    from include.instore.settings import Settings
    from include.instore.windows import Run

ALERTS = "instore_alerts"
CHANNELS = (
    "Generic, with one or several Apprise URLs, spaces between them, as password: mailtos://, msteams://, slack://, "
    "pagerduty:// and a hundred more"
)
METRICS = "instore"

_DELIVERY_SECONDS = 60

log = logging.getLogger(__name__)


def tell_report(
    run: Run, ledger: Ledger, reported: Report, failed_tasks: Sequence[str], settings: Settings, dag_id: str
) -> dict[str, Any]:
    """Tell what this run's report means and send its metrics; what the report says of it.

    An error in here is logged and counted as ``alerts_failed``: it must not hide why the run is red.

    :param ledger: the real one, also of a dry run.
    """
    from include.instore.alerts import red_alerts

    told: dict[str, Any] = {"alerts": [], "alerts_failed": 0}
    try:
        ages = _ages(run, ledger, failed_tasks, settings)
        told |= {
            "oldest_unsent_seconds": round(ages.oldest_unsent),
            "oldest_message_seconds": None if ages.oldest_message is None else round(ages.oldest_message),
            "dead_letters_on_bus": ages.dead_letters,
        }
        _write_down(run, ledger, reported, failed_tasks, ages, settings, dag_id)
        told |= _deliver_waiting(ledger, run.tries[-1])
    except Exception as error:
        _log_failure(error)
        told["alerts_failed"] = max(1, len(red_alerts(failed_tasks, reported.red_by_cause)))
    if not run.dry_run:
        _send_metrics(reported.document | told, red=bool(reported.red))
    return told


def run_failed(context: Mapping[str, Any]) -> None:
    """The DAG's failure callback: tell what the report did not tell, and try again what could not be delivered."""
    from include.instore.alerts import no_report_alert
    from include.instore.ledger.alerts import knows_why, remember, waiting

    dag_run = context.get("dag_run") or _bare_dag_run(context["run_id"])
    run, settings = _run_of(dag_run), _settings()
    text = _text_of(no_report_alert(str(context.get("reason") or "")), run, None, settings, context["dag"].dag_id)
    key = run.tries[-1]
    with _ledger_if_possible() as ledger:
        if ledger is None:
            _deliver_unremembered(key, text)
            return
        if not knows_why(ledger, key):
            remember(ledger, run, red={"no_report": text})
        if waiting(ledger, key):
            _deliver_waiting(ledger, key)


async def deadline_missed(context: Mapping[str, Any]) -> None:
    """The deadline's callback, in the triggerer, whose loop must not wait for a mail server."""
    import asyncio

    await asyncio.to_thread(_tell_deadline, context)


def deadline() -> Any:
    """The DAG's deadline, counted from when the run was queued: that moment every run has. None: switched off."""
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert
    from instore_provider.deadlines import RunQueuedDeadline

    minutes = _settings().deadline_minutes
    if not minutes:
        return None
    return DeadlineAlert(
        reference=RunQueuedDeadline(),
        interval=timedelta(minutes=minutes),
        callback=AsyncCallback(deadline_missed),
    )


def _tell_deadline(context: Mapping[str, Any]) -> None:
    from include.instore.alerts import DEADLINE, deadline_alert
    from include.instore.ledger.alerts import remember

    told = context["dag_run"]
    if told["state"] in ("success", "failed"):
        return  # it ended meanwhile; a red one was told as such
    if told["run_type"] == "backfill" and told["state"] == "queued":
        return  # many are created at once and wait for their turn
    settings, queued_at = _settings(), _moment(told.get("queued_at"))
    if queued_at is not None and datetime.now(timezone.utc) - queued_at < timedelta(minutes=settings.deadline_minutes):
        return  # it was cleared meanwhile; who clears a run looks at it
    fields = {name: _moment(told.get(name)) for name in ("data_interval_start", "data_interval_end")}
    dag_run = SimpleNamespace(
        run_id=told["dag_run_id"], run_type=told["run_type"], conf=told.get("conf"), clear_number=0, **fields
    )
    run = _run_of(dag_run)
    alert = deadline_alert(settings.deadline_minutes, told["state"])
    text = _text_of(alert, run, None, settings, told["dag_id"])
    with _ledger_if_possible() as ledger:
        if ledger is None:
            _deliver_unremembered(run.tries[-1], text)
            return
        remember(ledger, run, red={DEADLINE: text})
        _deliver_waiting(ledger, run.tries[-1])


def _write_down(
    run: Run,
    ledger: Ledger,
    reported: Report,
    failed_tasks: Sequence[str],
    ages: Ages,
    settings: Settings,
    dag_id: str,
) -> None:
    from include.instore.alerts import recovery_text, red_alerts, run_in_words, soft_alerts
    from include.instore.ledger.alerts import remember

    counts = reported.document

    def text(alert: Alert) -> tuple[str, str]:
        return _text_of(alert, run, counts, settings, dag_id)

    def recovery(ended: Mapping[str, tuple[str, int]]) -> tuple[str, str]:
        words = run_in_words(run.kind, _airflows_id(run), counts.get("window"))
        return recovery_text(ended, run=words, counts=counts, link=run_link(dag_id, _airflows_id(run)))

    red = {alert.cause: text(alert) for alert in red_alerts(failed_tasks, reported.red_by_cause)}
    if run.dry_run:  # its failures are told; it neither begins nor ends what lasts
        remember(ledger, run, red=red)
        return
    judged = soft_alerts(counts, ages, settings, shares=run.claims == "due")
    soft = {cause: text(alert) if alert else None for cause, alert in judged.items()}
    remember(ledger, run, red=red, soft=soft, recovery=recovery)


def _ages(run: Run, ledger: Ledger, failed_tasks: Sequence[str], settings: Settings) -> Ages:
    """What is measured in the ledger, and on the bus where this run drained it."""
    from include.instore.errors import InStoreError
    from include.instore.ledger.alerts import measure

    ages = measure(ledger, run.run_id)
    if run.dry_run or not (run.drains_topic and settings.use_topic) or "drain_topic" in failed_tasks:
        return ages
    from include import tasks
    from include.instore.backlog import look

    try:
        backlog = look(tasks.service_bus_client(), settings)
    except InStoreError as error:
        log.warning("the age of the oldest message is not known: %s", error)
        return ages
    return replace(ages, oldest_message=backlog.oldest_message, dead_letters=backlog.dead_letters)


def _deliver_waiting(ledger: Ledger, run_id: str) -> dict[str, Any]:
    """Deliver what waits to be told, and remember what was; the causes told and how many could not be."""
    from include.instore.ledger.alerts import NOBODY, TOLD, mark, waiting

    messages = waiting(ledger, run_id)
    connection = _channels_connection()
    if connection is None:
        mark(ledger, messages, NOBODY)
        return {"alerts": [], "alerts_failed": 0}
    told = _delivered(messages, connection)
    mark(ledger, told, TOLD)
    return {"alerts": sorted({each.cause for each in told}), "alerts_failed": len(messages) - len(told)}


def _deliver_unremembered(run_id: str, text: tuple[str, str]) -> None:
    """The ledger is away, which may be why there is something to tell."""
    from include.instore.ledger.alerts import Waiting

    if connection := _channels_connection():
        _delivered([Waiting(run_id, "", *text)], connection)


def _channels_connection() -> Connection | None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection: Connection = Connection.get(ALERTS)
    except AirflowNotFoundException:
        log.info("Connection %s is missing, so nobody is told of alerts; create it as %s.", ALERTS, CHANNELS)
        return None
    return connection


def _delivered(messages: Sequence[Waiting], connection: Connection) -> list[Waiting]:
    """Those of the messages that at least one channel took; each channel that did not take one is logged."""
    if not messages:
        return []
    urls = _urls(connection)
    if not urls:
        log.error("Connection %s has no URL; give it as %s.", ALERTS, CHANNELS)
        return []
    from apprise import Apprise, NotifyFormat, NotifyType

    from include.instore.alerts import RECOVERED, SOFT

    # Both would write URLs, which are secrets, where they warn or at DEBUG.
    with at_level(logging.CRITICAL + 1, "apprise", "urllib3"):
        channels = []
        for number, url in enumerate(urls, 1):
            channel = Apprise()
            if not channel.add(url):
                log.error("URL %d of connection %s is none that Apprise knows; correct it.", number, ALERTS)
                continue
            channels.append((number, channel))
        told = []
        for message in messages:
            kind = NotifyType.FAILURE
            if message.cause == RECOVERED:
                kind = NotifyType.SUCCESS
            elif message.cause in SOFT:
                kind = NotifyType.WARNING
            taken = False
            for number, channel in channels:
                if channel.notify(
                    message.text,
                    title=message.title,
                    notify_type=kind,
                    body_format=NotifyFormat.TEXT,
                    timeout=_DELIVERY_SECONDS,
                ):
                    taken = True
                    log.info("told by URL %d of connection %s: %s", number, ALERTS, message.title)
                else:
                    log.error("URL %d of connection %s did not take: %s", number, ALERTS, message.title)
            if taken:
                told.append(message)
    return told


def _urls(connection: Connection) -> list[str]:
    """The URLs in the password and in the extra ``urls``, a text or a list."""
    more = connection.extra_dejson.get("urls") or []
    texts = [connection.password or "", *([more] if isinstance(more, str) else more)]
    return [url for text in texts for url in str(text).split()]


def _send_metrics(document: Mapping[str, Any], *, red: bool) -> None:
    """The counts as counters, the ledger's statuses and the ages as gauges, all below ``instore.``."""
    from airflow.sdk.observability import stats

    from include.instore.ledger.tables import Status

    stats.incr(f"{METRICS}.runs.{document['run_kind']}", 1)
    stats.incr(f"{METRICS}.red", int(red))
    stats.incr(f"{METRICS}.alerts", len(document["alerts"]))
    for name, value in document.items():
        if isinstance(value, int) and not isinstance(value, bool) and name not in _GAUGES:
            stats.incr(f"{METRICS}.{name}", value)
        elif name in _DIVIDED:
            for key, count in value.items():
                stats.incr(f"{METRICS}.{name}.{key}", count)
    for name in _GAUGES:
        if document.get(name) is not None:
            stats.gauge(f"{METRICS}.{name}", document[name])
    for status in Status:
        stats.gauge(f"{METRICS}.ledger.{status.value}", document["ledger"].get(status.value, 0))


_DIVIDED = ("quarantined_by_reason", "unmatched_by_outcome")
"""Words of ours; why an event was rejected is the destination's own text."""

_GAUGES = ("oldest_unsent_seconds", "oldest_message_seconds", "dead_letters_on_bus")


def run_link(dag_id: str, run_id: str) -> str:
    """The run's page in the UI."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="http://localhost:8080/")
    return f"{str(base).rstrip('/')}/dags/{dag_id}/runs/{quote(run_id)}"


def _text_of(
    alert: Alert, run: Run, counts: Mapping[str, Any] | None, settings: Settings, dag_id: str
) -> tuple[str, str]:
    from include.instore.alerts import alert_text, run_in_words

    window = str(run.window) if run.window else None
    return alert_text(
        alert,
        run=run_in_words(run.kind, _airflows_id(run), window, dry_run=run.dry_run),
        counts=counts,
        runbook=settings.runbook_url,
        link=run_link(dag_id, _airflows_id(run)),
    )


def _airflows_id(run: Run) -> str:
    return run.tries[0]


def _run_of(dag_run: Any) -> Run:
    """The run behind a callback's dag run, also where its params are wrong, which may be why it failed."""
    from include.instore.errors import ConfigurationError
    from include.instore.windows import resolve_run

    try:
        return resolve_run(dag_run, dag_run.conf or {})
    except ConfigurationError:
        return resolve_run(dag_run, {})


def _bare_dag_run(run_id: str) -> Any:
    """Airflow hands a callback no dag run where no task of it ever was."""
    kind = run_id.partition("__")[0]
    return SimpleNamespace(
        run_id=run_id,
        run_type=kind if kind in ("manual", "backfill") else "scheduled",
        data_interval_start=None,
        data_interval_end=None,
        clear_number=0,
        conf=None,
    )


def _settings() -> Settings:
    """The settings, or their defaults where one is wrong: that is told by every task, and must not hide an alert."""
    from include.instore.errors import ConfigurationError
    from include.instore.settings import Settings, load_settings

    try:
        return load_settings()
    except ConfigurationError:
        return Settings.model_construct()


@contextlib.contextmanager
def _ledger_if_possible() -> Iterator[Ledger | None]:
    from include import tasks

    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        ledger = tasks.open_ledger()
    except Exception as error:
        log.warning("the ledger is not at hand, so this may be told twice: %s", _harmless(error))
        yield None
        return
    with contextlib.closing(ledger):
        yield ledger


def _moment(value: Any) -> datetime | None:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value


def _log_failure(error: Exception) -> None:
    log.error("The alerts of this run could not be given: %s", _harmless(error))


def _harmless(error: Exception) -> str:
    """Our own sentences hold no secret; of anybody else's error only the kind."""
    from include.instore.errors import InStoreError

    return str(error) if isinstance(error, InStoreError) else type(error).__name__
