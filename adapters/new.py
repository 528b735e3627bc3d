"""``make adapter NAME=acme``: a folder with a declaration, its code, a sample and what the sample's orders are to be.

The test of all adapters, tests/instore/sources/adapters/test_examples.py, takes every folder here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DECLARATION = """\
# What {name} writes; docs/adapters.md has all that may be declared. `make docs` puts this adapter on that page.
# Try it: python -m include.instore check adapters/{name}/sample.json --adapter adapters/{name}/{name}.yaml
format: json
orders: receipts
order:
  orderNumber: no
  date: sold
  storeId: shop.id
  storeName: shop.name
  loyaltyCardNumber: card
  currency: currency
  total: sum
lines_at: rows
lines:
  productCode: sku
  description: text
  quantity: count
  total: sum
numbers:
  decimal: ","
  thousands: "."
dates:
  formats: ["%d.%m.%Y %H:%M"]
  zone: Europe/Berlin
# For what cannot be declared; take the line and the file away where it is not needed.
code: {name}.py
"""
CODE = '''\
"""What cannot be declared of {name}."""


def order_of(document: dict) -> dict:
    """The order document, of what the declaration made of a record. An error sets the order aside with its line."""
    return document
'''
SAMPLE = """\
{"receipts": [{"no": 7, "sold": "24.11.2026 10:15", "shop": {"id": "K1", "name": "Main"}, "card": "6035770741165744",
  "currency": "EUR", "sum": "1.250,00", "rows": [{"sku": "A", "text": "Coat", "count": 1, "sum": "1.250,00"}]}]}
"""
EXPECTED = """\
[{"orderNumber": "7", "date": "2026-11-24T10:15:00+01:00", "storeId": "K1", "storeName": "Main",
  "loyaltyCardNumber": "6035770741165744", "currency": "EUR", "total": 1250.00, "orderType": "sale",
  "lines": [{"productCode": "A", "description": "Coat", "quantity": 1, "total": 1250.00}]}]
"""


def main(name: str, within: Path = Path(__file__).parent) -> int:
    """Write the folder; the exit code. One that is there is left as it is."""
    folder = within / name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        print(
            "Give the adapter a name of small letters, digits and _, such as: make adapter NAME=acme", file=sys.stderr
        )
        return 2
    if folder.exists():
        print(f"There is an adapter {name} already: {folder}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True)
    for file, text in ((f"{name}.yaml", DECLARATION), (f"{name}.py", CODE)):
        (folder / file).write_text(text.replace("{name}", name), encoding="utf-8")
    (folder / "sample.json").write_text(SAMPLE, encoding="utf-8")
    (folder / "expected.json").write_text(EXPECTED, encoding="utf-8")
    print(f"{folder} is made; its test: pytest tests/instore/sources/adapters/test_examples.py -k {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or [""]))
