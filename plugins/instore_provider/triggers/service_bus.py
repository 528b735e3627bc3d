"""Waking a DAG when messages wait on a Service Bus subscription, without taking any."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from instore_provider.triggers.watching import WatchingTrigger

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusClient, ServiceBusReceiver

__all__ = ["ServiceBusWaitingMessagesTrigger"]

_PAGE = 100
_PAGES = 10
"""So many are looked at before it fires: what is behind them it sees the next time."""


class ServiceBusWaitingMessagesTrigger(WatchingTrigger):
    """
    Fire when messages wait on a subscription that are newer than those it has fired for.

    It peeks: nothing is taken or locked, no delivery is counted, and no message is kept. A message that comes again, or
    to a partition of an entity that has several, may have a number that is not newer, so let the DAG have a timetable
    as well. A subscription with sessions cannot be looked at.

    :param topic: name of the topic. :param subscription: and of its subscription; the Listen right is enough.
    :param service_bus_conn_id: connection, as `ServiceBusHook` takes it.
    """

    def __init__(
        self, *, topic: str, subscription: str, service_bus_conn_id: str = "service_bus_default", **times: float
    ) -> None:
        super().__init__(**times)
        self.topic = topic
        self.subscription = subscription
        self.service_bus_conn_id = service_bus_conn_id
        self._newest = 0
        self._client: ServiceBusClient | None = None
        self._receiver: ServiceBusReceiver | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments."""
        path, arguments = super().serialize()
        names = ("topic", "subscription", "service_bus_conn_id")
        return path, {**arguments, **{name: getattr(self, name) for name in names}}

    def look(self) -> int:
        """Look at what has a higher number than all before, whether somebody waits for it or not."""
        from azure.servicebus import ServiceBusMessageState

        receiver = self._receiver or self._open()
        newest, count = self._newest, 0
        for _ in range(_PAGES):
            messages = receiver.peek_messages(max_message_count=_PAGE, sequence_number=newest + 1)
            count += sum(message.state == ServiceBusMessageState.ACTIVE for message in messages)
            before, newest = newest, max([newest, *(message.sequence_number or 0 for message in messages)])
            if newest == before:
                break
        self._newest = newest
        return count

    def _open(self) -> ServiceBusReceiver:
        from instore_provider.hooks.service_bus import ServiceBusHook

        # At DEBUG the SDK would write whole frames, bodies and tokens among them, into the triggerer's log.
        logging.getLogger("azure").setLevel(logging.WARNING)
        self._client = ServiceBusHook(self.service_bus_conn_id).get_conn()
        self._receiver = self._client.get_subscription_receiver(self.topic, self.subscription)
        return self._receiver

    def hang_up(self) -> None:
        """Close the client behind the loop's back: the SDK takes up to a second for it."""
        client, self._client, self._receiver = self._client, None, None

        def close() -> None:
            with contextlib.suppress(Exception):
                if client is not None:
                    client.close()

        threading.Thread(target=close, name="close", daemon=True).start()
