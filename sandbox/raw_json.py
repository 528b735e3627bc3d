"""Reads JSON and keeps the text it was written in, so that 1.10 is still 1.10 when it is shown again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn


class RawJSONError(ValueError):
    """The text is not the JSON that was expected. The message quotes nothing of it."""


@dataclass(frozen=True)
class RawObject:
    """One JSON object.

    text: exactly as it came. members: its values by name. raw: the exact text of each value by name.
    Names begin with a small letter, whatever they came with: the real service binds them without regard to case.
    """

    text: str
    members: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)


def _refuse_constant(_name: str) -> NoReturn:
    raise RawJSONError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SPACE = re.compile(r"[ \t\n\r]*")


def read_object(body: bytes) -> RawObject:
    """Return the one JSON object of a body. Raises RawJSONError."""
    text = _text(body)
    found, end = _object_at(text, _skip_space(text, 0))
    _expect_end(text, end)
    return found


def read_array_of_objects(body: bytes) -> list[RawObject]:
    """Return the objects of a body that is a JSON array. Raises RawJSONError."""
    text = _text(body)
    at = _skip_space(text, 0)
    if text[at : at + 1] != "[":
        raise RawJSONError("the body is not an array")
    at = _skip_space(text, at + 1)
    found: list[RawObject] = []
    if text[at : at + 1] == "]":
        _expect_end(text, at + 1)
        return found
    while True:
        element, at = _object_at(text, at)
        found.append(element)
        at = _skip_space(text, at)
        mark = text[at : at + 1]
        at = _skip_space(text, at + 1)
        if mark == "]":
            _expect_end(text, at)
            return found
        if mark != ",":
            raise RawJSONError("the array is broken")


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise RawJSONError("the body is not UTF-8") from None


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect_end(text: str, at: int) -> None:
    if _skip_space(text, at) != len(text):
        raise RawJSONError("there is something after the end")


def _value_at(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RawJSONError:
        raise
    except (ValueError, RecursionError):
        # From None: the decoder's own error carries the whole document.
        raise RawJSONError("a value is broken") from None


def _object_at(text: str, start: int) -> tuple[RawObject, int]:
    if text[start : start + 1] != "{":
        raise RawJSONError("an object was expected")
    members: dict[str, Any] = {}
    raw: dict[str, str] = {}
    at = _skip_space(text, start + 1)
    if text[at : at + 1] == "}":
        return RawObject(text[start : at + 1]), at + 1
    while True:
        if text[at : at + 1] != '"':
            raise RawJSONError("a name was expected")
        name, at = _value_at(text, at)
        at = _skip_space(text, at)
        if text[at : at + 1] != ":":
            raise RawJSONError("a colon was expected")
        at = _skip_space(text, at + 1)
        value, end = _value_at(text, at)
        name = name[:1].lower() + name[1:]
        members[name], raw[name] = value, text[at:end]
        at = _skip_space(text, end)
        mark = text[at : at + 1]
        if mark == "}":
            return RawObject(text[start : at + 1], members, raw), at + 1
        if mark != ",":
            raise RawJSONError("the object is broken")
        at = _skip_space(text, at + 1)
