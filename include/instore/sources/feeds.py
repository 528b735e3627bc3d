"""What the orders of one feed are like: a field that is gone, or cards that are, show in no file or message alone."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from functools import cached_property
from typing import Any

from include.instore.ledger import Ledger
from include.instore.ledger.extract_files import feed_before
from include.instore.ledger.tables import kept_text
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.sources.adapters.columns import OUR_COLUMNS

TOPIC = "topic"
_WEIGHT = 5
"""As many orders as this those before count for: one small file without a card does not make the feed forget."""
_BY_CHANCE = 0.01
_ENOUGH = 20
"""Of a feed of fewer orders nobody can tell which fields they have."""
_MOST = 1000
"""Of documents with more names these are data, such as the numbers of articles."""
_CARD = "a card"
_ORDERS = ""
"""Under this name, in what is kept of a feed, is how many orders were seen."""


class FeedLooks:
    """What the orders of one file, or of one drain of the topic, are like, learnt one by one.

    :param name: of the file; those whose names differ in digits only, and that are of one store, are a feed.
    """

    def __init__(self, name: str, ledger: Ledger | None) -> None:
        self._name = name
        self._ledger = ledger
        self._stores: set[str] = set()
        self._headings: frozenset[str] = frozenset()
        self._seen: Counter[str] = Counter()
        self._orders = 0
        self._lock = threading.Lock()  # the topic has several receivers

    def learn(
        self, order: InStoreOrder | RecordRefused, fields: frozenset[str], headings: frozenset[str] | None = None
    ) -> None:
        """:param headings: of its file's columns, which all orders have, those that are refused as well."""
        with self._lock:
            self._headings = self._headings or headings or frozenset()
            if not isinstance(order, InStoreOrder):
                return
            self._orders += 1
            if len(self._seen) < _MOST:
                self._seen.update(fields)
            self._seen[_CARD] += order.loyalty_card_number is not None
            if len(self._stores) < 2:
                self._stores.add(order.store_id)

    @property
    def feed(self) -> str:
        store = next(iter(self._stores)) if len(self._stores) == 1 and self._name != TOPIC else ""
        return kept_text(f"{re.sub(r'[0-9]+', '#', self._name.lower())} {store}".rstrip())

    @cached_property
    def _before(self) -> dict[str, float]:
        """In which share of orders each field was."""
        return feed_before(self._ledger, self.feed) if self._ledger else {}

    @property
    def _names_are_data(self) -> bool:
        return len(self._seen) >= _MOST or len(self._before) >= _MOST

    def fault(self) -> str | None:
        """Why nothing of the file must be landed unseen: what its feed had is gone."""
        gone = self._before.keys() & OUR_COLUMNS - self._headings if self._headings else set()
        if gone:
            told = f"column {min(gone)} is gone, which the file before had"
        elif not self._seen[_CARD] and self._is_gone(_CARD):
            share = self._before[_CARD]
            told = f"no order has a loyalty_card, and {share:.0%} of those in the files before had one"
        else:
            return None
        return f"{told}; map the ERP's heading with INSTORE_EXTRACT_COLUMNS, and release the file"

    def _is_gone(self, field: str) -> bool:
        return bool((1 - self._before.get(field, 0.0)) ** self._orders < _BY_CHANCE)

    def remark(self) -> str | None:
        """Which fields those before had not, or had besides."""
        before, now = self._before, self._seen.keys() | self._headings
        if not before or not now or self._names_are_data:
            return None
        known = before.get(_ORDERS, 0) >= _ENOUGH
        new = [f"new {each}" for each in sorted(now - before.keys()) if known or each in self._headings]
        gone = [
            f"gone {each}"
            for each in sorted(before.keys() - now - {_ORDERS})
            if before[each] == 1 or self._is_gone(each)
        ]
        return f"other fields than before: {', '.join([*new, *gone])}" if new or gone else None

    def row(self) -> dict[str, Any]:
        """The feed's row: in which share of its orders each field was, those before counted in. Columns are in all."""
        before, weight = self._before, self._orders + _WEIGHT
        fields = {
            each: (self._seen[each] + _WEIGHT * before.get(each, 0.0)) / weight
            for each in before.keys() | ({_CARD} if self._names_are_data else self._seen.keys())
            if not (self._headings and before.get(each) == 1)
        }
        fields |= {**dict.fromkeys(self._headings, 1.0), _ORDERS: before.get(_ORDERS, 0) + self._orders}
        return {"feed": self.feed, "fields": json.dumps(fields, sort_keys=True)}
