"""What Airflow learns of this package by the entry point ``airflow.plugins``, beside what a provider can tell it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from instore_provider.deadlines import RunQueuedDeadline


class InStorePlugin(AirflowPlugin):
    """Makes the deadline reference known: Airflow takes none that no plugin names."""

    name = "instore"
    deadline_references = [RunQueuedDeadline]  # noqa: RUF012  Airflow declares it so
