"""Reads JSON and keeps the text it was written in, so that 1.10 is still 1.10 when it is shown again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class RawJSONError(ValueError):
    """The text is not the JSON that was expected. The message quotes nothing of it."""


@dataclass(frozen=True)
class RawObject:
    """One JSON object.

    text: exactly as it came. members: its values by name. raw: the exact text of each value by name.
    Names begin with a small letter, whatever they came with: the real service binds them without regard to case.
    """

    text: str
    members: dict[str, Any]
    raw: dict[str, str]


def read_object(body: bytes) -> RawObject:
    """Return the one JSON object of a body. Raises RawJSONError."""
    try:
        values = {name[:1].lower() + name[1:]: bytes(raw).decode() for name, raw in _OBJECT.decode(body).items()}
        return RawObject(body.decode().strip(), {name: json.loads(text) for name, text in values.items()}, values)
    except (ValueError, RecursionError):
        # From None: the decoder's own error may carry the document.
        raise RawJSONError("a JSON object was expected") from None


def read_array_of_objects(body: bytes) -> list[RawObject]:
    """Return the objects of a body that is a JSON array. Raises RawJSONError."""
    try:
        elements = _ARRAY.decode(body)
    except (ValueError, RecursionError):
        raise RawJSONError("a JSON array was expected") from None
    return [read_object(bytes(element)) for element in elements]
