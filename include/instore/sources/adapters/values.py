"""Numbers and dates as a declaration says that they are written; what is written otherwise is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from include.instore.model.declarations import Dates, Numbers
from include.instore.model.orders import iso_moment

_SAME = str.maketrans({"\u00a0": " ", "\u2009": " ", "\u202f": " ", "’": "'", "\u2212": "-"})
_BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RUN_TOGETHER = re.compile(r"%[YmdHMSyj]%")
"""Nothing between two numbers of a date, so that each needs all its digits."""
_SECONDS = re.compile(r"-?\d{1,15}(?:\.\d+)?", re.ASCII)


def number(text: str, rules: Numbers) -> Decimal:
    """:raises ValueError: it is not written like that."""
    for form, sign in _forms(rules):
        if found := form.fullmatch(text.translate(_SAME).strip()):
            amount = found[1].replace(rules.thousands, "") if rules.thousands else found[1]
            return sign * Decimal(amount.replace(rules.decimal, "."))
    raise ValueError(f"is not a number as it is declared, with {rules.decimal} before decimals")


@lru_cache(maxsize=64)
def _forms(rules: Numbers) -> list[tuple[re.Pattern[str], int]]:
    point, mark = re.escape(rules.decimal), re.escape(rules.thousands)
    whole = rf"(?:\d{{1,3}}(?:{mark}\d{{3}})+|\d+)" if mark else r"\d+"
    amount = rf"({whole}(?:{point}\d+)?|{point}\d+)"
    sign = "|".join(re.escape(each) for each in rules.currency_signs)
    money = rf"(?:(?:{sign})\s*)?" if sign else ""
    behind = rf"(?:\s*(?:{sign}))?" if sign else ""
    written = {
        "minus": [rf"-\s*{money}{amount}{behind}", rf"{money}-{amount}{behind}"],
        "trailing_minus": [rf"{money}{amount}\s*-{behind}", rf"{money}{amount}{behind}\s*-"],
        "parentheses": [rf"\({money}{amount}{behind}\)", rf"{money}\({amount}\){behind}"],
    }
    negative = [form for each in rules.negative for form in written[each]]
    plain = rf"{money}\+?{amount}{behind}"
    return [(re.compile(form, re.ASCII), at) for forms, at in (([plain], 1), (negative, -1)) for form in forms]


def moment(text: str, rules: Dates) -> str:
    """The date in ISO 8601, with an offset where its format or the declared zone has one.

    :raises ValueError: it is in none of the formats, or fits several that mean different moments.
    """
    found = set(_readings(text.strip(), rules))
    if not found:
        raise ValueError("is in none of the declared formats")
    if len(found) > 1:
        raise ValueError("fits several of the declared formats, which mean different moments")
    return found.pop().isoformat()


def _readings(text: str, rules: Dates) -> Iterator[datetime]:
    for form in rules.formats:
        try:
            if form == "iso":
                read = iso_moment(text)
            elif not form.startswith("unix"):
                read = datetime.strptime(text, form)  # noqa: DTZ007  its zone follows
                if _RUN_TOGETHER.search(form) and read.strftime(form) != text:
                    continue  # seconds since 1970 are no year, month and day of one digit
            elif _SECONDS.fullmatch(text):
                read = _BEGINNING + timedelta(**{"seconds" if form == "unix" else "milliseconds": float(text)})
            else:
                continue
        except (ValueError, OverflowError):
            continue
        yield read.replace(tzinfo=ZoneInfo(rules.zone)) if read.tzinfo is None and rules.zone else read
