"""AMQP 1.0 types to bytes and back (AMQP 1.0 part 1, sections 1.1 to 1.6).

Encoders return bytes, so that a performative is the concatenation of its fields. Decoders take a buffer and a
position and return the value and the position behind it. Symbols and strings both decode to `str`, every integer to
`int`, a timestamp to milliseconds since 1970: the stand-in never needs to tell them apart, and what it passes on it
passes on as the bytes that came in.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sandbox.servicebus.errors import Malformed

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_I8 = struct.Struct(">b")
_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")
_F32 = struct.Struct(">f")
_F64 = struct.Struct(">d")

NULL = b"\x40"
TRUE = b"\x41"
FALSE = b"\x42"
EMPTY_LIST = b"\x45"

# Constructors of array elements (section 1.6.24).
LONG = b"\x81"
TIMESTAMP = b"\x83"
UUID = b"\x98"
MAPS = b"\xc1\xd1"
SYMBOL = b"\xb3"


class Described(NamedTuple):
    """A value with its descriptor (section 1.1.2), e.g. a delivery state."""

    descriptor: Any
    value: Any


def boolean(value: bool) -> bytes:
    return TRUE if value else FALSE


def ubyte(value: int) -> bytes:
    return b"\x50" + bytes((value,))


def ushort(value: int) -> bytes:
    return b"\x60" + _U16.pack(value)


def uint(value: int) -> bytes:
    if value == 0:
        return b"\x43"
    return b"\x52" + bytes((value,)) if value < 256 else b"\x70" + _U32.pack(value)


def ulong(value: int) -> bytes:
    return b"\x53" + bytes((value,)) if value < 256 else b"\x80" + _U64.pack(value)


def int32(value: int) -> bytes:
    return b"\x71" + _I32.pack(value)


def long(value: int) -> bytes:
    return LONG + _I64.pack(value)


def timestamp(milliseconds: int) -> bytes:
    return TIMESTAMP + _I64.pack(milliseconds)


def guid(value: bytes) -> bytes:
    """A uuid from its 16 bytes in network order."""
    return UUID + value


def _variable(short: bytes, large: bytes, raw: bytes) -> bytes:
    size = len(raw)
    return short + bytes((size,)) + raw if size < 256 else large + _U32.pack(size) + raw


def string(value: str) -> bytes:
    return _variable(b"\xa1", b"\xb1", value.encode())


def symbol(value: str) -> bytes:
    return _variable(b"\xa3", b"\xb3", value.encode())


def binary(value: bytes) -> bytes:
    return _variable(b"\xa0", b"\xb0", value)


def list_of(items: Iterable[bytes]) -> bytes:
    """A list of encoded values; always with its full count (service-bus.md, point 2)."""
    parts = list(items)
    body = b"".join(parts)
    if len(body) < 255 and len(parts) < 256:
        return b"\xc0" + bytes((len(body) + 1, len(parts))) + body
    return b"\xd0" + _U32.pack(len(body) + 4) + _U32.pack(len(parts)) + body


def map_of(pairs: bytes, items: int) -> bytes:
    """A map from its encoded keys and values, one behind the other, and their number (two a pair)."""
    if len(pairs) < 255 and items < 256:
        return b"\xc1" + bytes((len(pairs) + 1, items)) + pairs
    return b"\xd1" + _U32.pack(len(pairs) + 4) + _U32.pack(items) + pairs


def array_of(constructor: bytes, elements: list[bytes]) -> bytes:
    """An array from its element constructor and the elements without it."""
    body = constructor + b"".join(elements)
    return b"\xf0" + _U32.pack(len(body) + 4) + _U32.pack(len(elements)) + body


def symbols(*values: str) -> bytes:
    raw = [value.encode() for value in values]
    return array_of(SYMBOL, [_U32.pack(len(each)) + each for each in raw])


def longs(values: Iterable[int]) -> bytes:
    return array_of(LONG, [_I64.pack(value) for value in values])


def timestamps(values: Iterable[int]) -> bytes:
    return array_of(TIMESTAMP, [_I64.pack(value) for value in values])


def described(code: int, value: bytes) -> bytes:
    """A described value with a small ulong descriptor: the only form the SDK reads (its decoder skips two bytes)."""
    return b"\x00\x53" + bytes((code,)) + value


def composite(code: int, fields: Iterable[bytes]) -> bytes:
    return described(code, list_of(fields))


# Decoding -----------------------------------------------------------------------------------------------------------

_Decoder = Callable[[bytes, int], "tuple[Any, int]"]


def _fixed(packer: struct.Struct) -> _Decoder:
    unpack, size = packer.unpack_from, packer.size

    def decode_fixed(buffer: bytes, at: int) -> tuple[Any, int]:
        return unpack(buffer, at)[0], at + size

    return decode_fixed


def _constant(value: Any) -> _Decoder:
    return lambda _buffer, at: (value, at)


def _octet(buffer: bytes, at: int) -> tuple[Any, int]:
    return buffer[at], at + 1


def _flag(buffer: bytes, at: int) -> tuple[Any, int]:
    return buffer[at] == 1, at + 1


def _uuid(buffer: bytes, at: int) -> tuple[Any, int]:
    return uuid.UUID(bytes=bytes(buffer[at : at + 16])), at + 16


def _raw(size: int) -> _Decoder:
    return lambda buffer, at: (bytes(buffer[at : at + size]), at + size)


def _small_binary(buffer: bytes, at: int) -> tuple[Any, int]:
    end = at + 1 + buffer[at]
    return bytes(buffer[at + 1 : end]), end


def _large_binary(buffer: bytes, at: int) -> tuple[Any, int]:
    end = at + 4 + _U32.unpack_from(buffer, at)[0]
    return bytes(buffer[at + 4 : end]), end


def _small_text(buffer: bytes, at: int) -> tuple[Any, int]:
    end = at + 1 + buffer[at]
    return str(buffer[at + 1 : end], "utf-8"), end


def _large_text(buffer: bytes, at: int) -> tuple[Any, int]:
    end = at + 4 + _U32.unpack_from(buffer, at)[0]
    return str(buffer[at + 4 : end], "utf-8"), end


def _values(buffer: bytes, at: int, count: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(count):
        value, at = _DECODERS[buffer[at]](buffer, at + 1)
        values.append(value)
    return values, at


def _small_list(buffer: bytes, at: int) -> tuple[Any, int]:
    return _values(buffer, at + 2, buffer[at + 1])


def _large_list(buffer: bytes, at: int) -> tuple[Any, int]:
    return _values(buffer, at + 8, _U32.unpack_from(buffer, at + 4)[0])


def _pairs(buffer: bytes, at: int, count: int) -> tuple[dict[Any, Any], int]:
    values, at = _values(buffer, at, count)
    return dict(zip(values[::2], values[1::2], strict=True)), at


def _small_map(buffer: bytes, at: int) -> tuple[Any, int]:
    return _pairs(buffer, at + 2, buffer[at + 1])


def _large_map(buffer: bytes, at: int) -> tuple[Any, int]:
    return _pairs(buffer, at + 8, _U32.unpack_from(buffer, at + 4)[0])


def _elements(buffer: bytes, at: int, count: int) -> tuple[list[Any], int]:
    if buffer[at] == 0:
        _, at = decode(buffer, at + 1)
    decoder = _DECODERS[buffer[at]]
    at += 1
    values = []
    for _ in range(count):
        value, at = decoder(buffer, at)
        values.append(value)
    return values, at


def _small_array(buffer: bytes, at: int) -> tuple[Any, int]:
    end = at + 1 + buffer[at]
    return (_elements(buffer, at + 2, buffer[at + 1])[0] if buffer[at + 1] else []), end


def _large_array(buffer: bytes, at: int) -> tuple[Any, int]:
    end = at + 4 + _U32.unpack_from(buffer, at)[0]
    count = _U32.unpack_from(buffer, at + 4)[0]
    return (_elements(buffer, at + 8, count)[0] if count else []), end


def _described(buffer: bytes, at: int) -> tuple[Any, int]:
    descriptor, at = decode(buffer, at)
    value, at = decode(buffer, at)
    return Described(descriptor, value), at


def _unknown(buffer: bytes, at: int) -> tuple[Any, int]:
    raise Malformed(f"there is no AMQP type with constructor 0x{buffer[at - 1]:02x}")


_DECODERS: list[_Decoder] = [_unknown] * 256
for _constructor, _decoder in {
    0x00: _described, 0x40: _constant(None), 0x41: _constant(True), 0x42: _constant(False), 0x43: _constant(0),
    0x44: _constant(0), 0x50: _octet, 0x51: _fixed(_I8), 0x52: _octet, 0x53: _octet, 0x54: _fixed(_I8),
    0x55: _fixed(_I8), 0x56: _flag, 0x60: _fixed(_U16), 0x61: _fixed(_I16), 0x70: _fixed(_U32), 0x71: _fixed(_I32),
    0x72: _fixed(_F32), 0x73: _fixed(_U32), 0x74: _raw(4), 0x80: _fixed(_U64), 0x81: _fixed(_I64),
    0x82: _fixed(_F64), 0x83: _fixed(_I64), 0x84: _raw(8), 0x94: _raw(16), 0x98: _uuid, 0xA0: _small_binary,
    0xA1: _small_text, 0xA3: _small_text, 0xB0: _large_binary, 0xB1: _large_text, 0xB3: _large_text,
    0xC0: _small_list, 0xC1: _small_map, 0xD0: _large_list, 0xD1: _large_map, 0xE0: _small_array,
    0xF0: _large_array,
}.items():  # fmt: skip
    _DECODERS[_constructor] = _decoder
# Each empty list is a new one: the caller may extend it.
_DECODERS[0x45] = lambda _buffer, at: ([], at)


def decode(buffer: bytes, at: int) -> tuple[Any, int]:
    """The value at a position and the position behind it.

    Raises:
        Malformed: for a constructor AMQP does not know. A truncated buffer raises IndexError or struct.error.
    """
    return _DECODERS[buffer[at]](buffer, at + 1)


def skip(buffer: bytes, at: int) -> int:
    """The position behind the value at a position, without decoding it (section 1.2: the constructor's upper half
    tells the width)."""
    constructor = buffer[at]
    at += 1
    width = constructor >> 4
    if constructor == 0:
        return skip(buffer, skip(buffer, at))
    if 4 <= width <= 9:
        return at + (0, 1, 2, 4, 8, 16)[width - 4]
    if width in (0xA, 0xC, 0xE):
        return at + 1 + buffer[at]
    if width in (0xB, 0xD, 0xF):
        return at + 4 + int(_U32.unpack_from(buffer, at)[0])
    raise Malformed(f"there is no AMQP type with constructor 0x{constructor:02x}")


def spans(buffer: bytes, at: int) -> tuple[list[bytes], int]:
    """The items of the list or map at a position as they stand, still encoded, and the position behind it."""
    constructor = buffer[at]
    if constructor == 0x45:
        return [], at + 1
    if constructor in (0xC0, 0xC1):
        count, inner, end = buffer[at + 2], at + 3, at + 2 + buffer[at + 1]
    elif constructor in (0xD0, 0xD1):
        count, inner = _U32.unpack_from(buffer, at + 5)[0], at + 9
        end = at + 5 + _U32.unpack_from(buffer, at + 1)[0]
    else:
        raise Malformed(f"a list or a map was expected, not constructor 0x{constructor:02x}")
    items = []
    for _ in range(count):
        behind = skip(buffer, inner)
        items.append(bytes(buffer[inner:behind]))
        inner = behind
    return items, end
