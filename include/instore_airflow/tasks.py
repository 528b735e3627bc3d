"""A plain function per task: it opens what the task needs and calls the pipeline.

Every function takes what Airflow knows of the run and returns counts or references: no order, email or card goes
through XCom. Heavy imports are inside the functions, because a DAG file is imported again in every task process.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias, BaseOperator
from instore_provider.links import EventsPageLink

from include.instore.model.destinations import PROFILE_STORE as PROFILE_STORE_NAME
from include.instore_airflow.alerting import tell_report
from include.instore_airflow.connections import PROFILE_STORE, blobs, extracts, open_ledger, service_bus_client
from include.instore_airflow.destinations import DESTINATIONS, opener_of
from include.instore_airflow.run_context import failed_tasks, pipeline
from include.instore_airflow.services import resolvers
from include.instore_airflow.sources import source_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.instore.ledger import Ledger
    from include.instore.model.settings import Settings
    from include.instore_airflow.destinations import Opener

_LANDED = ("received", "orders", "duplicates", "corrections", "quarantined")
_DRAINED = ("dead_lettered", "settle_failed", "stopped_by", "not_drained", "locked_elsewhere", "deferred")

REPORT = Asset("instore_orders")
"""What other DAGs are scheduled on: a green run has reported, and its counts are the event's extra."""

REPORTED = AssetAlias("instore_orders_reported")
"""By this name the task makes the asset's events, where it would otherwise make one for a dry run as well."""

log = logging.getLogger(__name__)


def drain_topic(dag_run: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Take the pending messages off the subscription into the ledger; a backfill never does."""
    with pipeline(dag_run, params, begins=True) as (run, ledger, settings):
        from include.instore.sources.service_bus import Drained, drain, peek

        drained = Drained(stopped_by="not asked for")
        if run.drains_topic and settings.runs.use_topic and run.dry_run:
            drained = peek(service_bus_client(), ledger, run.run_id, settings, blobs(settings))
        elif run.drains_topic and settings.runs.use_topic:
            clients = [service_bus_client() for _ in range(settings.bus.drain_receivers)]
            drained = drain(clients, ledger, run.run_id, settings, blobs(settings))
        else:
            log.info("a %s run does not drain the live topic", run.kind)
        return _picked(drained.landed, *_LANDED) | _picked(drained, *_DRAINED)


def load_extracts(dag_run: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Load the extracts of the run's window, and on an ordinary run every one not loaded yet."""
    with pipeline(dag_run, params, begins=True) as (run, ledger, settings):
        from include.instore.sources.extracts import Loaded
        from include.instore.sources.extracts import load_extracts as load

        loaded = load(extracts(settings), ledger, run, settings) if settings.runs.use_extracts else Loaded()
        return _picked(loaded.landed, *_LANDED) | _picked(loaded, "files", "unread_files", "left_files")


def take_orders(dag_run: Any, params: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Land what another source has; a backfill and a cleared run never ask it, and a dry run settles nothing.

    :param source: a name of ``sources.SOURCES``.
    """
    with pipeline(dag_run, params, begins=True) as (run, ledger, settings):
        from include.instore.ledger.intake import Landed
        from include.instore.sources.landing import into_ledger, land_all

        landed = Landed()
        if run.drains_topic:
            with source_of(source)(run, settings) as opened:
                lander = into_ledger(ledger, lambda: run.run_id, settings)
                landed = land_all(opened, lander, settles=not run.dry_run)
        return _picked(landed, *_LANDED)


def describe_list(dag_run: Any, params: Mapping[str, Any]) -> dict[str, str]:
    """What a person is to approve: ``text``, and the ``digest`` of the list."""
    with pipeline(dag_run, params, begins=True) as (run, ledger, _):
        from include.instore.ledger.resends import approved_list, list_in_words

        found = approved_list(ledger, run.resend_list)
        return {"text": list_in_words(ledger, found), "digest": found.digest}


def plan_batches(
    dag_run: Any, params: Mapping[str, Any], approved: Mapping[str, str] | None = None
) -> list[dict[str, int]]:
    """Claim the orders this run may send; the batches as references, an empty list when there is nothing to do.

    :param approved: what :func:`describe_list` said, once a person has approved it.
    """
    from airflow.sdk.exceptions import AirflowRescheduleException

    with pipeline(dag_run, params) as (run, ledger, settings):
        from include.instore.runs.planning import HeldByAnotherRun, plan

        try:
            batches = plan(ledger, run, settings, (approved or {}).get("digest", ""))
        except HeldByAnotherRun as held:
            # Rescheduled, not slept through: the run that holds them needs the slot.
            log.info("%s Looking again in %.0f s.", held, held.retry_after)
            again = datetime.now(timezone.utc) + timedelta(seconds=held.retry_after or 0)
            raise AirflowRescheduleException(again) from None  # type: ignore[no-untyped-call]
        log.info("%d orders claimed in %d batches", sum(batch.orders for batch in batches), len(batches))
        return [asdict(batch) for batch in batches]


def look_up_customers(dag_run: Any, params: Mapping[str, Any], batch: Mapping[str, int]) -> dict[str, int]:
    """Find the customers behind the cards of one batch; the batch's reference with the counts."""
    with pipeline(dag_run, params) as (run, ledger, settings), contextlib.ExitStack() as opened:
        from include.instore.customers.lookup import look_up_batch
        from include.instore.customers.mapping_file import MappingFile
        from include.instore.ledger.claims import HeldBatch
        from include.instore.ledger.runs import note_run

        # The limit holds for dry runs as well, whose ledger no other task sees.
        shared = opened.enter_context(contextlib.closing(open_ledger())) if run.dry_run else ledger
        asked = resolvers(settings, shared, opened)
        for cards in (each.cards for each in asked if isinstance(each, MappingFile)):
            note_run(ledger, run.run_id, mapping_cards=cards)
        return dict(batch) | asdict(look_up_batch(asked, ledger, HeldBatch(run.run_id, batch["batch"]), settings))


def send_events(
    dag_run: Any, params: Mapping[str, Any], batch: Mapping[str, int], name: str, opener: Opener
) -> dict[str, int]:
    """Send the events of one batch's orders that are ready for a destination; the counts of this try."""
    with pipeline(dag_run, params) as (run, ledger, settings):
        from include.instore.destinations.delivery import send_batch
        from include.instore.ledger.deliveries import OutgoingBatch

        with opener(ledger, settings) as destination:
            delivered = send_batch(
                destination, ledger, OutgoingBatch(run.run_id, batch["batch"], name), settings.sending
            )
        return {"batch": batch["batch"]} | asdict(delivered)


def report_run(
    dag_run: Any, params: Mapping[str, Any], ti: Any, outlet_events: Mapping[AssetAlias, Any] | None = None
) -> dict[str, Any]:
    """The run's counts from the ledger; those of a green run that is no dry run go to the DAGs that follow, too.

    :param outlet_events: Airflow's, by outlet of this task.
    :raises AirflowFailException: the run must be red; the counts are in XCom all the same.
    """
    from airflow.sdk.exceptions import AirflowFailException

    with pipeline(dag_run, params) as (run, ledger, settings):
        from include.instore.ledger.dry_runs import discard
        from include.instore.ledger.runs import close_run
        from include.instore.runs.report import report_run as report

        failed = failed_tasks(ti)
        reported = report(ledger, run, failed, settings)
        if not run.dry_run:
            reported.document.update(_read_back(ledger, run.run_id, settings))
        with contextlib.closing(open_ledger()) if run.dry_run else contextlib.nullcontext(ledger) as remembers:
            reported.document.update(tell_report(run, remembers, reported, failed, settings, ti.dag_id))
        close_run(ledger, run.run_id, reported.document)
        if run.dry_run:
            discard(ledger)
    log.info("counts: %s", reported.document)
    if reported.red:
        # A task that fails pushes nothing by itself, and the counts are wanted most when the run is red.
        ti.xcom_push(key="return_value", value=reported.document)
        raise AirflowFailException(f"This run is red: {'; '.join(reported.red)}.")
    if outlet_events is not None and not run.dry_run:
        counts = {name: value for name, value in reported.document.items() if isinstance(value, int | str)}
        outlet_events[REPORTED].add(REPORT, extra={"run_id": run.run_id} | counts)
    return reported.document


def _read_back(ledger: Ledger, run_id: str, settings: Settings) -> dict[str, Any]:
    """What the destinations show of what the previous run sent."""
    from include.instore.runs.read_back import read_back

    found = {
        name: read_back(partial(opener_of(name), ledger, settings), name, ledger, run_id, settings.sending)
        for name in DESTINATIONS
    }
    states = {each.state for each in found.values()}
    return {
        "read_back": states.pop() if len(states) == 1 else ", ".join(f"{n} {each.state}" for n, each in found.items()),
        "read_back_asked": sum(each.asked for each in found.values()),
        "not_visible": sum(each.not_visible for each in found.values()),
    }


class SendEventsOperator(BaseOperator):
    """Send one batch's events to a destination, from the ledger, which also remembers what became of each.

    :param batch: the batch's reference, as :func:`plan_batches` returns it.
    :param destination: a name of ``destinations.DESTINATIONS``.
    """

    template_fields = ("batch",)
    operator_extra_links = (EventsPageLink(),)

    def __init__(self, *, batch: Any, destination: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch
        self.destination = destination
        # Whose page the button leads to; other destinations have none.
        self.profile_store_conn_id = PROFILE_STORE if destination == PROFILE_STORE_NAME else ""

    def execute(self, context: Context) -> dict[str, int]:
        opener = opener_of(self.destination)
        return send_events(context["dag_run"], context["params"], self.batch, self.destination, opener)


def _picked(counts: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(counts, name) for name in names}
