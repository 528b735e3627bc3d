"""The Profile Store's event of an order."""

from __future__ import annotations

from typing import Any

from include.instore.ledger.deliveries import OutgoingOrder
from include.instore.model.events import build_event
from include.instore.model.settings import EventSettings


def event_of(order: OutgoingOrder, settings: EventSettings) -> tuple[dict[str, Any], bool]:
    """The body of Track for an order, and whether its payload had to be truncated. :raises ValueError: none."""
    return build_event(
        track_id=order.event_id,
        order_type=order.order_type,
        order_time=order.order_time,
        payload=order.payload,
        email=order.email,
        settings=settings,
    )
