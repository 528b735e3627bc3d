"""Files of whole documents, read as a stream: JSON arrays, and XML with one element an order."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import ijson
from lxml import etree

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import UniqueNames, refuse_contradictions
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter, Part, as_json, part_of, parts_of
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord

_NAMES = re.compile(r"\w+(?:\.\w+)*")
_READ_AHEAD = 1 << 20


def read_json(stream: BinaryIO, settings: Settings, adapter: Adapter) -> Iterator[ExtractRecord]:
    """The orders of a JSON array, of one at the declared path, or of single documents one behind the other.

    An empty file is one of no orders.

    :raises BrokenExtract: it is not JSON from somewhere on, or nothing is where the declaration says.
    """
    text = io.TextIOWrapper(stream, encoding=settings.extracts.extract_encoding)
    read = _Read(text, settings.orders.max_message_bytes)
    path = adapter.orders_path
    try:
        with _broken_at(read):
            begins = read.first_character()
            if begins == "[":
                yield from _of_documents(read, "item", adapter)
            elif begins and not _NAMES.fullmatch(path):
                yield from _of_documents(read, "", adapter)
            elif begins:
                yield from _of_documents(read, f"{path}.item", adapter.of_elements())
                if read.record == 1:  # it is one order, or an empty array
                    read.from_start()
                    found = list(ijson.items(read, path, map_type=UniqueNames))
                    if not found:
                        raise BrokenExtract(1, f"nothing is at {path}, where the orders are declared to be")
                    for document in found if found != [[]] else ():
                        yield from _of_document(document, 1, adapter.of_elements())
    finally:
        text.detach()


def _of_documents(read: _Read, prefix: str, adapter: Adapter) -> Iterator[ExtractRecord]:
    read.from_start()
    for document in ijson.items(read, prefix, multiple_values=True, map_type=UniqueNames):
        yield from _of_document(document, read.record, adapter)
        read.next_record()


def _of_document(document: Any, line: int, adapter: Adapter) -> Iterator[ExtractRecord]:
    limit = adapter.settings.orders.max_message_bytes
    try:
        raw = as_json(document)
        if len(raw) > limit:
            raise RecordRefused("too_large", f"{len(raw)} bytes, {limit} are accepted")
        refuse_contradictions(document)
        parts = parts_of(document, raw, adapter)
    except RecursionError:
        parts = [Part(b"", RecordRefused("not_json", "nested too deeply"))]
    except RecordRefused as error:
        parts = [Part(raw[:limit], error, adapter.own_name)]
    for part in parts:
        yield ExtractRecord.of_part(line, part)


def read_xml(stream: BinaryIO, settings: Settings, adapter: Adapter) -> Iterator[ExtractRecord]:
    """The orders of an XML file, each the element that the declaration names.

    Entities are not expanded: a file that declares some is refused.

    :raises BrokenExtract: it is not XML from somewhere on, or has elements and none of this name.
    """
    declared = adapter.declared
    if declared is None:
        raise BrokenExtract(1, "XML is read by an adapter only; declare one with INSTORE_EXTRACT_ADAPTERS")
    read, found = _Read(stream, settings.orders.max_message_bytes), 0
    with _broken_at(read):
        if not read.first_character():
            return
        read.from_start()
        elements = etree.iterparse(
            read, tag=f"{{*}}{declared.orders}", resolve_entities=False, no_network=True,
            remove_comments=True, remove_pis=True,
        )  # fmt: skip
        for _, element in elements:
            if any(each.tag == element.tag for each in element.iterancestors()):
                continue  # one of the same name within an order
            _refuse_entities(element.getroottree(), element.sourceline)
            raw, line = etree.tostring(element, with_tail=False), element.sourceline
            if len(raw) > settings.orders.max_message_bytes:
                why = f"{len(raw)} bytes, {settings.orders.max_message_bytes} are accepted"
                part = Part(raw[: settings.orders.max_message_bytes], RecordRefused("too_large", why), adapter.name)
            else:
                part = part_of(plain_element(element, declared.lists), raw, adapter)
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
            read.next_record(line)
            found += 1
            yield ExtractRecord.of_part(line, part)
        _refuse_entities(elements.root.getroottree(), 1)
        if not found and len(elements.root):
            raise BrokenExtract(1, f"it has no element {declared.orders}, which is declared to be an order")


def _refuse_entities(tree: Any, line: int) -> None:
    document_type = tree.docinfo.internalDTD
    if document_type is not None and next(document_type.iterentities(), None) is not None:
        raise BrokenExtract(line, "declares entities, which are not expanded; have the ERP write plain text")


def plain_element(element: Any, lists: Collection[str]) -> Any:
    """An element as JSON has it: attributes with an @, its text where it has no more, or as #text."""
    found: dict[str, Any] = {f"@{etree.QName(name).localname}": value for name, value in element.attrib.items()}
    if found.get("@nil") == "true":
        return None
    for child in element:
        if not isinstance(child.tag, str):
            raise BrokenExtract(child.sourceline, "refers to an entity, which is not expanded")
        name, value = etree.QName(child).localname, plain_element(child, lists)
        if name not in found:
            found[name] = [value] if name in lists else value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    text = (element.text or "").strip()
    if not found:
        return text
    return found | {"#text": text} if text else found


class _Read:
    """A stream of which no more is read than one order may have, until :meth:`next_record` is called.

    Text is handed over in UTF-8, whatever its encoding.
    """

    def __init__(self, stream: BinaryIO | io.TextIOWrapper, limit: int) -> None:
        self._stream = stream
        self._limit = limit + _READ_AHEAD
        self._since = 0
        self.record = 1

    def from_start(self) -> None:
        self._stream.seek(0)
        self.record, self._since = 1, 0

    def next_record(self, record: int = 0) -> None:
        self.record, self._since = record or self.record + 1, 0

    def first_character(self) -> str:
        """The first that is no blank; empty where there is none."""
        while block := self._stream.read(1):
            character = block if isinstance(block, str) else block.decode("latin-1")
            if not character.isspace():
                return character
        return ""

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(_READ_AHEAD if size < 0 else min(size, _READ_AHEAD))
        self._since += len(block)
        if self._since > self._limit:
            raise BrokenExtract(self.record, f"an order of more than {self._limit - _READ_AHEAD} bytes")
        return block.encode() if isinstance(block, str) else block


@contextlib.contextmanager
def _broken_at(read: _Read) -> Iterator[None]:
    """:raises BrokenExtract: what is read is not what it should be; a storage that fails is a RetriableError."""
    try:
        yield
    except etree.XMLSyntaxError as error:
        raise BrokenExtract(error.lineno or read.record, "the text is not XML from here") from None
    except ijson.JSONError:
        raise BrokenExtract(read.record, "the text is not JSON from here") from None
    except UnicodeError as error:
        raise BrokenExtract(read.record, f"the text is not {error.encoding}") from None  # type: ignore[attr-defined]
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise BrokenExtract(read.record, f"unreadable from here ({type(error).__name__})") from None
