"""What a message is made of (AMQP 1.0 part 3, section 3.2), and what the broker adds to it.

The bare message (properties, application properties, body) is kept as the bytes that came in, so that every type
survives. The broker writes only its own sections around it: header, delivery annotations, message annotations.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sandbox.servicebus import codec
from sandbox.servicebus.codec import NULL, Described, symbol
from sandbox.servicebus.errors import AmqpError, Malformed

HEADER, DELIVERY_ANNOTATIONS, ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES, DATA = range(0x70, 0x76)
FOOTER = 0x78

BATCH_FORMAT = 0x80013700
"""Message format of a batch: each data section is an encoded message (service-bus.md, point 9)."""

_SCHEDULED = "x-opt-scheduled-enqueue-time"
_BROKERS_OWN = frozenset({
    "x-opt-enqueued-time",
    "x-opt-sequence-number",
    "x-opt-locked-until",
    "x-opt-lock-token",
    "x-opt-message-state",
})  # fmt: skip
_PROPERTY_NAMES = (
    "message-id", "user-id", "to", "subject", "reply-to", "correlation-id", "content-type", "content-encoding",
    "absolute-expiry-time", "creation-time", "group-id", "group-sequence", "reply-to-group-id",
)  # fmt: skip

_ENQUEUED_KEY = symbol("x-opt-enqueued-time")
_SEQUENCE_KEY = symbol("x-opt-sequence-number")
_LOCKED_KEY = symbol("x-opt-locked-until")
_STATE_KEY = symbol("x-opt-message-state")
_TOKEN_MAP_HEAD = symbol("x-opt-lock-token") + codec.UUID


@dataclass(frozen=True, slots=True)
class Content:
    """A message as its sender wrote it.

    Attributes:
        bare: properties, application properties, body and footer, encoded.
        annotations: the sender's message annotations as encoded pairs, without those the broker writes itself.
        annotation_items: the number of keys and values in them, two a pair.
        ttl: header's time to live in milliseconds.
        scheduled: when it shall be enqueued, in milliseconds since 1970, or None for now.
    """

    bare: bytes
    annotations: bytes = b""
    annotation_items: int = 0
    durable: bool = False
    priority: int | None = None
    ttl: int | None = None
    scheduled: int | None = None

    def encode(self) -> bytes:
        """The message as one piece, for the state file; `parse` reads it back."""
        return self._header(0) + _annotations(self.annotations, self.annotation_items) + self.bare

    def delivery(
        self, *, deliveries: int, enqueued: int, sequence: int, locked_until: int | None, lock: bytes
    ) -> bytes:
        """The message as a receiver gets it (service-bus.md, point 6).

        Args:
            deliveries: header.delivery-count, 0 the first time.
            enqueued: milliseconds since 1970.
            sequence: the sequence number.
            locked_until: milliseconds since 1970, or None if it is handed over for good.
            lock: the lock token in network order, or b"" without a lock.
        """
        pairs = self.annotations + _ENQUEUED_KEY + codec.timestamp(enqueued) + _SEQUENCE_KEY + codec.long(sequence)
        if locked_until is None:
            return self._header(deliveries) + _annotations(pairs, self.annotation_items + 4) + self.bare
        token = codec.described(DELIVERY_ANNOTATIONS, codec.map_of(_TOKEN_MAP_HEAD + lock, 2))
        pairs += _LOCKED_KEY + codec.timestamp(locked_until)
        return self._header(deliveries) + token + _annotations(pairs, self.annotation_items + 6) + self.bare

    def peeked(self, *, deliveries: int, enqueued: int, sequence: int, state: int) -> bytes:
        """The message as a browser gets it: with its state (0 active, 1 deferred, 2 scheduled) and without a lock."""
        pairs = (
            self.annotations + _ENQUEUED_KEY + codec.timestamp(enqueued) + _SEQUENCE_KEY + codec.long(sequence)
            + _STATE_KEY + codec.int32(state)
        )  # fmt: skip
        return self._header(deliveries) + _annotations(pairs, self.annotation_items + 6) + self.bare

    def dead_lettered(self, reason: str | None, description: str | None) -> Content:
        """The same message with the reason in its application properties and without a time to live."""
        added = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        pairs: list[bytes] = []
        parts: list[bytes] = []
        before: list[bytes] = []
        for code, start, end in sections(self.bare):
            if code == PROPERTIES:
                before.append(self.bare[start:end])
            elif code == APPLICATION_PROPERTIES and self.bare[start + 3] in codec.MAPS:
                items, _ = codec.spans(self.bare, start + 3)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    if str(codec.decode(key, 0)[0]) not in added:
                        pairs += [key, value]
            else:
                parts.append(self.bare[start:end])
        for name, text in added.items():
            if text is not None:
                pairs += [codec.string(name), codec.string(text)]
        section = codec.described(APPLICATION_PROPERTIES, codec.map_of(b"".join(pairs), len(pairs)))
        bare = b"".join([*before, *([section] if pairs else []), *parts])
        return Content(bare, self.annotations, self.annotation_items, self.durable, self.priority)

    def properties(self) -> dict[str, Any]:
        """The properties section by field name, for rules; absent fields are left out."""
        for code, start, _ in sections(self.bare):
            if code == PROPERTIES:
                values, _ = codec.decode(self.bare, start + 3)
                return {k: v for k, v in zip(_PROPERTY_NAMES, values, strict=False) if v is not None}
        return {}

    def application_properties(self) -> dict[str, Any]:
        """The sender's own properties, for rules."""
        for code, start, _ in sections(self.bare):
            if code == APPLICATION_PROPERTIES:
                return dict(codec.decode(self.bare, start + 3)[0])
        return {}

    def _header(self, deliveries: int) -> bytes:
        fields = (
            codec.boolean(self.durable),
            NULL if self.priority is None else codec.ubyte(self.priority),
            NULL if self.ttl is None else codec.uint(self.ttl),
            codec.boolean(deliveries == 0),
            codec.uint(deliveries),
        )
        return codec.composite(HEADER, fields)


def _annotations(pairs: bytes, items: int) -> bytes:
    return codec.described(ANNOTATIONS, codec.map_of(pairs, items))


def sections(payload: bytes) -> Iterator[tuple[int, int, int]]:
    """Code, start and end of every section of an encoded message.

    Raises:
        Malformed: if something in it is no section.
    """
    at = 0
    while at < len(payload):
        if payload[at] != 0 or payload[at + 1] != 0x53:
            raise Malformed("a message section that is not described by a small ulong")
        end = codec.skip(payload, at)
        if end > len(payload):
            raise Malformed("a message section that is longer than its message")
        yield payload[at + 2], at, end
        at = end


def parse(payload: bytes) -> Content:
    """Take a message apart as its sender wrote it; delivery annotations end here.

    Raises:
        AmqpError: amqp:decode-error, if it is no AMQP message.
    """
    try:
        return _parse(payload)
    except (Malformed, IndexError, ValueError, struct.error) as problem:
        raise AmqpError("amqp:decode-error", "The message cannot be decoded.", 400) from problem


def _parse(payload: bytes) -> Content:
    bare: dict[int, bytes] = {}
    body: list[bytes] = []
    header: list[Any] = []
    kept: list[bytes] = []
    scheduled: int | None = None
    for code, start, end in sections(payload):
        if code == HEADER:
            header = codec.decode(payload, start + 3)[0]
        elif code == ANNOTATIONS:
            items, _ = codec.spans(payload, start + 3)
            for key, value in zip(items[::2], items[1::2], strict=True):
                name = codec.decode(key, 0)[0]
                if name == _SCHEDULED:
                    scheduled = codec.decode(value, 0)[0]
                if name not in _BROKERS_OWN:
                    kept += [key, value]
        elif code in (PROPERTIES, APPLICATION_PROPERTIES):
            bare[code] = payload[start:end]
        elif code != DELIVERY_ANNOTATIONS:
            body.append(payload[start:end])
    header += [None] * (5 - len(header))
    return Content(
        bare=bare.get(PROPERTIES, b"") + bare.get(APPLICATION_PROPERTIES, b"") + b"".join(body),
        annotations=b"".join(kept),
        annotation_items=len(kept),
        durable=bool(header[0]),
        priority=header[1],
        ttl=header[2],
        scheduled=scheduled,
    )


def unbatch(payload: bytes) -> list[Content]:
    """The messages of a batch (message format 0x80013700)."""
    try:
        inner = [codec.decode(payload, start + 3)[0] for code, start, _ in sections(payload) if code == DATA]
    except (Malformed, IndexError, ValueError, struct.error) as problem:
        raise AmqpError("amqp:decode-error", "The batch cannot be decoded.", 400) from problem
    return [parse(each) for each in inner]


def value_message(correlation: bytes, application: list[tuple[str, bytes]], body: bytes) -> bytes:
    """A reply of a management node: correlation id (encoded), application properties and an AMQP value.

    The answer to the request whose message id was `correlation` (AMQP management, section 3.2).
    """
    properties = (NULL, NULL, NULL, NULL, NULL, correlation, *([NULL] * 7))
    pairs = b"".join(codec.string(key) + value for key, value in application)
    return (
        codec.composite(PROPERTIES, properties)
        + codec.described(APPLICATION_PROPERTIES, codec.map_of(pairs, 2 * len(application)))
        + codec.described(0x77, body)
    )


def read_request(payload: bytes) -> tuple[bytes, dict[str, Any], Any]:
    """Message id (still encoded), application properties and body value of a request to a management node.

    Raises:
        AmqpError: amqp:decode-error.
    """
    message_id, application, body = NULL, {}, None
    try:
        for code, start, _ in sections(payload):
            if code == PROPERTIES:
                fields, _ = codec.spans(payload, start + 3)
                message_id = fields[0] if fields else NULL
            elif code == APPLICATION_PROPERTIES:
                application = codec.decode(payload, start + 3)[0]
            elif code == 0x77:
                body = codec.decode(payload, start + 3)[0]
    except (Malformed, IndexError, ValueError, struct.error) as problem:
        raise AmqpError("amqp:decode-error", "The request cannot be decoded.", 400) from problem
    if isinstance(body, Described):
        body = body.value
    return message_id, application, body
