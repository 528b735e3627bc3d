"""What a person may do on the page: the verbs of the command line, each of which says first what it would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from include.instore.ledger import Ledger
from include.instore.ledger.audit import note_done
from include.instore.ledger.customers import search_again
from include.instore.ledger.editions import keep_corrected
from include.instore.ledger.held import DECIDED, Decision, decide
from include.instore.ledger.known_again import AcceptAs
from include.instore.ledger.quarantined import Wanted
from include.instore.ledger.read_orders import Order, orders_of
from include.instore.ledger.resends import ResendList, resend, sent_ones
from include.instore.model.errors import FatalError
from include.instore.model.settings import Settings
from include.instore.model.windows import RESEND_DAG
from include.instore.sources.quarantine import Outcome, discard, redrive, tallied
from include.instore_airflow.connections import service_bus_client
from include.instore_airflow.page_links import base_path

DEAD_LETTERS = 100
"""Dead letters that one action looks at, the oldest."""


@dataclass(frozen=True)
class Chosen:
    """What an action is about.

    :param ids: event ids of orders, or ids of the quarantine. :param who: the person, for the audit.
    :param dry_run: only say what would happen.
    """

    ledger: Ledger
    settings: Settings
    ids: Sequence[str]
    who: str
    dry_run: bool


@dataclass(frozen=True)
class Did:
    """What an action did, or would do.

    :param rows: of each record that it is about; ``id`` is what that is chosen by. :param records: how many changed.
    :param events: that are sent by it. :param link: to where it goes on.
    """

    rows: Sequence[Mapping[str, Any]]
    records: int
    events: int = 0
    detail: str = ""
    link: str = ""


@dataclass(frozen=True)
class Action:
    """:param command: of the command line, for the audit. :param statuses: of the orders that it is offered for."""

    label: str
    command: str
    do: Callable[[Chosen], Did]
    statuses: tuple[str, ...] = ()


def carry_out(name: str, chosen: Chosen) -> Did:
    """Do it, and write it down; with a dry run only say what it would do. :raises KeyError: there is no such action."""
    action = ACTIONS[name]
    did = action.do(chosen)
    if not chosen.dry_run:
        note_done(chosen.ledger, action.command, did.records, did.detail, chosen.who)
    return did


def _settle(decision: Decision) -> Callable[[Chosen], Did]:
    def do(chosen: Chosen) -> Did:
        its = _events(chosen, DECIDED[decision])
        ids = [event for events in its.values() for event in events]
        changed = len(ids) if chosen.dry_run else decide(chosen.ledger, ids, decision)
        sent = changed if decision is Decision.SEND_AGAIN else 0
        return Did(_rows(orders_of(chosen.ledger, chosen.ids), its), changed, sent, decision.value)

    return do


def _search_again(chosen: Chosen) -> Did:
    found = [
        each for each in orders_of(chosen.ledger, chosen.ids) if each.status == "unmatched" and each.row["loyalty_card"]
    ]
    keys = [each.row["key"] for each in found]
    count = search_again(chosen.ledger, keys=keys, dry_run=chosen.dry_run) if keys else 0
    return Did(_rows(found), count)


def _resend(*, corrected: bool) -> Callable[[Chosen], Did]:
    def do(chosen: Chosen) -> Did:
        its = _events(chosen, ("sent",))
        which = sent_ones(corrected=corrected, events=[event for events in its.values() for event in events])
        many, most, listed = 0, chosen.settings.sending.resend_approval, None
        if its:
            many, listed = resend(chosen.ledger, chosen.settings, which, chosen.who, dry_run=chosen.dry_run)
        detail = f"more than {most} need approval before any is sent" if many > most else ""
        detail = f"list {listed.id}, which waits for approval" if listed else detail
        link = _triggered(listed, chosen.who) if listed else ""
        return Did(_rows(orders_of(chosen.ledger, chosen.ids), its), many, many, detail, link)

    return do


def _triggered(listed: ResendList, who: str) -> str:
    """The path of the run that asks for approval. :raises FatalError: it could not be made; the list is there."""
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.sdk.exceptions import AirflowException
    from airflow.utils.types import DagRunTriggeredByType

    try:
        run = trigger_dag(
            RESEND_DAG, triggered_by=DagRunTriggeredByType.UI, triggering_user_name=who,
            conf={"resend_list": listed.id},
        )  # fmt: skip
    except (AirflowException, ValueError) as error:
        raise FatalError(
            f"DAG {RESEND_DAG} could not be triggered ({type(error).__name__}); trigger it with {listed.id} as List."
        ) from None
    return f"{base_path()}/dags/{RESEND_DAG}/runs/{quote(run.run_id if run else '')}"


def _keep(chosen: Chosen) -> Did:
    found = orders_of(chosen.ledger, chosen.ids)
    keys = [each.row["key"] for each in found]
    return Did(_rows(found), keep_corrected(chosen.ledger, keys, dry_run=chosen.dry_run) if keys else 0)


def _events(chosen: Chosen, statuses: Sequence[str]) -> dict[str, list[str]]:
    """Key to the latest events, of the chosen orders, that are in one of these statuses."""
    found = {
        each.row["key"]: [it["event_id"] for it in each.latest if it["status"] in statuses]
        for each in orders_of(chosen.ledger, chosen.ids)
    }
    return {key: events for key, events in found.items() if events}


def _rows(found: Sequence[Order], events: Mapping[str, Sequence[str]] | None = None) -> list[dict[str, Any]]:
    return [
        each.shown() | {"id": each.row["event_id"], "events": len(events[each.row["key"]]) if events else 0}
        for each in found
        if events is None or each.row["key"] in events
    ]


def _of_quarantine(verb: Callable[[Chosen, Wanted], list[Outcome]]) -> Callable[[Chosen], Did]:
    def do(chosen: Chosen) -> Did:
        outcomes = verb(chosen, Wanted(ids=tuple(chosen.ids))) if chosen.ids else []
        return Did([vars(each) for each in outcomes], len(outcomes), detail=tallied(outcomes))

    return do


def _redrive(accept_as: AcceptAs | None = None) -> Callable[[Chosen], Did]:
    return _of_quarantine(
        lambda chosen, wanted: redrive(
            chosen.ledger, wanted, chosen.settings, dry_run=chosen.dry_run, accept_as=accept_as
        )
    )


def _dead_letters(chosen: Chosen) -> Did:
    from include.instore.sources.dead_letters import redrive_dead_letters

    done = redrive_dead_letters(
        service_bus_client(), chosen.ledger, chosen.settings, limit=DEAD_LETTERS, dry_run=chosen.dry_run
    )
    return Did([vars(each) for each in done.outcomes], len(done.outcomes), detail=tallied(done.outcomes))


ACTIONS = {
    "search-again": Action("Search the customer again", "orders search-again", _search_again, ("unmatched",)),
    "send-again": Action(
        "Deliver again: it is not there", "deliveries settle", _settle(Decision.SEND_AGAIN), ("held", "rejected")
    ),
    "sent": Action("It is there", "deliveries settle", _settle(Decision.SENT), ("held",)),
    "ask-again": Action("Let the next run find out", "deliveries settle", _settle(Decision.ASK_AGAIN), ("held",)),
    "give-up": Action("Discard", "deliveries settle", _settle(Decision.GIVE_UP), ("rejected",)),
    "resend": Action("Send once more, beside the first", "orders resend", _resend(corrected=False), ("sent",)),
    "resend-corrected": Action(
        "Send the correction", "orders resend", _resend(corrected=True), ("corrected_after_sent",)
    ),
    "keep": Action("Leave the first event as it is", "orders keep", _keep, ("corrected_after_sent",)),
    "redrive": Action("Redrive", "quarantine redrive", _redrive()),
    "correction": Action(
        "Accept as a correction", "quarantine accept-as correction", _redrive(AcceptAs.CORRECTION)
    ),
    "new-order": Action("Accept as an order", "quarantine accept-as new-order", _redrive(AcceptAs.NEW_ORDER)),
    "discard": Action(
        "Discard", "quarantine discard",
        _of_quarantine(lambda chosen, wanted: discard(chosen.ledger, wanted, dry_run=chosen.dry_run)),
    ),
    "dead-letters": Action("Redrive the oldest", "dead-letters redrive", _dead_letters),
}  # fmt: skip
"""What may be done, by the word that the form says."""

OF_ORDERS = [name for name, action in ACTIONS.items() if action.statuses]
OF_QUARANTINE = ("redrive", "correction", "new-order", "discard")
