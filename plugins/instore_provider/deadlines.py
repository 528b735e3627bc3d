"""A deadline counted from when a run was queued, of runs that can be cleared.

Airflow 3.3.2's own ``DeadlineReference.DAGRUN_QUEUED_AT`` makes every clear of a run that failed before its deadline an
internal server error (apache/airflow issue 70368): it counts that deadline anew, and reads its interval wrongly. The
clear leaves a reference of another class alone. This module can go once that is fixed.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from airflow.sdk.definitions.deadline import BaseDeadlineReference

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class RunQueuedDeadline(BaseDeadlineReference):
    """The moment a run was queued for the first time; clearing the run does not move it."""

    required_kwargs: ClassVar[set[str]] = {"dag_id", "run_id"}

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str) -> datetime | None:
        """Asked by Airflow when it creates the run."""
        import sqlalchemy as sa
        from airflow.models import DagRun

        return session.scalar(sa.select(DagRun.queued_at).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
