"""The resolver of a nightly export of cards and emails."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from include.instore.customers.lookup import NOT_FOUND
from include.instore.ledger.customers import CardAnswer
from include.instore.model.errors import ConfigurationError
from include.instore.model.orders import card_of, is_email

log = logging.getLogger(__name__)


class MappingFile:
    """A CSV whose first two columns are card and email, with a header line.

    :raises ConfigurationError: the file is not there or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._emails: dict[str, set[str]] = {}
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.reader(file)
                next(rows, None)
                unread = [rows.line_num for row in rows if len(row) >= 2 and not self._learn(*row[:2])]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigurationError(
                f"The file of setting INSTORE_MAPPING_FILE cannot be read ({type(error).__name__}); correct the path, "
                "or make it a UTF-8 CSV of card,email."
            ) from None
        if unread:
            log.warning(
                "%d rows of the file of setting INSTORE_MAPPING_FILE have a card that cannot be read, the first "
                "of them on line %d; they answer for nobody",
                len(unread), unread[0],
            )  # fmt: skip

    def _learn(self, card: str, email: str) -> bool:
        try:
            card = card_of(card)
        except ValueError:
            return False
        if card:
            self._emails.setdefault(card, set()).add(email.strip())
        return True

    def resolve(self, card: str) -> CardAnswer:
        """The email of the card; two different ones are ambiguous."""
        emails = self._emails.get(card)
        if emails is None:
            return CardAnswer(card, NOT_FOUND)
        if len({email.lower() for email in emails}) > 1:
            return CardAnswer(card, "ambiguous")
        email = next(iter(emails))
        return CardAnswer(card, "matched", email) if is_email(email) else CardAnswer(card, "no_email")
