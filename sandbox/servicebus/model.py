"""The words the entities share: messages, locks, states, outcomes, consumers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

from sandbox.servicebus.faults import Faults
from sandbox.servicebus.message import Content
from sandbox.servicebus.store import Store

DEAD_LETTER_SUFFIX = "/$DeadLetterQueue"


class State(IntEnum):
    """Where a message stands; the numbers are the wire's x-opt-message-state and those on disk. Being locked is no
    state: a locked message is active or deferred as well."""

    ACTIVE = 0
    DEFERRED = 1
    SCHEDULED = 2


class Outcome(Enum):
    """What a receiver decides (service-bus.md, point 7)."""

    COMPLETED = "completed"
    ABANDONED = "abandoned"
    DEFERRED = "deferred"
    DEAD_LETTERED = "dead_lettered"
    RELEASED = "released"


@dataclass(slots=True)
class Message:
    """One message in one queue; times in milliseconds since 1970, expires None for never.

    `enqueued` of a scheduled message is when it is due. A ghost is a second delivery ordered as a fault: no message on
    disk stands behind it. `session` is empty where the queue requires none.
    """

    id: int
    sequence: int
    enqueued: int
    expires: int | None
    deliveries: int
    content: Content
    state: State = State.ACTIVE
    lock: bytes | None = None
    ghost: bool = False
    session: str = ""

    def encode(self, lock: Lock | None) -> bytes:
        """The message as a receiver gets it, with its lock or for good."""
        return self.content.delivery(
            deliveries=self.deliveries,
            enqueued=self.enqueued,
            sequence=self.sequence,
            locked_until=lock.until if lock else None,
            lock=lock.token if lock else b"",
        )


@dataclass(slots=True)
class Lock:
    """A peek-lock: the token in network order, the message, and until when."""

    token: bytes
    message: Message
    until: int


class Settles(Protocol):
    """A queue, as a receiver of its messages sees it."""

    def settle(
        self, token: bytes, outcome: Outcome, reason: str | None = None, description: str | None = None,
        *, delivery_failed: bool = True,
    ) -> None:  # fmt: skip
        """Apply a receiver's decision on a message it holds."""


class Consumer(Protocol):
    """A receiving link, as a queue sees it."""

    presettled: bool
    """Receive-and-delete."""

    @property
    def credit(self) -> int:
        """How many messages it takes now."""

    def deliver(self, queue: Settles, message: Message, lock: Lock | None) -> None:
        """Take one message."""


class Environment:
    """What all entities of a namespace share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, faults: Faults) -> None:
        self.loop = loop
        self.store = store
        self.faults = faults
