"""Tracking events on their way out: their bytes, the bulks they travel in, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import simplejson

__all__ = ["EventOutcome", "OutcomeState"]

OutcomeState = Literal["accepted", "refused", "unsent", "ambiguous"]


@dataclass(frozen=True)
class EventOutcome:
    """
    What became of one event.

    :param index: its position in the sequence that was given.
    :param track_id: its trackId, or "" when it has none.
    :param state: `accepted`; `refused`, for what it is, and will be again; `unsent`, certainly not taken, send it
        again later; `ambiguous`, may have been taken: ask the Profile Store before sending it again.
    :param status_code: HTTP status of the answer that decided it, or None without one.
    :param detail: why, in at most 200 characters without personal data.
    :param retry_after: for unsent ones, the seconds after which the service said it can be asked again.
    """

    index: int
    track_id: str
    state: OutcomeState
    status_code: int | None = None
    detail: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class EncodedEvent:
    """One event as it travels."""

    index: int
    track_id: str
    body: bytes = field(repr=False)


def encode(index: int, event: Mapping[str, Any]) -> EncodedEvent | EventOutcome:
    """Return an event's JSON bytes, Decimals with their exact digits; or its refusal, when it has no JSON form."""
    track_id = str(event.get("trackId") or "")
    try:
        text = simplejson.dumps(
            dict(event), use_decimal=True, allow_nan=False, ensure_ascii=True, separators=(",", ":")
        )
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # Not the error's own text: it quotes the value.
        return EventOutcome(index, track_id, "refused", detail=f"cannot be written as JSON ({type(error).__name__})")
    return EncodedEvent(index, track_id, text.encode())


def cut_into_bulks(events: Sequence[EncodedEvent], size: int, max_bytes: int) -> Iterator[list[EncodedEvent]]:
    """
    Cut events into bulks of at most `size` events and `max_bytes` bytes of body, in their order.

    An event that is larger alone travels alone: only the service can say whether it takes it.
    """
    bulk: list[EncodedEvent] = []
    length = 2  # the brackets
    for event in events:
        if bulk and (len(bulk) >= size or length + len(event.body) + 1 > max_bytes):
            yield bulk
            bulk, length = [], 2
        length += len(event.body) + (1 if bulk else 0)
        bulk.append(event)
    if bulk:
        yield bulk


def bulk_body(events: Iterable[EncodedEvent]) -> bytes:
    """Return the JSON array of some events."""
    return b"[" + b",".join(event.body for event in events) + b"]"
