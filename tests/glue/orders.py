"""Orders for tests of the glue."""

from __future__ import annotations

import json
from typing import Any

from include.instore.ledger.intake import arrival
from include.instore.model.orders import parse_order
from include.instore.model.settings import Settings


def pending_order(number: str, **fields: Any) -> dict[str, Any]:
    """The ledger row of an order that needs no look-up, but for the fields given."""
    document = {
        "orderNumber": number,
        "date": "2017-06-05T08:00:00Z",
        "storeId": "1",
        "currency": "USD",
        "total": "1.10",
        "emailAddress": "canary-77@example.com",
    } | fields
    order = parse_order(json.dumps(document).encode(), 10_000)
    return arrival(order, source="topic", reference=f"{number}#1", raw=b"", settings=Settings()).row
