"""What the topic, its dead letters and a look at both have in common: peeking, settling, bodies, errors."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSubQueue,
)
from azure.servicebus.amqp import AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusConnectionError,
    ServiceBusError,
)

from include.instore.ledger.tables import kept_text
from include.instore.model.errors import ConfigurationError, RecordRefused, RetriableError
from include.instore.model.settings import Settings

SOURCE = "topic"

_LOOK_AT = 32
"""Messages looked at for the oldest: those at the front may be deferred, and nobody waits for them."""
_COUNTED_AT_ONCE = 100
_LOOKED_AT_DEAD = 1000
_EXPIRED = "TTLExpiredException"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def bus_errors(settings: Settings) -> Iterator[None]:
    """The SDK's errors as ours; their own texts may hold the connection string."""
    try:
        yield
    except (ServiceBusAuthenticationError, ServiceBusAuthorizationError):
        raise ConfigurationError(
            "Service Bus refused the key of connection instore_service_bus; put a connection string with the Listen "
            "right into its Connection String field."
        ) from None
    except (MessagingEntityNotFoundError, MessagingEntityDisabledError):
        raise ConfigurationError(
            f"The namespace of connection instore_service_bus has no active topic {settings.topic!r} with subscription "
            f"{settings.subscription!r}; correct INSTORE_TOPIC and INSTORE_SUBSCRIPTION, or create them."
        ) from None
    except ServiceBusError as error:
        raise RetriableError(
            f"Service Bus (connection instore_service_bus) failed with {type(error).__name__}; unsettled messages come "
            "again. Where this stays, check the host of the connection string and the network to it."
        ) from None


def peeked(receiver: ServiceBusReceiver, size: int, limit: int) -> Iterator[Sequence[ServiceBusReceivedMessage]]:
    """Pages of the oldest messages, ``limit`` of them at most; none is locked, and no delivery is counted.

    :param size: messages a page, at most.
    """
    after = 0
    while limit > 0:
        messages = receiver.peek_messages(max_message_count=min(size, limit), sequence_number=after + 1)
        if not messages:
            return
        limit -= len(messages)
        after = max(message.sequence_number or 0 for message in messages)
        yield messages


def settle(
    receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage, refused: RecordRefused | None = None
) -> bool:
    """Complete one message, or dead-letter it as refused; False where the bus will deliver it again."""
    try:
        if refused is None:
            receiver.complete_message(message)
        else:
            receiver.dead_letter_message(message, reason=refused.reason, error_description=kept_text(refused.detail))
    except ServiceBusConnectionError:
        raise  # each further settle would wait through all of the SDK's retries
    except ServiceBusError as error:
        log.warning(
            "message %s was not settled (%s); it comes again and the ledger knows it",
            message.sequence_number, type(error).__name__,
        )  # fmt: skip
        return False
    return True


def reference_of(message: ServiceBusReceivedMessage) -> str:
    """Where a message is found: its id, which may be absent, and its number on the subscription, which never is."""
    return f"{message.message_id or '-'}#{message.sequence_number}"


def body_of(message: ServiceBusReceivedMessage) -> bytes:
    """The body as bytes: sections of data one behind the other, text as it is, and other values as JSON of them."""
    body = message.body
    if message.body_type is AmqpMessageBodyType.DATA:
        return b"".join([body] if isinstance(body, bytes) else body)
    value = list(body) if message.body_type is AmqpMessageBodyType.SEQUENCE else body
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        value = json.dumps(_plain(value), ensure_ascii=False)
    return value.encode(errors="surrogatepass")


def _plain(value: Any) -> Any:
    """An AMQP value as JSON has it; bytes as the text they nearly always are."""
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value if isinstance(value, str | int | float | bool | None) else str(value)


@dataclass(frozen=True)
class Backlog:
    """Seconds since the oldest waiting message was published, 0 without one; dead letters, as far as was looked.

    :param expired: those of the dead letters that nobody had read in time.
    """

    oldest_message: float
    dead_letters: int
    expired: int = 0


def look(client: ServiceBusClient, settings: Settings) -> Backlog:
    """Look at what is on the subscription after a run: its first messages and its dead-letter queue.

    It locks nothing and counts no delivery.

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
            most = max(_LOOKED_AT_DEAD, settings.alert_dead_letters)
            reasons = [
                message.dead_letter_reason
                for messages in peeked(receiver, _COUNTED_AT_ONCE, most)
                for message in messages
            ]
    age = (datetime.now(timezone.utc) - min(waiting)).total_seconds() if waiting else 0.0
    return Backlog(max(0.0, age), len(reasons), reasons.count(_EXPIRED))
