"""The ERP of the suite: seeded orders, each with its number in sequence, and what must become of each.

Nothing here is the pipeline's: the expectation is made from the rule by which the order was drawn.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

MEMBERS = 5000
INACTIVE, NO_EMAIL, SHARED, ERASED = (range(MEMBERS + 100 * k, MEMBERS + 100 * (k + 1)) for k in range(4))
MAIL = "faults-canary.example"
CARD = "7734"
"""What a card of the suite begins with: neither this nor the mail host may show in any log."""


def card(index: int) -> str:
    return f"{CARD}{index:08d}"


def email(index: int) -> str:
    return f"member{index}@{MAIL}"


def write_members(path: Path) -> None:
    """The loyalty API's members: active ones, and a hundred of each kind that has no customer to send for."""
    rows = [(card(n), email(n), "active") for n in range(MEMBERS)]
    rows += [(card(n), email(n), "inactive") for n in INACTIVE]
    rows += [(card(n), "", "active") for n in NO_EMAIL]
    rows += [(card(n), f"{who}{email(n)}", "active") for n in SHARED for who in ("a-", "b-")]
    rows += [(card(n), email(n), "erased") for n in ERASED]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["loyaltyCardNumber", "email", "firstName", "lastName", "status"])
        table.writerows((number, mail, "Canary", "Member", status) for number, mail, status in rows)


@dataclass(frozen=True)
class Order:
    """One order as the till knows it.

    :param becomes: sent, unmatched or suppressed; rejected is decided by the stand-in, not by the order.
    :param email: of the customer it must reach, where it must reach one.
    """

    number: str
    date: str
    card: str | None = field(repr=False)
    own_email: str | None = field(repr=False)
    email: str | None = field(repr=False)
    total: Decimal
    lines: tuple[tuple[str, str, str, Decimal, Decimal], ...]
    becomes: str

    @property
    def event_type(self) -> str:
        return "StoreReturn" if self.total < 0 else "StorePurchase"

    def on(self, date: str) -> Order:
        """The same order with another date."""
        return replace(self, date=date)

    def with_description(self, text: str) -> Order:
        """The same order with this text on its lines."""
        return replace(self, lines=tuple((code, text, *rest) for code, _, *rest in self.lines))  # type: ignore[arg-type]

    def body(self) -> bytes:
        """The order as its message."""
        return json.dumps(
            {
                "orderNumber": self.number,
                "date": self.date,
                "storeId": "0404",
                "storeName": "Store 0404",
                "loyaltyCardNumber": self.card,
                "emailAddress": self.own_email,
                "currency": "USD",
                "total": str(self.total),
                "lines": [
                    dict(zip(("productCode", "description", "quantity", "unitPrice", "total"), each, strict=True))
                    for each in ([str(value) for value in line] for line in self.lines)
                ],
            }
        ).encode()

    def rows(self) -> Iterable[list[str]]:
        """The order as rows of an extract."""
        for code, description, quantity, price, total in self.lines:
            yield [
                self.number, self.date, "0404", "Store 0404", self.card or "", self.own_email or "", "USD",
                str(self.total), code, description, quantity, str(price), str(total),
            ]  # fmt: skip


HEADER = (
    "order_number", "order_date", "store_id", "store_name", "loyalty_card", "email", "currency", "order_total",
    "product_code", "description", "quantity", "unit_price", "line_total",
)  # fmt: skip


class Source:
    """Draws orders from a seed; ``drawn`` has every one by its number.

    :param name: begins each order's number, so that worlds that share a Profile Store do not share orders.
    """

    def __init__(self, seed: int, name: str) -> None:
        self._random = random.Random(seed)
        self.name = name
        self.drawn: dict[str, Order] = {}

    def take(self, count: int, *, only: str | None = None, cards: range | None = None) -> list[Order]:
        """The next orders of the sequence.

        :param only: draw just those which become this.
        :param cards: members whose cards are shown; default: all.
        """
        return [self._draw(only, cards) for _ in range(count)]

    def _draw(self, only: str | None, cards: range | None) -> Order:
        pick = self._random
        seq = len(self.drawn)
        number = f"{self.name}-{seq:06d}"
        shown, own, mail, becomes = self._customer(only, cards)
        lines = []
        for _ in range(pick.randint(1, 3)):
            quantity, price = pick.randint(1, 4), Decimal(pick.randint(1, 9999)) / 100
            lines.append((f"P{pick.randint(1, 999)}", 'A, "thing"', str(quantity), price, quantity * price))
        total = sum((line[4] for line in lines), Decimal(0))
        if pick.random() < 0.05:
            total = -total
        date = f"2017-06-{pick.randint(1, 28):02d}T{pick.randint(0, 23):02d}:{pick.randint(0, 59):02d}:00Z"
        order = Order(number, date, shown, own, mail, total, tuple(lines), becomes)
        self.drawn[number] = order
        return order

    def _customer(self, only: str | None, cards: range | None) -> tuple[str | None, str | None, str | None, str]:
        pick = self._random
        chance = 0.0 if only == "sent" else 0.99 if only == "unmatched" else pick.random()
        if chance < 0.84:
            member = pick.choice(cards or range(MEMBERS))
            if pick.random() < 0.1:
                return None, email(member), email(member), "sent"
            return card(member), None, email(member), "sent"
        if chance < 0.86:
            return card(pick.choice(ERASED)), None, None, "suppressed"
        if chance < 0.88:
            return None, None, None, "unmatched"  # an anonymous shopper
        if chance < 0.94:
            return card(pick.choice([*INACTIVE, *NO_EMAIL, *SHARED])), None, None, "unmatched"
        return card(90_000_000 + pick.randint(0, 9_999_999)), None, None, "unmatched"  # a card nobody knows


def write_extract(folder: Path, name: str, orders: Sequence[Order]) -> Path:
    """Write a whole extract at once, as an ERP that renames does."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(HEADER)
    for order in orders:
        table.writerows(order.rows())
    data = text.getvalue().encode()
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    part.replace(path)
    return path
