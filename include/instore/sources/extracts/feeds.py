"""What the files of one feed are like: a column that is gone, or cards that are, show in no file alone."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

from include.instore.ledger import Ledger
from include.instore.ledger.extract_files import last_looks
from include.instore.ledger.tables import OTHER_HEADINGS, kept_text
from include.instore.model.orders import InStoreOrder
from include.instore.sources.extracts.csv_lines import OUR_COLUMNS
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord

_WEIGHT = 5
"""As many orders as this the files before count for: one small file without a card does not make the feed forget."""
_BY_CHANCE = 0.01


class FileLooks:
    """What one file is like, learnt record by record in its first reading."""

    def __init__(self, name: str, ledger: Ledger | None) -> None:
        self._name = name
        self._ledger = ledger
        self._stores: set[str] = set()
        self._orders = 0
        self._cards = 0
        self._columns: frozenset[str] | None = None

    def learn(self, record: ExtractRecord) -> None:
        self._columns = self._columns or record.columns
        if isinstance(record.order, InStoreOrder):
            self._orders += 1
            self._cards += record.order.loyalty_card_number is not None
            if len(self._stores) < 2:
                self._stores.add(record.order.store_id)

    @property
    def _feed(self) -> str:
        """The name without numbers, and the store where it has one: those of the same are much alike."""
        store = next(iter(self._stores)) if len(self._stores) == 1 else ""
        return kept_text(f"{re.sub(r'[0-9]+', '#', self._name.lower())} {store}")

    @cached_property
    def _before(self) -> tuple[frozenset[str] | None, float]:
        return last_looks(self._ledger, self._feed) if self._ledger else (None, 0.0)

    def fault(self) -> BrokenExtract | None:
        """Why nothing of the file must be landed unseen: what its feed had is gone."""
        before, share = self._before
        gone = (before or frozenset()) & OUR_COLUMNS - self._columns if self._columns else frozenset()
        if gone:
            told = f"column {min(gone)} is gone, which the file before had"
        elif not self._cards and (1 - share) ** self._orders < _BY_CHANCE:
            told = f"no order has a loyalty_card, and {share:.0%} of those in the files before had one"
        else:
            return None
        return BrokenExtract(1, f"{told}; map the ERP's heading with INSTORE_EXTRACT_COLUMNS, and release the file")

    def remark(self) -> str | None:
        """Which headings the file before had not, or had besides."""
        now, before = self._columns, self._before[0]
        if now is None or before is None or now == before:
            return None
        names = [f"new {each}" for each in sorted(now - before)] + [f"gone {each}" for each in sorted(before - now)]
        return f"{OTHER_HEADINGS} the file before: {', '.join(names)}"

    def row(self) -> dict[str, Any]:
        """The columns of the file's row; what the file does not say stays as it was."""
        share = (self._cards + _WEIGHT * self._before[1]) / (self._orders + _WEIGHT)
        columns = {} if self._columns is None else {"columns": json.dumps(sorted(self._columns))}
        return {"feed": self._feed, "card_share": share if self._orders else self._before[1], **columns}
