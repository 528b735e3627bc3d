"""Sentences about the outside that can be acted out as they stand: those of a fixed form, whole or not at all.

A folder of somebody else has words alone; what is made of them is printed, so that a person can see it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

PAGE = "<!doctype html><html><body><h1>We are down for maintenance</h1></body></html>"
_EVERY = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_STATUSES = {"erased": "erased", "opted out": "opted_out", "inactive": "inactive", "no email": "active"}
_BODY = r"(?:with )?(\{.*\}|an? (?:[\w-]+ )*HTML[\w ]*|an empty body|)"
_MEMBER = (
    r"(?:card )?(\w*\d\w*) (?:is |has )?(?:of )?(?:an? |one who )?(erased|opted out|inactive|no email)(?: member)?"
)

StandIns = dict[str, dict[str, Any]]


def _given(status: str, body: str) -> dict[str, Any]:
    if body.startswith("{"):
        return {"status": int(status), "body": json.loads(body.replace("...", '"..."'))}
    return {"status": int(status), "body": PAGE if "HTML" in body else ""}


def _cards(text: str) -> list[str]:
    return re.findall(r"\w*\d\w*", text)


def _members(sentence: re.Match[str]) -> StandIns:
    members: dict[str, dict[str, str]] = {}
    for card, state in re.findall(_MEMBER, sentence[1]):
        gone = state in ("erased", "no email")
        members[card] = {"status": _STATUSES[state], "email": "" if gone else f"m{card}@example.com"}
    return {"loyalty": {"members": members}}


def _per_item(sentence: re.Match[str]) -> StandIns:
    return {"profile_store": {"item_statuses": [200] * (_EVERY.index(sentence[1]) - 1) + [int(sentence[2])]}}


_FORMS: tuple[tuple[str, Callable[[re.Match[str]], StandIns]], ...] = (
    (
        rf"loyalty API: (?:status )?(\d{{3}}) {_BODY} ?for every card",
        lambda found: {"loyalty": {"given": {"*": _given(found[1], found[2])}}},
    ),
    (
        rf"loyalty API: cards? ([\w, ]*?\d\w*) answers? (?:status )?(\d{{3}}) ?{_BODY}(?:, all others are matched)?",
        lambda found: {"loyalty": {"given": {card: _given(found[2], found[3]) for card in _cards(found[1])}}},
    ),
    (rf"loyalty API: ({_MEMBER}(?:(?:,|,? and) {_MEMBER})*)", _members),
    (
        r"loyalty API: .*whose card number contains the asked text \(members? ([\w, ]+) exists?\)",
        lambda found: {
            "loyalty": {
                "anybody": "",
                "members": {each: {"email": f"m{each}@example.com"} for each in _cards(found[1])},
            }
        },
    ),
    (r"Tracking API: 207 with a list of items .*every (\w+) with status (\d{3})(?: and not stored)?", _per_item),
    (
        rf"Tracking API: (?:status )?(\d{{3}}) ?{_BODY}(?:, nothing is stored| for every (?:call|request))?",
        lambda found: {"profile_store": {"only": ["POST "], "given": {"*": _given(found[1], found[2])}}},
    ),
    (
        r"a proxy before the Tracking API resets every connection whose body is over (\d+) KB",
        lambda found: {"profile_store": {"largest_body": int(found[1]) * 1000}},
    ),
    (
        r"(\d+) such messages, time to live (\d+) s,.*; drained after they expired",
        lambda found: {"bus": {"copies": int(found[1]), "time_to_live": int(found[2]), "wait": int(found[2]) + 1}},
    ),
)


def read_words(sentences: list[str]) -> tuple[StandIns, list[str]]:
    """What the stand-ins are told by these sentences, and the sentences that are of no known form."""
    told: StandIns = {}
    unknown = []
    for sentence in sentences:
        made = _made_of(sentence)
        if not made:
            unknown.append(sentence)
        for name, knobs in (made or {}).items():
            _merge(told.setdefault(name, {}), knobs)
    return told, unknown


def _made_of(sentence: str) -> StandIns | None:
    for form, make in _FORMS:
        if found := re.fullmatch(form, sentence.strip().rstrip(".")):
            try:
                return make(found)
            except ValueError:  # no JSON, or a count that has no word
                return None
    return None


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        into[name] = into[name] | value if isinstance(into.get(name), dict) else value
