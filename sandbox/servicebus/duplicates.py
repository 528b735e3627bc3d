"""Duplicate detection: a message id that came before, within a time, is dropped and its sender is told it was taken
("Duplicate detection" of the Service Bus documentation)."""

from __future__ import annotations

from sandbox.servicebus.alarm import now
from sandbox.servicebus.message import Content


class Duplicates:
    """The message ids that an entity has seen lately.

    Args:
        window: how long each is remembered, in seconds; 0: nothing is detected.
    """

    def __init__(self, window: float) -> None:
        self.found = 0
        self._window = int(1000 * window)
        self._seen: dict[object, int] = {}

    def has(self, content: Content) -> bool:
        """Whether a message with this id has come; it has now."""
        message_id = content.properties().get("message-id") if self._window else None
        if message_id is None:
            return False
        at = now()
        known = self._seen.get(message_id, 0) > at
        if known:
            self.found += 1
        else:
            self._seen[message_id] = at + self._window
        return known
