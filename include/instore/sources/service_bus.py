"""The topic subscription as a source: a message is completed, or dead-lettered, once its block is on disk.

Of a subscription that requires sessions each receiver takes one session after the other, whose messages come in order.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import accumulate, repeat
from typing import Any

from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusClient,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
)
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.intake import Landed
from include.instore.ledger.runs import note_drain
from include.instore.model.errors import RetriableError
from include.instore.model.settings import BusSettings, Settings
from include.instore.sources.adapters import Blobs, adapter_of_topic
from include.instore.sources.bus import (
    LOOKED_AT_SESSIONS,
    Rest,
    bus_errors,
    complete_block,
    peeked,
    receivers_of,
    records_of,
    rest_of,
    sessions_of,
    settle,
    subscription_of,
)
from include.instore.sources.feeds import TOPIC, FeedLooks
from include.instore.sources.landing import Block, LandedBlock, Lander, into_ledger, land_all

_PATIENCE = 5.0
"""Seconds to wait for a message that the bus says is there."""
_OPENING = 2.0
"""Seconds to open a link, beside those that it waits for a session."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drained:
    """What one run took off the subscription, in messages.

    :param settle_failed: safe in the ledger; they come again.
    :param stopped_by: ``drained``, where the bus has none left that was there; ``count`` or ``time``, the budget;
        ``not known``, where it could not be asked.
    :param not_drained: those left by the budget that were there at the first look, as far as was looked; None: not
        known.
    :param locked_elsewhere: those of them that the bus does not give us: somebody else holds them; of a session that
        somebody else holds, one.
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

    def __init__(self, ledger: Ledger, settings: BusSettings, blobs: Blobs | None) -> None:
        self.blobs = blobs
        self.looks = FeedLooks(TOPIC, ledger)
        self._left = settings.drain_max_messages
        self._until = time.monotonic() + settings.drain_max_seconds
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.unsettled: set[int] = set()
        """Numbers of messages that landed and are still ours to the bus."""
        self.dead_lettered = 0
        self.settle_failed = 0

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

    def note(self, dead_lettered: int, settle_failed: int) -> None:
        with self._lock:
            self.dead_lettered += dead_lettered
            self.settle_failed += settle_failed

    def out_of_time(self) -> bool:
        return time.monotonic() >= self._until

    def stopped_by(self) -> str:
        return "count" if self._left <= 0 else "time" if self.out_of_time() else "drained"


def drain(
    clients: Sequence[ServiceBusClient], ledger: Ledger, run_id: str, settings: Settings, blobs: Blobs | None = None
) -> Drained:
    """Take the pending messages off the subscription, by one receiver per client, each in its own thread.

    Stops when the bus says that none is left which came before, after ``drain_max_messages`` or after
    ``drain_max_seconds``; what is left stays for the next run.

    :param clients: one per receiver: neither clients nor receivers are thread-safe (service-bus.md).
    :param blobs: to which messages may point.
    :raises ConfigurationError: wrong key, no such topic or subscription, or one that forwards its messages.
    :raises RetriableError: the bus or the ledger failed; whatever was not committed comes again.
    """
    budget = _Budget(ledger, settings.bus, blobs)
    with ThreadPoolExecutor(len(clients), thread_name_prefix="receiver") as threads:
        others = [threads.submit(_receive, client, ledger, run_id, settings, budget) for client in clients[1:]]
        first = threads.submit(_receive, clients[0], ledger, run_id, settings, budget, others)
    # Every thread has ended; the first error is the run's.
    drained, more = first.result(), [other.result() for other in others]
    return _noted(
        ledger,
        run_id,
        budget.looks,
        replace(
            drained,
            landed=sum((each.landed for each in more), drained.landed),
            dead_lettered=budget.dead_lettered,
            settle_failed=budget.settle_failed,
        ),
    )


def peek(
    client: ServiceBusClient, ledger: Ledger, run_id: str, settings: Settings, blobs: Blobs | None = None
) -> Drained:
    """Land what is on the subscription without taking it off: for a dry run, on its own ledger.

    No message is locked and no delivery is counted. Bounds and errors as :func:`drain`.
    """
    budget = _Budget(ledger, settings.bus, blobs)
    landed, deferred = Landed(), 0
    with bus_errors(settings.bus), client:
        for receiver in receivers_of(client, settings.bus):
            source = _Peeked(receiver, settings, budget)
            landed += land_all(source, into_ledger(ledger, lambda: run_id, settings))
            deferred += source.deferred
    return _noted(ledger, run_id, budget.looks, Drained(landed, stopped_by=budget.stopped_by(), deferred=deferred))


def _noted(ledger: Ledger, run_id: str, looks: FeedLooks, drained: Drained) -> Drained:
    left = {name: getattr(drained, name) for name in ("not_drained", "locked_elsewhere", "deferred")}
    if remark := looks.remark():
        log.warning("messages have %s", remark)
    note_drain(ledger, run_id, looks.row(), remark is not None, drain=drained.stopped_by, **left)
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
        with bus_errors(settings.bus), client:
            receiver = subscription_of(client, settings.bus)
            bus = _Queue(receiver, settings, budget) if receiver else _Sessions(client, settings, budget)
            drained = Drained(bus.take(lander))
            if others is not None:
                wait(others)  # a receiver holds what it was given too late until it is closed
                if not budget.stop.is_set():
                    drained = _until_the_bus_says_so(bus, lander, budget, drained.landed)
            return drained
    except BaseException:
        budget.stop.set()
        raise


def _until_the_bus_says_so(bus: _Queue | _Sessions, lander: Lander, budget: _Budget, landed: Landed) -> Drained:
    """Ask the bus what is left, and read on while it has something for us.

    An empty read does not say that nothing is there; and what is there may be held by somebody else, which a peek does
    not show: then it does not come, however often it is read. What was there at the first look is waited for, by the
    bus's own times: a worker's clock may be behind them. What comes later is the next run's.
    """
    until: datetime | None = None
    while True:
        try:
            rest = bus.rest()
        except (ServiceBusError, RetriableError) as error:
            log.warning("whether the subscription is drained is not known: %s", type(error).__name__)
            spent = budget.stopped_by()
            return Drained(landed, stopped_by="not known" if spent == "drained" else spent)
        known = Drained(landed, deferred=rest.deferred, not_drained=0, locked_elsewhere=rest.held)
        left = len(rest.come_by(until) - budget.unsettled)
        if not left:
            return known
        if (spent := budget.stopped_by()) != "drained":
            return replace(known, stopped_by=spent, not_drained=left)
        if until is None and rest.is_all:
            until = max(rest.active.values())
        more = bus.take(lander, left)
        landed += more
        if not more.received and budget.stopped_by() == "drained":
            return replace(known, locked_elsewhere=rest.held + left)


class _Queue:
    """A subscription without sessions, of which any receiver gets any message."""

    def __init__(self, receiver: ServiceBusReceiver, settings: Settings, budget: _Budget) -> None:
        self._receiver = receiver
        self._source = _Received(receiver, settings, budget)

    def take(self, lander: Lander, left: int = 0) -> Landed:
        """Take what comes. :param left: the bus has so many: these are read, and waited for."""
        if left:
            self._source.read_on(left)
        return land_all(self._source, lander)

    def rest(self) -> Rest:
        return rest_of(self._receiver)


class _Sessions:
    """A subscription that requires sessions: a receiver has one, and nobody else gets its messages meanwhile."""

    def __init__(self, client: ServiceBusClient, settings: Settings, budget: _Budget) -> None:
        self._client = client
        self._settings = settings
        self._budget = budget
        self._left: list[str] = []
        """Those with messages from before that have not landed."""

    def take(self, lander: Lander, left: int = 0) -> Landed:
        """Take one session after the other, until none is free that has messages.

        :param left: the bus has something: take the sessions that it says. A stuck one would be the next for ever.
        """
        landed, empty = Landed(), 0
        wait = max(_PATIENCE if left else 0, self._settings.bus.drain_wait) + _OPENING
        for session in self._left if left else repeat(NEXT_AVAILABLE_SESSION):
            source, more = self._take_one(session, wait, lander)
            landed += more
            empty = 0 if more.received else empty + 1
            if not left and (not source.found or source.stuck or empty == self._settings.bus.drain_empty_reads):
                break
        return landed

    def _take_one(self, session: Any, wait: float, lander: Lander) -> tuple[_OfSession, Landed]:
        receiver = self._client.get_subscription_receiver(
            self._settings.bus.topic, self._settings.bus.subscription, session_id=session, max_wait_time=wait
        )
        source = _OfSession(receiver, self._settings, self._budget, wait)
        with contextlib.closing(receiver):  # its first read opens it: only so is the wait for a session bounded
            return source, land_all(source, lander)

    def rest(self) -> Rest:
        """As that of :class:`_Queue`, of the first sessions. :raises RetriableError: it cannot be told."""
        found = Rest({}, 0, is_all=True)
        held: list[str] = []
        self._left = []
        for looked_at, receiver in enumerate(sessions_of(self._client, self._settings.bus, held), 1):
            rest = rest_of(receiver)
            found += rest
            self._left += [receiver.session.session_id] if rest.active.keys() - self._budget.unsettled else []
            if looked_at == LOOKED_AT_SESSIONS:
                if not found.active:
                    raise RetriableError(f"{looked_at} sessions have only deferred messages.")
                found = replace(found, is_all=False)
                break
        return replace(found, held=len(held))


class _Peeked:
    """What is on the subscription, of which nothing is settled."""

    def __init__(self, receiver: ServiceBusReceiver, settings: Settings, budget: _Budget) -> None:
        self.deferred = 0
        self._receiver = receiver
        self._settings = settings
        self._adapter = adapter_of_topic(settings, budget.blobs)
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
        self._receiver = receiver
        self._budget = budget
        self._size = settings.bus.drain_block
        self._in_blocks = settings.bus.settle_in_blocks
        self._adapter = adapter_of_topic(settings, budget.blobs)
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
            self._messages = self._read(granted)
            self._budget.give_back(granted - len(self._messages))
            empty_reads = 0 if self._messages else empty_reads + 1
            most -= len(self._messages)
            if self._messages:
                fault_points.reach("topic.after_receive")
                records = [records_of(message, self._adapter) for message in self._messages]
                self._orders = [len(each) for each in records]
                yield Block([record for each in records for record in each])

    def settle(self, block: Block, outcome: LandedBlock) -> None:
        fault_points.reach("topic.after_commit")
        completed = self._complete_block(outcome)
        failed = dead_lettered = index = 0
        for message, orders in zip(self._messages, self._orders, strict=True):
            number = message.sequence_number or 0
            # Of a message with several orders each refused one is in quarantine alone, so that it can be completed.
            refused = outcome.refused.get(index) if orders == 1 else None
            index += orders
            dead_lettered += refused is not None
            self._hold()
            if number in completed or settle(self._receiver, message, refused):
                fault_points.reach("topic.between_completes")
                self._budget.unsettled.discard(number)
            else:
                failed += 1
                self._budget.unsettled.add(number)
        for record in block.records:
            self._budget.looks.learn(record.order, record.fields)
        landed = outcome.landed
        log.info(
            "block landed: received=%d orders=%d duplicates=%d quarantined=%d settle_failed=%d",
            landed.received, landed.orders, landed.duplicates, landed.quarantined, failed,
        )  # fmt: skip
        self._budget.note(dead_lettered, failed)
        if failed:
            self._size = _smaller(self._size, len(self._messages) - failed)

    def _read(self, count: int) -> Sequence[ServiceBusReceivedMessage]:
        return self._receiver.receive_messages(max_message_count=count, max_wait_time=self._wait)

    def _hold(self) -> None:
        """What is to be done so that the locks hold."""

    def _complete_block(self, outcome: LandedBlock) -> set[int]:
        """Complete those that are not refused by one request; the numbers of those that are completed."""
        starts = accumulate(self._orders, initial=0)
        good = [
            message
            for message, orders, index in zip(self._messages, self._orders, starts, strict=False)
            if orders != 1 or index not in outcome.refused
        ]
        if not self._in_blocks or len(good) < 2:
            return set()
        completed = complete_block(self._receiver, good)
        self._in_blocks = completed is not None
        return completed or set()


class _OfSession(_Received):
    """What a receiver takes of one session; left once there is no full block, since it may be the next one again.

    ``found`` says whether there was a session, ``stuck`` whether none of its messages can be settled.
    """

    def __init__(self, receiver: ServiceBusReceiver, settings: Settings, budget: _Budget, wait: float) -> None:
        super().__init__(receiver, settings, budget)
        self._wait, self._empty_reads = wait, 1
        self._in_blocks = False  # their order would be the bus's
        self._renew_at = 0.0
        self._is_read = False
        self.found = self.stuck = False

    def settle(self, block: Block, outcome: LandedBlock) -> None:
        numbers = {message.sequence_number or 0 for message in self._messages}
        came_again = numbers <= self._budget.unsettled
        super().settle(block, outcome)
        self.stuck = came_again and numbers <= self._budget.unsettled

    def _read(self, count: int) -> Sequence[ServiceBusReceivedMessage]:
        if self._is_read:
            return ()
        try:
            messages = super()._read(count)
        except (OperationTimeoutError, SessionLockLostError, SessionCannotBeLockedError):
            return ()  # there is none, or it is no longer ours
        self.found, self._is_read = True, len(messages) < count
        self._hold()
        return messages

    def _hold(self) -> None:
        """Renew the lock, which is the session's, once half of it has gone."""
        if time.monotonic() < self._renew_at:
            return
        session = self._receiver.session
        with contextlib.suppress(SessionLockLostError):  # as every settlement will say
            until = session.renew_lock() if self._renew_at else session.locked_until_utc
            half = (until - datetime.now(timezone.utc)).total_seconds() / 2 if until else 0.0
            self._renew_at = time.monotonic() + max(half, 0.5)


def _smaller(block: int, settled: int) -> int:
    """The size of the next blocks after one of which only so many messages could be settled before their locks ran out.

    On a slow bus a block of the same size would lose its locks again, and each time counts as a delivery, of which the
    bus allows a few before it gives good messages up.
    """
    return min(block, settled or max(1, block // 2))
