"""Who a card belongs to."""
