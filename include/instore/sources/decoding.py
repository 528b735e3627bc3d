"""Messages decoded so that none stops the others: what cannot be decoded arrives marked, with its raw bytes.

azure-servicebus raises in the middle of a read where it cannot decode a value: the read comes back empty, good messages
with it, in every run, until the bus gives all of them up. Here its decoder is replaced, in this process. The values it
knows wrongly or not at all are decoded (decimal128, char); of any other message the sections are decoded one by one,
so that at least its id, its number and its times are known, and it can be settled.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp import _decode, receiver
from azure.servicebus._pyamqp.message import Message
from azure.servicebus._transport import _pyamqp_transport
from azure.servicebus._version import VERSION
from azure.servicebus.amqp import AmqpAnnotatedMessage

FITS = ("7.15.0",)
"""Releases of the SDK whose decoder is replaced. tests/instore/sources/test_decoding.py fails for one that needs it no
longer, and for one that has not been looked at."""

_SECTIONS = dict(enumerate(Message._fields, 0x70))  # AMQP 1.0 part 3, section 3.2
_BARE = 0x73
"""The first of the sections that stay the same on every delivery."""
_MAPS = ("delivery_annotations", "message_annotations", "application_properties", "footer")
_NO_END = (LookupError, ValueError, struct.error, RecursionError)
"""What :func:`_behind` raises where a value does not end, or is none."""


@dataclass(frozen=True)
class Undecodable:
    """Stands where a message's footer would be, which no wire can put there.

    :param detail: which sections could not be decoded; never a value.
    :param raw: its sections but for those that the bus writes anew on every delivery, as they came.
    :param body: whether the body could be.
    """

    detail: str
    raw: bytes = field(repr=False)
    body: bool


def undecodable(message: ServiceBusReceivedMessage | AmqpAnnotatedMessage) -> Undecodable | None:
    """The mark of a message that could not be decoded."""
    whole = message if isinstance(message, AmqpAnnotatedMessage) else message.raw_amqp_message
    return whole.footer if isinstance(whole.footer, Undecodable) else None


def decoded(raw: bytes) -> AmqpAnnotatedMessage:
    """A message of its raw bytes, marked where it cannot be decoded."""
    return AmqpAnnotatedMessage(message=_decode_payload(memoryview(raw)))


def _decode_payload(buffer: memoryview) -> Message:
    """In the place of the SDK's function of that name; it never raises."""
    try:
        return _checked(_decode.decode_payload(buffer))
    except Exception:
        return _in_parts(bytes(buffer))


def _checked(message: Message) -> Message:
    """:raises TypeError: a section is not what the SDK's own code takes for granted."""
    maps = all(isinstance(getattr(message, name), dict | None) for name in _MAPS)
    if not maps or not all(isinstance(each, bytes) for each in message.data or ()):
        raise TypeError
    return message


def _in_parts(raw: bytes) -> Message:
    parts: dict[str, Any] = {}
    unread: list[str] = []
    bare, at = bytearray(), 0
    while at < len(raw):
        try:
            end, name = _behind(raw, at), _SECTIONS[raw[at + 2]]
        except _NO_END:
            unread.append(f"all from byte {at} on")
            bare += raw[at:]
            break
        section = raw[at:end]
        try:
            value = getattr(_checked(_decode.decode_payload(memoryview(section))), name)
            if name in ("data", "sequence"):  # a body may be in several sections, each a list of one
                parts.setdefault(name, []).extend(value)
            else:
                parts[name] = value
        except Exception:
            unread.append(name.replace("_", " "))
            if name in _MAPS:
                parts[name] = _readable_pairs(section)
        bare += section if raw[at + 2] >= _BARE else b""
        at = end
    body = not any(each.startswith(("all", "data", "sequence", "value")) for each in unread)
    return Message(**parts | {"footer": Undecodable(f"cannot be decoded: {', '.join(unread)}", bytes(bare), body)})


def _readable_pairs(section: bytes) -> dict[Any, Any]:
    """The pairs of a section's map that can be decoded: the bus's own stand beside those of the publisher."""
    pairs: dict[Any, Any] = {}
    with contextlib.suppress(*_NO_END):  # nothing behind it can be told apart
        at = {0xC1: 6, 0xD1: 12}[section[3]]
        while at < len(section):
            middle = _behind(section, at)
            end = _behind(section, middle)
            with contextlib.suppress(Exception):  # it is this one that cannot be decoded
                pairs[_value(section[at:middle])] = _value(section[middle:end])
            at = end
    return pairs


def _value(encoded: bytes) -> Any:
    return _decode._DECODE_BY_CONSTRUCTOR[encoded[0]](memoryview(encoded)[1:])[1]


def _behind(raw: bytes, at: int) -> int:
    """Where the value at a place ends; the upper half of its first byte tells its width (AMQP 1.0 part 1, section 1.2).

    :raises ValueError: it ends behind the message, or has no width. :raises IndexError: the message ends before.
    """
    constructor, at = raw[at], at + 1
    width = constructor >> 4
    if constructor == 0:
        return _behind(raw, _behind(raw, at))
    if 4 <= width <= 9:
        end = at + (0, 1, 2, 4, 8, 16)[width - 4]
    elif width in (0xA, 0xC, 0xE):
        end = at + 1 + raw[at]
    elif width in (0xB, 0xD, 0xF):
        end = at + 4 + int(struct.unpack_from(">I", raw, at)[0])
    else:
        end = len(raw) + 1
    if end > len(raw):
        raise ValueError(end)
    return end


def _decode_decimal128(buffer: memoryview, _depth: int = 0) -> tuple[memoryview, Decimal]:
    """An IEEE 754 decimal128 with a binary coefficient.

    .NET's library shifts the exponent by 9 bits and not by 7 (azure-amqp, DecimalEncoding.EncodeValue). Its scales of
    0 to 28 then read as exponents below -4500, which nobody else writes.
    """
    value = int.from_bytes(buffer[:16], "big")
    sign, exponent, coefficient = value >> 127, value >> 113 & 0x3FFF, value & (1 << 113) - 1
    if exponent >> 12 == 3:  # infinite, no number, or a coefficient too large, which stands for 0
        special = {30: "Infinity", 31: "NaN"}.get(value >> 122 & 31, "0")
        return buffer[16:], Decimal(f"{'-' * sign}{special}")
    if exponent >> 7 == 12:
        exponent = 12 << 9 | exponent & 127
    return buffer[16:], Decimal((sign, tuple(map(int, str(coefficient))), exponent - 6176))


def _decode_char(buffer: memoryview, _depth: int = 0) -> tuple[memoryview, bytes]:
    """Text is bytes in this decoder."""
    return buffer[4:], chr(int.from_bytes(buffer[:4], "big")).encode()


if VERSION in FITS:
    _decode._DECODE_BY_CONSTRUCTOR[0x94] = _decode_decimal128
    _decode._DECODE_BY_CONSTRUCTOR[0x73] = _decode_char
    receiver.decode_payload = _decode_payload  # type: ignore[attr-defined]  # what is received
    _pyamqp_transport.decode_payload = _decode_payload  # type: ignore[attr-defined]  # what is peeked
