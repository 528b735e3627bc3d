"""The report's counts as metrics, all below ``instore.``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRICS = "instore"

_DIVIDED = ("quarantined_by_reason", "unmatched_by_outcome")
"""Words of ours; why an event was rejected is the destination's own text."""

_GAUGES = ("oldest_unsent_seconds", "oldest_message_seconds", "dead_letters_on_bus")


def send_metrics(document: Mapping[str, Any], *, red: bool) -> None:
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
