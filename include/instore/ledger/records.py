"""What sources hand over, and what the ledger takes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder

_CARD_AS_NUMBER = re.compile(rb'"loyaltyCardNumber"\s*:\s*\d', re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One record of a source.

    :param source: ``topic`` or ``extract``; what a redrive reads keeps the source it came from.
    :param reference: where it is found there.
    :param order: the order it holds, or why it holds none.
    :param heading: what has to stand before the raw bytes for them to be read again, such as a CSV's first line.
    :param published_at: when its source published it; None: nobody knows.
    :param adapter: by whose name the raw bytes are read again.
    :param fields: of a message's document, and how its date is written.
    """

    source: str
    reference: str
    raw: bytes = field(repr=False)
    order: InStoreOrder | RecordRefused = field(repr=False)
    heading: bytes = field(default=b"", repr=False)
    published_at: datetime | None = None
    adapter: str = ""
    fields: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Arrival:
    """One order with where it came from; ``row`` holds its columns, ready to be written.

    :param raw: the record's bytes, and :param heading: what stands before them, for the quarantine.
    :param published_at: when its source published it: of two contents of an order the later one holds.
    :param by_rows: it came in a row a line, so that it may be a piece of an order.
    :param adapter: by whose name its bytes are read again.
    :param short: its lines miss its total by more than the tolerance, and that is to be told.
    """

    row: dict[str, Any] = field(repr=False)
    raw: bytes = field(repr=False)
    heading: bytes = field(default=b"", repr=False)
    has_offset: bool = True
    published_at: datetime | None = None
    by_rows: bool = False
    adapter: str = ""
    short: bool = False
    tolerance: Decimal = Decimal(0)

    @property
    def key(self) -> str:
        return str(self.row["key"])

    @property
    def card_is_a_number(self) -> bool:
        """Whether its JSON has the card as a number, which has lost the zeros that the card began with."""
        return not self.by_rows and _CARD_AS_NUMBER.search(self.raw) is not None
