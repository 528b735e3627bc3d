"""The four kinds of links: sending to an entity, receiving from one, asking a management node, hearing from it
(AMQP 1.0 part 2, sections 2.6 and 2.7; service-bus.md, points 5, 6, 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sandbox.servicebus.auth import Permits, SharedKey
from sandbox.servicebus.errors import AmqpError
from sandbox.servicebus.management import EntityManagement, put_token
from sandbox.servicebus.message import BATCH_FORMAT, parse, unbatch
from sandbox.servicebus.model import Environment, Lock, Message, Settles
from sandbox.servicebus.namespace import Namespace
from sandbox.servicebus.queues import Queue
from sandbox.servicebus.sessions import SessionQueue
from sandbox.servicebus.topics import Topic

MAX_MESSAGE_SIZE = 1024 * 1024
"""Bytes of a request or an answer; an entity has a limit of its own for what is sent to it."""

# Credit is renewed long before it is used up: an SDK sender without credit sends a flow of its own, with a window
# that it counts down and never renews.
_CREDIT = 2000


class Connection(Protocol):
    """What a link sees of its connection."""

    key: SharedKey
    permits: Permits
    namespace: Namespace

    @property
    def sessions(self) -> Mapping[int, Session]: ...

    def drop(self) -> None: ...


class Session(Protocol):
    """What a link sees of its session."""

    environment: Environment
    window: int

    @property
    def connection(self) -> Connection: ...

    @property
    def links(self) -> Mapping[int, Link]: ...

    def flow(
        self, handle: int | None = None, *, delivery_count: int = 0, credit: int = 0, drain: bool = False
    ) -> None: ...

    def transfer(self, handle: int, tag: bytes, payload: bytes, *, settled: bool) -> int: ...

    def remember(self, delivery_id: int, handle: int, queue: Settles, token: bytes) -> None: ...

    def accept(self, delivery_id: int, problem: AmqpError | None = None) -> None: ...


class Link:
    """What every link can be told; a kind of link answers what concerns it."""

    max_message_size = MAX_MESSAGE_SIZE

    def __init__(self, session: Session, handle: int) -> None:
        self.session = session
        self.handle = handle

    def attached(self) -> None:
        """The attach was answered."""

    def on_transfer(self, fields: list[Any], payload: bytes) -> None:
        """A transfer frame arrived."""

    def on_flow(self, fields: list[Any]) -> None:
        """A flow frame of this link arrived."""

    def window_opened(self) -> None:
        """The session takes transfers again."""

    def leave(self) -> None:
        """The link is gone."""


class _Incoming(Link):
    """A link the client sends on: puts multi-frame deliveries together and keeps the client in credit."""

    def __init__(self, session: Session, handle: int) -> None:
        super().__init__(session, handle)
        self._received = 0
        self._first: list[Any] | None = None
        self._parts: list[bytes] = []

    def attached(self) -> None:
        self.session.flow(self.handle, delivery_count=self._received, credit=_CREDIT)

    def on_transfer(self, fields: list[Any], payload: bytes) -> None:
        if self._first is None:
            self._first = fields
        self._parts.append(payload)
        if fields[5]:
            return
        first, whole = self._first, payload if len(self._parts) == 1 else b"".join(self._parts)
        self._first, self._parts = None, []
        self._received += 1
        if self._received % (_CREDIT // 2) == 0:
            self.attached()
        # An aborted delivery never was (section 2.7.5).
        if not fields[9]:
            self.on_delivery(first[1], first[3] or 0, bool(first[4]), whole)

    def on_flow(self, fields: list[Any]) -> None:
        if fields[9]:
            self.attached()

    def on_delivery(self, delivery_id: int, message_format: int, settled: bool, payload: bytes) -> None:
        """A whole delivery arrived."""


_ENVELOPE = 64
"""Bytes of a batch beside its messages, which the SDK does not count where it fills one up to the limit."""


class Inlet(_Incoming):
    """The client sends to a queue or a topic."""

    def __init__(self, session: Session, handle: int, entity: Queue | Topic) -> None:
        super().__init__(session, handle)
        self._entity = entity
        self.max_message_size = entity.spec.max_message

    def on_delivery(self, delivery_id: int, message_format: int, settled: bool, payload: bytes) -> None:
        session = self.session
        problem: AmqpError | None = None
        try:
            envelope = _ENVELOPE if message_format == BATCH_FORMAT else 0
            if len(payload) > self.max_message_size + envelope:
                text = f"The message has {len(payload)} bytes, {self.max_message_size} are allowed."
                raise AmqpError("amqp:link:message-size-exceeded", text, 400)
            # All are read before the first is kept: a batch comes whole or not at all.
            contents = unbatch(payload) if message_format == BATCH_FORMAT else [parse(payload)]
            for content in contents:
                self._entity.admit(content)
        except AmqpError as refused:
            problem = refused
        else:
            for content in contents:
                self._entity.send(content)
            if session.environment.faults.drops_after_send():
                session.environment.store.then(session.connection.drop)
                return
        if not settled:
            session.environment.store.then(lambda: session.accept(delivery_id, problem))


class Outlet(Link):
    """The client receives from a queue, a subscription or a dead-letter queue."""

    def __init__(self, session: Session, handle: int, queue: Queue, *, presettled: bool) -> None:
        super().__init__(session, handle)
        self.presettled = presettled
        self._queue = queue
        self._credit = 0
        self._delivered = 0

    @property
    def credit(self) -> int:
        return self._credit if self.session.window > 0 else 0

    def deliver(self, queue: Settles, message: Message, lock: Lock | None) -> None:
        self._credit -= 1
        self._delivered += 1
        payload = message.encode(lock)
        if lock is None:
            self.session.transfer(self.handle, self._delivered.to_bytes(4, "big"), payload, settled=True)
        else:
            delivery_id = self.session.transfer(self.handle, _guid_order(lock.token), payload, settled=False)
            self.session.remember(delivery_id, self.handle, queue, lock.token)
        if self.session.environment.faults.drops_after_transfer():
            self._credit = 0
            self.session.environment.loop.call_soon(self.session.connection.drop)

    def on_flow(self, fields: list[Any]) -> None:
        self._credit = max(0, (fields[5] or 0) + (fields[6] or 0) - self._delivered)
        if self._credit:
            self._queue.wake(self)
        if fields[8]:
            # Drained: what credit is left is used up at once (section 2.6.7).
            self._delivered += self._credit
            self._credit = 0
        if fields[8] or fields[9]:
            drain = bool(fields[8])
            self.session.flow(self.handle, delivery_count=self._delivered, credit=self._credit, drain=drain)

    def window_opened(self) -> None:
        if self._credit:
            self._queue.wake(self)

    def leave(self) -> None:
        self._credit = 0
        self._queue.leave(self)


class SessionOutlet(Outlet):
    """The client receives one session of a queue or a subscription; its attach is answered once there is one.

    Args:
        wanted: the session's id; None for the next that is free and has messages.
        seconds: how long it waits for one.
        answer: called with the session and the end of its lock, in milliseconds since 1970.
        refuse: called with the reason why there is none, or none any more.
    """

    def __init__(
        self, session: Session, handle: int, queue: SessionQueue, wanted: str | None, seconds: float,
        answer: Callable[[str, int], None], refuse: Callable[[AmqpError], None], *, presettled: bool,
    ) -> None:  # fmt: skip
        super().__init__(session, handle, queue, presettled=presettled)
        self.session_id: str | None = None
        self.refused = refuse
        self._answer = answer
        self._seek = (queue, wanted, seconds)

    def seek(self) -> None:
        queue, wanted, seconds = self._seek
        queue.accept(self, wanted, seconds)

    def accepted(self, session_id: str, until: int) -> None:
        self.session_id = session_id
        self._answer(session_id, until)


class RequestInlet(_Incoming):
    """The client asks `$cbs` or the management node of an entity."""

    def __init__(self, session: Session, handle: int, node: str, entity: Queue | Topic | None = None) -> None:
        super().__init__(session, handle)
        self._node = node
        self._management = None if entity is None else EntityManagement(entity)

    def on_delivery(self, delivery_id: int, message_format: int, settled: bool, payload: bytes) -> None:  # noqa: ARG002
        session, connection = self.session, self.session.connection
        store, faults = session.environment.store, session.environment.faults
        settles = False
        try:
            if self._management is None:
                reply = put_token(payload, connection.key, connection.permits, connection.namespace)
            else:
                reply, settles = self._management.answer(payload)
        except AmqpError as refused:
            problem = refused
            store.then(lambda: session.accept(delivery_id, problem))
            return
        if not settled:
            session.accept(delivery_id)
        if settles and faults.drops_after_settle():
            store.then(connection.drop)
            return
        store.then(lambda: self._reply(reply))

    def _reply(self, reply: bytes) -> None:
        """Answer on the receiver link of the same node on the same connection: the SDK names no reply-to (point 3)."""
        for session in (self.session, *self.session.connection.sessions.values()):
            for link in session.links.values():
                if isinstance(link, ReplyOutlet) and link.node == self._node:
                    link.reply(reply)
                    return


class ReplyOutlet(Link):
    """The client hears from `$cbs` or a management node. Replies are sent settled, whatever the credit: the SDK
    never renews it."""

    def __init__(self, session: Session, handle: int, node: str) -> None:
        super().__init__(session, handle)
        self.node = node
        self._sent = 0

    def reply(self, payload: bytes) -> None:
        self._sent += 1
        self.session.transfer(self.handle, self._sent.to_bytes(4, "big"), payload, settled=True)


def _guid_order(token: bytes) -> bytes:
    """A lock token's 16 bytes as a GUID's: the delivery tag (service-bus.md, point 6)."""
    return token[3::-1] + token[5:3:-1] + token[7:5:-1] + token[8:]
