"""The connections of the pipeline: what each has to be, and what is opened from it.

For a task, a command and a callback alike. Imports of clients and of the ledger are inside the functions, because a
DAG file is imported again in every task process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from azure.servicebus import ServiceBusClient

    from include.instore.ledger import Ledger
    from include.instore.model.settings import Settings
    from include.instore.sources.extracts import Storage

SERVICE_BUS = "instore_service_bus"
PROFILE_STORE = "instore_profile_store"
LOYALTY = "instore_loyalty"
EXTRACTS = "instore_extracts"
LEDGER = "instore_ledger"
ALERTS = "instore_alerts"

CHANNELS = (
    "Generic, with one or several Apprise URLs, spaces between them, as password: mailtos://, msteams://, slack://, "
    "pagerduty:// and a hundred more"
)

CONNECTIONS = {
    SERVICE_BUS: "Azure Service Bus, with the connection string of the namespace",
    PROFILE_STORE: "Profile Store, with the Tracking API's URL and key",
    LOYALTY: "Loyalty, with the provider's URL and key",
    EXTRACTS: "File (path), Azure Blob Storage or SFTP, with the folder as path",
    LEDGER: "Sqlite with a path as host, or Postgres",
    ALERTS: CHANNELS,
}
"""What each connection has to be, by its id."""


def get_connection(conn_id: str) -> Connection:
    """Airflow's connection of this id.

    :raises ConfigurationError: there is none.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from include.instore.model.errors import ConfigurationError

    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"Connection {conn_id} is missing; create it under Admin, Connections, as {CONNECTIONS[conn_id]}."
        ) from None
    return connection


def open_ledger() -> Ledger:
    """The ledger behind connection ``instore_ledger``, at the newest revision; the caller closes it."""
    import sqlalchemy as sa

    from include.instore.ledger import Ledger
    from include.instore.model.errors import ConfigurationError

    connection = get_connection(LEDGER)
    if connection.conn_type == "sqlite":
        if not connection.host:
            raise ConfigurationError(f"Connection {LEDGER} has no path; put the database file's path into its Host.")
        url = sa.URL.create("sqlite", database=connection.host)
    elif connection.conn_type in ("postgres", "postgresql"):
        url = sa.URL.create(
            "postgresql+psycopg",
            username=connection.login,
            password=connection.password,
            host=connection.host,
            port=connection.port,
            database=connection.schema,
            query={name: str(value) for name, value in connection.extra_dejson.items()},
        )
    else:
        raise ConfigurationError(
            f"Connection {LEDGER} has type {connection.conn_type!r}; make it {CONNECTIONS[LEDGER]}."
        )
    ledger = Ledger(url)
    ledger.migrate()
    return ledger


def service_bus_client() -> ServiceBusClient:
    """A client of its own for the namespace behind connection ``instore_service_bus``; the caller closes it."""
    from airflow.providers.microsoft.azure.hooks.asb import MessageHook

    from include.instore.model.errors import ConfigurationError

    connection = get_connection(SERVICE_BUS)
    # The hook takes a namespace by managed identity only where the connection string is an empty string, not None.
    if connection.schema is None and not connection.extra_dejson.get("fully_qualified_namespace"):
        raise ConfigurationError(
            f"Connection {SERVICE_BUS} has no connection string; put one into its Connection String field, or "
            "fully_qualified_namespace into its extra for a managed identity."
        )
    try:
        return MessageHook(azure_service_bus_conn_id=SERVICE_BUS).get_conn()
    except (ValueError, TypeError):  # the SDK's errors repeat the connection string
        raise ConfigurationError(
            f"The connection string of connection {SERVICE_BUS} cannot be read; copy it again from the namespace's "
            "shared access policy."
        ) from None


def extracts(settings: Settings) -> Storage:
    """The folder of the extracts: of ``INSTORE_EXTRACTS_URL`` or of the connection."""
    from airflow.sdk import ObjectStoragePath

    from include.instore.model.errors import ConfigurationError
    from include.instore.sources.extracts import Storage

    url = settings.extracts_url or get_connection(EXTRACTS).extra_dejson.get("path")
    if not url:
        raise ConfigurationError(
            f"Connection {EXTRACTS} has no path; put the folder of the extracts into its Path field, or a URL into "
            "INSTORE_EXTRACTS_URL."
        )
    remote = "://" in url and not url.startswith("file://")
    path = ObjectStoragePath(url, conn_id=EXTRACTS if remote else None)
    return Storage(path.fs, path.path)
