"""A case: a folder with what is delivered, how the outside behaves and what is right (README.md has its form)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cases.words import read_words

HERE = Path(__file__).parent
FILE = "case.json"
MESSAGES = (".msg", ".value", ".sequence")
"""Endings of what is published on the topic: a data, a value and a sequence body."""
STAND_INS: dict[str, set[str] | None] = {
    "loyalty": None,
    "profile_store": None,
    "bus": {"copies", "time_to_live", "properties", "wait"},
    "files": {"age"},
}
"""Who can be told how to behave, and by which keys; None: the knobs of the stand-in, which refuses others itself."""
_KEYS = {
    "deliveries", "right", "checks", "outside", "stand_ins", "settings", "loyalty_connection_extra", "note",
}  # fmt: skip
_RUN = re.compile(r"(\d+)-(.+)", re.DOTALL)


class CaseRefused(Exception):
    """The folder is no case; the message says why."""


@dataclass(frozen=True)
class Case:
    """One case as its folder has it.

    :param deliveries: files of each hourly run.
    :param checks: what is right as a program reads it, see :mod:`tests.cases.checks`; empty: a person judges.
    :param stand_ins: how the outside behaves, by stand-in.
    :param acted_out: what was made of words, as JSON.
    :param not_acted_out: what the folder says of the outside in words of no known form, and keys that nobody reads.
    """

    folder: Path
    deliveries: tuple[tuple[str, ...], ...]
    right: str
    checks: Sequence[Any] = ()
    stand_ins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    loyalty_extra: Mapping[str, Any] = field(default_factory=dict)
    acted_out: str = ""
    not_acted_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def has_messages(self) -> bool:
        return any(name.endswith(MESSAGES) for names in self.deliveries for name in names)


def find_cases(folder: Path) -> list[Path]:
    """The case folders in a folder, or the folder itself where it is one.

    :raises CaseRefused: there is none.
    """
    folder = folder.resolve()
    if (folder / FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{FILE}"))
    if not found:
        raise CaseRefused(f"There is no case in {folder}: no folder of it has a {FILE}.")
    return found


def read_case(folder: Path) -> Case:
    """:raises CaseRefused: the folder's ``case.json`` is not what the README says."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CaseRefused(f"{FILE} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise CaseRefused(f"{FILE} is no object")
    deliveries = document.get("deliveries")
    deliveries = _by_number(folder) if deliveries is None else tuple(tuple(names) for names in deliveries)
    for name in (name for names in deliveries for name in names):
        if not (folder / name).is_file():
            raise CaseRefused(f"the file {name} is missing")
    stand_ins, outside = document.get("stand_ins"), document.get("outside") or []
    outside = [outside] if isinstance(outside, str) else list(outside)
    words: list[str] = []
    acted_out = ""
    if stand_ins is None:  # with the key, even an empty one, somebody has read the words
        stand_ins, words = read_words([*map(str, outside)])
        acted_out = json.dumps(stand_ins) if stand_ins else ""
        words += [str(document["note"])] if document.get("note") else []
    words += [f"key {key}" for key in document if key not in _KEYS]
    for name, knobs in stand_ins.items():
        if name not in STAND_INS:
            raise CaseRefused(f"there is no stand-in {name}; there are {', '.join(STAND_INS)}")
        if unknown := set(knobs) - (STAND_INS[name] or set(knobs)):
            raise CaseRefused(f"{name} cannot be told {', '.join(sorted(unknown))}")
    return Case(
        folder=folder,
        deliveries=deliveries,
        right=str(document.get("right", "")),
        checks=document.get("checks") or (),
        stand_ins=stand_ins,
        settings={name: _setting(folder, value) for name, value in (document.get("settings") or {}).items()},
        loyalty_extra=document.get("loyalty_connection_extra") or {},
        acted_out=acted_out,
        not_acted_out=tuple(words),
    )


def delivered_name(name: str) -> str:
    """The name under which a file is delivered: without its run's number, so that it can come again."""
    found = _RUN.fullmatch(name)
    return found.group(2) if found else name


def _by_number(folder: Path) -> tuple[tuple[str, ...], ...]:
    runs: dict[int, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if found := _RUN.fullmatch(path.name):
            runs.setdefault(int(found.group(1)), []).append(path.name)
    return tuple(tuple(runs.get(number, ())) for number in range(1, max(runs, default=0) + 1)) or ((),)


def _setting(folder: Path, value: Any) -> str:
    """A setting that names a file of the folder, or from there, means that file; so does a value within it."""
    if isinstance(value, dict):
        return json.dumps({name: _setting(folder, each) for name, each in value.items()})
    text = value if isinstance(value, str) else json.dumps(value)
    is_name = 0 < len(text) < 200 and "\n" not in text
    return str((folder / text).resolve()) if is_name and (folder / text).is_file() else text
