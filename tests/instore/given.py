"""What tests begin with: orders, runs, orders in a ledger, and a look at its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.destinations.delivery import Delivered, send_batch
from include.instore.destinations.profile_store import event_of
from include.instore.ledger import Ledger
from include.instore.ledger.claims import Batch, claim, open_run
from include.instore.ledger.deliveries import OutgoingBatch, OutgoingOrder
from include.instore.ledger.destinations import ready_for
from include.instore.ledger.intake import Landed, Refusal, arrival, land, refusal
from include.instore.ledger.records import Arrival, Record
from include.instore.ledger.tables import (
    claims,
    contents,
    customers,
    deliveries,
    destinations,
    editions,
    extracts,
    feeds,
    orders,
    quarantine,
    runs,
)
from include.instore.model.destinations import PROFILE_STORE
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import order_from_document
from include.instore.model.settings import Settings
from include.instore.model.states import DeliveryStatus
from include.instore.model.windows import Run, Window

SETTINGS = Settings()
TABLES = {
    table.name: table
    for table in (
        orders,
        claims,
        contents,
        deliveries,
        destinations,
        editions,
        customers,
        quarantine,
        extracts,
        feeds,
        runs,
    )
}

CARD = "6035770741165744"
CANARY = "canary-7f3a"
"""Stands in values that must not be told: a log or an error that holds it has told one."""


def document(number: str = "S1", **changes: Any) -> dict[str, Any]:
    """An order document as the ERP publishes it, with changed fields; None leaves one out."""
    whole = {
        "orderNumber": number,
        "date": "2017-06-05T10:04:12Z",
        "storeId": "0404",
        "storeName": "Store 0404",
        "loyaltyCardNumber": CARD,
        "currency": "USD",
        "total": "3.50",
        "lines": [{"productCode": "947865", "description": "CANDY", "quantity": "2", "total": "3.50"}],
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


def body(number: str = "S1", **changes: Any) -> bytes:
    """The same as a message body."""
    return json.dumps(document(number, **changes)).encode()


def run(run_id: str = "run-1", kind: Any = "scheduled", **changes: Any) -> Run:
    """A scheduled run, or another one."""
    whole = {"window": None, "drains_topic": True, "loads_any_extract": True, "claims": "due", **changes}
    return Run(run_id, kind, **whole)


def window(start: str, end: str) -> Window:
    return Window(moment(start), moment(end))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def arrivals(*documents: Mapping[str, Any], source: str = "topic", settings: Settings = SETTINGS) -> list[Arrival]:
    """As a source publishes them, one after the other."""
    return [
        arrival(
            Record(
                source,
                f"ref-{index}",
                json.dumps(each, default=str).encode(),
                order_from_document(each),
                published_at=datetime.now(timezone.utc) + timedelta(microseconds=index),
            ),
            settings,
        )
        for index, each in enumerate(documents)
    ]


def refused(raw: bytes = b"not an order", reference: str = "ref", reason: str = "not_json") -> Refusal:
    return set_aside(RecordRefused(reason, "a detail"), raw, reference)


def set_aside(
    error: RecordRefused, raw: bytes, reference: str = "ref", source: str = "topic", heading: bytes = b""
) -> Refusal:
    return refusal(Record(source, reference, raw, error, heading), error)


def landed(
    ledger: Ledger,
    *documents: Mapping[str, Any],
    run: Run | None = None,
    source: str = "topic",
    refusals: Sequence[Refusal] = (),
) -> Landed:
    """Land these orders in a run, which is opened."""
    run = run or globals()["run"]()
    open_run(ledger, run)
    return land(ledger, run.run_id, arrivals(*documents, source=source), refusals)


def planned(ledger: Ledger, run: Run | None = None, batch_orders: int = 500, claim_minutes: float = 120) -> list[Batch]:
    """Claim and cut, in a run that is opened."""
    run = run or globals()["run"]()
    open_run(ledger, run)
    return claim(ledger, run, batch_orders=batch_orders, claim_minutes=claim_minutes)


def ready(ledger: Ledger, *numbers: str, run: Run | None = None, **changes: Any) -> Run:
    """Orders with an email of their own, landed, claimed in batch 0 and ready to be sent."""
    run = run or globals()["run"]()
    landed(ledger, *(document(number, emailAddress=f"{number}@example.com", **changes) for number in numbers), run=run)
    planned(ledger, run)
    set_orders(ledger, orders.c.order_number.in_(numbers), status="ready")
    return run


class Events:
    """The part of a destination that makes events: those of the Profile Store, in bulks, by the settings."""

    settings = SETTINGS

    @property
    def bulk_events(self) -> int:
        return self.settings.sending.bulk_events

    def event(self, order: OutgoingOrder) -> tuple[dict[str, Any], bool]:
        return event_of(order, self.settings.events)


def send(destination: Any, ledger: Ledger, held: OutgoingBatch, settings: Settings) -> Delivered:
    """Send a batch to a destination that makes its events by these settings."""
    destination.settings = settings
    return send_batch(destination, ledger, held, settings.sending)


def batch(run_id: str = "run-1", batch: int = 0, destination: str = PROFILE_STORE) -> OutgoingBatch:
    return OutgoingBatch(run_id, batch, destination)


def rows(ledger: Ledger, table: str) -> list[dict[str, Any]]:
    """All rows of a table, in the order of its key."""
    selected = TABLES[table]
    with ledger.engine.connect() as connection:
        found = connection.execute(sa.select(selected).order_by(*selected.primary_key.columns))
        return [dict(row) for row in found.mappings()]


def on_the_way(ledger: Ledger, destination: str = PROFILE_STORE) -> list[dict[str, Any]]:
    """Orders, each with its latest delivery: of one whose customer is known the status is that of the delivery."""
    none: dict[str, Any] = dict.fromkeys(column.name for column in deliveries.c) | {"edition": 1, "attempts": 0}
    latest = {
        row["key"]: row for row in rows(ledger, "deliveries") if row["destination"] == destination and row["is_latest"]
    }
    found = []
    for order in rows(ledger, "orders"):
        delivery = latest.get(order["key"], none)
        both = {**order, **{name: delivery[name] for name in _OF_DELIVERIES}}
        if delivery["status"]:
            both["event_id"] = delivery["event_id"]
            if order["status"] == "matched":
                both |= {"status": delivery["status"], "reason": delivery["reason"]}
        found.append(both)
    return found


_OF_DELIVERIES = ("edition", "attempts", "sending_at", "left_seq", "waited_seq", "sent_at", "outcome_run")


def row(ledger: Ledger, number: str, destination: str = PROFILE_STORE) -> dict[str, Any]:
    """One order, as :func:`on_the_way`."""
    (found,) = (each for each in on_the_way(ledger, destination) if each["order_number"] == number)
    return found


def tally(ledger: Ledger, run_id: str = "run-1") -> dict[str, Any]:
    """One run's row."""
    (found,) = (each for each in rows(ledger, "runs") if each["run_id"] == run_id)
    return found


def statuses(ledger: Ledger, destination: str = PROFILE_STORE) -> dict[str, str]:
    return {each["order_number"]: each["status"] for each in on_the_way(ledger, destination)}


def set_orders(ledger: Ledger, *where: Any, **values: Any) -> None:
    """Change orders and their deliveries to the Profile Store behind the pipeline's back, all unless told which."""
    of_delivery = {name: values.pop(name) for name in _OF_DELIVERIES if name in values}
    status = values.get("status")
    if status in {each.value for each in DeliveryStatus} - {"suppressed"} or (of_delivery and not status):
        of_delivery |= {name: values.pop(name) for name in ("status", "reason") if name in values}
        values |= {"status": "matched"} if status else {}
    elif status:
        of_delivery = {}
    with ledger.engine.begin() as connection:
        chosen = connection.execute(sa.select(orders.c.key, orders.c.event_id).where(*where)).all()
        keys = [row.key for row in chosen]
        if status and not of_delivery:  # it has never been as far as that
            connection.execute(sa.delete(deliveries).where(deliveries.c.key.in_(keys)))
        if values:
            connection.execute(sa.update(orders).where(orders.c.key.in_(keys)).values(**values))
        if of_delivery and chosen:
            made = [ready_for(PROFILE_STORE, row.key, row.event_id) for row in chosen]
            connection.execute(ledger.insert(deliveries).on_conflict_do_nothing(), made)
            latest = (deliveries.c.key.in_(keys), deliveries.c.destination == PROFILE_STORE, deliveries.c.is_latest)
            connection.execute(sa.update(deliveries).where(*latest).values(**of_delivery))
            if of_delivery.get("attempts") or of_delivery.get("status") in ("sending", "sent", "rejected", "held"):
                its = {
                    name: sa.select(orders.c[name]).where(orders.c.key == deliveries.c.key).scalar_subquery()
                    for name in ("fingerprint", "email")
                }
                connection.execute(sa.update(deliveries).where(*latest).values(**its))


def forget_customers(ledger: Ledger) -> None:
    """As if what is remembered of the cards had expired."""
    with ledger.engine.begin() as connection:
        connection.execute(sa.delete(customers))


def alive_hours_ago(ledger: Ledger, hours: float, batch: int | None = None) -> None:
    """The last sign of life of whoever holds a batch, or any, was so long ago."""
    whose = [] if batch is None else [claims.c.batch == batch]
    with ledger.engine.begin() as connection:
        connection.execute(sa.update(claims).where(*whose).values(alive_at=hours_ago(hours)))


def hours_ago(hours: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(hours=hours)


def assert_every_record_is_in_one_place(ledger: Ledger) -> None:
    """Invariant 2, over the whole ledger."""
    known = {"pending", "ready", "sending", "sent", "unmatched", "suppressed", "rejected", "held", "cancelled"}
    assert set(statuses(ledger).values()) <= known
    received = sum(each["received"] for each in rows(ledger, "runs"))
    known_again = sum(each["duplicates"] + each["corrections"] for each in rows(ledger, "runs"))
    assert received == len(rows(ledger, "orders")) + known_again + len(rows(ledger, "quarantine"))
