"""What a 2xx says about the events that were sent: taken, not taken, or something unreadable."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instore_provider.events import EncodedEvent

_FLAGS = ("success", "succeeded", "issuccess", "ok")
_ERRORS = ("error", "errors", "errorcode", "errormessage", "exception", "fault")
_BAD_NAME = re.compile("error|exception|(?<!de)fault|fail|reject|invalid|refus|denied|dropped|discarded|skipped")
_GOOD_NAME = re.compile(
    "(?:is|was|num|number|count)?(?:of)?(?:ok|success|successful|succeeded|accepted|queued|processed|received|stored|saved|"
    "ingested|imported|written|created|delivered|valid)(?:count|events|items|records|messages)?"
)
"""Names that say whether, or how many, events were taken."""
_GOOD_WORD = re.compile(
    r"2\d\d\b.*|ok|success|successful|succeeded|accepted|queued|created|completed?|done|processed|received|stored|true",
    re.IGNORECASE,
)
_SENTENCES = ("message", "msg", "title", "detail", "details", "description", "reason", "text")
_NO_FAILURE = re.compile(r"\b(?:no|without|0|zero) (?:\w+ )?(?:errors?|failures?)\b", re.IGNORECASE)
_BAD_WORD = re.compile(
    r"error|fail|exception|denied|reject|refus|invalid|exceed|unauthori|forbidden|unavailable|maintenance|time[d ]*out"
    r"|quota|\bnot\b|cannot|unknown|missing|expired|disabled|too many",
    re.IGNORECASE,
)
_FAILURES = ("error", "fail", "failed", "failure", "rejected", "invalid")
"""What a status in words says of an event that was not taken."""
_STATUSES = ("status", "statusCode", "status_code", "code")
_WORDS = ("status", "result", "state", "outcome")
_NOTHING = ("0", "none", "null", "no", "false")
_IDS = ("trackId", "TrackId", "track_id", "id")
_LISTS = ("items", "results", "events", "data", "value", "responses")
_FAILED = 400
_MULTI_STATUS = 207


@dataclass(frozen=True)
class Taken:
    """What one answer says of a bulk.

    :param state: of the whole bulk: `accepted`, `failed`, `unreadable`, or `by_item`.
    :param statuses: by the event's place in the bulk, the status of each that was not taken; 0 where none is said.
    """

    state: str
    statuses: Mapping[int, int]


def read_answer(body: bytes, bulk: Sequence[EncodedEvent], success_body: str = "", status: int = 200) -> Taken:
    """
    Read the body of a 2xx. An empty one, and JSON in which nothing can mean a failure, say that the bulk was taken.

    :param success_body: what else says so, with * for any characters.
    :param status: of the answer; a 207 has a status for each event, or cannot be read.
    """
    text = body.decode("utf-8", errors="replace").strip()
    if (not text and status != _MULTI_STATUS) or (success_body and _is_like(text, success_body)):
        return Taken("accepted", {})
    try:
        said = json.loads(text)
    except ValueError:
        return Taken("unreadable", {})
    items = _items(said)
    failed = [(_place(item, at, bulk, len(items)), _status(item)) for at, item in enumerate(items) if _is_failure(item)]
    if failed:
        statuses = {place: status for place, status in failed if place is not None}
        return Taken("unreadable" if None in dict(failed) else "by_item", statuses)
    if _is_failure(said):
        return Taken("failed", {})
    of_some = len(items) < len(bulk) and (bool(items) or status == _MULTI_STATUS)
    doubtful = of_some or any(_may_be_failure(name, value, len(bulk)) for name, value in _parts(said))
    return Taken("unreadable" if doubtful else "accepted", {})


def _is_like(text: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def _parts(said: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All values with their names, those of values within values too."""
    yield name, said
    if isinstance(said, Mapping):
        for each, value in by_name(said).items():
            yield from _parts(value, each)
    elif isinstance(said, list):
        for value in said:
            yield from _parts(value)


def _may_be_failure(name: str, value: Any, events: int) -> bool:
    """Whether what stands there judges the events, and is not known to mean that all were taken."""
    if _GOOD_NAME.fullmatch(name):
        return value is False or (isinstance(value, int | float) and value is not True and value < events)
    if isinstance(value, str) and name in _WORDS:
        return bool(value.strip()) and _GOOD_WORD.fullmatch(value.strip()) is None
    if isinstance(value, str) and (not name or name in _SENTENCES):
        return _BAD_WORD.search(_NO_FAILURE.sub("", value)) is not None
    return _BAD_NAME.search(name) is not None and str(value or "0").casefold() not in _NOTHING


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
    named = by_name(said)
    words = [str(named.get(name, "")).strip().casefold() for name in (*_WORDS, *_FLAGS)]
    return (
        any(word in _FAILURES for word in words[: len(_WORDS)])
        or any(word in ("false", "0") for word in words[len(_WORDS) :])
        or any(_is_told(named, name) for name in _ERRORS)
        or _status(said) >= _FAILED
    )


def by_name(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object by their names in one spelling."""
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
