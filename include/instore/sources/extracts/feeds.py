"""What the files of one feed are like: a column that is gone, or cards that are, show in no file alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

from include.instore.ledger.extract_files import Looks
from include.instore.ledger.tables import OTHER_HEADINGS
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.sources.extracts.csv_lines import OUR_COLUMNS, column_names
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord

_WEIGHT = 5
"""As many orders as this the files before count for: one small file without a card does not make the feed forget."""
_BY_CHANCE = 0.01
_REMEDY = (
    "map the ERP's heading with INSTORE_EXTRACT_COLUMNS, or have it back, and release the file; or release it as it is"
)


class FileLooks:
    """What one file is like, learnt record by record.

    :param last: the looks of the file before, by its feed: the name without numbers, and the store where it has one.
    """

    def __init__(self, name: str, last: Callable[[str], Looks], settings: Settings) -> None:
        self._name = name
        self._last = last
        self._settings = settings
        self._stores: set[str] = set()
        self.orders = 0
        self.cards = 0
        self.columns: frozenset[str] | None = None

    def learn(self, record: ExtractRecord) -> None:
        if self.columns is None and record.heading:
            self.columns = column_names(record.heading, self._settings)
        if isinstance(record.order, InStoreOrder):
            self.orders += 1
            self.cards += record.order.loyalty_card_number is not None
            if len(self._stores) < 2:
                self._stores.add(record.order.store_id)

    @cached_property
    def before(self) -> Looks:
        """Of the file before; asked when all of this one is learnt."""
        store = next(iter(self._stores)) if len(self._stores) == 1 else ""
        return self._last(f"{re.sub(r'[0-9]+', '#', self._name.lower())} {store}")

    def fault(self) -> BrokenExtract | None:
        """Why nothing of the file must be landed unseen: what its feed had is gone."""
        columns, before = self.columns, self.before.columns
        if gone := sorted((before or frozenset()) & OUR_COLUMNS - columns) if columns is not None else []:
            return BrokenExtract(1, f"column {gone[0]} is gone, which the file before had; {_REMEDY}")
        share = self.before.card_share or 0
        if self.orders and not self.cards and (1 - share) ** self.orders < _BY_CHANCE:
            told = f"no order has a loyalty_card, and {share:.0%} of those in the files before had one"
            return BrokenExtract(1, f"{told}; {_REMEDY}")
        return None

    def remark(self) -> str | None:
        """Which headings the file before had not, or had besides."""
        if self.columns is None or self.before.columns in (None, self.columns):
            return None
        new, gone = self.columns - self.before.columns, self.before.columns - self.columns
        told = [f"{word} {', '.join(sorted(names))}" for word, names in (("new", new), ("gone", gone)) if names]
        return f"{OTHER_HEADINGS} the file before: {'; '.join(told)}"

    def looks(self) -> Looks:
        """To be remembered of the file; what it does not say stays as it was."""
        if not self.orders:
            return replace(self.before, columns=self.columns or self.before.columns)
        known = _WEIGHT * (self.before.card_share or 0)
        return replace(
            self.before,
            columns=self.columns or self.before.columns,
            card_share=(self.cards + known) / (self.orders + _WEIGHT),
        )
