"""Looking orders up, and the life of one: where it came from, what became of it, where it is, what happens next.

Everything here is found by an index: none of it reads all orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import (
    claims,
    contents,
    customers,
    deliveries,
    editions,
    kept_text,
    orders,
    runs,
    suppressions,
)
from include.instore.model.codes import CODES, CORRECTED_AFTER_SENT
from include.instore.model.customer_keys import card_of, email_of, masked
from include.instore.model.errors import FatalError
from include.instore.model.identifiers import number_root
from include.instore.model.settings import OrderSettings, Settings
from include.instore.model.states import ContentState, DeliveryStatus, Status

FEW = ("cancelled", "corrected_after_sent", "held", "pending", "ready", "rejected", "sending")
"""Statuses that few orders are in, so that they can be listed without a day or a run."""

_SHOWN = (
    "order_number", "order_type", "store_id", "day", "order_time", "source", "reference", "received_at",
    "received_run", "next_attempt", "event_id",
)  # fmt: skip
_OF_RUNS = ("received_run", "planned_run", "resolved_run")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Order:
    """One order: its row in the ledger but for its payload, and the rows of its deliveries."""

    row: Row = field(repr=False)
    deliveries: list[Row] = field(repr=False)

    @property
    def latest(self) -> list[Row]:
        """Its last edition at each destination."""
        return [each for each in self.deliveries if each["is_latest"]]

    @property
    def status(self) -> str:
        """Where it is: by its latest deliveries, once its customer is known."""
        there = sorted({each["status"] for each in self.latest})
        return ", ".join(there) if there and self.row["status"] == Status.MATCHED.value else str(self.row["status"])

    def shown(self, mask: Callable[[str | None], str] = masked) -> dict[str, Any]:
        """What people see of it; card and email as the mask leaves them."""
        why = self.row["reason"] or "; ".join(each["reason"] for each in self.latest if each["reason"])
        told = {"status": self.status, "reason": why, "card": mask(self.row["loyalty_card"])}
        return {name: self.row[name] for name in _SHOWN} | told | {"email": mask(self.row["email"])}


def find_orders(
    ledger: Ledger, settings: OrderSettings, *, number: str = "", card: str = "", email: str = "", event_id: str = "",
    origin: str = "", limit: int = 100,
) -> list[Order]:  # fmt: skip
    """The orders that one of these names, the last one first.

    :param number: in any spelling: letter case, invisible characters and leading zeros tell no two apart here.
    :param event_id: of any edition at any destination. :param origin: a message id, or a file as the ledger has it.
    :raises FatalError: a card or an email that is none.
    """
    if card or email:
        column = orders.c.card_hash if card else orders.c.email_hash
        return _listed(ledger, [column == ledger.keyed_hash(_person(settings, card, email))], limit)
    if event_id:
        with ledger.read() as connection:
            key = connection.scalar(sa.select(deliveries.c.key).where(deliveries.c.event_id == kept_text(event_id)))
        return _listed(ledger, [orders.c.key == key if key else orders.c.event_id == kept_text(event_id)], limit)
    if origin:
        return _listed(ledger, [orders.c.origin == kept_text(origin)[:256]], limit)
    return _listed(ledger, [orders.c.number_root == kept_text(number_root(number))], limit)


def orders_of(ledger: Ledger, event_ids: Sequence[str]) -> list[Order]:
    """The orders of these events, their first ones at the Profile Store, the last one first."""
    return _listed(ledger, [orders.c.event_id.in_(event_ids)], len(event_ids)) if event_ids else []


def known_of_person(ledger: Ledger, settings: OrderSettings, *, card: str = "", email: str = "") -> dict[str, Any]:
    """``answer`` of her card's last look-up, and the ``suppressed`` that say that nothing may be sent for her."""
    named = _person(settings, card, email)
    answer = sa.select(customers.c.outcome, customers.c.email, customers.c.asked_at, customers.c.expires_at)
    stopped = sa.select(suppressions.c.source, suppressions.c.cause, suppressions.c.since)
    with ledger.read() as connection:
        row = connection.execute(answer.where(customers.c.loyalty_card == named)).mappings().first()
        lists = connection.execute(stopped.where(suppressions.c.hash == ledger.keyed_hash(named))).mappings()
        return {"answer": dict(row) if row else None, "suppressed": [dict(each) for each in lists]}


def _person(settings: OrderSettings, card: str, email: str) -> str:
    kind = "card" if card else "email"
    try:
        named = card_of(card, settings) if card else email_of(email)
    except ValueError as error:
        raise FatalError(f"The {kind} {error}.") from None
    if not named:
        raise FatalError(f"This {kind} is a placeholder, so no person has it.")
    return named


def list_orders(
    ledger: Ledger, *, status: str = "", store: str = "", day: str = "", reason: str = "", run: str = "",
    limit: int = 100,
) -> list[Order]:  # fmt: skip
    """Orders by what they have in common, the last one first.

    :param status: of the search for the customer, or of the latest delivery; or ``corrected_after_sent``.
    :param run: that received it, planned it last, found its customer or settled its delivery.
    :raises FatalError: it would read all orders: without a day or a run only those of a status in :data:`FEW`.
    """
    if not day and not run and status not in FEW:
        raise FatalError(f"Give --day or --run as well, or a --status that few orders have: {', '.join(FEW)}.")
    asked = {orders.c.day: day, orders.c.store_id: store}
    which = [column == value for column, value in asked.items() if value]
    if run:
        settled = sa.select(deliveries.c.key).where(deliveries.c.outcome_run == run)
        mine = [sa.select(orders.c.key).where(orders.c[name] == run) for name in _OF_RUNS]
        which.append(orders.c.key.in_(sa.union_all(*mine, settled)))
    if status == CORRECTED_AFTER_SENT:
        late = sa.select(contents.c.key).where(contents.c.state == ContentState.AFTER_SENDING.value)
        which, status = [*which, orders.c.key.in_(late)], ""
    found: dict[str, Order] = {}
    for table, statuses in ((orders, Status), (deliveries, DeliveryStatus)):
        if (status and status not in {each.value for each in statuses}) or (
            table is deliveries and not status and not reason
        ):
            continue
        # Among many of a status SQLite would look up each, rather than those few of the day or the run.
        its = [(sa.func.coalesce(table.c.status, "") if which else table.c.status) == status] if status else []
        its += [table.c.reason == reason] if reason else []
        of = [deliveries.c.is_latest] if table is deliveries else []
        found |= {each.row["key"]: each for each in _listed(ledger, [*which, *its, *of], limit, table is deliveries)}
    return sorted(found.values(), key=lambda each: each.row["order_time"], reverse=True)[:limit]


def _listed(
    ledger: Ledger, which: Sequence[sa.ColumnElement[bool]], limit: int, by_deliveries: bool = False
) -> list[Order]:
    # No column by itself: a planner would read the index of order times until it has found enough, which may be all.
    moment = sa.func.coalesce(orders.c.order_time, orders.c.received_at).label("moment")
    chosen = sa.select(orders.c.key, moment).where(*which)
    if by_deliveries:
        chosen = chosen.join(deliveries, deliveries.c.key == orders.c.key).distinct()
    last = chosen.order_by(sa.desc("moment"), orders.c.key).limit(limit).subquery()
    wanted = sa.select(*(column for column in orders.c if column.name != "payload"))
    wanted = wanted.join(last, last.c.key == orders.c.key).order_by(last.c.moment.desc(), orders.c.key)
    with ledger.read() as connection:
        found = {row["key"]: Order(dict(row), []) for row in connection.execute(wanted).mappings()}
        its = sa.select(deliveries).where(deliveries.c.key.in_(found))
        for row in connection.execute(its.order_by(deliveries.c.destination, deliveries.c.edition)).mappings():
            found[row["key"]].deliveries.append(dict(row))
    return list(found.values())


def life(ledger: Ledger, order: Order, settings: Settings) -> dict[str, Any]:
    """``steps``, what the ledger knows to have happened to an order, the first thing first; and what is ``next``."""
    row, key = order.row, order.row["key"]
    changes = sa.select(contents).where(contents.c.key == key)
    ordered = sa.select(editions).where(editions.c.key == key)
    answers = sa.select(customers).where(customers.c.loyalty_card == row["loyalty_card"])
    begun = sa.select(runs.c.run_id, runs.c.started_at).where(runs.c.run_id.in_([row[name] or "" for name in _OF_RUNS]))
    alive = sa.select(claims.c.alive_at).where(claims.c.run == row["claim_run"], claims.c.batch == row["claim_batch"])
    steps = [(row["received_at"], "received", f"{row['source']} {row['reference']}, run {row['received_run']}")]
    with ledger.read() as connection:
        for each in connection.execute(changes):
            came = f"{each.state.replace('_', ' ')}: {each.source} {each.reference}, run {each.run}"
            steps.append((each.received_at, "another content came", came))
        for each in connection.execute(ordered):
            what = f"edition {each.edition} at {each.destination}, by run {each.ordered_by}"
            steps.append((each.made_at, "ordered again", what))
        for each in connection.execute(answers):
            until = f"the last answer; it holds until {each.expires_at:%Y-%m-%d %H:%M}"
            steps.append((each.asked_at, "card answered", f"{each.outcome}, {until}"))
        started = dict(connection.execute(begun).tuples().all())
        alive_at = connection.scalar(alive)
    if at := started.get(row["planned_run"]):
        steps.append((at, "planned", f"run {row['planned_run']}, the last one"))
    if at := started.get(row["resolved_run"]):
        found = " ".join(filter(None, (row["status"], row["reason"])))
        steps.append((at, "customer searched", f"{found}, run {row['resolved_run']}"))
    for delivery in order.deliveries:
        name = f"{delivery['destination']}, edition {delivery['edition']}, event {delivery['event_id']}"
        if delivery["sending_at"]:
            steps.append((delivery["sending_at"], "left", f"{name}, attempt {delivery['attempts']}"))
        if delivery["outcome_run"]:
            why = f": {delivery['reason']}" if delivery["reason"] else ""
            at = delivery["sent_at"] or delivery["sending_at"] or row["received_at"]
            steps.append((at, delivery["status"], f"{name}, run {delivery['outcome_run']}{why}"))
    steps.sort(key=lambda step: step[0])
    live = alive_at and alive_at > datetime.now(timezone.utc) - timedelta(minutes=settings.runs.claim_minutes)
    by = f"Run {row['claim_run']} is at work on it and" if live else "The next run"
    return {
        "steps": [dict(zip(("at", "what", "detail"), step, strict=True)) for step in steps],
        "next": _next(order, by, settings),
    }


def _next(order: Order, by: str, settings: Settings) -> str:
    """What happens next, for each way the order is on, and the command where a person has to act."""
    status, attempt = order.row["status"], order.row["next_attempt"]
    if status == Status.PENDING.value:
        return f"{by} searches its customer."
    if status == Status.SUPPRESSED.value:
        return "Nothing: nothing may be sent for this customer."
    if status == Status.UNMATCHED.value:
        if attempt is None:
            return f"Nothing: its customer is not searched again ({order.row['reason']})."
        return f"Its customer is searched again by the first run after {attempt:%Y-%m-%d %H:%M} UTC."
    told = []
    for each in order.latest:
        remedy = CODES[each["status"]].remedy(each["event_id"]) if each["status"] in CODES else ""
        told.append(_NEXT[each["status"]].format(by=by, hours=settings.sending.doubt_hours, remedy=remedy, **each))
    return " ".join(told) or "It goes to no destination: run its day as a backfill that names one."


_NEXT = {
    "ready": "{by} sends it to {destination}.",
    "sending": "{by} finds out whether {destination} took it; after {hours:g} hours in doubt it is held.",
    "sent": "Nothing: {destination} has it.",
    "rejected": "A person: {destination} refuses it, see the reason; {remedy}.",
    "held": "A person: nobody can tell whether {destination} took it; {remedy}.",
    "suppressed": "Nothing: nothing may be sent to {destination} for this customer.",
    "cancelled": "{destination} was switched off; once it is on, a backfill that names it sends it.",
}
