"""Orders made for a measurement: of one seed always the same, as many lines as the sample week's have."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

PER_DAY = 427
_CARDS = 2500
_GOODS = ("SOFT DRINK POWDER POUCHES", "FLUID MILK WHITE ONLY", "DAIRY CASE 100% PURE JUICE - O", "BAR SOAP", "BAGELS")
_COLUMNS = (
    "order_number", "order_date", "store_id", "store_name", "loyalty_card", "email", "currency", "order_total",
    "product_code", "description", "quantity", "unit_price", "discount", "line_total",
)  # fmt: skip


def order(drawn: random.Random, number: str, at: datetime) -> dict[str, Any]:
    """One order, as a message has it; nine and a half lines on average, some of them many more."""
    lines = []
    cents = 0
    for _ in range(1 + min(60, int(drawn.expovariate(1 / 9)))):
        quantity, price = drawn.choice((1, 1, 1, 2, 3)), drawn.randrange(50, 1500)
        cents += quantity * price
        lines.append({
            "productCode": str(drawn.randrange(800_000, 9_999_999)), "description": drawn.choice(_GOODS),
            "quantity": str(quantity), "unitPrice": f"{price / 100:.2f}", "discount": "0.0",
            "total": f"{quantity * price / 100:.2f}",
        })  # fmt: skip
    store = f"{drawn.randrange(100):04d}"
    return {
        "orderNumber": number, "date": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "storeId": store,
        "storeName": f"Store {store}", "loyaltyCardNumber": f"6035{drawn.randrange(_CARDS):012d}",
        "emailAddress": None, "currency": "USD", "total": f"{cents / 100:.2f}", "lines": lines,
    }  # fmt: skip


def message(number: int, seed: int) -> bytes:
    """The body of a message."""
    at = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number)
    return json.dumps(order(random.Random(seed * 10_000_019 + number), f"T{seed}-{number:07d}", at)).encode()  # noqa: S311


def rows(order: dict[str, Any]) -> list[list[str]]:
    """The rows of an extract that say the same."""
    head = [
        str(order[name] or "")
        for name in ("orderNumber", "date", "storeId", "storeName", "loyaltyCardNumber", "emailAddress", "currency")
    ]
    names = ("productCode", "description", "quantity", "unitPrice", "discount", "total")
    return [[*head, order["total"], *(line[name] for name in names)] for line in order["lines"]]


def write_extracts(folder: Path, days: int, seed: int, per_day: int = PER_DAY) -> tuple[int, int]:
    """Write a file a day; how many orders and lines."""
    drawn = random.Random(seed)  # noqa: S311
    begin = datetime(2024, 1, 1, tzinfo=timezone.utc)
    orders = lines = 0
    for day in range(days):
        at = begin + timedelta(days=day)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for n in range(per_day):
            made = order(drawn, f"E{seed}-{day:03d}-{n:05d}", at + timedelta(seconds=n * 86_000 // per_day))
            writer.writerows(rows(made))
            orders, lines = orders + 1, lines + len(made["lines"])
        path = folder / f"{at:%Y/%m/%d}/orders-{at:%Y-%m-%d}.csv.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(text.getvalue().encode(), 6, mtime=0))
    return orders, lines


def publish(bus: str, topic: str, count: int, seed: int) -> None:
    """Put so many orders on a topic."""
    from azure.servicebus import ServiceBusClient, ServiceBusMessage

    with ServiceBusClient.from_connection_string(bus) as client, client.get_topic_sender(topic) as sender:
        batch = sender.create_message_batch()
        for number in range(count):
            one = ServiceBusMessage(message(number, seed), message_id=f"{seed}-{number}")
            try:
                batch.add_message(one)
            except ValueError:
                sender.send_messages(batch)
                batch = sender.create_message_batch()
                batch.add_message(one)
        sender.send_messages(batch)
