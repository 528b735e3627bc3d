"""What is kept of an order when its person is forgotten: what it is known again by."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from decimal import Decimal

import simplejson

_ALWAYS = ("orderNumber", "orderType", "date", "storeId", "currency", "total")
_DOCUMENT = (
    "till|register|terminal|workstation|pos|receipt|ticket|transaction|trans|sequence|seq|invoice|document|shift|"
    "company|branch|site|channel"
)
_NAMES_A_DOCUMENT = re.compile(rf"(?:(?:{_DOCUMENT}|id|number|num|no|nr|code|key)[ _-]?)+", re.IGNORECASE)
_OF_ONE = re.compile(_DOCUMENT, re.IGNORECASE)
"""Fields of these words alone, such as tillId or receipt_number, may become part of the key; a person is in none."""


def without_person(payload: str, key_fields: Collection[str]) -> str:
    """The payload without lines, names and whatever else may be of a person.

    Its key can be computed still: by the fields it has now, and by those that name a till or a document.

    :param key_fields: in camelCase.
    """
    document = json.loads(payload, parse_float=Decimal)
    lines = document.get("lines") or []
    # A row a line has all columns, so that a field of the key may be in the lines only.
    of_lines = {name: value for name, value in (lines[0] if lines else {}).items() if _in_all(lines, name, value)}
    kept = {
        name: value
        for name, value in {**of_lines, **document}.items()
        if name in _ALWAYS or (isinstance(value, str | int) and (name in key_fields or _names_a_document(name)))
    }
    text: str = simplejson.dumps(kept, use_decimal=True, ensure_ascii=False, separators=(",", ":"))
    return text


def _in_all(lines: Collection[dict[str, object]], name: str, value: object) -> bool:
    return all(line.get(name) == value for line in lines)


def _names_a_document(name: str) -> bool:
    return bool(_NAMES_A_DOCUMENT.fullmatch(name) and _OF_ONE.search(name))
