"""The subscription's dead-letter queue: a look at it, and its redrive.

Nothing expires there, so somebody must look after it. A dead letter is completed only after what it holds is safe:
landed in the ledger, and where wanted published again and taken by the bus. A redrive that dies in between is simply
done again; the ledger knows the order's number, whichever way it came. A message that is still no order stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSender,
    ServiceBusSubQueue,
)
from azure.servicebus.exceptions import ServiceBusError

from include.instore.ledger import Ledger
from include.instore.ledger.quarantined import (
    DISCARDED,
    QUARANTINED,
    Quarantined,
    note_reason,
    of_message,
)
from include.instore.model.errors import RecordRefused
from include.instore.model.settings import BusSettings, Settings
from include.instore.sources.adapters import Blobs, adapter_of_topic
from include.instore.sources.bus import (
    bus_errors,
    dead_letter_reason,
    peeked,
    receivers_of,
    records_of,
    records_of_undecodable,
    reference_of,
    settle,
    text_of,
    whole_of,
)
from include.instore.sources.decoding import undecodable
from include.instore.sources.landing import Block, LandedBlock, Record, into_ledger, land_all, would_land
from include.instore.sources.quarantine import Outcome, redrive_run

_PUBLISHED_AGAIN = (
    "message_id", "session_id", "partition_key", "content_type", "correlation_id", "subject", "to", "reply_to",
    "reply_to_session_id", "time_to_live",
)  # fmt: skip
_ADDED_BY_THE_BUS = ("DeadLetterReason", "DeadLetterErrorDescription", "DeadLetterSource")
_BLOCK = 50
"""Messages received at once: few enough to be through with before their locks expire."""


@dataclass(frozen=True)
class DeadLetter:
    """A message of the dead-letter queue, without its body."""

    message_id: str
    sequence_number: int
    enqueued_at: datetime | None
    reason: str
    description: str
    size: int


@dataclass
class Redriven:
    """What a redrive came to.

    :param settle_failed: messages that are safe, but which the bus did not let go: they come again and are known.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    completed: int = 0
    settle_failed: int = 0


def list_dead_letters(client: ServiceBusClient, settings: BusSettings, limit: int) -> list[DeadLetter]:
    """The oldest dead letters, which stay as they are.

    :raises ConfigurationError: wrong key, or no such topic or subscription.
    :raises RetriableError: the bus failed.
    """
    with bus_errors(settings), client, _receiver(client, settings) as receiver:
        return [
            DeadLetter(
                text_of(message.message_id),
                message.sequence_number or 0,
                message.enqueued_time_utc,
                dead_letter_reason(message),
                dead_letter_reason(message, "DeadLetterErrorDescription"),
                len(whole_of(message)),
            )
            for messages in peeked(receiver, _BLOCK, limit)
            for message in messages
        ]


def redrive_dead_letters(
    client: ServiceBusClient,
    ledger: Ledger,
    settings: Settings,
    blobs: Blobs | None = None,
    *,
    limit: int,
    publish: bool = False,
    deferred: bool = False,
    dry_run: bool = False,
) -> Redriven:
    """Land the dead letters that are orders by today's settings, and only then complete them.

    What is still refused stays in the dead-letter queue, and its quarantine row gets today's reason; one that no run
    has ever landed gets a row, so that it can be given up. What was discarded in quarantine is completed without
    landing: the ledger keeps it.

    :param limit: messages looked at, at most.
    :param publish: publish them to the topic again as well, ids and properties kept, for every subscription of it.
    :param deferred: instead of the dead letters those messages of the subscription that somebody has deferred.
    :param dry_run: only say what would happen; nothing is locked or written.
    :raises ConfigurationError: wrong key, or no such topic or subscription.
    :raises RetriableError: the bus or the ledger failed; what was not completed is still there.
    """
    done = Redriven()
    with bus_errors(settings.bus), client, contextlib.ExitStack() as opened:
        # A send returns once the bus has taken the message.
        sends = publish and not dry_run
        sender = opened.enter_context(client.get_topic_sender(settings.bus.topic)) if sends else None
        run = None if dry_run else opened.enter_context(redrive_run(ledger, settings))
        lander = into_ledger(ledger, run, settings) if run else would_land(ledger, settings)
        # Dead letters are in no session, whatever the subscription requires.
        queue = [] if deferred else [opened.enter_context(_receiver(client, settings.bus))]
        for receiver in queue or receivers_of(client, settings.bus):
            left = limit - len(done.outcomes)
            if deferred:
                pages = _deferred(receiver, left, take=not dry_run)
            else:
                pages = _peeked(receiver, left) if dry_run else _received(receiver, settings.bus, left)
            ours = None if dry_run else receiver
            with contextlib.closing(pages):
                source = _DeadLetters(ledger, settings, pages, done, ours, sender, publish=publish, blobs=blobs)
                land_all(source, lander)
    return done


def erase_dead_letters(
    client: ServiceBusClient, ledger: Ledger, settings: Settings, is_theirs: Callable[[bytes], bool]
) -> int:
    """Complete the dead letters of persons who want to be forgotten; how many were.

    Each is landed first, or kept in quarantine: it may have orders of others as well. Of those who are suppressed as
    erased by now, landing keeps nothing but what their orders are known again by.

    :param is_theirs: whether a body is of them. :raises ConfigurationError, RetriableError: as for the list.
    """
    with (
        bus_errors(settings.bus),
        client,
        _receiver(client, settings.bus) as receiver,
        redrive_run(ledger, settings) as run,
        contextlib.closing(_received(receiver, settings.bus, settings.bus.drain_max_messages)) as pages,
    ):
        theirs = ([message for message in messages if is_theirs(whole_of(message))] for messages in pages)
        source = _DeadLetters(ledger, settings, theirs, Redriven(), receiver, publish=False, erases=True)
        land_all(source, into_ledger(ledger, run, settings))
        return source.done.completed


class _DeadLetters:
    """The messages of the dead-letter queue, one a block. Without a receiver it is a look, which changes nothing."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        pages: Iterator[Sequence[ServiceBusReceivedMessage]],
        done: Redriven,
        receiver: ServiceBusReceiver | None = None,
        sender: ServiceBusSender | None = None,
        *,
        publish: bool,
        erases: bool = False,
        blobs: Blobs | None = None,
    ) -> None:
        self.done = done
        self._ledger = ledger
        self._settings = settings
        self._adapter = adapter_of_topic(settings, blobs)
        self._pages = pages
        self._receiver = receiver
        self._sender = sender
        self._publish = publish
        self._erases = erases
        self._letter: _Letter
        self._never_seen: Block | None = None

    def blocks(self) -> Iterator[Block]:
        for messages in self._pages:
            for letter in [self._read(message) for message in messages]:
                self._letter = letter
                if letter.given_up:
                    self._safe("discarded")
                else:
                    # Of several orders each refused one goes into quarantine alone.
                    yield Block(letter.records, redriven=letter.waiting, all_or_none=len(letter.records) == 1)
                    if self._never_seen:
                        yield self._never_seen
                        self._never_seen = None

    def settle(self, block: Block, outcome: LandedBlock) -> None:
        if block is self._never_seen:
            if self._erases:
                self._safe("refused")
            return
        if not outcome.refused or not block.all_or_none:
            # Landed before it is published: a topic that detects duplicates drops an id that it still remembers.
            publish = self._publish and not any(isinstance(each.order, RecordRefused) for each in block.records)
            if publish and self._sender is not None:
                self._sender.send_messages(_again(self._letter))
            self._safe("published" if publish else "landed" if outcome.landed.orders else "known")
            return
        error = outcome.refused[0]
        self._became("refused", error)
        if self._receiver is None:
            return
        for id in self._letter.waiting:
            note_reason(self._ledger, id, error.reason, error.detail)
        if not self._letter.rows:  # the bus gave it up, or it expired, before it was ever read
            self._never_seen = Block([replace(self._letter.records[0], order=error)])
        elif self._erases:
            self._safe("refused")

    def _safe(self, fate: str) -> None:
        """What the letter holds is safe now, so it is completed."""
        self._became(fate)
        if self._receiver is not None:
            settled = settle(self._receiver, self._letter.message)
            self.done.completed += settled
            self.done.settle_failed += not settled

    def _became(self, fate: str, error: RecordRefused | None = None) -> None:
        id, reference = text_of(self._letter.message.message_id), reference_of(self._letter.message)
        why = (error.reason, error.detail) if error else ("", "")
        self.done.outcomes.append(Outcome(id, reference, fate, *why))

    def _read(self, message: ServiceBusReceivedMessage) -> _Letter:
        records = records_of(message, self._adapter)
        whole, reference = whole_of(message), reference_of(message)
        if undecodable(message) and not self._publish:  # what cannot be decoded cannot be published as it was
            records = records_of_undecodable(whole, reference, message.enqueued_time_utc, self._adapter)
        rows = of_message(self._ledger, message.message_id, reference, whole)
        came = [row.received_at for row in rows] or [message.enqueued_time_utc or datetime.now(timezone.utc)]
        return _Letter(message, [replace(each, published_at=min(came)) for each in records], rows)


@dataclass(frozen=True)
class _Letter:
    """A dead letter, read: the orders it holds or why it holds none, and the rows it left in quarantine."""

    message: ServiceBusReceivedMessage
    records: Sequence[Record] = field(repr=False)
    rows: Sequence[Quarantined]

    @property
    def waiting(self) -> list[str]:
        return [row.id for row in self.rows if row.state == QUARANTINED]

    @property
    def given_up(self) -> bool:
        return bool(self.rows) and all(row.state == DISCARDED for row in self.rows)


def _again(letter: _Letter) -> ServiceBusMessage:
    """The message as it was published, without what the bus added when it became a dead letter."""
    message = letter.message
    properties: dict[Any, Any] = {
        text_of(name): value
        for name, value in (message.application_properties or {}).items()
        if text_of(name) not in _ADDED_BY_THE_BUS
    }
    kept = {name: getattr(message, name) for name in _PUBLISHED_AGAIN}
    return ServiceBusMessage(whole_of(message), application_properties=properties, **kept)


def _receiver(client: ServiceBusClient, settings: BusSettings) -> ServiceBusReceiver:
    return client.get_subscription_receiver(
        settings.topic, settings.subscription, sub_queue=ServiceBusSubQueue.DEAD_LETTER
    )


_Pages = Generator[Sequence[ServiceBusReceivedMessage], None, None]


def _peeked(receiver: ServiceBusReceiver, limit: int) -> _Pages:
    yield from peeked(receiver, _BLOCK, limit)


def _deferred(receiver: ServiceBusReceiver, limit: int, *, take: bool) -> _Pages:
    """The deferred ones of the first messages, locked or only looked at; one that is not completed stays deferred."""
    for messages in peeked(receiver, _BLOCK, limit):
        if found := [message for message in messages if message.state == ServiceBusMessageState.DEFERRED]:
            numbers = [message.sequence_number or 0 for message in found]
            yield receiver.receive_deferred_messages(numbers) if take else found


def _received(receiver: ServiceBusReceiver, settings: BusSettings, limit: int) -> _Pages:
    """Blocks of locked messages, each message once.

    A message that stays is unlocked at the end only: before, it would come again and again. Its lock may expire
    meanwhile, so that it does come again: then everything has been seen.
    """
    seen: set[int | None] = set()
    staying: list[ServiceBusReceivedMessage] = []
    empty_reads = 0
    try:
        while len(seen) < limit and empty_reads < settings.drain_empty_reads:
            wanted = min(_BLOCK, limit - len(seen))
            messages = receiver.receive_messages(max_message_count=wanted, max_wait_time=settings.drain_wait)
            new = [message for message in messages if message.sequence_number not in seen]
            staying += messages
            seen.update(message.sequence_number for message in new)
            empty_reads = 0 if messages else empty_reads + 1
            if new:
                yield new
            # The SDK has no public word for it.
            staying = [message for message in staying if not message._settled]
            if len(new) < len(messages):
                break
    finally:
        for message in staying:
            with contextlib.suppress(ServiceBusError, ValueError):
                receiver.abandon_message(message)
