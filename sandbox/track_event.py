"""One tracking event as the Tracking API takes it, and what it refuses (contracts.md, section 2)."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from .raw_json import RawObject

MAX_EVENT_BYTES = 256 * 1024
MAX_SCOPE = 64
DEFAULT_SCOPE = "default"
REQUIRED = ("deviceId", "eventType", "value")
_TEXTS = ("trackId", "deviceId", "eventType", "value", "scope", "pageUri", "pageTitle", "eventTime", "remoteAddress")
_PROFILE_NAMESPACE = uuid.UUID("9c1f6a52-6f0b-4f43-9d6b-0f2b9f1d7a11")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


class EventRefusedError(ValueError):
    """The Tracking API does not take this event.

    status: 400, or 413 when it is too large. field: which part is wrong. The message quotes no value.
    """

    def __init__(self, field: str, problem: str, status: int = 400) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem
        self.status = status


@dataclass(frozen=True)
class TrackEvent:
    """An accepted event, in the shape in which the store keeps it. Times are microseconds since 1970, UTC."""

    track_id: str
    device_id: str
    event_type: str
    event_time: str
    event_time_us: int
    value: str
    scope: str
    email: str
    user_name: str
    order_number: str
    store: str
    payload: str
    raw: str

    @property
    def profile_id(self) -> str:
        """The profile this event belongs to: one per scope and email. Empty without an email."""
        return str(uuid.uuid5(_PROFILE_NAMESPACE, f"{self.scope}\n{self.email.lower()}")) if self.email else ""


def microseconds(moment: datetime) -> int:
    """Return an aware time as microseconds since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_time(text: str) -> int:
    """Return an ISO 8601 date or time as microseconds since 1970; without an offset it is UTC.

    Raises ValueError. (Python 3.10's own parser knows neither Z nor three-digit fractions reliably.)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError("not an ISO 8601 time")
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    moment = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=timezone.utc
    )
    micro = int(((fraction or "0") + "000000")[:6])
    shift = timedelta()
    if offset and offset != "Z":
        digits = offset[1:].replace(":", "")
        shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:])) * (-1 if offset[0] == "-" else 1)
    return microseconds(moment) + micro - shift // timedelta(microseconds=1)


def order_number_of(members: dict[str, Any]) -> str:
    """Return the order number in an event's payload, or "" when it has none."""
    return _payload_text(members.get("payload"), "orderNumber")


def _payload_text(payload: object, name: str) -> str:
    if not isinstance(payload, dict):
        return ""
    value = payload.get(name, payload.get(name[:1].upper() + name[1:]))
    return str(value) if isinstance(value, str | int) else ""


def accept(event: RawObject, received: datetime) -> TrackEvent:
    """Return the event the Tracking API would take.

    received: stands in for a missing eventTime.
    Raises EventRefusedError.
    """
    if len(event.text.encode("utf-8")) > MAX_EVENT_BYTES:
        raise EventRefusedError("event", "is larger than 256 KB", status=413)
    members = event.members
    for name in _TEXTS:
        value = members.get(name)
        if value is not None and not _is_text(value):
            raise EventRefusedError(name, "must be a text")
    for name in REQUIRED:
        if not members.get(name):
            raise EventRefusedError(name, "is required")
    scope = members.get("scope") or DEFAULT_SCOPE
    if len(scope) > MAX_SCOPE:
        raise EventRefusedError("scope", "is longer than 64 characters")
    user = members.get("user")
    if user is None:
        user = {}
    if not isinstance(user, dict):
        raise EventRefusedError("user", "must be an object")
    payload = members.get("payload")
    if payload is not None and not isinstance(payload, dict):
        raise EventRefusedError("payload", "must be an object")
    event_time = members.get("eventTime") or received.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    try:
        event_time_us = parse_time(event_time)
    except ValueError:
        raise EventRefusedError("eventTime", "is not an ISO 8601 time") from None
    return TrackEvent(
        track_id=members.get("trackId") or str(uuid.uuid4()),
        device_id=members["deviceId"],
        event_type=members["eventType"],
        event_time=event_time,
        event_time_us=event_time_us,
        value=members["value"],
        scope=scope,
        email=_user_text(user, "email"),
        user_name=_user_text(user, "name"),
        order_number=order_number_of(members),
        store=_payload_text(payload, "storeId"),
        payload=event.raw.get("payload", "null"),
        raw=event.text,
    )


def _is_text(value: object) -> bool:
    # A lone surrogate can be written as an escape, but no store can keep it as text.
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _user_text(user: dict[str, Any], name: str) -> str:
    value = user.get(name, user.get(name.capitalize()))
    if value is None:
        return ""
    if not _is_text(value):
        raise EventRefusedError(f"user.{name}", "must be a text")
    return str(value)
