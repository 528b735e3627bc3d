"""What a 2xx says about the events that were sent: taken, not taken, or something unreadable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instore_provider.events import EncodedEvent

_FLAGS = ("success", "succeeded", "issuccess", "ok")
_ERRORS = ("error", "errors", "errorcode", "errormessage", "exception", "fault")
_IN_PART = ("failed", "failures", "failedcount", "errorcount", "rejected", "rejectedcount", "invalids")
"""That some were not taken, and not which."""
_FAILURES = ("error", "fail", "failed", "failure", "rejected", "invalid")
"""What a status in words says of an event that was not taken."""
_STATUSES = ("status", "statusCode", "status_code", "code")
_WORDS = ("status", "result", "state", "outcome")
_NOTHING = ("0", "none", "null", "no", "false")
_IDS = ("trackId", "TrackId", "track_id", "id")
_LISTS = ("items", "results", "events", "data", "value", "responses")
_FAILED = 400


@dataclass(frozen=True)
class Taken:
    """What one answer says of a bulk.

    :param state: of the whole bulk: `accepted`, `failed`, `unreadable`, or `by_item`.
    :param statuses: by the event's place in the bulk, the status of each that was not taken; 0 where none is said.
    """

    state: str
    statuses: Mapping[int, int]


def read_answer(body: bytes, bulk: Sequence[EncodedEvent], success_body: str = "") -> Taken:
    """
    Read the body of a 2xx. An empty one, and JSON without a sign of failure, say that the bulk was taken.

    :param success_body: text that says the same, where a service answers with text.
    """
    text = body.decode("utf-8", errors="replace").strip()
    if not text or (success_body and text == success_body):
        return Taken("accepted", {})
    try:
        said = json.loads(text)
    except ValueError:
        return Taken("unreadable", {})
    items = _items(said)
    failed = {at: _status(item) for at, item in enumerate(items) if _is_failure(item)}
    if failed:
        places = [_place(item, at, bulk, len(items)) for at, item in enumerate(items)]
        if None in [places[at] for at in failed]:
            return Taken("unreadable", {})
        return Taken("by_item", {place: failed[at] for at in failed if (place := places[at]) is not None})
    if _is_failure(said):
        return Taken("failed", {})
    in_part = isinstance(said, Mapping) and any(_is_told(_named(said), name) for name in _IN_PART)
    return Taken("unreadable" if in_part else "accepted", {})


def _items(said: Any) -> list[Mapping[str, Any]]:
    """The parts that speak of one event each."""
    found = said
    if isinstance(said, Mapping):
        found = next((said[name] for name in _LISTS if isinstance(said.get(name), list)), [])
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _is_failure(said: Any) -> bool:
    if said is False:
        return True
    if not isinstance(said, Mapping):
        return False
    named = _named(said)
    words = [str(named.get(name, "")).strip().casefold() for name in (*_WORDS, *_FLAGS)]
    return (
        any(word in _FAILURES for word in words[: len(_WORDS)])
        or any(word in ("false", "0") for word in words[len(_WORDS) :])
        or any(_is_told(named, name) for name in _ERRORS)
        or _status(said) >= _FAILED
    )


def _named(said: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).casefold().replace("_", "").replace("-", ""): value for name, value in said.items()}


def _is_told(named: Mapping[str, Any], name: str) -> bool:
    return str(named.get(name) or "0").casefold() not in _NOTHING


def _status(item: Mapping[str, Any]) -> int:
    for name in _STATUSES:
        value = item.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.isdecimal():
            return int(value)
    return 0


def _place(item: Mapping[str, Any], at: int, bulk: Sequence[EncodedEvent], items: int) -> int | None:
    """Which event of the bulk an item is about: by its id, its index, or its place where there is one for each."""
    ids = [event.track_id for event in bulk]
    named = next((str(item[name]) for name in _IDS if name in item), None)
    if named in ids:
        return ids.index(named)
    index = item.get("index")
    if isinstance(index, int) and 0 <= index < len(bulk):
        return index
    return at if items == len(bulk) else None
