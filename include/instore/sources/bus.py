"""What the topic, its dead letters and a look at both have in common: peeking, settling, bodies, errors."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from azure.core.exceptions import AzureError
from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSubQueue,
)
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusConnectionError,
    ServiceBusError,
    SessionCannotBeLockedError,
)
from azure.servicebus.management import ServiceBusAdministrationClient

from include.instore.ledger.tables import kept_text
from include.instore.model.codes import UNDECODABLE
from include.instore.model.errors import ConfigurationError, RecordRefused, RetriableError
from include.instore.model.settings import BusSettings, Settings
from include.instore.model.states import Source
from include.instore.sources.adapters import Adapter
from include.instore.sources.decoding import Undecodable, decoded, undecodable
from include.instore.sources.landing import Record, records_of_body

SOURCE = Source.TOPIC.value

_COUNTED_AT_ONCE = 100
_LOOKED_AT_MOST = 1000
LOOKED_AT_SESSIONS = 100
_ONCE: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10}
_EXPIRED = "TTLExpiredException"
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)

log = logging.getLogger(__name__)


@contextlib.contextmanager
def bus_errors(settings: BusSettings) -> Iterator[None]:
    """The SDK's errors as ours; their own texts may hold the connection string."""
    try:
        yield
    except (ServiceBusAuthenticationError, ServiceBusAuthorizationError) as error:
        # What is not there is not refused at the link, but already where the token for it is put.
        if getattr(error.inner_exception, "status_code", None) == 404:
            raise _not_there(settings) from None
        raise ConfigurationError(
            "Service Bus refused the key of connection instore_service_bus; put a connection string with the Listen "
            "right into its Connection String field."
        ) from None
    except (MessagingEntityNotFoundError, MessagingEntityDisabledError):
        raise _not_there(settings) from None
    except ServiceBusError as error:
        if "auto-forwarding" in str(error):
            raise ConfigurationError(
                f"Subscription {settings.subscription!r} of topic {settings.topic!r} has auto-forwarding on, so "
                "nothing can be received; name one that keeps its messages in INSTORE_TOPIC and INSTORE_SUBSCRIPTION."
            ) from None
        raise RetriableError(
            f"Service Bus (connection instore_service_bus) failed with {type(error).__name__}; unsettled messages "
            f"are received again. If this persists, check the host of the connection string and the network to it."
        ) from None


def _not_there(settings: BusSettings) -> ConfigurationError:
    return ConfigurationError(
        f"The namespace of connection instore_service_bus has no active topic {settings.topic!r} with subscription "
        f"{settings.subscription!r}; correct INSTORE_TOPIC and INSTORE_SUBSCRIPTION, or create them."
    )


def subscription_of(client: ServiceBusClient, settings: BusSettings) -> ServiceBusReceiver | None:
    """An open receiver of the subscription, which its client closes; None where it requires sessions.

    Of those a receiver has one at a time.
    """
    receiver = client.get_subscription_receiver(settings.topic, settings.subscription)
    try:
        return receiver.__enter__()
    except ServiceBusError as error:
        if "requires sessions" not in str(error):
            raise
        return None


def sessions_of(
    client: ServiceBusClient, settings: BusSettings, held: list[str] | None = None
) -> Iterator[ServiceBusReceiver]:
    """An open receiver of each session that has messages, one after the other; it is locked meanwhile.

    :param held: gets the sessions that somebody else holds.
    """
    names = (settings.topic, settings.subscription)
    for session in list(client.list_subscription_sessions(*names)):
        try:
            with client.get_subscription_receiver(*names, session_id=session) as receiver:
                yield receiver
        except SessionCannotBeLockedError:
            if held is not None:
                held.append(session)


def receivers_of(client: ServiceBusClient, settings: BusSettings) -> Iterator[ServiceBusReceiver]:
    """What to peek with at the subscription: one receiver, or one of each session that nobody else holds."""
    if receiver := subscription_of(client, settings):
        yield receiver
    else:
        yield from sessions_of(client, settings)


def peeked(
    receiver: ServiceBusReceiver, size: int, limit: int, after: int = 0
) -> Iterator[Sequence[ServiceBusReceivedMessage]]:
    """Pages of the oldest messages, ``limit`` of them at most; none is locked, and no delivery is counted.

    :param size: messages a page, at most. :param after: only those with a higher number.
    :raises RetriableError: their numbers cannot be read, so that nobody can tell what comes next.
    """
    while limit > 0:
        messages = receiver.peek_messages(max_message_count=min(size, limit), sequence_number=after + 1)
        if not messages:
            return
        limit -= len(messages)
        yield messages
        before, after = after, max(message.sequence_number or 0 for message in messages)
        if after <= before:
            raise RetriableError("Service Bus (connection instore_service_bus) peeked at messages without a number.")


@dataclass(frozen=True)
class Rest:
    """What is on the subscription still, as far as was looked.

    :param active: numbers and times of enqueueing, the bus's own. Some may be locked: the bus does not tell which.
    :param is_all: there are no more than was looked at. :param held: sessions that somebody else holds.
    """

    active: Mapping[int, datetime]
    deferred: int
    is_all: bool
    held: int = 0

    def __add__(self, other: Rest) -> Rest:
        return Rest({**self.active, **other.active}, self.deferred + other.deferred, self.is_all and other.is_all)

    def come_by(self, moment: datetime | None) -> set[int]:
        """Numbers of those that were enqueued by then; None: of all."""
        return {number for number, at in self.active.items() if moment is None or at <= moment}


def rest_of(receiver: ServiceBusReceiver) -> Rest:
    """Look at a thousand messages of it, or of its session.

    :raises RetriableError: the bus failed, or hides the rest.
    """
    active: dict[int, datetime] = {}
    deferred = looked_at = 0
    for messages in peeked(receiver, _COUNTED_AT_ONCE, _LOOKED_AT_MOST):
        looked_at += len(messages)
        deferred += sum(message.state == ServiceBusMessageState.DEFERRED for message in messages)
        active |= {
            message.sequence_number or 0: message.enqueued_time_utc or _LONG_AGO
            for message in messages
            if message.state == ServiceBusMessageState.ACTIVE
        }
    if not active and looked_at >= _LOOKED_AT_MOST:
        raise RetriableError(f"{looked_at} messages on the subscription are deferred, and hide what is behind them.")
    return Rest(active, deferred, looked_at < _LOOKED_AT_MOST)


def complete_block(receiver: ServiceBusReceiver, messages: Sequence[ServiceBusReceivedMessage]) -> set[int] | None:
    """Complete messages by one request; the numbers of those that are completed. The others are to be settled singly.

    The SDK itself does so with a single message whose link is gone. Where one of a block has lost its lock the bus says
    so of all; which ones it has completed is seen by what is still there.

    :return: None where the bus, or this SDK, does not do it.
    """
    numbers = {message.sequence_number or 0 for message in messages}
    tokens = [message.lock_token for message in messages if not message._lock_expired and message.lock_token]
    if len(tokens) < len(messages) or 0 in numbers:
        return set()
    try:
        receiver._settle_message_via_mgmt_link("completed", tokens)
    except MessageLockLostError:
        log.warning("of %d messages not all were completed at once: a lock was lost", len(messages))
        try:
            return numbers - _still_there(receiver, numbers)
        except (ServiceBusError, RetriableError):
            return set()
    except Exception as error:  # it is no part of the SDK's promises; the way that is one tells what is wrong
        log.warning("%d messages were not completed at once (%s)", len(messages), type(error).__name__)
        return None if isinstance(error, (ServiceBusError, AttributeError, TypeError)) else set()
    for message in messages:
        message._settled = True
    return numbers


def _still_there(receiver: ServiceBusReceiver, numbers: set[int]) -> set[int]:
    there: set[int] = set()
    for messages in peeked(receiver, _COUNTED_AT_ONCE, _LOOKED_AT_MOST, after=min(numbers) - 1):
        there |= {message.sequence_number or 0 for message in messages}
        if max(there) >= max(numbers):
            return there
    return there


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
            "message %s was not settled (%s); it is received again, and the ledger knows it",
            message.sequence_number, type(error).__name__,
        )  # fmt: skip
        return False
    return True


def reference_of(message: ServiceBusReceivedMessage) -> str:
    """Where a message is found: its id, which may be absent, and its number on the subscription, which never is."""
    return f"{message.message_id or '-'}#{message.sequence_number}"


def text_of(value: Any) -> str:
    """An id or a property as text: on the wire an id may be a number, a UUID or any bytes. Empty without one."""
    return value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)


def dead_letter_reason(message: ServiceBusReceivedMessage, name: str = "DeadLetterReason") -> str:
    """Why the bus, or a receiver, made a dead letter of it; the SDK's own property raises at what is no UTF-8."""
    return text_of((message.application_properties or {}).get(name.encode()))


def records_of(message: ServiceBusReceivedMessage, adapter: Adapter) -> list[Record]:
    """The orders of a message, or why it has none; of several each is a record of its own."""
    if mark := undecodable(message):
        return [_undecodable(mark, reference_of(message), message.enqueued_time_utc)]
    return records_of_body(SOURCE, reference_of(message), body_of(message), message.enqueued_time_utc, adapter)


def whole_of(message: ServiceBusReceivedMessage) -> bytes:
    """What the quarantine keeps of a message that is refused as a whole."""
    mark = undecodable(message)
    return mark.raw if mark else body_of(message)


def records_of_undecodable(raw: bytes, reference: str, published_at: datetime | None, adapter: Adapter) -> list[Record]:
    """The orders of an undecodable message that a person wants all the same: those of its body, where that is whole.

    :param raw: as the quarantine keeps it.
    """
    message = decoded(raw)
    mark = undecodable(message)
    if mark and not mark.body:
        return [_undecodable(mark, reference, published_at)]
    records = records_of_body(SOURCE, reference, body_of(message), published_at, adapter)
    return records if len(records) > 1 else [replace(records[0], raw=raw)]


def _undecodable(mark: Undecodable, reference: str, published_at: datetime | None) -> Record:
    return Record(SOURCE, reference, mark.raw, RecordRefused(UNDECODABLE, mark.detail), published_at=published_at)


def body_of(message: ServiceBusReceivedMessage | AmqpAnnotatedMessage) -> bytes:
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


def keeps_expired(client: ServiceBusAdministrationClient, settings: BusSettings) -> bool | None:
    """Whether a message that expires on the subscription becomes a dead letter; None: the key may not ask for it."""
    try:
        with client:
            found = client.get_subscription(settings.topic, settings.subscription, **_ONCE)
    except AzureError:
        return None
    return bool(found.dead_lettering_on_message_expiration)


def counted(client: ServiceBusAdministrationClient, settings: BusSettings) -> str:
    """What the bus itself counts, in words: messages of the subscription, locked ones as active, and the topic's bytes.

    It takes the Manage right to ask; what is not known is never 0.
    """
    try:
        with client:
            found = client.get_subscription_runtime_properties(settings.topic, settings.subscription, **_ONCE)
            size = client.get_topic_runtime_properties(settings.topic, **_ONCE).size_in_bytes
            quota = client.get_topic(settings.topic, **_ONCE).max_size_in_megabytes
    except AzureError:
        return "not known: the bus tells it to a key with the Manage right only, which no run needs, or did not answer"
    numbers = (found.active_message_count, found.dead_letter_message_count, size, quota)
    told = ("not known" if each is None else f"{each:,}" for each in numbers)
    return "{} active, {} dead-lettered; the topic has {} bytes of {} MB".format(*told)


@dataclass(frozen=True)
class Backlog:
    """Seconds since the oldest waiting message was published, 0 without one; dead letters, as far as was looked.

    :param expired: those of the dead letters that nobody had read in time.
    """

    oldest_message: float
    dead_letters: int
    expired: int = 0


def _oldest(receiver: ServiceBusReceiver) -> datetime | None:
    active = (
        message.enqueued_time_utc
        for messages in peeked(receiver, _COUNTED_AT_ONCE, _LOOKED_AT_MOST)
        for message in messages  # those at the front may be deferred, and nobody waits for them
        if message.state == ServiceBusMessageState.ACTIVE
    )
    return next(active, None)


def look(clients: tuple[ServiceBusClient, ServiceBusClient], settings: Settings) -> Backlog:
    """Look at what is on the subscription after a run, its first messages and its dead-letter queue, both at once.

    It locks nothing and counts no delivery.

    :param clients: one for each, which are closed.
    :raises ConfigurationError: wrong key, or no such topic or subscription.
    :raises RetriableError: the bus failed.
    """
    with bus_errors(settings.bus), ThreadPoolExecutor(1, thread_name_prefix="look") as thread:
        dead = thread.submit(_dead_letter_reasons, clients[1], settings)
        waiting_since, reasons = _waiting_since(clients[0], settings.bus), dead.result()
    age = (datetime.now(timezone.utc) - waiting_since).total_seconds() if waiting_since else 0.0
    return Backlog(max(0.0, age), len(reasons), reasons.count(_EXPIRED))


@contextlib.contextmanager
def _left_open(client: ServiceBusClient) -> Iterator[None]:
    """Close a client that has only peeked behind our back: the SDK takes up to a second, and nothing hangs on it."""

    def close() -> None:
        with contextlib.suppress(Exception):
            client.close()

    try:
        yield
    finally:
        threading.Thread(target=close, name="close", daemon=True).start()


def _waiting_since(client: ServiceBusClient, settings: BusSettings) -> datetime | None:
    with _left_open(client):
        oldest = (_oldest(receiver) for receiver in islice(receivers_of(client, settings), LOOKED_AT_SESSIONS))
        return min((moment for moment in oldest if moment), default=None)


def _dead_letter_reasons(client: ServiceBusClient, settings: Settings) -> list[str]:
    names, most = (settings.bus.topic, settings.bus.subscription), settings.alerts.alert_dead_letters
    with _left_open(client):
        receiver = client.get_subscription_receiver(*names, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
        pages = peeked(receiver, _COUNTED_AT_ONCE, max(_LOOKED_AT_MOST, most))
        return [dead_letter_reason(message) for messages in pages for message in messages]
