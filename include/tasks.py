"""The glue: a plain function per task that opens connections, builds clients and calls the pipeline.

The only place where Airflow and the pipeline meet. Every function takes what Airflow knows of the run and returns
counts or references: no order, email or card goes through XCom. Heavy imports are inside the functions, because a DAG
file is imported again in every task process.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from instore_provider.operators.profile_store import ProfileStoreTrackOperator

from include import alerting
from include.retry_policy import RetryByKind, TryAgain

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context
    from azure.servicebus import ServiceBusClient
    from instore_provider.hooks.loyalty import LoyaltyHook
    from instore_provider.hooks.profile_store import ProfileStoreHook

    from include.instore.delivery import EventOutcome
    from include.instore.extracts import Storage
    from include.instore.ledger import Ledger
    from include.instore.ledger.customers import CardAnswer
    from include.instore.lookup import Resolver
    from include.instore.settings import Settings
    from include.instore.windows import Run

SERVICE_BUS = "instore_service_bus"
PROFILE_STORE = "instore_profile_store"
LOYALTY = "instore_loyalty"
EXTRACTS = "instore_extracts"
LEDGER = "instore_ledger"

POOL_BUS = "instore_bus"
POOL_LOYALTY = "instore_loyalty"
POOL_PROFILE_STORE = "instore_profile_store"

CONNECTIONS = {
    SERVICE_BUS: "Azure Service Bus, with the connection string of the namespace",
    PROFILE_STORE: "Profile Store, with the Tracking API's URL and key",
    LOYALTY: "Loyalty, with the provider's URL and key",
    EXTRACTS: "File (path), Azure Blob Storage or SFTP, with the folder as path",
    LEDGER: "Sqlite with a path as host, or Postgres",
}
"""What each connection has to be, by its id."""

ON_FAILURE = alerting.run_failed
DEADLINE = alerting.deadline

RETRY_POLICY = RetryByKind()
"""For the DAG's default_args: fatal errors fail at once, Retry-After is honoured, everything else is spread."""

log = logging.getLogger(__name__)


def drain_topic(dag_run: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Take the pending messages off the subscription into the ledger; a backfill never does."""
    with _pipeline(dag_run, params, begins=True) as (run, ledger, settings):
        from include.instore.topic import Drained, drain, peek

        drained = Drained(stopped_by="not asked for")
        if run.drains_topic and settings.use_topic and run.dry_run:
            drained = peek(service_bus_client(), ledger, run.run_id, settings)
        elif run.drains_topic and settings.use_topic:
            clients = [service_bus_client() for _ in range(settings.drain_receivers)]
            drained = drain(clients, ledger, run.run_id, settings)
        else:
            log.info("a %s run leaves the live topic alone", run.kind)
        return _landed(drained.landed) | {
            "dead_lettered": drained.dead_lettered,
            "settle_failed": drained.settle_failed,
            "stopped_by": drained.stopped_by,
        }


def load_extracts(dag_run: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Load the extracts of the run's window, and on an ordinary run every one not loaded yet."""
    with _pipeline(dag_run, params, begins=True) as (run, ledger, settings):
        from include.instore.extracts import Loaded
        from include.instore.extracts import load_extracts as load

        loaded = load(_extracts(settings), ledger, run, settings) if settings.use_extracts else Loaded()
        return _landed(loaded.landed) | {
            "files": loaded.files,
            "broken_files": loaded.broken_files,
            "left_files": loaded.left_files,
        }


def plan_batches(dag_run: Any, params: Mapping[str, Any]) -> list[dict[str, int]]:
    """Claim the orders this run may send; the batches as references, an empty list when there is nothing to do."""
    from airflow.sdk.exceptions import AirflowRescheduleException

    with _pipeline(dag_run, params) as (run, ledger, settings):
        from include.instore.planning import HeldByAnotherRun, plan

        try:
            batches = plan(ledger, run, settings)
        except HeldByAnotherRun as held:
            # Rescheduled, not slept through: the run that holds them needs the slot.
            log.info("%s Looking again in %.0f s.", held, held.retry_after)
            again = datetime.now(timezone.utc) + timedelta(seconds=held.retry_after or 0)
            raise AirflowRescheduleException(again) from None  # type: ignore[no-untyped-call]
        log.info("%d orders claimed in %d batches", sum(batch.orders for batch in batches), len(batches))
        return [{"batch": batch.batch, "orders": batch.orders} for batch in batches]


def look_up_customers(dag_run: Any, params: Mapping[str, Any], batch: Mapping[str, int]) -> dict[str, int]:
    """Find the customers behind the cards of one batch; the batch's reference with the counts."""
    with _pipeline(dag_run, params) as (run, ledger, settings), contextlib.ExitStack() as opened:
        from include.instore.lookup import look_up_batch

        # The limit holds for dry runs as well, whose own ledger is a copy that nobody else sees.
        shared = opened.enter_context(contextlib.closing(open_ledger())) if run.dry_run else ledger
        resolvers = _resolvers(settings, shared, opened)
        looked_up = look_up_batch(resolvers, ledger, run.run_id, batch["batch"], settings)
        return dict(batch) | {"looked_up": looked_up.looked_up, "cache_hits": looked_up.cache_hits}


def send_events(
    dag_run: Any, params: Mapping[str, Any], batch: Mapping[str, int], hook: ProfileStoreHook
) -> dict[str, int]:
    """Send the events of one batch's ready orders through the hook; the counts of this try."""
    with _pipeline(dag_run, params) as (run, ledger, settings):
        from include.instore.delivery import send_batch

        destination = _destination(hook, ledger, settings)
        delivered = send_batch(destination, ledger, run.run_id, batch["batch"], settings)
        return {
            "batch": batch["batch"],
            "sent": delivered.sent,
            "rejected": delivered.rejected,
            "verified": delivered.verified,
            "truncated": delivered.truncated,
        }


def report_run(dag_run: Any, params: Mapping[str, Any], ti: Any) -> dict[str, Any]:
    """The run's counts from the ledger.

    :raises AirflowFailException: the run must be red; the counts are in XCom all the same.
    """
    from airflow.sdk.exceptions import AirflowFailException

    with _pipeline(dag_run, params) as (run, ledger, settings):
        from include.instore.ledger.runs import close_run
        from include.instore.report import report_run as report

        failed = _failed_tasks(ti)
        reported = report(ledger, run, failed, settings)
        with contextlib.closing(open_ledger()) if run.dry_run else contextlib.nullcontext(ledger) as remembers:
            reported.document.update(alerting.tell_report(run, remembers, reported, failed, settings, ti.dag_id))
        close_run(ledger, run.run_id, reported.document)
        if run.dry_run:
            ledger.discard_copy()
    log.info("counts: %s", reported.document)
    if reported.red:
        # A task that fails pushes nothing by itself, and the counts are wanted most when the run is red.
        ti.xcom_push(key="return_value", value=reported.document)
        raise AirflowFailException(f"This run is red: {'; '.join(reported.red)}.")
    return reported.document


def label(batch: Mapping[str, int]) -> str:
    """What the UI calls a mapped task: its batch and how many orders that has."""
    return f"batch {batch['batch']}, {batch['orders']} orders"


class SendEventsOperator(ProfileStoreTrackOperator):
    """Send one batch's events from the ledger, which also remembers what became of each.

    :param batch: the batch's reference, as :func:`plan_batches` returns it.
    """

    template_fields = ("batch", "profile_store_conn_id")

    def __init__(self, *, batch: Any, profile_store_conn_id: str = PROFILE_STORE, **kwargs: Any) -> None:
        super().__init__(profile_store_conn_id=profile_store_conn_id, **kwargs)
        self.batch = batch

    def execute(self, context: Context) -> dict[str, int]:
        context["label"] = label(self.batch)  # type: ignore[typeddict-unknown-key]
        with contextlib.closing(self.make_hook()) as hook:
            return send_events(context["dag_run"], context["params"], self.batch, hook)


class ProfileStoreDestination:
    """The Profile Store as a destination of the pipeline: the hook's words in the pipeline's."""

    def __init__(self, hook: ProfileStoreHook, settings: Settings) -> None:
        self._hook = hook
        self._settings = settings

    def send_events(
        self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
    ) -> Iterable[EventOutcome]:
        with _translated():
            yield from self._hook.send_events(
                events,
                bulk=self._settings.track_bulk,
                bulk_size=self._settings.bulk_events,
                max_bulk_bytes=self._settings.bulk_bytes,
                before_leaving=before_leaving,
            )

    def sent_track_ids(self, track_ids: Iterable[str]) -> set[str]:
        with _translated():
            return self._hook.sent_track_ids(track_ids)


class LoyaltyResolver:
    """The loyalty API as a resolver of the pipeline."""

    def __init__(self, hook: LoyaltyHook) -> None:
        self._hook = hook

    def resolve(self, card: str) -> CardAnswer:
        from include.instore.ledger.customers import CardAnswer

        with _translated():
            answer = self._hook.look_up(card)
        return CardAnswer(card, answer.outcome, answer.email)


@contextlib.contextmanager
def _pipeline(
    dag_run: Any, params: Mapping[str, Any], *, begins: bool = False
) -> Iterator[tuple[Run, Ledger, Settings]]:
    """The run, the ledger and the settings; and every error of ours as the one sentence a person reads in the log.

    :param begins: whether this is one of the tasks that a run begins with.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from include.instore.errors import FatalError, RetriableError

    # At DEBUG the SDK would write whole frames, bodies and tokens included, into the task log.
    logging.getLogger("azure").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        from include.instore.ledger.claims import open_run
        from include.instore.settings import load_settings
        from include.instore.windows import resolve_run

        settings = load_settings()
        if params.get("track_events") is not None:
            settings = settings.model_copy(update={"enable_track_events": params["track_events"] == "on"})
        run = resolve_run(dag_run, params)
        with contextlib.closing(open_ledger()) as ledger, contextlib.ExitStack() as opened:
            if run.dry_run:
                settings = settings.model_copy(update={"enable_track_events": False})
                ledger = opened.enter_context(contextlib.closing(ledger.dry_run_copy(run.run_id)))
            yield open_run(ledger, run, begins=begins), ledger, settings
    except FatalError as error:
        raise AirflowFailException(str(error)) from None
    except RetriableError as error:
        raise TryAgain(str(error), error.retry_after) from None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The provider's errors as the pipeline's."""
    from instore_provider import errors as provider

    from include.instore.errors import ConfigurationError, RetriableError

    try:
        yield
    except provider.ConfigurationError as error:
        raise ConfigurationError(str(error)) from None
    except provider.ServiceUnavailable as error:
        raise RetriableError(str(error), error.retry_after) from None


def _failed_tasks(ti: Any) -> list[str]:
    """Ids of the run's tasks that finally failed, a mapped one named once."""
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    failed = {name for name, state in states.items() if state == "failed"}
    return sorted({re.sub(r"_\d+$", "", name) for name in failed})


def _landed(landed: Any) -> dict[str, int]:
    return {
        "received": landed.received,
        "orders": landed.orders,
        "duplicates": landed.duplicates,
        "quarantined": landed.quarantined,
    }


def _connection(conn_id: str) -> Connection:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from include.instore.errors import ConfigurationError

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

    from include.instore.errors import ConfigurationError
    from include.instore.ledger import Ledger

    connection = _connection(LEDGER)
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

    from include.instore.errors import ConfigurationError

    connection = _connection(SERVICE_BUS)
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


@contextlib.contextmanager
def profile_store(ledger: Ledger, settings: Settings) -> Iterator[ProfileStoreDestination]:
    """The Profile Store behind connection ``instore_profile_store``, under the limits that all tasks share."""
    from instore_provider.hooks.profile_store import ProfileStoreHook

    with contextlib.closing(ProfileStoreHook(PROFILE_STORE)) as hook:
        yield _destination(hook, ledger, settings)


def _destination(hook: ProfileStoreHook, ledger: Ledger, settings: Settings) -> ProfileStoreDestination:
    _connection(hook.profile_store_conn_id)  # a missing one is said in our sentence, not in Airflow's
    _share(hook, hook.profile_store_conn_id, ledger, settings)
    return ProfileStoreDestination(hook, settings)


def _extracts(settings: Settings) -> Storage:
    from airflow.sdk import ObjectStoragePath

    from include.instore.errors import ConfigurationError
    from include.instore.extracts import Storage

    url = settings.extracts_url or _connection(EXTRACTS).extra_dejson.get("path")
    if not url:
        raise ConfigurationError(
            f"Connection {EXTRACTS} has no path; put the folder of the extracts into its Path field, or a URL into "
            "INSTORE_EXTRACTS_URL."
        )
    remote = "://" in url and not url.startswith("file://")
    path = ObjectStoragePath(url, conn_id=EXTRACTS if remote else None)
    return Storage(path.fs, path.path)


def _share(hook: LoyaltyHook | ProfileStoreHook, conn_id: str, ledger: Ledger, settings: Settings) -> None:
    """Have all tasks, processes and workers keep to one rate limit, and hear of a service that is down."""
    from instore_provider.breaker import Breaker

    from include.instore.ledger.services import SharedCircuit, shared_turns

    def limiter(per_second: float) -> Callable[[], None]:
        return shared_turns(ledger, conn_id, per_second)

    def breaker(service: str) -> Breaker:
        return Breaker(
            failures=settings.breaker_failures,
            seconds=settings.breaker_seconds,
            storage=SharedCircuit(ledger, f"{conn_id}: {service}"),
        )

    hook.limiter, hook.breaker = limiter, breaker


def _resolvers(settings: Settings, shared: Ledger, opened: contextlib.ExitStack) -> list[Resolver]:
    from instore_provider.hooks.loyalty import LoyaltyHook

    from include.instore.errors import ConfigurationError
    from include.instore.lookup import MappingFile

    resolvers: list[Resolver] = []
    if settings.use_loyalty_api:
        _connection(LOYALTY)
        hook = LoyaltyHook(LOYALTY)
        _share(hook, LOYALTY, shared, settings)
        opened.callback(hook.close)
        resolvers.append(LoyaltyResolver(hook))
    if settings.mapping_file is not None:
        resolvers.append(MappingFile(settings.mapping_file))
    if not resolvers:
        raise ConfigurationError(
            "Nobody answers for loyalty cards; switch INSTORE_USE_LOYALTY_API on or set INSTORE_MAPPING_FILE."
        )
    return resolvers
