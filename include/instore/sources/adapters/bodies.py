"""A message's bytes, out of what publishers wrap them in, and the orders in them.

Each wrapping has one reading, so none needs to be declared: gzip, UTF-16, a string or bytes as .NET's
DataContractSerializer writes them ([MC-NBFX]), JSON within a JSON string.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import simplejson

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder, parse_document
from include.instore.sources.adapters.adapter import Adapter

_GZIP = b"\x1f\x8b"
_DATA_CONTRACT = (b"@\x06string\x08", b"@\x0cbase64Binary\x08")
_TEXTS = {0x98: 1, 0x9A: 2, 0x9C: 4, 0x9E: 1, 0xA0: 2, 0xA2: 4, 0xB6: 1, 0xB8: 2, 0xBA: 4}
"""Records of text, of bytes and of UTF-16, by how many bytes their length has; one more: the element ends behind it."""
_UTF_16_TEXTS = (0xB6, 0xB8, 0xBA)
_UTF_8 = ("utf-8", "utf-8-sig")


@dataclass(frozen=True)
class Part:
    """One order of a body.

    :param raw: the whole body; of one order of several its own document.
    :param adapter: by whose name these bytes are read again.
    :param fields: of its document, and how its date is written.
    """

    raw: bytes = field(repr=False)
    order: InStoreOrder | RecordRefused = field(repr=False)
    adapter: str = ""
    fields: frozenset[str] = field(default=frozenset(), repr=False)


def read_body(raw: bytes, adapter: Adapter, *, is_utf_8: bool = False) -> list[Part]:
    """The orders of a message's body or a JSON line, at least one or the reason why there is none.

    :param is_utf_8: it is a line of a file, already decoded.
    """
    limit = adapter.settings.orders.max_message_bytes
    try:
        document = _unquoted(parse_document(raw if is_utf_8 else _unwrapped(raw, adapter, limit), limit), limit)
        if found := adapter.of_blob(document):
            return read_body(*found)
        return parts_of(document, raw, adapter)
    except RecordRefused as error:
        return [Part(raw, error, adapter.own_name)]


def parts_of(document: Any, raw: bytes, adapter: Adapter) -> list[Part]:
    """The orders of a document, of which these are the bytes.

    :raises RecordRefused: there is none.
    """
    documents = [_unquoted(each, adapter.settings.orders.max_message_bytes) for each in adapter.documents(document)]
    if len(documents) > 1 and not any(isinstance(each, Mapping) for each in documents):
        return [Part(raw, adapter.read(documents), adapter.own_name)]
    if len(documents) == 1:
        return [part_of(documents[0], raw, adapter)]
    inner = adapter.of_elements()
    return [part_of(each, as_json(each), inner) for each in documents]


def part_of(document: Any, raw: bytes, adapter: Adapter) -> Part:
    """One document, which is an order or none."""
    return Part(raw, adapter.read(document), adapter.own_name, adapter.fields_of(document))


def as_json(document: Any) -> bytes:
    """A document as JSON text, its numbers with their exact digits."""
    text = simplejson.dumps(document, use_decimal=True, ensure_ascii=False)
    return str(text).encode(errors="surrogatepass")


def _unquoted(document: Any, limit: int) -> Any:
    """What JSON within a JSON string holds, which was serialised twice, or three times."""
    for _ in range(2):
        if isinstance(document, str) and document.lstrip()[:1] in ("{", "[", '"'):
            document = parse_document(document.encode(errors="surrogatepass"), limit)
    return document


def _unwrapped(raw: bytes, adapter: Adapter, limit: int) -> bytes:
    if raw.startswith(_GZIP):
        raw = _gunzipped(raw, limit)
    if raw.startswith(_DATA_CONTRACT):
        raw, is_string = _of_data_contract(raw), raw.startswith(_DATA_CONTRACT[0])
        if is_string:  # whatever encoding is declared
            return raw
    encoding = adapter.settings.extracts.extract_encoding if adapter.declared else "utf-8-sig"
    found = json.detect_encoding(raw)
    if encoding in _UTF_8 and found in _UTF_8:
        return raw
    try:
        return raw.decode(found if encoding in _UTF_8 else encoding).encode()
    except UnicodeError:
        raise RecordRefused("not_json", f"the text is not {found if encoding in _UTF_8 else encoding}") from None


def _gunzipped(raw: bytes, limit: int) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        text = reader.decompress(raw, limit + 1)
    except zlib.error:
        raise RecordRefused("not_json", "the gzip data is damaged") from None
    if not reader.eof and len(text) <= limit:
        raise RecordRefused("not_json", "the gzip data ends early")
    return text


def _of_data_contract(raw: bytes) -> bytes:
    """The text of an element with one namespace: its records of text one behind the other."""
    at = 2 + raw[1] + 1
    length, at = _varint(raw, at)
    at += length
    text = b""
    while at < len(raw) and raw[at] != 0x01:  # the end of the element
        kind, ends = raw[at] & ~1, raw[at] & 1
        if kind not in _TEXTS:
            raise RecordRefused("not_json", f"a .NET string with a record of kind 0x{raw[at]:02x}, which is not text")
        size = _TEXTS[kind]
        length = int.from_bytes(raw[at + 1 : at + 1 + size], "little")
        piece = raw[at + 1 + size : at + 1 + size + length]
        if len(piece) < length:
            raise RecordRefused("not_json", "a .NET string that ends early")
        text += piece.decode("utf-16-le", "replace").encode() if kind in _UTF_16_TEXTS else piece
        at += 1 + size + length
        if ends:
            break
    return text


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A length of seven bits a byte, and where it ends."""
    value = shift = 0
    while at < len(raw) and shift < 35:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 0x80:
            break
    return value, at
