"""Draining the topic subscription: land a block, and only then settle its messages (invariant 1)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from azure.servicebus import ServiceBusClient, ServiceBusReceivedMessage, ServiceBusReceiver

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.intake import Arrival, Landed, Refusal, arrival, land, refusal
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import parse_order
from include.instore.model.settings import Settings
from include.instore.sources.bus import SOURCE, body_of, bus_errors, peeked, reference_of, settle

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

    :param clients: one per receiver: neither clients nor receivers are thread-safe (servicebus.md).
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
    landed = Landed()
    with bus_errors(settings), client, client.get_subscription_receiver(settings.topic, settings.subscription) as bus:
        for messages in peeked(bus, settings.drain_block, settings.drain_max_messages):
            if not budget.take(len(messages)):
                break
            arrivals, refusals = _sort(messages, settings)
            landed += land(ledger, run_id, arrivals, list(refusals.values()))
    return Drained(landed, stopped_by=budget.stopped_by())


def _receive(client: ServiceBusClient, ledger: Ledger, run_id: str, settings: Settings, budget: _Budget) -> Drained:
    done = Drained()
    try:
        with (
            bus_errors(settings),
            client,
            client.get_subscription_receiver(settings.topic, settings.subscription) as receiver,
        ):
            empty_reads, block = 0, settings.drain_block
            while empty_reads < settings.drain_empty_reads and (granted := budget.take(block)):
                messages = receiver.receive_messages(max_message_count=granted, max_wait_time=settings.drain_wait)
                budget.give_back(granted - len(messages))
                empty_reads = 0 if messages else empty_reads + 1
                if messages:
                    taken = _land_and_settle(receiver, messages, ledger, run_id, settings)
                    done += taken
                    if taken.settle_failed:
                        block = _smaller(block, len(messages) - taken.settle_failed)
    except BaseException:
        budget.stop.set()
        raise
    return done


def _land_and_settle(
    receiver: ServiceBusReceiver,
    messages: Sequence[ServiceBusReceivedMessage],
    ledger: Ledger,
    run_id: str,
    settings: Settings,
) -> Drained:
    fault_points.reach("topic.after_receive")
    arrivals, refusals = _sort(messages, settings)
    landed = land(ledger, run_id, arrivals, list(refusals.values()))
    fault_points.reach("topic.after_commit")
    failed = 0
    for index, message in enumerate(messages):
        if settle(receiver, message, refusals.get(index)):
            fault_points.reach("topic.between_completes")
        else:
            failed += 1
    log.info(
        "block landed: received=%d orders=%d duplicates=%d quarantined=%d settle_failed=%d",
        landed.received, landed.orders, landed.duplicates, landed.quarantined, failed,
    )  # fmt: skip
    return Drained(landed, len(refusals), failed)


def _smaller(block: int, settled: int) -> int:
    """The size of the next blocks after one of which only so many messages could be settled before their locks ran out.

    On a slow bus a block of the same size would lose its locks again, and each time counts as a delivery, of which the
    bus allows a few before it gives good messages up.
    """
    return min(block, settled or max(1, block // 2))


def _sort(
    messages: Sequence[ServiceBusReceivedMessage], settings: Settings
) -> tuple[list[Arrival], dict[int, Refusal]]:
    """The orders among the messages, and the refusals by the message's index."""
    arrivals: list[Arrival] = []
    refusals: dict[int, Refusal] = {}
    for index, message in enumerate(messages):
        body = body_of(message)
        reference = reference_of(message)
        try:
            order = parse_order(body, settings.max_message_bytes)
            published_at = message.enqueued_time_utc
            arrivals.append(
                arrival(
                    order, source=SOURCE, reference=reference, raw=body, settings=settings, published_at=published_at
                )
            )
        except RecordRefused as error:
            refusals[index] = refusal(error, source=SOURCE, reference=reference, raw=body)
    return arrivals, refusals
