"""The resolver of a nightly export of cards and emails."""

from __future__ import annotations

import contextlib
import csv
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from include.instore.ledger.customers import CardAnswer
from include.instore.model.customer_keys import Rules, card_of, email_of
from include.instore.model.errors import ConfigurationError
from include.instore.model.states import CardOutcome

_DELIMITERS = ",;\t|"
_CARD = frozenset({"card", "cardno", "cardnumber", "loyaltycard", "loyaltycardno", "loyaltycardnumber"})
_EMAIL = frozenset({"email", "emailaddress", "mail"})

log = logging.getLogger(__name__)


class MappingFile:
    """A CSV with a heading, in UTF-8; the delimiter and the columns of card and email are found by that heading.

    Where the heading names neither, they are the first two columns.

    :raises ConfigurationError: the file is not there, cannot be read, or no row of it has a card and an email.
    """

    def __init__(self, path: Path, rules: Rules) -> None:
        self._rules = rules
        self._emails: dict[str, set[str]] = {}  # as written; parsed when their card is looked up
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                unread = self._learn(file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigurationError(
                f"The file of setting INSTORE_MAPPING_FILE cannot be read ({type(error).__name__}); correct the path, "
                "or make it a UTF-8 CSV of card,email."
            ) from None
        if unread:
            log.warning(
                "%d rows of the file of setting INSTORE_MAPPING_FILE have a card that cannot be read, the first "
                "of them on line %d; they are ignored",
                len(unread), unread[0],
            )  # fmt: skip
        if not any(self._addresses(card) for card in self._emails):
            raise ConfigurationError(
                "No row of the file of setting INSTORE_MAPPING_FILE has a card and an email; make it a CSV with the "
                "headings card and email, and , ; tab or | between the columns."
            )
        self.cards = len(self._emails)
        log.info("the mapping file has %d cards", self.cards)

    def _learn(self, lines: Iterable[str]) -> list[int]:
        """Read the rows; the lines of those whose card cannot be read."""
        lines = (line.replace("\0", "\1") for line in lines)  # csv of Python 3.10 reads no file with a NUL
        heading, before = next(lines, ""), 1
        if heading.startswith("sep="):
            heading, before = next(lines, ""), 2
        delimiter = max(_DELIMITERS, key=heading.count)
        (names,) = list(csv.reader([heading], delimiter=delimiter)) or [[]]
        card_at, email_at = _columns(names)
        rows = csv.reader(lines, delimiter=delimiter)
        unread = []
        for row in rows:
            if len(row) <= max(card_at, email_at):
                continue
            try:
                card = card_of(row[card_at], self._rules)
            except ValueError:
                unread.append(before + rows.line_num)
                continue
            if card is not None:
                self._emails.setdefault(card, set()).add(row[email_at])
        return unread

    def resolve(self, card: str) -> CardAnswer:
        """The email of the card; two different ones are ambiguous."""
        if card not in self._emails:
            return CardAnswer(card, CardOutcome.NOT_FOUND)
        emails = self._addresses(card)
        if len({email.casefold() for email in emails}) > 1:
            return CardAnswer(card, CardOutcome.AMBIGUOUS)
        if not emails:
            return CardAnswer(card, CardOutcome.NO_EMAIL)
        return CardAnswer(card, CardOutcome.MATCHED, min(emails))

    def _addresses(self, card: str) -> set[str]:
        addresses = set()
        for text in self._emails[card]:
            with contextlib.suppress(ValueError):
                addresses.add(email_of(text, self._rules))
        return {each for each in addresses if each}


def _columns(heading: Sequence[str]) -> tuple[int, int]:
    """Where card and email are."""
    names = ["".join(filter(str.isalnum, name.casefold())) for name in heading]
    cards, emails = ([at for at, name in enumerate(names) if name in known] for known in (_CARD, _EMAIL))
    return (cards[0], emails[0]) if cards and emails else (0, 1)
