"""Delivering messages to the channels of connection ``instore_alerts``, and what stands in them.

The texts are those of :mod:`include.instore.runs.alerts`, for a run as
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
from include.instore_airflow.connections import ALERTS, CONNECTIONS, get_connection
from include.instore_airflow.page_links import PREFIX, base_url, place_of
from include.instore_airflow.retry_policy import TryAgain

if TYPE_CHECKING:
    from include.instore.ledger import Ledger
    from include.instore.ledger.alerts import Waiting
    from include.instore.model.settings import AlertSettings
    from include.instore.runs.alerts import Alert

log = logging.getLogger(__name__)


def deliver_waiting(ledger: Ledger, run_id: str) -> dict[str, Any]:
    """Deliver what waits to be told, and remember what was; the causes told and how many could not be."""
    from include.instore.ledger.alerts import NOBODY, TOLD, mark, waiting

    messages = waiting(ledger, run_id)
    if not _is_there():
        mark(ledger, messages, NOBODY)
        return {"alerts": [], "alerts_failed": 0}
    told = _delivered(messages)
    mark(ledger, told, TOLD)
    return {"alerts": sorted({each.cause for each in told}), "alerts_failed": len(messages) - len(told)}


def deliver_unremembered(text: tuple[str, str], cause: str = "") -> bool:
    """Deliver an alert without the ledger, whose failure may be its cause; False: no channel took it."""
    from include.instore.ledger.alerts import Waiting

    return not _is_there() or bool(_delivered([Waiting("", cause, *text)]))


def _is_there() -> bool:
    try:
        get_connection(ALERTS)
    except ConfigurationError:
        log.info("Connection %s is missing, so nobody is notified; create it as %s.", ALERTS, CONNECTIONS[ALERTS])
        return False
    return True


def _delivered(messages: Sequence[Waiting]) -> list[Waiting]:
    """Those of the messages that at least one channel took; each channel that did not take one is logged."""
    from instore_provider.errors import ConfigurationError as WrongConnection
    from instore_provider.hooks.alerts import AlertsHook

    taken = []
    for message in messages:
        kind = "success" if message.cause == RECOVERED else "warning" if is_soft(message.cause) else "failure"
        try:
            said = AlertsHook(ALERTS).deliver(message.title, message.text, kind)
        except WrongConnection as error:
            said = [str(error)]
        for number, fault in enumerate(said, 1):
            if fault:
                log.error("%s", fault)
            else:
                log.info("URL %d of connection %s took: %s", number, ALERTS, message.title)
        if not all(said):
            taken.append(message)
    return taken


def text_of(
    alert: Alert, run: Run, counts: Mapping[str, Any] | None, settings: AlertSettings, dag_id: str,
    ledger: Ledger | None = None,
) -> tuple[str, str]:  # fmt: skip
    """Title and text of an alert of a run, with the link to what it is about.

    :param ledger: in which that is looked up; None: the link is to a list, if there is one.
    """
    from include.instore.runs.alerts import alert_text, run_in_words

    window = str(run.window) if run.window else None
    said_of = (alert.codes[0], alert.cause) if len(set(alert.codes)) == 1 else (alert.cause,)
    about = next(filter(None, (place_of(each, ledger, run.run_id) for each in said_of)), "")
    return alert_text(
        alert,
        run=run_in_words(run.kind, airflows_id(run, dag_id), window, dry_run=run.dry_run),
        counts=counts,
        runbook=settings.runbook_url,
        link=run_link(dag_id, airflows_id(run, dag_id)),
        about=f"{base_url()}{PREFIX}{about}" if about else "",
    )


def run_link(dag_id: str, run_id: str) -> str:
    """The run's page in the UI."""
    return f"{base_url()}/dags/{dag_id}/runs/{quote(run_id)}"


def airflows_id(run: Run, dag_id: str) -> str:
    return run.tries[0].removeprefix(f"{dag_id}/")


def harmless(error: Exception) -> str:
    """Our own sentences hold no secret; of anybody else's error only the kind."""
    from airflow.sdk.exceptions import AirflowFailException

    return str(error) if isinstance(error, InStoreError | AirflowFailException | TryAgain) else type(error).__name__
