"""Frames and performatives (AMQP 1.0 part 2, sections 2.3 and 2.7; SASL in part 5, section 5.3).

Every performative is written with its full number of fields and every error with all three of its: older SDKs break
on elided nulls (service-bus.md, points 2 and 7).
"""

from __future__ import annotations

import struct
from typing import Any

from sandbox.servicebus import codec
from sandbox.servicebus.codec import NULL, boolean, composite, string, symbol, uint, ulong, ushort
from sandbox.servicebus.errors import AmqpError, Malformed

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
SASL_MECHANISMS, SASL_INIT, SASL_CHALLENGE, SASL_RESPONSE, SASL_OUTCOME = range(0x40, 0x45)
RECEIVED, ACCEPTED, REJECTED, RELEASED, MODIFIED = range(0x23, 0x28)

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"

# What Service Bus offers outside its premium tier: longer messages come and go in several frames.
MAX_FRAME_SIZE = 65536
HANDLE_MAX = 4294967295
CHANNEL_MAX = 65535
WINDOW = 2**31 - 1

SESSION_FILTER = "com.microsoft:session-filter"

_HEAD = struct.Struct(">IBBH")
_FIELDS = {OPEN: 10, BEGIN: 8, ATTACH: 14, FLOW: 11, TRANSFER: 11, DISPOSITION: 6, DETACH: 3, END: 1, CLOSE: 1}

ACCEPTED_STATE = composite(ACCEPTED, ())
RELEASED_STATE = composite(RELEASED, ())
# Dead-lettering is confirmed by a rejection without an error (service-bus.md, point 7).
REJECTED_STATE = composite(REJECTED, (NULL,))


def frame(channel: int, performative: bytes, payload: bytes = b"", kind: int = 0) -> bytes:
    return _HEAD.pack(8 + len(performative) + len(payload), 2, kind, channel) + performative + payload


def read_head(buffer: bytes | bytearray, at: int) -> tuple[int, int, int, int]:
    """Size, data offset in bytes, type and channel of the frame at a position.

    Raises:
        Malformed: if the size is below a frame header's or above what was offered in open.
    """
    size, offset, kind, channel = _HEAD.unpack_from(buffer, at)
    if size < 8 or size > MAX_FRAME_SIZE or offset < 2 or offset * 4 > size:
        raise Malformed(f"a frame of {size} bytes with an offset of {offset} words")
    return size, offset * 4, kind, channel


def read_performative(body: bytes) -> tuple[int, list[Any], bytes]:
    """The code of a frame body, its fields padded with None to the full number, and the payload behind it."""
    described, at = codec.decode(body, 0)
    if not isinstance(described, codec.Described) or not isinstance(described.value, list):
        raise Malformed("a frame body that is no performative")
    code, fields = described
    fields.extend([None] * (_FIELDS.get(code, 0) - len(fields)))
    return code, fields, body[at:]


def read_attach_spans(body: bytes) -> list[bytes]:
    """The fields of an attach as they stand, still encoded, so that source and target can be echoed."""
    items, _ = codec.spans(body, codec.skip(body, 1))
    return items + [NULL] * (_FIELDS[ATTACH] - len(items))


def with_session(source: bytes, session: str) -> bytes:
    """An attach's source with the session that was accepted in its filter."""
    items, _ = codec.spans(source, codec.skip(source, 1))
    items[7] = codec.map_of(symbol(SESSION_FILTER) + string(session), 2)
    return source[: codec.skip(source, 1)] + codec.list_of(items)


def error(problem: AmqpError | None) -> bytes:
    if problem is None:
        return NULL
    return composite(0x1D, (symbol(problem.condition), string(problem.description), codec.map_of(b"", 0)))


def open_(container: str) -> bytes:
    fields = (string(container), NULL, uint(MAX_FRAME_SIZE), ushort(CHANNEL_MAX), NULL, NULL, NULL, NULL, NULL, NULL)
    return composite(OPEN, fields)


def begin(remote_channel: int, next_outgoing_id: int) -> bytes:
    head = (ushort(remote_channel), uint(next_outgoing_id), uint(WINDOW), uint(WINDOW), uint(HANDLE_MAX))
    return composite(BEGIN, (*head, NULL, NULL, NULL))


def attach(
    spans: list[bytes], role: bool, *, source: bytes, target: bytes, max_message_size: int, properties: bytes = NULL
) -> bytes:
    """The answer to an attach: what came in, with the role turned round (service-bus.md, point 5)."""
    fields = list(spans)
    fields[2] = boolean(role)
    fields[5], fields[6], fields[7], fields[8] = source, target, NULL, NULL
    fields[9] = uint(0)
    fields[10] = ulong(max_message_size)
    fields[11] = fields[12] = NULL
    fields[13] = properties
    return composite(ATTACH, fields)


def flow(
    next_incoming_id: int,
    next_outgoing_id: int,
    handle: int | None = None,
    *,
    delivery_count: int = 0,
    credit: int = 0,
    drain: bool = False,
) -> bytes:
    """The state of a link, or without a handle of the session only."""
    session = (uint(next_incoming_id), uint(WINDOW), uint(next_outgoing_id), uint(WINDOW))
    link = (NULL, NULL, NULL) if handle is None else (uint(handle), uint(delivery_count), uint(credit))
    return composite(FLOW, (*session, *link, NULL, boolean(drain), codec.FALSE, NULL))


def transfer(handle: int, delivery_id: int, tag: bytes, *, settled: bool, more: bool) -> bytes:
    head = (uint(handle), uint(delivery_id), codec.binary(tag), uint(0), boolean(settled), boolean(more))
    return composite(TRANSFER, (*head, NULL, NULL, codec.FALSE, codec.FALSE, codec.FALSE))


def disposition(role: bool, first: int, last: int, state: bytes) -> bytes:
    return composite(DISPOSITION, (boolean(role), uint(first), uint(last), codec.TRUE, state, codec.FALSE))


def rejected(problem: AmqpError) -> bytes:
    return composite(REJECTED, (error(problem),))


def modified(delivery_failed: bool, undeliverable_here: bool) -> bytes:
    return composite(MODIFIED, (boolean(delivery_failed), boolean(undeliverable_here), NULL))


def detach(handle: int, problem: AmqpError | None = None) -> bytes:
    return composite(DETACH, (uint(handle), codec.TRUE, error(problem)))


def end() -> bytes:
    return composite(END, (NULL,))


def close(problem: AmqpError | None = None) -> bytes:
    return composite(CLOSE, (error(problem),))


def sasl_mechanisms() -> bytes:
    return composite(SASL_MECHANISMS, (codec.symbols("ANONYMOUS"),))


def sasl_outcome() -> bytes:
    return composite(SASL_OUTCOME, (codec.ubyte(0), NULL))
