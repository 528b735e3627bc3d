"""What a run's report means to people: judged by include.instore.runs.alerts, remembered, delivered, measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from include.instore.model.codes import BAD_SHARE, CODES, LOOK_UP_FAILED, Kind
from include.instore.model.errors import InStoreError
from include.instore.model.windows import Run
from include.instore_airflow.alerting.channels import airflows_id, deliver_waiting, harmless, run_link, text_of
from include.instore_airflow.connections import service_bus_admin, service_bus_client

if TYPE_CHECKING:
    from include.instore.ledger import Ledger
    from include.instore.ledger.alerts import Ages
    from include.instore.model.settings import Settings
    from include.instore.runs.alerts import Alert
    from include.instore.runs.report import Failure, Report

METRICS = "instore"
LEDGER_WIDE = [code for code in CODES.values() if code.kind in (Kind.REFUSED, Kind.FILE, Kind.EVENT)]
"""What waits in the ledger by these codes is a gauge each."""

_BEHIND = 3600
"""Seconds: an older message on the bus, and what came last is not known."""

_DIVIDED = ("quarantined_by_reason", "unmatched_by_outcome", "suppressed_by_reason")
"""Words of ours; why an event was rejected is the destination's own text."""

_GAUGES = (
    "in_doubt", "waiting_files", "left_files", "look_ups_failing", "oldest_unsent_seconds", "oldest_message_seconds",
    "dead_letters_on_bus",
    "expired_on_bus", "not_drained", "locked_elsewhere", "deferred",
)  # fmt: skip

log = logging.getLogger(__name__)


def tell_report(
    run: Run, ledger: Ledger, reported: Report, failed: Sequence[Failure], settings: Settings, dag_id: str
) -> dict[str, Any]:
    """Tell what this run's report means and send its metrics; what the report says of it.

    An error in here is logged and counted as ``alerts_failed``: it must not hide why the run is red.

    :param ledger: the real one, also of a dry run.
    """
    from include.instore.runs.alerts import red_alerts

    told: dict[str, Any] = {"alerts": [], "alerts_failed": 0}
    try:
        ages = _ages(run, ledger, failed, settings)
        told |= {
            "oldest_unsent_seconds": round(ages.oldest_unsent),
            "oldest_message_seconds": None if ages.oldest_message is None else round(ages.oldest_message),
            "dead_letters_on_bus": ages.dead_letters,
            "expired_on_bus": ages.expired,
            "on_bus": ages.on_bus,
        }
        _write_down(run, ledger, reported, failed, ages, settings, dag_id)
        told |= deliver_waiting(ledger, run.tries[-1])
    except Exception as error:
        log.error("The alerts of this run could not be sent: %s", harmless(error))
        told["alerts_failed"] = max(1, len(red_alerts(failed, reported.red_by_cause, reported.document)))
    if not run.dry_run:
        send_metrics(reported.document | told, red=bool(reported.red))
    return told


def _write_down(
    run: Run, ledger: Ledger, reported: Report, failed: Sequence[Failure], ages: Ages, settings: Settings, dag_id: str
) -> None:
    from include.instore.ledger.alerts import remember
    from include.instore.runs.alerts import (
        TOLD_BY_BAD_SHARE,
        added_to,
        recovery_text,
        red_alerts,
        run_in_words,
        soft_alerts,
        still_red,
    )

    counts = reported.document

    def text(alert: Alert) -> tuple[str, str]:
        return text_of(alert, run, counts, settings.alerts, dag_id, ledger)

    def recovery(ended: Mapping[str, tuple[str, int]]) -> tuple[str, str]:
        words = run_in_words(run.kind, airflows_id(run, dag_id), counts.get("window"))
        return recovery_text(ended, run=words, counts=counts, link=run_link(dag_id, airflows_id(run, dag_id)))

    red = {alert.cause: text(alert) for alert in red_alerts(failed, reported.red_by_cause, counts)}
    if run.dry_run:  # its failures are alerted; it neither opens nor ends lasting alerts
        remember(ledger, run, red=red)
        return
    judged = soft_alerts(counts, ages, settings, shares=run.claims == "due")
    soft = {cause: text(alert) if alert else None for cause, alert in judged.items()}
    remember(
        ledger, run, red=red, soft=soft, recovery=recovery, lasting=still_red(counts), more=added_to(counts),
        told_by_red=TOLD_BY_BAD_SHARE if BAD_SHARE in red else (),
    )  # fmt: skip


def _ages(run: Run, ledger: Ledger, failed: Sequence[Failure], settings: Settings) -> Ages:
    """What is measured in the ledger, and on the bus where this run drained it."""
    from include.instore.ledger.alerts import measure

    ages, failed_tasks = measure(ledger, run.run_id, settings.alerts.alert_shared), [each.task for each in failed]
    if run.dry_run:
        return ages
    if run.drains_topic and settings.runs.use_topic and "drain_topic" not in failed_tasks:
        from include.instore.sources.bus import counted, look

        try:
            admin = service_bus_admin()
            backlog = look((service_bus_client(), service_bus_client()), settings)
        except InStoreError as error:
            log.warning("the age of the oldest message is not known: %s", error)
        else:
            ages = replace(
                ages, oldest_message=backlog.oldest_message, dead_letters=backlog.dead_letters, expired=backlog.expired,
                on_bus=counted(admin, settings.bus) if admin else "not known: an emulator is not asked",
            )  # fmt: skip
    if run.claims != "due":
        return ages
    from include.instore.ledger.arrivals import first_run_at, recent_arrivals
    from include.instore.ledger.extract_files import waiting_files
    from include.instore.model.states import ExtractState
    from include.instore.runs.silence import silences

    now = datetime.now(timezone.utc)
    feeds = []
    if ages.oldest_message is not None and ages.oldest_message < _BEHIND:
        feeds.append("topic")
    if settings.runs.use_extracts and "load_extracts" not in failed_tasks:
        feeds.append("extract")
        since = now - timedelta(hours=settings.alerts.alert_left_hours)
        left = waiting_files(ledger, states=[ExtractState.LEFT], since=since, limit=10_000)
        ages = replace(ages, left_files=[(each.path, each.detail) for each in left])
    return replace(ages, silences=silences(recent_arrivals(ledger, now), now, feeds, first_run_at(ledger), settings))


def send_metrics(document: Mapping[str, Any], *, red: bool) -> None:
    """The counts as counters, the ledger's statuses and the ages as gauges, all below ``instore.``."""
    from airflow.sdk.observability import stats

    from include.instore.model.states import DeliveryStatus, Status

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
    for code in (*LEDGER_WIDE, LOOK_UP_FAILED):
        stats.gauge(f"{METRICS}.set_aside.{code}", document["set_aside"].get(code, 0))
    for destination, outcomes in document["by_destination"].items():
        for status, count in outcomes.items():
            stats.incr(f"{METRICS}.{destination}.{status}", count)
    for status in sorted({each.value for each in (*Status, *DeliveryStatus)} - {Status.MATCHED.value}):
        stats.gauge(f"{METRICS}.ledger.{status}", document["ledger"].get(status, 0))
