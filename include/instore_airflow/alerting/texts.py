"""The texts of :mod:`include.instore.runs.alerts` for a run as Airflow knows it, with the link to its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from include.instore.model.errors import InStoreError
from include.instore.model.windows import Run

if TYPE_CHECKING:
    from include.instore.model.settings import Settings
    from include.instore.runs.alerts import Alert


def text_of(
    alert: Alert, run: Run, counts: Mapping[str, Any] | None, settings: Settings, dag_id: str
) -> tuple[str, str]:
    from include.instore.runs.alerts import alert_text, run_in_words

    window = str(run.window) if run.window else None
    return alert_text(
        alert,
        run=run_in_words(run.kind, airflows_id(run), window, dry_run=run.dry_run),
        counts=counts,
        runbook=settings.runbook_url,
        link=run_link(dag_id, airflows_id(run)),
    )


def run_link(dag_id: str, run_id: str) -> str:
    """The run's page in the UI."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="http://localhost:8080/")
    return f"{str(base).rstrip('/')}/dags/{dag_id}/runs/{quote(run_id)}"


def airflows_id(run: Run) -> str:
    return run.tries[0]


def harmless(error: Exception) -> str:
    """Our own sentences hold no secret; of anybody else's error only the kind."""
    return str(error) if isinstance(error, InStoreError) else type(error).__name__
