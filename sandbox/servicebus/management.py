"""The management nodes: `$cbs` and `<entity>/$management` (service-bus.md, points 3 and 8).

A request is a message with an operation in its application properties; the answer is a status, a description, an
error condition where there is one, and a value. Source: "AMQP request/response based operations" of the Service Bus
documentation.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.servicebus import codec
from sandbox.servicebus.auth import Permits, SharedKey
from sandbox.servicebus.errors import AmqpError
from sandbox.servicebus.message import parse, read_request, value_message
from sandbox.servicebus.model import Message, Outcome
from sandbox.servicebus.namespace import Namespace
from sandbox.servicebus.queues import Queue
from sandbox.servicebus.sessions import SessionQueue
from sandbox.servicebus.topics import Topic

_OUTCOMES = {
    "completed": Outcome.COMPLETED,
    "abandoned": Outcome.ABANDONED,
    "defered": Outcome.DEFERRED,
    "suspended": Outcome.DEAD_LETTERED,
}
_Body = dict[str, Any]


def put_token(payload: bytes, key: SharedKey, permits: Permits, namespace: Namespace) -> bytes:
    """Answer a put-token request; 202 grants the connection what the token is for, 401 and 404 nothing."""
    # The type the SDK names is "jwt" for a shared key too: the token tells what it is.
    message_id, _, token = read_request(payload)
    path = key.check(token) if isinstance(token, str) else None
    if path is None:
        return _cbs_answer(message_id, 401, "InvalidSignature: The token is not a valid shared access signature.")
    if not namespace.has(path):
        return _cbs_answer(message_id, 404, f"The messaging entity '{path}' could not be found.")
    permits.grant(path)
    return _cbs_answer(message_id, 202, "Accepted")


def _cbs_answer(message_id: bytes, status: int, description: str) -> bytes:
    pairs = [("status-code", codec.int32(status)), ("status-description", codec.string(description))]
    return value_message(message_id, pairs, codec.NULL)


class EntityManagement:
    """The `$management` node of one entity."""

    def __init__(self, entity: Queue | Topic) -> None:
        self.entity = entity
        self._operations: dict[str, Callable[[_Body], bytes | None]] = {
            "com.microsoft:renew-lock": self._renew_lock,
            "com.microsoft:peek-message": self._peek,
            "com.microsoft:update-disposition": self._update_disposition,
            "com.microsoft:receive-by-sequence-number": self._receive_deferred,
            "com.microsoft:schedule-message": self._schedule,
            "com.microsoft:cancel-scheduled-message": self._cancel,
            "com.microsoft:renew-session-lock": self._renew_session,
            "com.microsoft:get-message-sessions": self._list_sessions,
        }

    def answer(self, payload: bytes) -> tuple[bytes, bool]:
        """Do what a request asks for; returns the reply and whether it settled something. It may go out as soon as
        what was changed is on disk."""
        message_id, properties, body = read_request(payload)
        operation = _text(properties.get("operation"))
        act = self._operations.get(operation)
        try:
            if act is None:
                raise AmqpError("amqp:not-implemented", f"The stand-in does not know {operation!r}.", 501)
            value = act(body if isinstance(body, dict) else {})
        except AmqpError as refused:
            return _answer(message_id, refused.status, refused.description, refused.condition), False
        except (KeyError, TypeError, ValueError, AttributeError):
            text = f"The request for {operation} lacks something or has something wrong in it."
            return _answer(message_id, 400, text, "com.microsoft:argument-error"), False
        settled = operation == "com.microsoft:update-disposition"
        if value is None:
            return _answer(message_id, 204, "NoContent"), settled
        return _answer(message_id, 200, "OK", body=value), settled

    def _queue(self) -> Queue:
        if isinstance(self.entity, Topic):
            raise AmqpError("amqp:not-allowed", f"'{self.entity.path}' is a topic: nothing can be received.", 400)
        return self.entity

    def _renew_lock(self, body: _Body) -> bytes:
        until = [self._queue().renew(token) for token in _tokens(body)]
        return _map(("expirations", codec.timestamps(until)))

    def _renew_session(self, body: _Body) -> bytes:
        return _map(("expiration", codec.timestamp(self._sessions().renew_session(_text(body["session-id"])))))

    def _list_sessions(self, body: _Body) -> bytes | None:
        skip = int(body["skip"])
        found = self._sessions().sessions()[skip : skip + int(body["top"])]
        ids = codec.list_of([codec.string(each) for each in found])
        return _map(("skip", codec.int32(skip)), ("sessions-ids", ids)) if found else None

    def _sessions(self) -> SessionQueue:
        if not isinstance(self.entity, SessionQueue):
            raise AmqpError("amqp:not-allowed", f"'{self.entity.path}' does not require sessions.", 400)
        return self.entity

    def _peek(self, body: _Body) -> bytes | None:
        start, most, session = body["from-sequence-number"], body["message-count"], body.get("session-id")
        messages = self._queue().peek(start, most, None if session is None else _text(session))
        peeked = [codec.map_of(_pair("message", codec.binary(_browse(each))), 2) for each in messages]
        return _map(("messages", codec.list_of(peeked))) if peeked else None

    def _update_disposition(self, body: _Body) -> bytes:
        outcome = _OUTCOMES.get(_text(body["disposition-status"]))
        if outcome is None:
            raise AmqpError("com.microsoft:argument-error", "There is no such disposition status.", 400)
        for token in _tokens(body):
            self._queue().settle(
                token, outcome, body.get("deadletter-reason") or None, body.get("deadletter-description") or None
            )
        return codec.map_of(b"", 0)

    def _receive_deferred(self, body: _Body) -> bytes:
        delete = body.get("receiver-settle-mode", 1) == 0
        entries = []
        for message, lock in self._queue().receive_deferred(body["sequence-numbers"], delete=delete):
            pairs = _pair("message", codec.binary(message.encode(lock)))
            if lock:
                pairs += _pair("lock-token", codec.guid(lock.token))
            entries.append(codec.map_of(pairs, 4 if lock else 2))
        return _map(("messages", codec.list_of(entries)))

    def _schedule(self, body: _Body) -> bytes:
        contents = [parse(each["message"]) for each in body["messages"]]
        return _map(("sequence-numbers", codec.longs(self.entity.schedule(each) for each in contents)))

    def _cancel(self, body: _Body) -> bytes:
        self.entity.cancel(body["sequence-numbers"])
        return codec.map_of(b"", 0)


def _browse(message: Message) -> bytes:
    return message.content.peeked(
        deliveries=message.deliveries,
        enqueued=message.enqueued,
        sequence=message.sequence,
        state=message.state,
    )


def _tokens(body: _Body) -> Iterable[bytes]:
    return [token.bytes if isinstance(token, uuid.UUID) else uuid.UUID(token).bytes for token in body["lock-tokens"]]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _pair(key: str, value: bytes) -> bytes:
    return codec.string(key) + value


def _map(*pairs: tuple[str, bytes]) -> bytes:
    return codec.map_of(b"".join(_pair(key, value) for key, value in pairs), 2 * len(pairs))


def _answer(
    message_id: bytes, status: int, description: str, condition: str | None = None, body: bytes = codec.NULL
) -> bytes:
    pairs = [("statusCode", codec.int32(status)), ("statusDescription", codec.string(description))]
    if condition is not None:
        pairs.append(("errorCondition", codec.symbol(condition)))
    return value_message(message_id, pairs, body)
