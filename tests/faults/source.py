"""The ERP of the suite: seeded orders, each with its number in sequence, and what must become of each.

Nothing here is the pipeline's: the expectation is made from the rule by which the order was drawn.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

MEMBERS = 5000
INACTIVE, NO_EMAIL, SHARED, ERASED = (range(MEMBERS + 100 * k, MEMBERS + 100 * (k + 1)) for k in range(4))
MAIL = "faults-canary.example"
CARD = "7734"
"""What a card of the suite begins with: neither this nor the mail host may show in any log."""
TWIN = "/return"
EITHER = "sent or suppressed"
COLLISION = "collision"


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

    :param becomes: sent, unmatched or suppressed; rejected is decided by the stand-in, not by the order. ``EITHER``:
        sent or suppressed, by what is known of its person when it is its turn.
    :param email: of the customer it must reach, or must not for consent; None where there is none.
    :param store_name: None where its source has no such column.
    :param twin: a return under the number of its sale.
    """

    number: str
    date: str
    card: str | None = field(repr=False)
    own_email: str | None = field(repr=False)
    email: str | None = field(repr=False)
    total: Decimal
    lines: tuple[tuple[str, str, str, Decimal, Decimal], ...]
    becomes: str
    store: str = "0404"
    store_name: str | None = "Store 0404"
    twin: bool = False

    @property
    def id(self) -> str:
        """What the suite knows it by: its number, unless that is its sale's."""
        return f"{self.number}{TWIN}" if self.twin else self.number

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
                "storeId": self.store,
                "storeName": self.store_name,
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
                self.number, self.date, self.store, self.store_name or "", self.card or "", self.own_email or "", "USD",
                str(self.total), code, description, quantity, str(price), str(total),
            ]  # fmt: skip

    def csv(self) -> bytes:
        """Its rows as they stand in an extract."""
        return _csv(self.rows())


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
        self.withdrawn: list[int] = []
        """Members who are erased, of whom orders have been drawn by :meth:`of_a_suppressed_person`."""

    def take(self, count: int, *, only: str | None = None, cards: range | None = None) -> list[Order]:
        """The next orders of the sequence.

        :param only: draw just those which become this.
        :param cards: members whose cards are shown; default: all.
        """
        return [self._draw(only, cards) for _ in range(count)]

    def returned(self, sale: Order) -> Order:
        """All of a sale is brought back, and the till writes the sale's number on it."""
        return replace(sale, total=-sale.total, twin=True)

    def corrected(self, order: Order) -> Order:
        """The same purchase, with another price on its first line."""
        (code, description, quantity, price, total), *others = order.lines
        first = code, f"{description}, corrected", quantity, price, total + 1
        return replace(order, total=order.total + (1 if order.total > 0 else -1), lines=(first, *others))

    def another(self, order: Order) -> Order:
        """Another purchase that bears this one's number: of another store, another day or another customer."""
        stranger = self._random.choice([n for n in range(MEMBERS) if email(n) != order.email])
        # Told by what the first one was told by: a customer who is not named contradicts nobody.
        shown, own = (card(stranger), None) if order.card else (None, email(stranger))
        other = replace(order, card=shown, own_email=own, email=email(stranger), becomes=COLLISION)
        other = self.corrected(other)
        how = self._random.choice(("store", "day", "customer"))
        if how == "store":
            return replace(other, store="0505", store_name="Store 0505")
        return other.on("2017-07-01T12:00:00Z") if how == "day" else other

    def of_a_suppressed_person(self, known: Sequence[int] = ()) -> list[Order]:
        """Orders of a person nothing may be sent for: what only her card tells, and what names her itself.

        The card is asked first. As long as nobody has, an order with nothing but her email may be sent.

        :param known: members of whose cards somebody has: of the last two, none may be sent, with or without the card.
        """
        member = ERASED[len(self.withdrawn)]
        self.withdrawn.append(member)
        people = [
            (member, card(member), None, "suppressed"),
            (member, card(member), email(member), "suppressed"),
            (member, None, email(member), EITHER),
        ]
        for her in known[-2:]:
            people += [(her, card(her), email(her), "suppressed"), (her, None, email(her), "suppressed")]
        return [
            replace(self._draw("sent", None), card=shown, own_email=own, email=email(her), becomes=becomes)
            for her, shown, own, becomes in people
        ]

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
            her = pick.choice(ERASED)
            return card(her), None, email(her), "suppressed"
        if chance < 0.88:
            return None, None, None, "unmatched"  # an anonymous shopper
        if chance < 0.94:
            return card(pick.choice([*INACTIVE, *NO_EMAIL, *SHARED])), None, None, "unmatched"
        return card(90_000_000 + pick.randint(0, 9_999_999)), None, None, "unmatched"  # a card nobody knows


def stands_apart(order: Order) -> bool:
    """Whether its rows can stand apart in an extract and be one order all the same: only all of them make its total."""
    return len(order.lines) > 1


def write_extract(folder: Path, name: str, orders: Sequence[Order], apart: Collection[str] = ()) -> Path:
    """Write a whole extract at once, as an ERP that renames does.

    :param apart: ids of orders of which the first row stands in its place, and the others at the end of the file.
    """
    rows, rest = [list(HEADER)], []
    for order in orders:
        first, *others = order.rows()
        rows.append(first)
        (rest if order.id in apart else rows).extend(others)
    data = _csv([*rows, *rest])
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    part.replace(path)
    return path


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
