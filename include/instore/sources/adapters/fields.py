"""Which fields a document has, and how its date is written: by these a source is known again, whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

_DEEPEST = 5


def fields_of(document: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """The paths of a document's fields, once or more each."""
    for name, value in document.items():
        path = within + _known_as(str(name))
        yield path
        for inner in value if isinstance(value, list) else (value,):
            if isinstance(inner, Mapping) and path.count(".") < _DEEPEST:
                yield from fields_of(inner, f"{path}.")


@lru_cache(maxsize=1024)
def _known_as(name: str) -> str:
    """A field's name without numbers; of one that may be a person's data nothing."""
    name = re.sub(r"\d+", "#", name)
    return name if re.fullmatch(r"@?[\w# :-]{1,64}", name) else "?"


def shape_of_date(text: Any) -> str:
    """How a date is written, whatever it is."""
    text = re.sub(r"(:\d\d)[.,]\d+", r"\1", str(text).strip())  # fractions come and go
    text = re.sub(r"\d+", lambda digits: "0" * max(2, len(digits[0])), text)
    return "date as " + re.sub(r"[^\W\d_]{3,}", "Mon", text)[:32]
