"""Notifying people: what the report says, through Apprise; what only a callback can see; and the metrics.

The report task, which sees all other tasks, sends the alerts. Callbacks send only those that it cannot.
"""

from __future__ import annotations

from include.instore_airflow.alerting.callbacks import (
    deadline,
    deadline_missed,
    maintenance_failed,
    run_failed,
    say_why,
)
from include.instore_airflow.alerting.judging import tell_report

__all__ = ["deadline", "deadline_missed", "maintenance_failed", "run_failed", "say_why", "tell_report"]
