"""Extract text that tests begin with."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

HEADER = [
    *("order_number", "order_date", "store_id", "store_name", "loyalty_card", "email", "currency", "order_total"),
    *("product_code", "description", "quantity", "unit_price", "discount", "line_total"),
]


def row(number: str = "S1", line: int = 1, **changes: str) -> list[str]:
    """One line of an order, as the sample week has it, with changed columns."""
    whole = {
        "order_number": number,
        "order_date": "2017-06-05T10:04:12Z",
        "store_id": "0404",
        "store_name": "Store 0404",
        "loyalty_card": "6035770741165744",
        "email": "",
        "currency": "USD",
        "order_total": "3.50",
        "product_code": f"94786{line}",
        "description": "CANDY",
        "quantity": "2",
        "unit_price": "1.75",
        "discount": "0.0",
        "line_total": "3.50",
        **changes,
    }
    return [whole[name] for name in HEADER]


def csv_text(*rows: Sequence[str], delimiter: str = ",", header: Sequence[str] = HEADER) -> str:
    """A CSV of these rows."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def orders_text(*numbers: str) -> str:
    """A CSV of orders of two lines each."""
    return csv_text(*(row(number, line) for number in numbers for line in (1, 2)))
