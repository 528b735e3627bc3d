"""What Airflow learns of this package by the entry point ``airflow.plugins``, beside what a provider can tell it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from instore_provider.deadlines import RunQueuedDeadline
from instore_provider.portless import PortlessTest


class InStorePlugin(AirflowPlugin):
    """Makes the deadline reference known: Airflow takes none that no plugin names. And the Test button works."""

    name = "instore"
    deadline_references = [RunQueuedDeadline]  # noqa: RUF012  Airflow declares it so
    fastapi_root_middlewares = [  # noqa: RUF012  as above
        {"middleware": PortlessTest, "args": [], "kwargs": {}, "name": "Test button of connections without a port"}
    ]
