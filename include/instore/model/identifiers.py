"""Spellings of what names a thing: which are the same, and which name nothing any more."""

from __future__ import annotations

import re
import unicodedata
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# A spreadsheet rounds a long number and writes it so; what it was cannot be told any more. 12E5 is a number of its own.
_TEXT_MARK = re.compile(r"=?\"(.*)\"|'(.*)")
_NO_NAME = re.compile(
    r"\(?(?:null|none|nil|nan|nat|n/a|undefined|blank|empty)\)?|\[object object\]|-+|#.*[/!?#]|#n/a", re.IGNORECASE
)
_MADE_A_NUMBER = re.compile(r"[1-9]\d*\.0|[1-9]\d{0,2}(?:,\d{3})+")
_ROUNDED = re.compile(r"[+-]?\d+(?:[.,]\d+)?E\+\d{2,}", re.IGNORECASE)


def identity(text: str) -> str:
    """One spelling of what names an order: a full-width ``Ｚ1``, ``z1`` and ``Z1`` behind an invisible mark are one."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(each for each in text if unicodedata.category(each) not in ("Cf", "Cc")).strip()


def plain_name(name: str) -> str:
    """One spelling of a field's or a column's name: of ``Order No.``, ``order_no`` and ``orderNo`` it is orderno."""
    return re.sub(r"[\W_]", "", name.casefold())


def number_root(number: str) -> str:
    """The number without leading zeros, which a spreadsheet takes away: of one order in two sources it is the same."""
    return identity(number).lstrip("0")[:64]  # case folding and NFKC make some letters longer


def is_rounded(value: Any) -> bool:
    """Whether this is what a spreadsheet makes of a long number: ``1.23457E+11``."""
    return isinstance(value, str) and _ROUNDED.fullmatch(value.strip()) is not None


def without_text_mark(text: str) -> str:
    """The number that a spreadsheet keeps a text: of ``="0012"`` and ``'0012`` it is 0012."""
    return (marked[1] or marked[2] or "") if (marked := _TEXT_MARK.fullmatch(text)) else text


def no_name(text: str) -> str:
    """Why this names nothing, such as NULL, or not what it did before a spreadsheet or a data frame; empty: it does."""
    if _NO_NAME.fullmatch(text):
        return "is what programs write where there is nothing, such as NULL, or an error of a spreadsheet's formula"
    if _MADE_A_NUMBER.fullmatch(text):
        return "is written as a number, as a spreadsheet or a data frame does; have the column written as text"
    return ""


def did_you_mean(name: str, names: tuple[str, ...]) -> str:
    """The end of a sentence about a name that is not known."""
    near = get_close_matches(name.casefold(), {each.casefold(): each for each in names}, n=1)
    meant = next((each for each in names if near and each.casefold() == near[0]), "")
    return f"; did you mean {meant}?" if meant else f"; there are {', '.join(names)}"


def known_zone(name: str) -> str:
    """:raises ValueError: there is no such time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("not a time zone of the IANA database, such as Europe/Stockholm") from error
    return name


def known_codec(name: str) -> str:
    """:raises ValueError: there is no such text encoding."""
    try:
        "".encode(name)
    except LookupError as error:
        raise ValueError("not a text encoding that Python knows, such as utf-8 or cp1252") from error
    return name


def known_trailer(pattern: str) -> str:
    """The regular expression of a file's last line. :raises ValueError: it is none, or has other groups."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    if set(found.groupindex) - {"count", "sum"} or (pattern and found.fullmatch("")):
        raise ValueError("can only have the groups (?P<count>…) and (?P<sum>…), and must not match an empty line")
    return pattern
