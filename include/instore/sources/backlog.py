"""What is still on the subscription after a run: a look that locks nothing and counts no delivery."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from azure.servicebus import ServiceBusClient, ServiceBusMessageState, ServiceBusSubQueue

from include.instore.model.settings import Settings
from include.instore.sources.bus import bus_errors, peeked

_LOOK_AT = 32
"""Messages looked at for the oldest: those at the front may be deferred, and nobody waits for them."""
_COUNTED_AT_ONCE = 100


@dataclass(frozen=True)
class Backlog:
    """Seconds since the oldest waiting message was published, 0 without one; dead letters, counted up to the limit."""

    oldest_message: float
    dead_letters: int


def look(client: ServiceBusClient, settings: Settings) -> Backlog:
    """Look at the first messages and at the dead-letter queue.

    :raises ConfigurationError: wrong key, or no such topic or subscription.
    :raises RetriableError: the bus failed.
    """
    names = (settings.topic, settings.subscription)
    with bus_errors(settings), client:
        with client.get_subscription_receiver(*names) as receiver:
            waiting = [
                message.enqueued_time_utc
                for messages in peeked(receiver, _LOOK_AT, _LOOK_AT)
                for message in messages
                if message.state == ServiceBusMessageState.ACTIVE and message.enqueued_time_utc is not None
            ]
        with client.get_subscription_receiver(*names, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
            dead_letters = sum(map(len, peeked(receiver, _COUNTED_AT_ONCE, max(1, settings.alert_dead_letters))))
    age = (datetime.now(timezone.utc) - min(waiting)).total_seconds() if waiting else 0.0
    return Backlog(max(0.0, age), dead_letters)
