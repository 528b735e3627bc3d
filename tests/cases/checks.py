"""Whether what came out is right: checks over its tables (README.md has the form, running.FIELDS the tables).

A check counts rows, or joins other checks:

    {"rows": "events", "where": {"order": "A"}, "is": 1}     also at_least, at_most; "distinct": "email" counts values
    "green", "red", "told"                                   no run is red; one is; somebody was alerted
    [check, ...]                                             all of them hold
    {"any_of": [check, ...]}                                 one of them holds
    {"never": check}                                         it does not hold
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from tests.cases.case import CaseRefused
from tests.cases.running import FIELDS, Tables

NAMED: dict[str, Any] = {
    "green": {"rows": "runs", "where": {"state": "red"}, "is": 0},
    "red": {"rows": "runs", "where": {"state": "red"}},
    "told": {"rows": "alerts", "where": {"cause": {"not": "recovered"}}},
}
_COUNTS = ("is", "at_least", "at_most")


def failing(checks: Sequence[Any], tables: Tables) -> list[Any]:
    """Those of the checks that do not hold; none where all is right.

    :raises CaseRefused: a check is not of the form; also where it would not have mattered.
    """
    for each in checks:
        validate(each)
    return [each for each in checks if not _holds(each, tables)]


def in_words(check: Any) -> str:
    """The check as a person reads it."""
    if isinstance(check, str):
        return check
    if isinstance(check, list):
        return f"({' and '.join(map(in_words, check))})"
    if "any_of" in check:
        return f"({' or '.join(map(in_words, check['any_of']))})"
    if "never" in check:
        return f"never {in_words(check['never'])}"
    where = [f"{name} {_wanted(value)}" for name, value in check.get("where", {}).items()]
    counts = [f"{name.replace('_', ' ')} {check[name]}" for name in _COUNTS if name in check] or ["at least 1"]
    distinct = [f"different {check['distinct']}s of"] if "distinct" in check else []
    return " ".join([*distinct, check["rows"], *([f"with {', '.join(where)}"] if where else []), *counts])


def _wanted(value: Any) -> str:
    if isinstance(value, list):
        return " or ".join(map(_wanted, value))
    return (
        " ".join(f"{word} {_wanted(each)}" for word, each in value.items()) if isinstance(value, dict) else str(value)
    )


def validate(check: Any) -> None:
    """:raises CaseRefused: it is not of the form. A misspelt field would count nothing, and `never` would hold."""
    if isinstance(check, list) and check:
        for each in check:
            validate(each)
    elif isinstance(check, dict) and check.keys() == {"any_of"} and isinstance(check["any_of"], list):
        validate(check["any_of"])
    elif isinstance(check, dict) and check.keys() == {"never"}:
        validate(check["never"])
    elif isinstance(check, dict) and check.get("rows") in FIELDS:
        fields = FIELDS[check["rows"]]
        used = {*check.get("where", {}), *([check["distinct"]] if "distinct" in check else [])}
        if unknown := used - set(fields):
            raise CaseRefused(f"{check['rows']} have no field {', '.join(sorted(unknown))}; there are {fields}")
        if unknown := check.keys() - {"rows", "where", "distinct", *_COUNTS}:
            raise CaseRefused(f"no check has {', '.join(sorted(unknown))}: {check}")
        for value in check.get("where", {}).values():
            if isinstance(value, dict) and value.keys() not in ({"matches"}, {"not"}):
                raise CaseRefused(f"a field is compared by matches or not: {value}")
        if not all(isinstance(check[name], int) for name in _COUNTS if name in check):
            raise CaseRefused(f"a count is a whole number: {check}")
    elif not (isinstance(check, str) and check in NAMED):
        raise CaseRefused(f"not a check: {check}")


def _holds(check: Any, tables: Tables) -> bool:
    if isinstance(check, str):
        return _holds(NAMED[check], tables)
    if isinstance(check, list):
        return all(_holds(each, tables) for each in check)
    if "any_of" in check:
        return any(_holds(each, tables) for each in check["any_of"])
    if "never" in check:
        return not _holds(check["never"], tables)
    rows = [row for row in tables[check["rows"]] if _matches(row, check.get("where", {}))]
    count = len({str(row[check["distinct"]]) for row in rows}) if "distinct" in check else len(rows)
    if "is" in check:
        return bool(count == check["is"])
    least = check.get("at_least", 0 if "at_most" in check else 1)
    return bool(least <= count <= check.get("at_most", count))


def _matches(row: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(_is(row[name], wanted) for name, wanted in where.items())


def _is(value: Any, wanted: Any) -> bool:
    """:param wanted: a value, a list of such, ``{"matches": regular expression}`` or ``{"not": any of these}``."""
    if isinstance(wanted, list):
        return any(_is(value, each) for each in wanted)
    if isinstance(wanted, dict):
        if "not" in wanted:
            return not _is(value, wanted["not"])
        return value is not None and re.search(wanted["matches"], str(value)) is not None
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        try:
            return Decimal(str(value)) == Decimal(str(wanted))
        except InvalidOperation:
            return False
    return bool(value == wanted)
