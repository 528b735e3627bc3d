"""Queues and subscriptions that require sessions: a receiver holds one session, and gets its messages in order.

Rules: "Message sessions" and "AMQP request/response based operations" of the Service Bus documentation. The session's
lock is that of all its messages. A receiver that leaves gives it back, and no delivery of what it left unsettled is
counted; a lock that expires takes the session away from its receiver, and they are.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from sandbox.servicebus.alarm import now
from sandbox.servicebus.config import QueueSpec
from sandbox.servicebus.errors import AmqpError, SessionLockLost
from sandbox.servicebus.message import Content
from sandbox.servicebus.model import Consumer, Environment, Lock, Message, State
from sandbox.servicebus.queues import Queue


class Acceptor(Consumer, Protocol):
    """A receiving link that waits for a session, or has one."""

    session_id: str | None

    def accepted(self, session_id: str, until: int) -> None:
        """It has this one, until then."""

    def refused(self, problem: AmqpError) -> None:
        """It gets none, or has none any more."""


def queue_of(spec: QueueSpec, environment: Environment) -> Queue:
    """A queue or subscription as it is configured."""
    return SessionQueue(spec, environment) if spec.sessions else Queue(spec, environment)


class SessionQueue(Queue):
    """A queue or a subscription that requires sessions."""

    def __init__(self, spec: QueueSpec, environment: Environment) -> None:
        super().__init__(spec, environment)
        self._holders: dict[str, Acceptor] = {}
        self._until: dict[str, int] = {}
        self._seekers: dict[Acceptor, asyncio.TimerHandle] = {}

    # Coming in -------------------------------------------------------------------------------------------------------

    def admit(self, content: Content) -> None:
        if content.properties().get("group-id") is None:
            text = "The SessionId was not set on a message, and it cannot be sent to the entity."
            raise AmqpError("amqp:not-allowed", text, 400)

    def _session_of(self, content: Content) -> str:
        return str(content.properties().get("group-id", ""))

    def _enqueue(self, content: Content, ttl: float | None = None) -> Message:
        if content.properties().get("group-id") is None and self.dead_letter_queue is not None:
            text = "Session enabled entity doesn't allow a message whose session identifier is null."
            return self.dead_letter_queue._enqueue(content.dead_lettered("Session ID is null.", text))
        return super()._enqueue(content, ttl)

    # Sessions --------------------------------------------------------------------------------------------------------

    def sessions(self) -> list[str]:
        """Ids of the sessions with active messages, locked or not."""
        return sorted({each.session for each in self._backlog.start_at(0) if each.state is State.ACTIVE})

    def accept(self, consumer: Acceptor, wanted: str | None, seconds: float) -> None:
        """Give a consumer a session, or say that there is none.

        Args:
            wanted: its id; None for the next that is free and has messages.
            seconds: how long to wait for such a one.
        """
        if wanted is None:
            self._seekers[consumer] = self._env.loop.call_later(seconds, self._give_up, consumer)
            self.pump()
        elif self._is_held(wanted):
            text = f"The requested session '{wanted}' cannot be accepted. It may be locked by another receiver."
            consumer.refused(AmqpError("com.microsoft:session-cannot-be-locked", text, 410))
        else:
            self._give(consumer, wanted)

    def renew_session(self, session: str) -> int:
        """Prolong a session's lock from now on; returns until when. Raises SessionLockLost."""
        if not self._is_held(session):
            raise SessionLockLost
        return self._prolong(session)

    def leave(self, consumer: Consumer) -> None:
        for session in [each for each, holder in self._holders.items() if holder is consumer]:
            self._release(session, counted=False)
        for seeker in [each for each in self._seekers if each is consumer]:
            self._seekers.pop(seeker).cancel()

    def wake(self, consumer: Consumer) -> None:  # noqa: ARG002
        self.pump()

    def pump(self) -> None:
        for session in self._backlog.waiting() if self._seekers else ():
            if self._seekers and session not in self._holders:
                seeker = next(iter(self._seekers))
                self._seekers.pop(seeker).cancel()
                self._give(seeker, session)
        for session, consumer in list(self._holders.items()):
            while self._is_held(session) and consumer.credit > 0 and (message := self._pop(session)) is not None:
                self._hand_over(consumer, message)

    def close(self) -> None:
        for timer in self._seekers.values():
            timer.cancel()
        super().close()

    def _give(self, consumer: Acceptor, session: str) -> None:
        self._holders[session] = consumer
        consumer.accepted(session, self._prolong(session))

    def _give_up(self, consumer: Acceptor) -> None:
        del self._seekers[consumer]
        text = "The operation did not complete within the allotted time: no session is free that has messages."
        consumer.refused(AmqpError("com.microsoft:timeout", text, 408))

    def _prolong(self, session: str) -> int:
        until = self._until[session] = self._lock_end()
        for lock in self._locks_of(session):
            lock.until = until
        self._deadline(until, session)
        return until

    def _locks_of(self, session: str) -> list[Lock]:
        return [lock for lock in self._locks.values() if lock.message.session == session]

    def _release(self, session: str, *, counted: bool) -> None:
        del self._holders[session], self._until[session]
        for lock in self._locks_of(session):
            self._unlock(lock)
            self.counts["locks_expired"] += counted
            self._free(lock.message, counted=counted)
        self._env.loop.call_soon(self.pump)

    def _is_held(self, session: str) -> bool:
        if session in self._until and self._until[session] <= now():
            holder = self._holders[session]
            self._release(session, counted=True)
            holder.refused(SessionLockLost())
        return session in self._holders

    # Its messages' locks ---------------------------------------------------------------------------------------------

    def _lock(self, message: Message) -> Lock:
        if not self._is_held(message.session):
            raise SessionLockLost
        lock = Lock(os.urandom(16), message, self._until[message.session])
        self._locks[lock.token] = lock
        message.lock = lock.token
        return lock

    def _held(self, token: bytes) -> Lock:
        lock = self._locks.get(token)
        if lock is None or not self._is_held(lock.message.session):
            self.counts["lock_lost"] += 1
            raise SessionLockLost
        return lock
