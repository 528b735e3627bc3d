"""The week of sample orders that the sandbox is seeded with, read and picked from (week/README.md says its origin)."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEEK = Path(__file__).parent / "week"
MEMBERS = WEEK / "members.csv"
_REFUSED_ORDERS = 3


@dataclass(frozen=True)
class SampleMessage:
    """One order message: the exact text that is published, and the two fields it is addressed by."""

    body: bytes
    order_number: str
    store_id: str


def messages() -> Iterator[SampleMessage]:
    """Yield the week's messages, oldest first."""
    for line, order in _orders():
        yield SampleMessage(line, order["orderNumber"], order["storeId"])


def extracts() -> list[Path]:
    """Return the week's extract files, oldest first."""
    return sorted((WEEK / "extracts").rglob("*.csv.gz"))


def matched_cards() -> frozenset[str]:
    """Return the cards of active members with an email, each of exactly one member."""
    with MEMBERS.open(newline="", encoding="utf-8") as file:
        members = list(csv.DictReader(file))
    cards = Counter(member["loyaltyCardNumber"] for member in members)
    return frozenset(
        member["loyaltyCardNumber"]
        for member in members
        if member["status"] == "active" and member["email"] and cards[member["loyaltyCardNumber"]] == 1
    )


def orders_to_refuse() -> tuple[str, ...]:
    """Return the order numbers that the Profile Store refuses in hostile mode.

    They are matched orders that came by topic only, a quarter, a half and three quarters through the week, so that
    they end up in different batches.
    """
    matched = matched_cards()
    by_file = {row["order_number"] for path in extracts() for row in read_extract(path)}
    candidates = [
        order["orderNumber"]
        for _, order in _orders()
        if order["loyaltyCardNumber"] in matched and order["orderNumber"] not in by_file
    ]
    step = len(candidates) // (_REFUSED_ORDERS + 1)
    return tuple(candidates[step * place] for place in range(1, _REFUSED_ORDERS + 1))


def read_extract(path: Path) -> list[dict[str, str]]:
    """Return the rows of one extract."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _orders() -> Iterator[tuple[bytes, dict[str, Any]]]:
    with gzip.open(WEEK / "messages.jsonl.gz", "rb") as file:
        for line in file:
            text = line.rstrip(b"\n")
            yield text, json.loads(text)
