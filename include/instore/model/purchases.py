"""Whether a record is a purchase: tills also publish what was voided, cancelled or rung up for training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from include.instore.model.identifiers import plain_name
from include.instore.model.orders import InStoreOrder

_YES, _NO = ("true", "yes", "y", "1"), ("", "false", "no", "n", "0", "none", "null")


def no_purchase(order: InStoreOrder, words: str) -> str:
    """The field beside those of the contract by which this is no purchase; empty: it is one.

    :param words: with commas between them, such as ``voided``: a field of that name that is true or has a date, or a
        status of that value.
    """
    beside = order.__pydantic_extra__ or {}
    lines = [line.__pydantic_extra__ or {} for line in order.lines]
    if not (words and (beside or any(lines))):
        return ""
    found = _said(beside, words)
    of_lines = [_said(each, words) for each in lines]  # a row a line has the columns of its order
    return found or (of_lines[0] if of_lines and all(of_lines) else "")


def _said(fields: Mapping[str, Any], words: str) -> str:
    names, values = _patterns(words)
    for name, value in fields.items():
        text, plain = plain_name(str(value)) if isinstance(value, str | int | float) else "", plain_name(name)
        if names.fullmatch(plain) and (text in _YES or (plain.endswith(("at", "on")) and text not in _NO)):
            return name
        if text and name.casefold().endswith(("status", "state")) and values.fullmatch(text):
            return name
    return ""


@lru_cache
def _patterns(words: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    either = "|".join(re.escape(plain_name(word)) for word in words.split(",") if word.strip())
    return re.compile(rf"(?:is|was)?(?:{either})(?:flag|order|sale|transaction|mode|at|on)*"), re.compile(either)
