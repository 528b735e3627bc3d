"""What the files of one feed are like: a column that is gone, or cards that are, show in no file alone."""

from __future__ import annotations

import re
from collections.abc import Callable
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
        before, share = self.before.columns or frozenset(), self.before.card_share or 0
        gone = before & OUR_COLUMNS - self.columns if self.columns else frozenset()
        if gone:
            told = f"column {min(gone)} is gone, which the file before had"
        elif not self.cards and (1 - share) ** self.orders < _BY_CHANCE:
            told = f"no order has a loyalty_card, and {share:.0%} of those in the files before had one"
        else:
            return None
        return BrokenExtract(1, f"{told}; {_REMEDY}")

    def remark(self) -> str | None:
        """Which headings the file before had not, or had besides."""
        now, before = self.columns, self.before.columns
        if now is None or before is None or now == before:
            return None
        names = [f"new {each}" for each in sorted(now - before)] + [f"gone {each}" for each in sorted(before - now)]
        return f"{OTHER_HEADINGS} the file before: {', '.join(names)}"

    def looks(self) -> Looks:
        """To be remembered of the file; what it does not say stays as it was."""
        share = self.before.card_share
        if self.orders:
            share = (self.cards + _WEIGHT * (share or 0)) / (self.orders + _WEIGHT)
        return Looks(self.before.feed, self.columns or self.before.columns, share)
