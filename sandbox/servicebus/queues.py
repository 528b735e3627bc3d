"""Queues, subscriptions and dead-letter queues: deliveries, locks, settlement and deadlines.

Everything here runs on the event loop's thread and knows no wire: receivers are `Consumer`s. Rules: service-bus.md,
points 0, 7, 8 and 10; "Message transfers, locks, and settlement", "Message deferral" and "Message expiration" of the
Service Bus documentation.
"""

from __future__ import annotations

import heapq
import itertools
import os
import zlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from sandbox.servicebus.alarm import Alarm, now
from sandbox.servicebus.backlog import Backlog
from sandbox.servicebus.config import QueueSpec
from sandbox.servicebus.duplicates import Duplicates
from sandbox.servicebus.errors import AmqpError, LockLost
from sandbox.servicebus.faults import LOCK_LOST
from sandbox.servicebus.message import Content, parse
from sandbox.servicebus.model import (
    DEAD_LETTER_SUFFIX,
    Consumer,
    Environment,
    Lock,
    Message,
    Outcome,
    State,
)
from sandbox.servicebus.store import Row

_PARTITIONS = 16
_PARTITION = 1 << 48
_SETTLED = (*(outcome.value for outcome in Outcome), "refused", "lock_lost")


class Target(Protocol):
    """An entity that messages are forwarded to."""

    def send(self, content: Content) -> int:
        """Take a message in."""


class Queue:
    """A queue, a subscription or a dead-letter queue: competing consumers over messages in sequence order."""

    def __init__(self, spec: QueueSpec, environment: Environment, *, dead_letters: bool = False) -> None:
        self.spec = spec
        self.path = spec.path + DEAD_LETTER_SUFFIX if dead_letters else spec.path
        self.dead_letter_queue = None if dead_letters else Queue(spec, environment, dead_letters=True)
        self.counts: Counter[str] = Counter()
        self.max_delivery_count_seen = 0
        self.forwards_to: Target | None = None
        self.forwards_dead_letters_to: Target | None = None
        self._duplicates = Duplicates(spec.duplicates_for)
        self._env = environment
        self._next = environment.store.first_free(self.path)
        self._backlog = Backlog()
        self._ghosts: deque[Message] = deque()
        self._locks: dict[bytes, Lock] = {}
        self._ready: deque[Consumer] = deque()
        self._deadlines: list[tuple[int, int, bytes | int | str]] = []
        self._told = itertools.count()
        self._alarm = Alarm(environment.loop, self._on_deadline)

    # Coming in -------------------------------------------------------------------------------------------------------

    def restore(self, row: Row) -> None:
        """Put a message back that was on disk."""
        message = Message(row.id, row.sequence, row.enqueued, row.expires, row.deliveries, parse(row.content))
        message.state = State(row.state)
        self._next = max(self._next, row.sequence % _PARTITION + 1)
        self._put(message)

    def send(self, content: Content, ttl: float | None = None) -> int:
        """Take a message in; returns its sequence number. A topic's time to live may shorten the queue's."""
        if self._duplicates.has(content):
            return 0
        if content.scheduled is not None and content.scheduled > now():
            return self.schedule(content)
        if self.forwards_to is not None:
            self.counts["forwarded"] += 1
            return self.forwards_to.send(content)
        return self._enqueue(content, ttl).sequence

    def admit(self, content: Content) -> None:
        """Whether a sender may send this. Raises AmqpError."""

    def schedule(self, content: Content) -> int:
        """Keep a message until its time; the sequence number returned is good for cancelling it only."""
        due = content.scheduled if content.scheduled is not None else now()
        sequence = self._take_number(content)
        id_ = self._env.store.insert(self.path, sequence, State.SCHEDULED, due, None, content.encode)
        self._put(Message(id_, sequence, due, None, 0, content, State.SCHEDULED))
        return sequence

    def cancel(self, sequences: Iterable[int]) -> None:
        """Take scheduled messages back, all or none.

        Raises:
            AmqpError: com.microsoft:message-not-found.
        """
        for message in self._find(sequences, State.SCHEDULED):
            self._remove(message)

    def _enqueue(self, content: Content, ttl: float | None = None) -> Message:
        at, sequence = now(), self._take_number(content)
        lives = [each for each in (content.ttl, _ms(self.spec.ttl), _ms(ttl)) if each is not None]
        expires = at + min(lives) if lives else None
        id_ = self._env.store.insert(self.path, sequence, State.ACTIVE, at, expires, content.encode)
        message = Message(id_, sequence, at, expires, 0, content)
        self._put(message)
        self.pump()
        return message

    def _take_number(self, content: Content) -> int:
        number = self._next
        self._next += 1
        self._env.store.reserve(self.path, number)
        if not self.spec.partitioned:
            return number
        # The topmost 16 bits are the partition's, which a session or a partition key chooses, or nobody.
        session = content.properties().get("group-id")
        return _PARTITION * ((number if session is None else zlib.crc32(str(session).encode())) % _PARTITIONS) + number

    def _session_of(self, content: Content) -> str:  # noqa: ARG002
        return ""

    def _put(self, message: Message) -> None:
        message.session = self._session_of(message.content)
        self._backlog.add(message)
        due = message.enqueued if message.state is State.SCHEDULED else message.expires
        if due is not None:
            self._deadline(due, message.sequence)

    def _remove(self, message: Message) -> None:
        if not message.ghost:
            self._backlog.remove(message)
            self._env.store.delete(message.id)

    # Going out -------------------------------------------------------------------------------------------------------

    def wake(self, consumer: Consumer) -> None:
        """A consumer has credit."""
        if consumer not in self._ready:
            self._ready.append(consumer)
        self.pump()

    def leave(self, consumer: Consumer) -> None:
        """A consumer is gone; its locks stay until they expire (service-bus.md, point 8)."""
        if consumer in self._ready:
            self._ready.remove(consumer)

    def pump(self) -> None:
        """Hand messages to consumers in turn, as long as there are both."""
        ready = self._ready
        while ready:
            consumer = ready[0]
            if consumer.credit <= 0:
                ready.popleft()
                continue
            message = self._pop()
            if message is None:
                return
            ready.rotate(-1)
            self._hand_over(consumer, message)

    def _hand_over(self, consumer: Consumer, message: Message) -> None:
        self.counts["delivered"] += 1
        self.max_delivery_count_seen = max(self.max_delivery_count_seen, message.deliveries)
        if not message.ghost and self._env.faults.delivers_twice():
            self._ghosts.append(replace(message, ghost=True))
        if consumer.presettled:
            self._remove(message)
            consumer.deliver(self, message, None)
        else:
            consumer.deliver(self, message, self._lock(message))

    def _pop(self, session: str = "") -> Message | None:
        ghost = next((each for each in self._ghosts if each.session == session), None)
        if ghost is not None:
            self._ghosts.remove(ghost)
            return ghost
        at = now()
        while (message := self._backlog.pop(session)) is not None:
            if message.expires is None or message.expires > at:
                return message
            self._expire(message)
        return None

    def peek(self, start: int, most: int, session: str | None = None) -> list[Message]:
        """Up to so many messages from a sequence number on, whatever their state; None: of all sessions.

        Raises:
            AmqpError: ordered as a fault.
        """
        if self._env.faults.refuse_peeks:
            raise AmqpError("amqp:internal-error", "The peek was refused by order of the fault knobs.", 500)
        found = (each for each in self._backlog.start_at(start) if session in (None, each.session))
        return list(itertools.islice(found, most))

    def receive_deferred(self, sequences: Iterable[int], *, delete: bool) -> list[tuple[Message, Lock | None]]:
        """Fetch deferred messages by number, locked or for good, all or none.

        Raises:
            AmqpError: com.microsoft:message-not-found, also for one that is locked at the moment.
        """
        received: list[tuple[Message, Lock | None]] = []
        for message in self._find(sequences, State.DEFERRED):
            self.counts["delivered"] += 1
            self.max_delivery_count_seen = max(self.max_delivery_count_seen, message.deliveries)
            if delete:
                self._remove(message)
            received.append((message, None if delete else self._lock(message)))
        return received

    def _find(self, sequences: Iterable[int], state: State) -> list[Message]:
        found = [self._backlog.get(sequence) for sequence in sequences]
        messages = [each for each in found if each is not None and each.state is state and each.lock is None]
        if len(messages) < len(found):
            raise AmqpError("com.microsoft:message-not-found", f"There is no such {state.name.lower()} message.", 404)
        return messages

    # Locks and settlement --------------------------------------------------------------------------------------------

    def settle(
        self, token: bytes, outcome: Outcome, reason: str | None = None, description: str | None = None,
        *, delivery_failed: bool = True,
    ) -> None:  # fmt: skip
        """Apply a receiver's decision on a message it holds; a refusal ordered as a fault comes from here.

        Args:
            token: the lock token in network order.
            outcome: the decision.
            reason: why it is dead-lettered.
            description: why, at length.
            delivery_failed: whether an abandoned or deferred message counts one delivery more.

        Raises:
            LockLost: if the lock has expired or never was.
            AmqpError: the refusal ordered.
        """
        lock = self._held(token)
        if outcome is not Outcome.RELEASED and self._env.faults.refuses_settle():
            self._refuse(lock)
        message = lock.message
        self._unlock(lock)
        self.counts[outcome.value] += 1
        if outcome is Outcome.COMPLETED:
            self._remove(message)
        elif outcome is Outcome.DEAD_LETTERED:
            self._dead_letter(message, reason, description)
        elif outcome is Outcome.DEFERRED:
            self._restate(message, State.DEFERRED, message.deliveries + delivery_failed)
        else:
            self._free(message, counted=delivery_failed and outcome is Outcome.ABANDONED)

    def renew(self, token: bytes) -> int:
        """Prolong a lock from now on; returns until when. Raises LockLost."""
        lock = self._held(token)
        lock.until = self._lock_end()
        self._deadline(lock.until, token)
        return lock.until

    def _lock(self, message: Message) -> Lock:
        lock = Lock(os.urandom(16), message, self._lock_end())
        self._locks[lock.token] = lock
        message.lock = lock.token
        self._deadline(lock.until, lock.token)
        return lock

    def _lock_end(self) -> int:
        ordered = self._env.faults.lock_seconds
        return now() + int(1000 * (self.spec.lock if ordered is None else ordered))

    def _held(self, token: bytes) -> Lock:
        lock = self._locks.get(token)
        if lock is not None and lock.until <= now():
            self._lock_expired(lock)
            lock = None
        if lock is None:
            self.counts["lock_lost"] += 1
            raise LockLost
        return lock

    def _unlock(self, lock: Lock) -> None:
        del self._locks[lock.token]
        lock.message.lock = None

    def _refuse(self, lock: Lock) -> None:
        self.counts["refused"] += 1
        condition = self._env.faults.refusal
        if condition == LOCK_LOST:
            self._unlock(lock)
            self._free(lock.message, counted=True)
            raise LockLost
        raise AmqpError(condition, "The settlement was refused by order of the fault knobs.", 503)

    def _lock_expired(self, lock: Lock) -> None:
        self._unlock(lock)
        self.counts["locks_expired"] += 1
        self._free(lock.message, counted=True)

    def _free(self, message: Message, *, counted: bool) -> None:
        """A message nobody holds any more: to be delivered again, or dead after too many deliveries."""
        if message.ghost:
            return
        deliveries = message.deliveries + counted
        self._restate(message, message.state, deliveries)
        if self.dead_letter_queue is not None and deliveries >= self.spec.max_deliveries:
            text = f"Message could not be consumed after {self.spec.max_deliveries} delivery attempts."
            self._dead_letter(message, "MaxDeliveryCountExceeded", text)
        elif message.state is State.ACTIVE:
            self._backlog.free(message)
            if message.expires is not None:
                self._deadline(message.expires, message.sequence)
            # Not at once: whoever gave it back gets the answer before it may get the message again.
            self._env.loop.call_soon(self.pump)

    def _restate(self, message: Message, state: State, deliveries: int) -> None:
        if not message.ghost and (message.state, message.deliveries) != (state, deliveries):
            self._backlog.move(message, state)
            message.deliveries = deliveries
            self._env.store.change(message.id, state, deliveries)

    def _dead_letter(self, message: Message, reason: str | None, description: str | None) -> None:
        if message.ghost:
            return
        target = self.dead_letter_queue or self
        if self.forwards_dead_letters_to is not None:
            self._remove(message)
            self.forwards_dead_letters_to.send(message.content.dead_lettered(reason, description))
            return
        self._backlog.remove(message)
        message.content = message.content.dead_lettered(reason, description)
        message.state, message.expires = State.ACTIVE, None
        self._env.store.move(message.id, target.path, message.deliveries, message.content.encode)
        target._put(message)
        target.pump()

    # Deadlines -------------------------------------------------------------------------------------------------------

    def _deadline(self, instant: int, key: bytes | int | str) -> None:
        heapq.heappush(self._deadlines, (instant, next(self._told), key))
        self._alarm.by(self._deadlines[0][0])

    def _on_deadline(self) -> None:
        at = now()
        while self._deadlines and self._deadlines[0][0] <= at:
            key = heapq.heappop(self._deadlines)[2]
            if isinstance(key, bytes):
                lock = self._locks.get(key)
                if lock is not None and lock.until <= at:
                    self._lock_expired(lock)
            elif isinstance(key, str):
                self._is_held(key)
            else:
                self._message_due(self._backlog.get(key), at)
        if self._deadlines:
            self._alarm.by(self._deadlines[0][0])

    def _is_held(self, session: str) -> bool:  # noqa: ARG002
        """Whether a session is locked; a lock that has expired is taken away."""
        return False

    def _message_due(self, message: Message | None, at: int) -> None:
        if message is None or message.lock is not None:
            return
        if message.state is State.SCHEDULED:
            self._remove(message)
            self._enqueue(message.content)
        elif message.state is State.ACTIVE and message.expires is not None and message.expires <= at:
            self._expire(message)

    def _expire(self, message: Message) -> None:
        self.counts["expired"] += 1
        if self.spec.dead_letter_expired and self.dead_letter_queue is not None:
            self._dead_letter(message, "TTLExpiredException", "The message expired and was dead lettered.")
        else:
            self._remove(message)

    def close(self) -> None:
        self._alarm.cancel()
        if self.dead_letter_queue is not None:
            self.dead_letter_queue.close()

    # Counts ----------------------------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        return len(self._backlog)

    def snapshot(self) -> dict[str, Any]:
        """Counts for `/sandbox/state`: messages by state now, deliveries and settlements since the start."""
        locked = sum(1 for lock in self._locks.values() if not lock.message.ghost)
        deferred_and_locked = sum(1 for lock in self._locks.values() if lock.message.state is State.DEFERRED)
        counts: dict[str, Any] = {
            "active": self._backlog.count(State.ACTIVE) - (locked - deferred_and_locked),
            "locked": locked,
            "deferred": self._backlog.count(State.DEFERRED) - deferred_and_locked,
            "scheduled": self._backlog.count(State.SCHEDULED),
            "delivered": self.counts["delivered"],
            "max_delivery_count_seen": self.max_delivery_count_seen,
            "locks_expired": self.counts["locks_expired"],
            "expired": self.counts["expired"],
            "forwarded": self.counts["forwarded"],
            "duplicates": self._duplicates.found,
            "settled": {each: self.counts[each] for each in _SETTLED},
        }
        if self.dead_letter_queue is not None:
            counts["dead_lettered"] = self.dead_letter_queue.total
            counts["dead_letter_queue"] = self.dead_letter_queue.snapshot()
        return counts


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(1000 * seconds)
