"""Which fields a document has, and how its date is written: by these a source is known again, whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_DEEPEST = 5


def fields_of(document: Mapping[str, Any], within: str = "") -> set[str]:
    """The paths of a document's fields."""
    paths = _paths(within, tuple(document))
    found = set(paths)
    for path, value in zip(paths, document.values(), strict=True):
        if isinstance(value, list | dict) and path.count(".") < _DEEPEST:
            for inner in value if isinstance(value, list) else (value,):
                if isinstance(inner, dict):
                    found |= fields_of(inner, f"{path}.")
    return found


@lru_cache(maxsize=1024)
def _paths(within: str, names: tuple[Any, ...]) -> tuple[str, ...]:
    """Paths without numbers; of a name that may be a person's data nothing. Most documents have the names of others."""
    known = (re.sub(r"\d+", "#", str(name)) for name in names)
    return tuple(within + (name if re.fullmatch(r"@?[\w# :-]{1,64}", name) else "?") for name in known)


def shape_of_date(text: Any) -> str:
    """How a date is written, whatever it is."""
    text = re.sub(r"(:\d\d)[.,]\d+", r"\1", str(text).strip())  # fractions come and go
    text = re.sub(r"\d+", lambda digits: "0" * max(2, len(digits[0])), text)
    return "date as " + re.sub(r"[^\W\d_]{3,}", "Mon", text)[:32]
