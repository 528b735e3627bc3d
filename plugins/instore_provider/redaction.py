"""
What a message may say about an answer, and what not.

Logs, reprs and errors hold no email, card, key or payload. Answers of a service and log lines of the HTTP libraries
are the two places where they would slip in, so both pass through here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import simplejson

DETAIL_LENGTH = 200
"""Characters of a service's own words that are kept."""

_SHORTEST_PRIVATE = 3
"""A leaf shorter than this ("1", "EA") would mask half of every message and identifies no person."""

_LONGEST_EXAMINED = 8_192

_EMAIL = re.compile(r"[^\s\"'<>,;:=()\[\]{}]+(?:@|%40)[^\s\"'<>,;()\[\]{}]+", re.IGNORECASE)
_DIGITS = re.compile(r"\d(?:[\s.-]?\d){3,}")
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")

# Where services put the sentence for people: RFC 9457, Azure, Spring, plain ones.
_MESSAGE_PLACES = ("detail", "message", "error_description", "error", "title", "reason")


def safe_detail(body: bytes, private: Iterable[str] = ()) -> str:
    """
    Return the message in an error answer, fit for a log: one line, bounded, and without personal data.

    :param body: the answer as it came, JSON or text.
    :param private: texts that must not show, such as the values of the event that was refused.
    """
    text = body[:_LONGEST_EXAMINED].decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):  # not JSON, or cut off: its text is the message
        text = _message_in(simplejson.loads(text)) or text
    return redact(text, private)[:DETAIL_LENGTH]


def redact(text: str, private: Iterable[str] = ()) -> str:
    """Return `text` on one line, with the private texts, email addresses and runs of four or more digits replaced."""
    for secret in sorted({each for each in private if len(each) >= _SHORTEST_PRIVATE}, key=len, reverse=True):
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    text = _EMAIL.sub("<email>", text)
    text = _DIGITS.sub("<digits>", text)
    return _CONTROL.sub(" ", text).strip()


def leaf_texts(value: Any) -> Iterator[str]:
    """Return every text and number inside a JSON-like value, as text; keys are not among them."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from leaf_texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from leaf_texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _message_in(answer: Any) -> str | None:
    if isinstance(answer, list) and answer:
        return _message_in(answer[0])
    if not isinstance(answer, dict):
        return None
    by_name = {str(name).lower(): value for name, value in answer.items()}
    for place in _MESSAGE_PLACES:
        value = by_name.get(place)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, (dict, list)) and (inner := _message_in(value)):
            return inner
    return None


_private_call: ContextVar[bool] = ContextVar("instore_provider_private_call", default=False)

_LOGGERS_THAT_TELL = (
    "urllib3.connectionpool",  # the path and query of each request, at DEBUG
    "urllib3.util.retry",
)


def _outside_private_calls(_: logging.LogRecord) -> bool:
    return not _private_call.get()


for _name in _LOGGERS_THAT_TELL:
    logging.getLogger(_name).addFilter(_outside_private_calls)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the HTTP libraries from logging URLs and tokens in this thread; other code's calls are logged as before."""
    token = _private_call.set(True)
    try:
        yield
    finally:
        _private_call.reset(token)
