"""What names a customer: the loyalty card and the email address, each read by one function wherever it comes from.

Orders, the mapping file, what is asked and what is answered all go through these two. People, tills and spreadsheets
write both in many ways: where there is one reading it is taken, otherwise there is none.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from typing import Any, Protocol

from email_validator import EmailNotValidError, validate_email

from include.instore.model.identifiers import without_text_mark

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MADE_A_NUMBER = re.compile(
    r"\+?(?:\d+[.,]\d*E\+?\d+|\d+E\+\d+)"  # 6.03543E+15
    r"|\d+[.,]0+"  # 6035430000000005.0
    r"|\d{1,3}(?:[.,]\d{3}){2,}",  # 6,035,430
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(r"[^<>@]*<([^<>]+)>[\s;,]*")  # Jane <jane@example.com>
_PAIRS = ("''", '""', "()", "[]")


class Rules(Protocol):
    """What a retailer's cards and addresses are like; :class:`include.instore.model.settings.Settings` says each."""

    @property
    def card_length(self) -> int: ...
    @property
    def dummy_cards(self) -> str: ...
    @property
    def placeholder_emails(self) -> str: ...


def card_of(value: Any, rules: Rules | None = None) -> str | None:
    """A card as it is compared and asked for: NFKC, without blanks, dashes and invisible characters.

    :param rules: with them a card of digits is padded to ``card_length``, and one of ``dummy_cards`` is None.
    :return: None where there is no card.
    :raises ValueError: it is none that can be read; the message does not repeat it.
    """
    if isinstance(value, bool | float | Decimal):
        raise ValueError("is a number with a fraction or a truth value, not a card")
    if value is None:
        return None
    if not isinstance(value, str | int):
        raise ValueError("is neither a text nor a number")
    text = str(value).strip()
    if _CONTROL.search(text):
        raise ValueError("holds control characters")
    if not (text.isascii() and text.isalnum()):  # most are
        text = _cleaned(text)
    if not any(each.isalnum() for each in text):
        return None
    if rules is None:
        return text
    digits = text.isascii() and text.isdigit()
    if any(_one_of(rules.dummy_cards).match(each) for each in (text, text.lstrip("0") or "0")):
        return None
    return text.zfill(rules.card_length) if digits else text


def email_of(value: Any, rules: Rules | None = None) -> str | None:
    """An email address, without what stands around it where that leaves one reading.

    :param rules: with them one of ``placeholder_emails`` is None.
    :return: None where none was meant: nothing, or a text without an at sign, such as ``n/a``.
    :raises ValueError: it is none that can be read, or several; the message does not repeat it.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("is not an email address")
    text = "".join(each for each in unicodedata.normalize("NFKC", value) if unicodedata.category(each) != "Cf")
    if "@" not in text:
        return None
    text = _without_surroundings(text)
    try:
        address = validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        address = ""
    # An apostrophe is legal there, and nobody has one: it is half a pair of quotes, or a spreadsheet's mark. A star is
    # legal too: it hides what was there.
    if not address or address.startswith("'") or "*" in address:
        raise ValueError("is not an email address")
    if rules is not None and _one_of(rules.placeholder_emails).match(address.casefold()):
        return None
    return text if address.casefold() == text.casefold() else address


def _without_surroundings(text: str) -> str:
    """An address without a name before it, ``mailto:``, an end of a list, quotes or blanks."""
    if bracketed := _IN_BRACKETS.fullmatch(text):
        text = bracketed[1]
    text = re.sub(r"^mailto:", "", text.strip(), flags=re.IGNORECASE)
    several = {each.strip() for each in re.split("[;,]", text)} - {""}
    text = several.pop() if len(several) == 1 else text
    if text[:1] + text[-1:] in _PAIRS:
        text = text[1:-1]
    return re.sub(r"\s*@\s*", "@", text.strip())


def masked(text: str | None) -> str:
    """A card or an email as anybody may see it: enough to recognise one that is known, too little to learn it."""
    if not text:
        return ""
    name, at, domain = text.rpartition("@")
    return f"{name[:1]}…@{domain}" if at else f"…{text[-4:]}" if len(text) > 8 else "…"


def _cleaned(card: str) -> str:
    before = None
    while card != before:  # what is read once must be read the same again
        before = card
        card = "".join(each for each in unicodedata.normalize("NFKC", card) if not _is_noise(each))
        card = without_text_mark(card)
    if _MADE_A_NUMBER.fullmatch(card):
        raise ValueError("is written as a number, as a spreadsheet does; have the column written as text")
    return card


def _is_noise(character: str) -> bool:
    return character.isspace() or character == "\u2212" or unicodedata.category(character) in ("Cf", "Pd")


@lru_cache
def _one_of(patterns: str) -> re.Pattern[str]:
    """Whether a text is one of these, in any case; with commas between them, ``*`` for any characters."""
    wanted = [translate(each.strip().casefold()) for each in patterns.split(",") if each.strip()]
    return re.compile("|".join(wanted) or r"(?!)", re.IGNORECASE)
