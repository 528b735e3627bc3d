"""The small part of OData that the Profile Store API understands (contracts.md, section 3).

`$filter` is `Field op value [and Field op value ...]` with unquoted values; `$orderBy` is `Field [asc|desc], ...`.
There are no wildcards, no `or` and no quotes: a quote is part of the value.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

OPERATORS = {"eq": "=", "ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
PAYLOAD = "Payload."
DEFAULT_TOP = 100
WINDOW = 10_000
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)


class QueryError(ValueError):
    """The query is not one that the API understands. The message quotes no value."""


@dataclass(frozen=True)
class Condition:
    """One comparison. `operator` is a key of OPERATORS."""

    field: str
    operator: str
    value: str


@dataclass(frozen=True)
class Page:
    """Which part of the result is wanted."""

    skip: int = 0
    top: int = DEFAULT_TOP


def parse_filter(text: str | None, fields: Collection[str]) -> list[Condition]:
    """Return the comparisons of a $filter, all of which must hold.

    fields: the fields that may be asked for; "Payload." stands for any path below it.
    Raises QueryError.
    """
    if text is None or not text.strip():
        return []
    conditions = []
    for part in _AND.split(text.strip()):
        words = part.split(None, 2)
        if len(words) != 3:
            raise QueryError("A comparison needs a field, an operator and a value.")
        field, operator, value = words
        if field not in fields and not (PAYLOAD in fields and field.startswith(PAYLOAD) and len(field) > len(PAYLOAD)):
            raise QueryError("The filter names a field that cannot be filtered by.")
        if operator.lower() not in OPERATORS:
            raise QueryError("The filter uses an operator that is not supported.")
        conditions.append(Condition(field, operator.lower(), value.strip()))
    return conditions


def parse_order(text: str | None, fields: Collection[str]) -> list[tuple[str, bool]]:
    """Return the (field, descending) pairs of an $orderBy. Raises QueryError."""
    order = []
    for part in (text or "").split(","):
        words = part.split()
        if not words:
            continue
        direction = words[1].lower() if len(words) > 1 else "asc"
        if words[0] not in fields or direction not in ("asc", "desc") or len(words) > 2:
            raise QueryError("The order is not supported.")
        order.append((words[0], direction == "desc"))
    return order


def parse_page(skip: str | None, top: str | None) -> Page:
    """Return the part that is wanted. Raises QueryError when skip and top pass the window of 10,000."""
    try:
        page = Page(int(skip) if skip else 0, int(top) if top else DEFAULT_TOP)
    except ValueError:
        raise QueryError("$skip and $top must be whole numbers.") from None
    if page.skip < 0 or page.top < 0:
        raise QueryError("$skip and $top must not be negative.")
    if page.skip + page.top >= WINDOW:
        raise QueryError("$skip and $top together must be less than 10000.")
    return page


def payload_holds(payload: Any, condition: Condition) -> bool:
    """Return whether a `Payload.a.b` comparison holds. Numbers compare as numbers, exactly; all else as text."""
    value = payload
    for name in condition.field[len(PAYLOAD) :].split("."):
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    if isinstance(value, bool):
        return _compare(str(value).lower(), condition.operator, condition.value.lower())
    if isinstance(value, int | Decimal):
        try:
            return _compare(Decimal(value), condition.operator, Decimal(condition.value))
        except InvalidOperation:
            return False
    return isinstance(value, str) and _compare(value, condition.operator, condition.value)


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator == "eq":
        return bool(left == right)
    if operator in ("ge", "gt"):
        return bool(left > right or (operator == "ge" and left == right))
    return bool(left < right or (operator == "le" and left == right))
