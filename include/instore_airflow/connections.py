"""The connections of the pipeline: what each has to be, and what is opened from it.

For a task, a command and a callback alike. Imports of clients and of the ledger are inside the functions, because a
DAG file is imported again in every task process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from include.instore.model.errors import CardNotAnswered, ConfigurationError, RetriableError

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from azure.servicebus import ServiceBusClient
    from azure.servicebus.management import ServiceBusAdministrationClient

    from include.instore.ledger import Ledger
    from include.instore.model.settings import Settings
    from include.instore.sources.adapters import Blobs
    from include.instore.sources.extracts import Storage

SERVICE_BUS = "instore_service_bus"
PROFILE_STORE = "instore_profile_store"
LOYALTY = "instore_loyalty"
EXTRACTS = "instore_extracts"
LEDGER = "instore_ledger"
HASH_KEY = "instore_hash_key"
ALERTS = "instore_alerts"

_SHORTEST_HASH_KEY = 16

CONNECTIONS = {
    SERVICE_BUS: "Service Bus, with the connection string of the namespace",
    PROFILE_STORE: "Profile Store, with the Tracking API's URL and key",
    LOYALTY: "Loyalty, with the provider's URL and key",
    EXTRACTS: "File (path), Azure Blob Storage or SFTP, with the folder as path",
    LEDGER: "Sqlite with a path as host, or Postgres",
    HASH_KEY: "Generic, with at least 16 random characters as password, made once for a ledger and kept with it",
    ALERTS: "Alert channels, with one or several Apprise URLs: mailtos://, msteams://, slack:// and a hundred more",
}
"""What each connection has to be, by its id."""


def get_connection(conn_id: str) -> Connection:
    """Airflow's connection of this id.

    :raises ConfigurationError: there is none.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"Connection {conn_id} is missing; create it under Admin, Connections, as "
            f"{CONNECTIONS.get(conn_id, 'the source or destination of its name needs it')}."
        ) from None
    return connection


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The provider's errors as the pipeline's."""
    from instore_provider import errors as provider

    try:
        yield
    except provider.ConfigurationError as error:
        raise ConfigurationError(str(error)) from None
    except provider.CardNotAnswered as error:
        raise CardNotAnswered(str(error), code=error.code, passing=error.passing) from None
    except provider.ServiceUnavailable as error:
        raise RetriableError(str(error), error.retry_after) from None


def open_ledger(settings: Settings | None = None, *, by_any_key: bool = False) -> Ledger:
    """The ledger behind connection ``instore_ledger``, made where it is empty; the caller closes it.

    :param settings: those of the environment unless given.
    :param by_any_key: also one that is another pipeline's, or knows its orders by another key than the settings say.
    :raises ConfigurationError: it is of another release or pipeline, or was begun with another key.
    """
    from include.instore.ledger.keys import check_key, check_pipeline
    from include.instore.ledger.suppressions import check_hash_key
    from include.instore.model.settings import load_settings

    settings = settings or load_settings()
    ledger = ledger_as_it_is()
    try:
        ledger.migrate(settings.orders.store_timezone, only_new=True)
        check_hash_key(ledger)
        if not by_any_key:
            check_key(ledger, settings)
            check_pipeline(ledger, settings)
    except BaseException:
        ledger.close()
        raise
    return ledger


def ledger_as_it_is() -> Ledger:
    """The same, of whatever release it is: set-up brings it to this one."""
    import sqlalchemy as sa

    from include.instore.ledger import Ledger

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
    return Ledger(url, hash_key=_hash_key())


def _hash_key() -> str:
    """The key by which the ledger knows persons without their cards and addresses."""
    key = get_connection(HASH_KEY).password or ""
    if len(key) < _SHORTEST_HASH_KEY:
        raise ConfigurationError(
            f"Connection {HASH_KEY} has no password of at least {_SHORTEST_HASH_KEY} characters; put a random one into "
            "it, such as of: openssl rand -hex 32. It is made once: with another key suppressed persons are not "
            "recognised."
        )
    return key


def service_bus_client() -> ServiceBusClient:
    """A new client for the namespace of connection ``instore_service_bus``; the caller closes it."""
    from instore_provider.hooks.service_bus import ServiceBusHook

    get_connection(SERVICE_BUS)
    with translated():
        return ServiceBusHook(SERVICE_BUS).get_conn()


def service_bus_admin() -> ServiceBusAdministrationClient | None:
    """A new client for what takes the Manage right; None: the connection is an emulator's, whose one key may do all."""
    from instore_provider.hooks.service_bus import ServiceBusAdminHook

    if "usedevelopmentemulator=true" in str(get_connection(SERVICE_BUS).schema).lower():
        return None
    return ServiceBusAdminHook(SERVICE_BUS).get_conn()


def extracts(settings: Settings) -> Storage:
    """The folder of the extracts: of ``INSTORE_EXTRACTS_URL`` or of the connection.

    :raises ConfigurationError: there is none, or the connection does not fit it. :raises RetriableError: no answer.
    """
    from airflow.sdk.io import get_fs

    from include.instore.sources.extracts import Storage
    from include.instore.sources.extracts.storage import storage_errors

    url = settings.extracts.extracts_url or get_connection(EXTRACTS).extra_dejson.get("path")
    if not url:
        raise ConfigurationError(
            f"Connection {EXTRACTS} has no path; put the folder of the extracts into its Path field, or a URL into "
            "INSTORE_EXTRACTS_URL."
        )
    protocol = url.partition("://")[0] if "://" in url else "file"
    options = {} if protocol == "file" else _storage_options(protocol, get_connection(EXTRACTS))
    try:
        with storage_errors():
            filesystem = get_fs(protocol, EXTRACTS, options)
    except ValueError:  # the SDKs' errors may repeat a key
        raise ConfigurationError(
            f"Connection {EXTRACTS} cannot be opened as {protocol}://; make it {CONNECTIONS[EXTRACTS]}, and look at "
            "its account name, connection string or keys."
        ) from None
    return Storage(filesystem, filesystem._strip_protocol(url))


def blobs(settings: Settings) -> Blobs:
    """Blobs of the same folder, to which messages may point; it is opened with the first one."""
    storage = cache(lambda: extracts(settings))
    return lambda name, most: storage().read(name, most)


def _storage_options(protocol: str, connection: Connection) -> dict[str, Any]:
    """What the providers' ``get_fs`` does not take from the fields of the connection's form."""
    extra = connection.extra_dejson
    options: dict[str, Any] = {}
    if protocol in ("sftp", "ssh"):
        # Without this option sshfs trusts every server; the empty one is the user's own known_hosts file.
        options["known_hosts"] = ([extra["host_key"].encode()], [], []) if extra.get("host_key") else ()
        if extra.get("private_key"):  # as text it may be taken for a file's name
            options["client_keys"] = [extra["private_key"].encode()]
    elif protocol in ("abfs", "abfss"):
        host = (connection.host or "").split("://")[-1].strip("/")
        login = None if extra.get("tenant_id") else connection.login  # with a tenant it is the client id
        options["account_name"] = extra.get("account_name") or login or host.split(".")[0]
        if "." in host:
            options["account_host"] = extra.get("account_host") or host
    return options
