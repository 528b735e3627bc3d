"""Topics: they copy what comes in to every subscription whose rules fit (service-bus.md, point 0)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from sandbox.servicebus.alarm import Alarm, now
from sandbox.servicebus.config import TopicSpec
from sandbox.servicebus.duplicates import Duplicates
from sandbox.servicebus.errors import AmqpError
from sandbox.servicebus.message import Content, parse
from sandbox.servicebus.model import Environment, State
from sandbox.servicebus.sessions import queue_of
from sandbox.servicebus.store import Row


class Topic:
    """A topic: every subscription whose rules match gets its own copy; scheduled messages wait here."""

    def __init__(self, spec: TopicSpec, environment: Environment) -> None:
        self.spec = spec
        self.path = spec.path
        self.subscriptions = [queue_of(each, environment) for each in spec.subscriptions]
        self._duplicates = Duplicates(spec.duplicates_for)
        self.received = 0
        self._env = environment
        self._next = environment.store.first_free(spec.path)
        self._scheduled: dict[int, tuple[int, Content]] = {}
        self._due: list[tuple[int, int]] = []
        self._alarm = Alarm(environment.loop, self._on_due)

    def restore(self, row: Row) -> None:
        """Put a scheduled message back that was on disk."""
        self._next = max(self._next, row.sequence + 1)
        self._wait(row.sequence, row.id, parse(row.content))

    def send(self, content: Content) -> int:
        """Take a message in for all subscriptions it fits; returns the topic's sequence number."""
        if self._duplicates.has(content):
            return 0
        if content.scheduled is not None and content.scheduled > now():
            return self.schedule(content)
        self.received += 1
        for subscription in self.subscriptions:
            if subscription.spec.matches(content):
                subscription.send(content, self.spec.ttl)
        return self._take_number()

    def admit(self, content: Content) -> None:
        """A topic takes everything; a subscription that cannot makes a dead letter of it."""

    def schedule(self, content: Content) -> int:
        """Keep a message until its time; returns the sequence number to cancel it by."""
        sequence, due = self._take_number(), content.scheduled or now()
        id_ = self._env.store.insert(self.path, sequence, State.SCHEDULED, due, None, content.encode)
        self._wait(sequence, id_, content)
        return sequence

    def cancel(self, sequences: Iterable[int]) -> None:
        """Take scheduled messages back, all or none. Raises AmqpError: com.microsoft:message-not-found."""
        wanted = list(sequences)
        if not all(sequence in self._scheduled for sequence in wanted):
            raise AmqpError("com.microsoft:message-not-found", "There is no such scheduled message.", 404)
        for sequence in wanted:
            self._env.store.delete(self._scheduled.pop(sequence)[0])

    def snapshot(self) -> dict[str, Any]:
        counts = {"received": self.received, "duplicates": self._duplicates.found}
        return counts | {"scheduled": len(self._scheduled)}

    def close(self) -> None:
        self._alarm.cancel()
        for subscription in self.subscriptions:
            subscription.close()

    def _take_number(self) -> int:
        number = self._next
        self._next += 1
        self._env.store.reserve(self.path, number)
        return number

    def _wait(self, sequence: int, id_: int, content: Content) -> None:
        self._scheduled[sequence] = (id_, content)
        heapq.heappush(self._due, (content.scheduled or 0, sequence))
        self._alarm.by(self._due[0][0])

    def _on_due(self) -> None:
        at = now()
        while self._due and self._due[0][0] <= at:
            waiting = self._scheduled.pop(heapq.heappop(self._due)[1], None)
            if waiting is not None:
                self._env.store.delete(waiting[0])
                self.send(waiting[1])
        if self._due:
            self._alarm.by(self._due[0][0])
