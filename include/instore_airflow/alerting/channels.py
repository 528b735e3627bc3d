"""Delivering messages through Apprise, to the URLs of connection ``instore_alerts``, and what stands in them.

The URLs hold tokens and are never logged. The texts are those of :mod:`include.instore.runs.alerts`, for a run as
Airflow knows it, with the link to its page.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from include.instore.model.codes import RECOVERED, is_soft
from include.instore.model.errors import ConfigurationError, InStoreError
from include.instore.model.windows import Run
from include.instore_airflow.connections import ALERTS, CHANNELS, get_connection
from include.instore_airflow.log_levels import at_level
from include.instore_airflow.retry_policy import TryAgain

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from include.instore.ledger import Ledger
    from include.instore.ledger.alerts import Waiting
    from include.instore.model.settings import AlertSettings
    from include.instore.runs.alerts import Alert

_DELIVERY_SECONDS = 60

log = logging.getLogger(__name__)


def deliver_waiting(ledger: Ledger, run_id: str) -> dict[str, Any]:
    """Deliver what waits to be told, and remember what was; the causes told and how many could not be."""
    from include.instore.ledger.alerts import NOBODY, TOLD, mark, waiting

    messages = waiting(ledger, run_id)
    connection = _connection()
    if connection is None:
        mark(ledger, messages, NOBODY)
        return {"alerts": [], "alerts_failed": 0}
    told = _delivered(messages, connection)
    mark(ledger, told, TOLD)
    return {"alerts": sorted({each.cause for each in told}), "alerts_failed": len(messages) - len(told)}


def deliver_unremembered(run_id: str, text: tuple[str, str]) -> None:
    """The ledger is away, which may be why there is something to tell."""
    from include.instore.ledger.alerts import Waiting

    if connection := _connection():
        _delivered([Waiting(run_id, "", *text)], connection)


def _connection() -> Connection | None:
    try:
        return get_connection(ALERTS)
    except ConfigurationError:
        log.info("Connection %s is missing, so nobody is told of alerts; create it as %s.", ALERTS, CHANNELS)
        return None


def _delivered(messages: Sequence[Waiting], connection: Connection) -> list[Waiting]:
    """Those of the messages that at least one channel took; each channel that did not take one is logged."""
    if not messages:
        return []
    urls = _urls(connection)
    if not urls:
        log.error("Connection %s has no URL; give it as %s.", ALERTS, CHANNELS)
        return []
    from apprise import Apprise, NotifyFormat, NotifyType

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
            success, soft = message.cause == RECOVERED, is_soft(message.cause)
            kind = NotifyType.SUCCESS if success else NotifyType.WARNING if soft else NotifyType.FAILURE
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


def text_of(
    alert: Alert, run: Run, counts: Mapping[str, Any] | None, settings: AlertSettings, dag_id: str
) -> tuple[str, str]:
    from include.instore.runs.alerts import alert_text, run_in_words

    window = str(run.window) if run.window else None
    return alert_text(
        alert,
        run=run_in_words(run.kind, airflows_id(run, dag_id), window, dry_run=run.dry_run),
        counts=counts,
        runbook=settings.runbook_url,
        link=run_link(dag_id, airflows_id(run, dag_id)),
    )


def run_link(dag_id: str, run_id: str) -> str:
    """The run's page in the UI."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="http://localhost:8080/")
    return f"{str(base).rstrip('/')}/dags/{dag_id}/runs/{quote(run_id)}"


def airflows_id(run: Run, dag_id: str) -> str:
    return run.tries[0].removeprefix(f"{dag_id}/")


def harmless(error: Exception) -> str:
    """Our own sentences hold no secret; of anybody else's error only the kind."""
    from airflow.sdk.exceptions import AirflowFailException

    return str(error) if isinstance(error, InStoreError | AirflowFailException | TryAgain) else type(error).__name__


def use_channels(*, send: bool) -> tuple[int, list[str]]:
    """How many channels can be used, and a sentence for each that cannot. :param send: send each a test alert."""
    from apprise import Apprise, NotifyFormat

    urls = _urls(get_connection(ALERTS))
    faults = [] if urls else [f"Connection {ALERTS} has no URL; give it as {CHANNELS}."]
    with at_level(logging.CRITICAL + 1, "apprise", "urllib3"):
        for number, url in enumerate(urls, 1):
            channel, text = Apprise(), "This is a test: somebody checks the connections of the in-store orders."
            if not channel.add(url):
                faults.append(f"URL {number} of connection {ALERTS} is none that Apprise knows; correct it.")
            elif send and not channel.notify(
                text, title="Test alert", body_format=NotifyFormat.TEXT, timeout=_DELIVERY_SECONDS
            ):
                faults.append(f"URL {number} of connection {ALERTS} did not take a test alert; check host and token.")
    return len(urls) - len(faults) if urls else 0, faults
