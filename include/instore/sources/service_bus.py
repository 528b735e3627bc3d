"""The topic subscription as a source: a message is completed, or dead-lettered, once its block is on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from azure.servicebus import ServiceBusClient, ServiceBusReceivedMessage, ServiceBusReceiver

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.intake import Landed
from include.instore.model.settings import Settings
from include.instore.sources.bus import SOURCE, body_of, bus_errors, peeked, reference_of, settle
from include.instore.sources.landing import Block, LandedBlock, Record, into_ledger, land_all, order_or_refusal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drained:
    """What one run took off the subscription, in messages.

    ``settle_failed`` messages are safe in the ledger and come again; ``stopped_by`` is drained, count or time.
    """

    landed: Landed = field(default_factory=Landed)
    dead_lettered: int = 0
    settle_failed: int = 0
    stopped_by: str = "drained"

    def __add__(self, other: Drained) -> Drained:
        return Drained(
            self.landed + other.landed,
            self.dead_lettered + other.dead_lettered,
            self.settle_failed + other.settle_failed,
            self.stopped_by,
        )


class _Budget:
    """How many messages the receivers may still take between them, and until when."""

    def __init__(self, messages: int, seconds: float) -> None:
        self._left = messages
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def take(self, wanted: int) -> int:
        with self._lock:
            if self.stop.is_set() or self.out_of_time():
                return 0
            granted = min(wanted, self._left)
            self._left -= granted
            return granted

    def give_back(self, unused: int) -> None:
        with self._lock:
            self._left += unused

    def out_of_time(self) -> bool:
        return time.monotonic() >= self._until

    def stopped_by(self) -> str:
        return "count" if self._left <= 0 else "time" if self.out_of_time() else "drained"


def drain(clients: Sequence[ServiceBusClient], ledger: Ledger, run_id: str, settings: Settings) -> Drained:
    """Take the pending messages off the subscription, by one receiver per client, each in its own thread.

    Stops when the subscription is empty, after ``drain_max_messages`` or after ``drain_max_seconds``; what is left
    stays for the next run.

    :param clients: one per receiver: neither clients nor receivers are thread-safe (service-bus.md).
    :raises ConfigurationError: wrong key, or no such topic or subscription.
    :raises RetriableError: the bus or the ledger failed; whatever was not committed comes again.
    """
    budget = _Budget(settings.drain_max_messages, settings.drain_max_seconds)
    with ThreadPoolExecutor(len(clients), thread_name_prefix="receiver") as threads:
        receivers = [threads.submit(_receive, client, ledger, run_id, settings, budget) for client in clients]
    # Every thread has ended; the first error is the run's.
    totals = Drained(stopped_by=budget.stopped_by())
    for result in (receiver.result() for receiver in receivers):
        totals += result
    return totals


def peek(client: ServiceBusClient, ledger: Ledger, run_id: str, settings: Settings) -> Drained:
    """Land what is on the subscription without taking it off: for a dry run, on its copy of the ledger.

    Nothing is locked and no delivery is counted. Bounds and errors as :func:`drain`.
    """
    budget = _Budget(settings.drain_max_messages, settings.drain_max_seconds)
    with bus_errors(settings), client, client.get_subscription_receiver(settings.topic, settings.subscription) as bus:
        landed = land_all(_Peeked(bus, settings, budget), into_ledger(ledger, lambda: run_id, settings))
    return Drained(landed, stopped_by=budget.stopped_by())


def _receive(client: ServiceBusClient, ledger: Ledger, run_id: str, settings: Settings, budget: _Budget) -> Drained:
    try:
        with (
            bus_errors(settings),
            client,
            client.get_subscription_receiver(settings.topic, settings.subscription) as receiver,
        ):
            source = _Received(receiver, settings, budget)
            landed = land_all(source, into_ledger(ledger, lambda: run_id, settings))
            return Drained(landed, source.dead_lettered, source.settle_failed)
    except BaseException:
        budget.stop.set()
        raise


class _Peeked:
    """What is on the subscription, of which nothing is settled."""

    def __init__(self, receiver: ServiceBusReceiver, settings: Settings, budget: _Budget) -> None:
        self._receiver = receiver
        self._settings = settings
        self._budget = budget

    def blocks(self) -> Iterator[Block]:
        for messages in peeked(self._receiver, self._settings.drain_block, self._settings.drain_max_messages):
            if not self._budget.take(len(messages)):
                return
            yield Block([_record(message, self._settings) for message in messages])

    def settle(self, _block: Block, _outcome: LandedBlock) -> None:
        pass


class _Received:
    """What one receiver takes off the subscription."""

    def __init__(self, receiver: ServiceBusReceiver, settings: Settings, budget: _Budget) -> None:
        self.dead_lettered = 0
        self.settle_failed = 0
        self._receiver = receiver
        self._settings = settings
        self._budget = budget
        self._size = settings.drain_block
        self._messages: Sequence[ServiceBusReceivedMessage] = ()

    def blocks(self) -> Iterator[Block]:
        empty_reads = 0
        while empty_reads < self._settings.drain_empty_reads and (granted := self._budget.take(self._size)):
            self._messages = self._receiver.receive_messages(
                max_message_count=granted, max_wait_time=self._settings.drain_wait
            )
            self._budget.give_back(granted - len(self._messages))
            empty_reads = 0 if self._messages else empty_reads + 1
            if self._messages:
                fault_points.reach("topic.after_receive")
                yield Block([_record(message, self._settings) for message in self._messages])

    def settle(self, _block: Block, outcome: LandedBlock) -> None:
        fault_points.reach("topic.after_commit")
        failed = 0
        for index, message in enumerate(self._messages):
            if settle(self._receiver, message, outcome.refused.get(index)):
                fault_points.reach("topic.between_completes")
            else:
                failed += 1
        landed = outcome.landed
        log.info(
            "block landed: received=%d orders=%d duplicates=%d quarantined=%d settle_failed=%d",
            landed.received, landed.orders, landed.duplicates, landed.quarantined, failed,
        )  # fmt: skip
        self.dead_lettered += len(outcome.refused)
        self.settle_failed += failed
        if failed:
            self._size = _smaller(self._size, len(self._messages) - failed)


def _record(message: ServiceBusReceivedMessage, settings: Settings) -> Record:
    body = body_of(message)
    order = order_or_refusal(body, settings)
    return Record(SOURCE, reference_of(message), body, order, published_at=message.enqueued_time_utc)


def _smaller(block: int, settled: int) -> int:
    """The size of the next blocks after one of which only so many messages could be settled before their locks ran out.

    On a slow bus a block of the same size would lose its locks again, and each time counts as a delivery, of which the
    bus allows a few before it gives good messages up.
    """
    return min(block, settled or max(1, block // 2))
