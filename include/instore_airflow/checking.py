"""Every connection really used, with the rights it needs, before the first run has to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from include.instore.model.errors import ConfigurationError, InStoreError, RetriableError
from include.instore_airflow.connections import (
    ALERTS,
    EXTRACTS,
    LEDGER,
    LOYALTY,
    PROFILE_STORE,
    SERVICE_BUS,
    extracts,
    get_connection,
    open_ledger,
    service_bus_admin,
    service_bus_client,
    translated,
)

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from include.instore.model.settings import BusSettings, Settings

_MAPPING_FILE = "INSTORE_MAPPING_FILE"
_SAS_RIGHTS = re.compile(r"(?:^|[?&;=])sp=([a-z]+)")
_READ_AND_LIST = frozenset("rl")

Said = Iterator[str]
"""First what was done and went well, then a sentence for each thing that should be otherwise."""


@dataclass(frozen=True)
class Checked:
    """One line about a connection.

    :param state: warning: it works, and something about it should be otherwise.
    """

    conn_id: str
    state: Literal["ok", "warning", "failed"]
    said: str


def check_connections(settings: Settings, *, test_alert: bool) -> Iterator[Checked]:
    """Use the connections that a run uses by these settings, one after the other.

    :param test_alert: send one to each channel.
    """
    for conn_id, check in _checks(settings, test_alert):
        state: Literal["ok", "warning"] = "ok"
        try:
            for said in check():
                yield Checked(conn_id, state, said)
                state = "warning"
        except InStoreError as error:
            yield Checked(conn_id, "failed", str(error))
        except Exception as error:  # the next one is looked at all the same
            yield Checked(
                conn_id, "failed", f"{conn_id} failed with {type(error).__name__}; check its fields and the way to it."
            )


def _checks(settings: Settings, test_alert: bool) -> Iterator[tuple[str, Callable[[], Said]]]:
    yield LEDGER, lambda: _ledger(settings)
    if settings.runs.use_topic:
        yield SERVICE_BUS, lambda: _service_bus(settings)
    if settings.runs.use_extracts:
        yield EXTRACTS, lambda: _extracts(settings)
    if settings.lookups.use_loyalty_api:
        yield LOYALTY, _loyalty
    if settings.lookups.mapping_file is not None:
        yield _MAPPING_FILE, lambda: _mapping_file(settings)
    yield PROFILE_STORE, _profile_store
    yield ALERTS, lambda: _alerts(test_alert)


def _ledger(settings: Settings) -> Said:
    from include.instore.ledger.audit import note_done
    from include.instore.ledger.rights import is_superuser, use_all_rights

    try:
        with contextlib.closing(open_ledger(settings)) as ledger:
            use_all_rights(ledger)
            note_done(ledger, "check-connections", 0)
            wide = is_superuser(ledger)
    except RetriableError as error:
        raise RetriableError(
            f"{error}. If this persists, check the path or the host, login and password of connection {LEDGER}, and "
            "what the login may do."
        ) from None
    yield "every table can be read and written; release, hash key, order key and pipeline are those of the settings"
    if wide:
        yield f"Connection {LEDGER} logs in as a superuser; give it a role that owns the ledger's database and no more."


def _service_bus(settings: Settings) -> Said:
    from include.instore.sources.bus import look

    found = look((service_bus_client(), service_bus_client()), settings)
    yield f"{settings.bus.topic}/{settings.bus.subscription} can be read; dead letters: {found.dead_letters}"
    if _may_manage(settings.bus):
        yield (
            f"Connection {SERVICE_BUS} has the Manage right and needs Listen only; make a shared access policy, or a "
            "role assignment, for the topic with Listen (Azure Service Bus Data Receiver)."
        )


def _may_manage(settings: BusSettings) -> bool:
    """Whether it can see what only the Manage right can."""
    from include.instore.sources.bus import keeps_expired

    admin = service_bus_admin()
    return admin is not None and keeps_expired(admin, settings) is not None


def _extracts(settings: Settings) -> Said:
    storage = extracts(settings)
    first = next(storage.files(settings.extracts.extract_glob), None)
    if first is None:
        yield "the folder is there and has no file that INSTORE_EXTRACT_GLOB names"
        yield f"Nothing could be read; put one extract into the folder of connection {EXTRACTS} and check again."
        return
    with storage.open(first.path) as file:
        file.read(1)
    yield "the folder can be listed, and its first file be read"
    if not settings.extracts.extracts_url.startswith("file:") and may_write(get_connection(EXTRACTS)):
        yield (
            f"Connection {EXTRACTS} has an account key, or a SAS that may write; a SAS with Read and List, or an "
            "identity with Storage Blob Data Reader, is enough."
        )


def may_write(connection: Connection) -> bool:
    """Whether an Azure connection's own fields say that it may do more than list and read."""
    if connection.conn_type not in ("wasb", "adls"):
        return False
    extra = connection.extra_dejson
    texts = [str(extra.get(name) or "") for name in ("connection_string", "sas_token")]
    by_key = connection.password and not extra.get("tenant_id")
    by_sas = any(set(found) - _READ_AND_LIST for text in texts for found in _SAS_RIGHTS.findall(text))
    return bool(by_key or by_sas or "AccountKey=" in texts[0])


def _loyalty() -> Said:
    from instore_provider.hooks.loyalty import LoyaltyHook

    connection = get_connection(LOYALTY)
    with contextlib.closing(LoyaltyHook(LOYALTY)) as hook:
        yield _tested(hook.test_connection(), LOYALTY)
    if not connection.extra_dejson.get("test_card"):
        yield f"No card was found; put the card of an active customer into 'test_card' of connection {LOYALTY}."


def _mapping_file(settings: Settings) -> Said:
    from include.instore.customers.mapping_file import MappingFile

    assert settings.lookups.mapping_file is not None  # noqa: S101  for the type checker
    MappingFile(settings.lookups.mapping_file, settings.orders)
    yield "the file can be read, and has cards with an email"


def _profile_store() -> Said:
    from instore_provider.hooks.profile_store import ProfileStoreHook

    get_connection(PROFILE_STORE)
    with contextlib.closing(ProfileStoreHook(PROFILE_STORE)) as hook:
        yield _tested(hook.test_connection(), PROFILE_STORE)
        if not hook.reads_back:
            yield (
                f"What was sent cannot be read back; put the Profile Store API's URL and key into 'read_host' and "
                f"'read_api_key' of connection {PROFILE_STORE}, or events in doubt are held for a person."
            )


def _tested(tested: tuple[bool, str], conn_id: str) -> str:
    works, said = tested
    said = said.replace("This connection", f"Connection {conn_id}")
    if not works:
        raise ConfigurationError(said if conn_id in said else f"Connection {conn_id}: {said}")
    return said


def _alerts(test_alert: bool) -> Said:
    from instore_provider.hooks.alerts import AlertsHook

    get_connection(ALERTS)
    text = "This is a test: somebody checks the connections of the in-store orders."
    with translated():
        said = AlertsHook(ALERTS).deliver("Test alert", text, send=test_alert)
    if used := said.count(""):
        yield f"{used} channels took a test alert" if test_alert else f"{used} channels; none was sent a test alert"
    if any(said):
        raise ConfigurationError(" ".join(each for each in said if each))
