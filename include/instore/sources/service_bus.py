"""The topic subscription as a source: a message is completed, or dead-lettered, once its block is on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime

from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
)
from azure.servicebus.exceptions import ServiceBusError

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.intake import Landed
from include.instore.ledger.runs import note_drain
from include.instore.model.errors import RetriableError
from include.instore.model.settings import Settings
from include.instore.sources.adapters import adapter_of_topic
from include.instore.sources.bus import bus_errors, peeked, records_of, rest_of, settle
from include.instore.sources.landing import Block, LandedBlock, Lander, into_ledger, land_all

_PATIENCE = 5.0
"""Seconds to wait for a message that the bus says is there."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drained:
    """What one run took off the subscription, in messages.

    :param settle_failed: safe in the ledger; they come again.
    :param stopped_by: ``drained``, where the bus has none left that was there; ``count`` or ``time``, the budget;
        ``not known``, where it could not be asked.
    :param not_drained: those left by the budget that were there at the first look, as far as was looked; None: not
        known.
    :param locked_elsewhere: those of them that the bus does not give us: somebody else holds them.
    :param deferred: those that somebody deferred, whenever they came.
    """

    landed: Landed = field(default_factory=Landed)
    dead_lettered: int = 0
    settle_failed: int = 0
    stopped_by: str = "drained"
    not_drained: int | None = None
    locked_elsewhere: int | None = None
    deferred: int | None = None


class _Budget:
    """How many messages the receivers may still take between them, and until when."""

    def __init__(self, messages: int, seconds: float) -> None:
        self._left = messages
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.unsettled: set[int] = set()
        """Numbers of messages that landed and are still ours to the bus."""

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

    Stops when the bus says that none is left which came before, after ``drain_max_messages`` or after
    ``drain_max_seconds``; what is left stays for the next run.

    :param clients: one per receiver: neither clients nor receivers are thread-safe (service-bus.md).
    :raises ConfigurationError: wrong key, no such topic or subscription, or one that requires sessions.
    :raises RetriableError: the bus or the ledger failed; whatever was not committed comes again.
    """
    budget = _Budget(settings.bus.drain_max_messages, settings.bus.drain_max_seconds)
    with ThreadPoolExecutor(len(clients), thread_name_prefix="receiver") as threads:
        others = [threads.submit(_receive, client, ledger, run_id, settings, budget) for client in clients[1:]]
        first = threads.submit(_receive, clients[0], ledger, run_id, settings, budget, others)
    # Every thread has ended; the first error is the run's.
    drained, more = first.result(), [other.result() for other in others]
    return _noted(
        ledger,
        run_id,
        replace(
            drained,
            landed=sum((each.landed for each in more), drained.landed),
            dead_lettered=drained.dead_lettered + sum(each.dead_lettered for each in more),
            settle_failed=drained.settle_failed + sum(each.settle_failed for each in more),
        ),
    )


def peek(client: ServiceBusClient, ledger: Ledger, run_id: str, settings: Settings) -> Drained:
    """Land what is on the subscription without taking it off: for a dry run, on its own ledger.

    Nothing is locked and no delivery is counted. Bounds and errors as :func:`drain`.
    """
    budget = _Budget(settings.bus.drain_max_messages, settings.bus.drain_max_seconds)
    with (
        bus_errors(settings.bus),
        client,
        client.get_subscription_receiver(settings.bus.topic, settings.bus.subscription) as bus,
    ):
        source = _Peeked(bus, settings, budget)
        landed = land_all(source, into_ledger(ledger, lambda: run_id, settings))
    return _noted(ledger, run_id, Drained(landed, stopped_by=budget.stopped_by(), deferred=source.deferred))


def _noted(ledger: Ledger, run_id: str, drained: Drained) -> Drained:
    left = {name: getattr(drained, name) for name in ("not_drained", "locked_elsewhere", "deferred")}
    note_drain(ledger, run_id, drain=drained.stopped_by, **left)
    return drained


def _receive(
    client: ServiceBusClient,
    ledger: Ledger,
    run_id: str,
    settings: Settings,
    budget: _Budget,
    others: Sequence[Future[Drained]] | None = None,
) -> Drained:
    """Take messages until there are none, or the budget is spent.

    :param others: the other receivers, to the one that asks the bus at the end what is left.
    """
    lander = into_ledger(ledger, lambda: run_id, settings)
    try:
        with (
            bus_errors(settings.bus),
            client,
            client.get_subscription_receiver(settings.bus.topic, settings.bus.subscription) as receiver,
        ):
            source = _Received(receiver, settings, budget)
            drained = Drained(land_all(source, lander))
            if others is not None:
                wait(others)  # a receiver holds what it was given too late until it is closed
                if not budget.stop.is_set():
                    drained = _until_the_bus_says_so(receiver, source, lander, budget, drained.landed)
            return replace(drained, dead_lettered=source.dead_lettered, settle_failed=source.settle_failed)
    except BaseException:
        budget.stop.set()
        raise


def _until_the_bus_says_so(
    receiver: ServiceBusReceiver, source: _Received, lander: Lander, budget: _Budget, landed: Landed
) -> Drained:
    """Ask the bus what is left, and read on while it has something for us.

    An empty read does not say that nothing is there; and what is there may be held by somebody else, which a peek does
    not show: then it does not come, however often it is read. What was there at the first look is waited for, by the
    bus's own times: a worker's clock may be behind them. What comes later is the next run's.
    """
    until: datetime | None = None
    while True:
        try:
            rest = rest_of(receiver)
        except (ServiceBusError, RetriableError) as error:
            log.warning("whether the subscription is drained is not known: %s", type(error).__name__)
            spent = budget.stopped_by()
            return Drained(landed, stopped_by="not known" if spent == "drained" else spent)
        known = Drained(landed, deferred=rest.deferred, not_drained=0, locked_elsewhere=0)
        left = len(rest.come_by(until) - budget.unsettled)
        if not left:
            return known
        if (spent := budget.stopped_by()) != "drained":
            return replace(known, stopped_by=spent, not_drained=left)
        if until is None and rest.is_all:
            until = max(rest.active.values())
        source.read_on(left)
        more = land_all(source, lander)
        landed += more
        if not more.received and budget.stopped_by() == "drained":
            return replace(known, locked_elsewhere=left)


class _Peeked:
    """What is on the subscription, of which nothing is settled."""

    def __init__(self, receiver: ServiceBusReceiver, settings: Settings, budget: _Budget) -> None:
        self.deferred = 0
        self._receiver = receiver
        self._settings = settings
        self._adapter = adapter_of_topic(settings)
        self._budget = budget

    def blocks(self) -> Iterator[Block]:
        for messages in peeked(self._receiver, self._settings.bus.drain_block, self._settings.bus.drain_max_messages):
            if not self._budget.take(len(messages)):
                return
            # No drain is ever given the deferred ones.
            active = [message for message in messages if message.state == ServiceBusMessageState.ACTIVE]
            self.deferred += sum(message.state == ServiceBusMessageState.DEFERRED for message in messages)
            yield Block([record for message in active for record in records_of(message, self._adapter)])

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
        self._size = settings.bus.drain_block
        self._adapter = adapter_of_topic(settings)
        self._messages: Sequence[ServiceBusReceivedMessage] = ()
        self._orders: Sequence[int] = ()  # in each of them, or 1 where it has none
        self._wait, self._empty_reads = settings.bus.drain_wait, settings.bus.drain_empty_reads
        self._most = settings.bus.drain_max_messages

    def read_on(self, messages: int) -> None:
        """Read so many, though others follow. One empty read ends it, but a long one: the bus has something."""
        self._wait, self._empty_reads, self._most = max(self._wait, _PATIENCE), 1, messages

    def blocks(self) -> Iterator[Block]:
        empty_reads, most = 0, self._most
        while most > 0 and empty_reads < self._empty_reads and (granted := self._budget.take(self._size)):
            self._messages = self._receiver.receive_messages(max_message_count=granted, max_wait_time=self._wait)
            self._budget.give_back(granted - len(self._messages))
            empty_reads = 0 if self._messages else empty_reads + 1
            most -= len(self._messages)
            if self._messages:
                fault_points.reach("topic.after_receive")
                records = [records_of(message, self._adapter) for message in self._messages]
                self._orders = [len(each) for each in records]
                yield Block([record for each in records for record in each])

    def settle(self, _block: Block, outcome: LandedBlock) -> None:
        fault_points.reach("topic.after_commit")
        failed = index = 0
        for message, orders in zip(self._messages, self._orders, strict=True):
            number = message.sequence_number or 0
            # Of a message with several orders each refused one is in quarantine alone, so that it can be completed.
            refused = outcome.refused.get(index) if orders == 1 else None
            index += orders
            self.dead_lettered += refused is not None
            if settle(self._receiver, message, refused):
                fault_points.reach("topic.between_completes")
                self._budget.unsettled.discard(number)
            else:
                failed += 1
                self._budget.unsettled.add(number)
        landed = outcome.landed
        log.info(
            "block landed: received=%d orders=%d duplicates=%d quarantined=%d settle_failed=%d",
            landed.received, landed.orders, landed.duplicates, landed.quarantined, failed,
        )  # fmt: skip
        self.settle_failed += failed
        if failed:
            self._size = _smaller(self._size, len(self._messages) - failed)


def _smaller(block: int, settled: int) -> int:
    """The size of the next blocks after one of which only so many messages could be settled before their locks ran out.

    On a slow bus a block of the same size would lose its locks again, and each time counts as a delivery, of which the
    bus allows a few before it gives good messages up.
    """
    return min(block, settled or max(1, block // 2))
