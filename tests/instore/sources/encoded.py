"""Messages as bytes of AMQP, with values in them that the SDK has no decoder for."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Any

from azure.servicebus import ServiceBusSender
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._pyamqp.message import Message, Properties

from tests.instore import given

NO_TYPE = b"\x9f" + bytes(16)
"""A value of sixteen bytes of a type that AMQP does not have."""
DECIMAL32, DECIMAL64 = b"\x74" + bytes(4), b"\x84" + bytes(8)
DEEP = functools.reduce(lambda inner, _: bytes((0xC0, len(inner) + 1, 1)) + inner, range(70), b"\x45")
"""A list in a list in a list, deeper than the SDK goes."""
ANNOTATIONS, APPLICATION, DATA, VALUE = 0x72, 0x74, 0x75, 0x77


def dotnet_decimal(coefficient: int, scale: int, *, negative: bool = False) -> bytes:
    """What .NET's library makes of a decimal (azure-amqp, src/Encoding/DecimalEncoding.cs)."""
    exponent = 6176 - scale
    head = bytes((0x80 * negative | exponent >> 9, (exponent & 0x7F) << 1, 0, 0))
    return b"\x94" + head + coefficient.to_bytes(12, "big")


def section(code: int, value: bytes) -> bytes:
    return b"\x00\x53" + bytes((code,)) + value


def map_of(pairs: Mapping[str, bytes]) -> bytes:
    body = b"".join(b"\xa1" + bytes((len(name),)) + name.encode() + value for name, value in pairs.items())
    return b"\xd1" + struct.pack(">II", len(body) + 4, 2 * len(pairs)) + body


def data(body: bytes) -> bytes:
    return section(DATA, b"\xb0" + struct.pack(">I", len(body)) + body)


def properties(label: str, message_id: Any = None) -> bytes:
    return bytes(encode_payload(bytearray(), Message(properties=Properties(message_id=message_id, subject=label))))


def undecodable(label: str) -> dict[str, bytes]:
    """Messages that cannot be decoded, each for another reason; the body is an order where it can be."""
    order, head = data(given.body("S1")), properties(label)
    small = {"x": DECIMAL32, "y": DECIMAL64}
    return {
        "a property of no type": head + section(APPLICATION, map_of({"x": NO_TYPE})) + order,
        "a property of the small decimals": head + section(APPLICATION, map_of(small)) + order,
        "a property nested too deep": head + section(APPLICATION, map_of({"x": DEEP})) + order,
        "a list for properties": head + section(APPLICATION, b"\xc0\x03\x01\xa1\x00") + order,
        "a key that is a list": head + section(APPLICATION, b"\xc1\x03\x02\x45\x40") + order,
        "an annotation of no type": section(ANNOTATIONS, map_of({"x": NO_TYPE})) + head + order,
        "a list for data": head + section(DATA, b"\x45"),
        "a body of no type": head + section(VALUE, NO_TYPE),
        "a body nested too deep": head + section(VALUE, DEEP),
    }


def send_encoded(sender: ServiceBusSender, *messages: bytes) -> None:
    """Send messages that are encoded already: a batch holds such."""
    for each in messages:
        batch = sender.create_message_batch()
        batch._message[5].append(each)  # its sections of data
        batch._count = 1
        sender.send_messages(batch)
