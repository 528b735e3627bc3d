"""The tracking event of an order, as the original design has it (contracts.md section 2), plus ``trackId``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any

import simplejson

from include.instore.model.destinations import PROFILE_STORE
from include.instore.model.settings import EventSettings

_SHORTEST_EMAIL = 3
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:instore-orders:tracking-event")


class StoredPayload(simplejson.RawJSON, Mapping[str, Any]):
    """An order's payload as the text that is stored: it goes out as it is, and is parsed where somebody looks into it.

    :raises ValueError: the text is no JSON; one such would spoil the whole bulk.
    """

    def __init__(self, text: str) -> None:
        json.loads(text)
        # Outside ASCII everything goes out escaped, so that no reader can take it for another encoding.
        super().__init__(text if text.isascii() else _dumps(json.loads(text, parse_float=Decimal)))

    @cached_property
    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.encoded_json, parse_float=Decimal)
        return document

    def __getitem__(self, name: str) -> Any:
        return self._document[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)


def event_kind(order_type: str, settings: EventSettings) -> tuple[str, str]:
    """``(eventType, value)`` of a sale or a return; a return is never a purchase."""
    if order_type == "return":
        return settings.return_event_type, settings.return_event_value
    return settings.event_type, settings.event_value


def event_id(scope: str, event_type: str, *key: str) -> str:
    """One order has one event id, whatever the source, run or try: uuid5(scope, event type, key).

    :param key: the order's number, or the elements of its key where that is more than its number.
    """
    return str(uuid.uuid5(_NAMESPACE, json.dumps([scope, event_type, *key])))


def first_event_id(order_event_id: str, destination: str) -> str:
    """The event id of an order's first edition at a destination. :param order_event_id: as of :func:`event_id`."""
    if destination == PROFILE_STORE:
        return order_event_id
    return str(uuid.uuid5(_NAMESPACE, json.dumps([order_event_id, destination])))


def next_event_id(before: str, edition: int | str) -> str:
    """The event id of an order's next edition, or of an order beside it.

    :param before: that of the edition before it, or of the order. :param edition: its number, or its content.
    """
    return str(uuid.uuid5(_NAMESPACE, json.dumps([before, edition])))


def customer_key(scope: str, email: str) -> str:
    """A device id of the customer's own: uuid5 of scope and normalised email."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([scope, email.strip().lower()])))


def build_event(
    *, track_id: str, order_type: str, order_time: datetime, payload: str, email: str, settings: EventSettings
) -> tuple[dict[str, Any], bool]:
    """The body of ``POST /api/v1.0/Track`` for one order, and whether its payload had to be truncated.

    Amounts stay Decimal, for a serialiser that keeps their digits.

    :param payload: the order as JSON text, see :meth:`InStoreOrder.payload`.
    :raises ValueError: there is no email, or the payload is no JSON.
    """
    event_type, value = event_kind(order_type, settings)
    if len(email) < _SHORTEST_EMAIL:
        raise ValueError("the event has no email address, by which the Profile Store knows the customer")
    event: dict[str, Any] = {
        "trackId": track_id,
        "deviceId": settings.device_id.format(customer_key=customer_key(settings.scope, email)),
        "eventType": event_type,
        "value": value,
        "eventTime": utc_milliseconds(order_time),
        "scope": settings.scope,
        "user": {"email": email},
        "payload": StoredPayload(payload),
    }
    if event_bytes(event) <= settings.max_event_bytes:
        return event, False
    event["payload"] = _summary(event["payload"])
    return event, True


def event_bytes(event: dict[str, Any]) -> int:
    """Bytes of the event on the wire."""
    return len(_dumps(event))  # in ASCII


def _dumps(value: Any) -> str:
    text: str = simplejson.dumps(value, use_decimal=True, separators=(",", ":"))
    return text


def utc_milliseconds(moment: datetime) -> str:
    """``2017-09-19T08:24:19.996Z``"""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_ORDER_FIELDS = (
    "orderNumber", "date", "storeId", "storeName", "loyaltyCardNumber", "emailAddress", "currency", "total", "orderType"
)  # fmt: skip


def _summary(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of an order too large for one event: its own fields, how many lines, and that they are missing."""
    # A store's name has no limit in the contract; the others have one, and fit.
    kept = {
        name: value[:254] if isinstance(value, str) else value
        for name in _ORDER_FIELDS
        if (value := payload.get(name)) is not None
    }
    return {**kept, "lineCount": len(payload.get("lines", ())), "payloadTruncated": True}
