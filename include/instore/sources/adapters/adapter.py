"""An adapter: what a declaration says, done to one record after the other."""

from __future__ import annotations

import copy
import csv
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from include.instore.model.codes import BLOB_MISSING
from include.instore.model.declarations import Declaration, load_declaration, order_function
from include.instore.model.errors import RecordRefused
from include.instore.model.identifiers import did_you_mean
from include.instore.model.orders import InStoreOrder, camel_case, order_from_document, refuse_references
from include.instore.model.settings import Settings
from include.instore.sources.adapters.columns import LINE_COLUMNS, ORDER_COLUMNS
from include.instore.sources.adapters.fields import fields_of, shape_of_date
from include.instore.sources.adapters.values import moment, number

_ELEMENT, _OF_BLOB = "[]", "@"
"""Behind the name of an adapter: the record is one order of several, from behind the declared path; or a blob."""
Blobs = Callable[[str, int], bytes | None]
"""The first bytes of the blob of this name, and how many at most; None: there is none."""
_TIME = "timeOfDay"
_AMOUNTS = {"order": ("total",), "lines": ("quantity", "unitPrice", "discount", "total")}


def adapter_of_topic(settings: Settings, blobs: Blobs | None = None) -> Adapter:
    """The one of the topic's messages. :param blobs: to which they may point."""
    declared = load_declaration(settings.bus.topic_adapter) if settings.bus.topic_adapter else None
    return Adapter(settings, declared, blobs=blobs)


def adapter_of_file(name: str, settings: Settings) -> Adapter:
    """The one whose pattern fits an extract's name first, or that of the archive it is in."""
    archive, within, _ = name.partition(".zip/")
    for pattern, path in settings.extracts.extract_adapters.items():
        if fnmatch(name, pattern) or (within and fnmatch(f"{archive}.zip", pattern)):
            return Adapter(settings, load_declaration(path))
    return Adapter(settings)


def adapter_named(name: str, settings: Settings, *, of_files: bool, blobs: Blobs | None = None) -> Adapter | None:
    """The one that read a quarantined record; None where no setting names it any more."""
    behind = next((each for each in (_ELEMENT, _OF_BLOB) if name.endswith(each)), "")
    for path in settings.extracts.extract_adapters.values() if of_files else (settings.bus.topic_adapter,):
        if path and load_declaration(path).name == name.removesuffix(behind):
            return Adapter(settings, load_declaration(path), behind=behind, blobs=blobs)
    return None


class Adapter:
    """What makes order documents of a source's records.

    :param declared: None: documents are order documents, and a CSV has our columns, or those of the settings.
    :param behind: what it reads is from behind the declared path, or from a blob, already.
    :param blobs: to which messages may point.
    """

    def __init__(
        self, settings: Settings, declared: Declaration | None = None, *, behind: str = "", blobs: Blobs | None = None
    ) -> None:
        self.declared = declared
        self.name = declared.name if declared else ""
        self._behind = behind
        self._blobs = blobs
        trailer = {"extract_trailer": declared.trailer} if declared and declared.trailer else {}
        self.settings = settings.having(extract_encoding=declared.encoding, **trailer) if declared else settings
        self.found: Counter[str] = Counter()
        """In how many orders, or lines, each mapped field had a value."""
        self.unused: list[str] = []
        """Headings of a CSV that the declaration does not name."""
        self._copies: list[tuple[tuple[str, str], tuple[str, str]]] = []

    @property
    def own_name(self) -> str:
        """The name by which the quarantine finds it again."""
        return self.name + self._behind if self.name else ""

    @property
    def orders_path(self) -> str:
        """Where the orders are in what it reads."""
        return self.declared.orders if self.declared and self._behind != _ELEMENT else ""

    def of_elements(self, behind: str = _ELEMENT) -> Adapter:
        """The same for what is behind the declared path."""
        same = copy.copy(self)
        same._behind = behind
        return same

    def of_blob(self, document: Any) -> tuple[bytes, Adapter] | None:
        """The bytes of the blob that a message points to, and what reads them; None: the message is no pointer.

        :raises RecordRefused: there is no such blob, or it is too large. :raises RetriableError: the storage failed.
        """
        path = self.declared.blob if self.declared and not self._behind else ""
        if not path:
            return None
        name, limit = _search(path, document), self.settings.orders.max_message_bytes
        if not isinstance(name, str) or not name:
            raise RecordRefused("missing_field", f"nothing is at {path}, where the blob's name is declared to be")
        found = self._blobs(name, limit + 1) if self._blobs else None
        if found is None:
            raise RecordRefused(BLOB_MISSING, f"the folder of the extracts has no blob of the name at {path}")
        if len(found) > limit:
            raise RecordRefused("too_large", f"its blob has more than the {limit} bytes that are accepted")
        return found, self.of_elements(_OF_BLOB)

    def documents(self, document: Any) -> list[Any]:
        """The orders of a whole message or file.

        :raises RecordRefused: there is nothing where the declaration says.
        """
        path = self.orders_path
        found = _search(path, document) if path else document
        if found is None and path:
            raise RecordRefused("missing_field", f"nothing is at {path}, where the order is declared to be")
        if found == []:
            raise RecordRefused("not_an_object", "an empty list, which holds no order")
        return found if isinstance(found, list) else [found]

    def read(self, document: Any, *, of_rows: bool = False) -> InStoreOrder | RecordRefused:
        """The order that one of :meth:`documents` is, or the document that a reader made of rows."""
        try:
            if self.declared and isinstance(document, Mapping):
                refuse_references(document)
                document = self._adapted(self.declared, document, of_rows)
            return order_from_document(
                document, thousands_ok=not of_rows or self.settings.extracts.three_decimals == "accept"
            )
        except RecordRefused as error:
            return error

    def fields_of(self, document: Any) -> frozenset[str]:
        """The paths of a document's fields, and how its date is written."""
        if not isinstance(document, Mapping):
            return frozenset()
        path = self.declared.order.get("date", "") if self.declared else ""
        try:
            date = _search(path, document) if path else document.get("date", document.get("Date"))
        except RecordRefused:
            date = ""
        return frozenset(fields_of(document)) | {shape_of_date(date)}

    def columns(self, headings: Sequence[str]) -> list[str]:
        """Our names of a CSV's columns; empty: it is not kept.

        :raises ValueError: a declared heading is not there, or there twice.
        """
        names = [name.strip() for name in headings]
        if not self.declared:
            return [self.settings.extracts.extract_columns.get(name, name) for name in names]
        ours: dict[str, tuple[str, str]] = {}
        self._copies = []
        for part, field, heading in _columns(self.declared):
            if heading not in names and heading not in self.declared.optional:
                raise ValueError(f"column {heading} of {part}.{field} is missing{did_you_mean(heading, tuple(names))}")
            if names.count(heading) > 1:
                raise ValueError(f"column {heading} of {part}.{field} is there twice; have the ERP leave one out")
            if heading in ours:
                self._copies.append((ours[heading], (part, field)))
            else:
                ours[heading] = (part, field)
        self.unused = [name for name in names if name and name not in ours]
        return [_COLUMN.get(ours[name], ours[name][1]) if name in ours else "" for name in names]

    def number_in(self, document: Any) -> str:
        """The number of a document's first order; :raises RecordRefused: nothing is where the declaration says."""
        first = self.documents(document)[0]
        path = self.declared.order.get("orderNumber") if self.declared else None
        return str((_search(path, first) if path else first.get("orderNumber")) or "")

    def number_in_rows(self, text: str) -> str:
        """The number in a CSV's first row; :raises ValueError: a declared heading is not there."""
        declared = self.declared
        lines = text.splitlines(keepends=True)[declared.title_lines if declared else 0 :]
        delimiter = (declared and declared.delimiter) or max(",;\t|", key=lines[0].count)
        rows = csv.reader(lines, delimiter=delimiter)
        return str(dict(zip(self.columns(next(rows)), next(rows), strict=False)).get("order_number", "")).strip()

    def gives(self, column: str) -> bool:
        """Whether the order has this one of our columns without the file: by a constant, or by code."""
        return bool(self.declared and (self.declared.code or ORDER_COLUMNS.get(column) in self.declared.constants))

    @property
    def never_found(self) -> list[str]:
        """What is mapped and had no value in any order: a path that is not right, or a column that is always empty."""
        mapped = [f"{part}.{field}" for part, field, _ in _columns(self.declared)] if self.declared else []
        return [
            name
            for name in mapped
            if not self.found[name.replace("more.", "order.").replace(f"time.{_TIME}", "order.date")]
        ]

    def _adapted(self, declared: Declaration, document: Mapping[str, Any], of_rows: bool) -> Any:
        if of_rows:
            order = self._of_rows(declared, document)
        else:
            order = self._mapped(declared, document) if declared.order else camel_case(document)
        lines = order["lines"] if isinstance(order.get("lines"), list) else []
        for field, known in declared.values.items():
            written = "" if order.get(field) is None else str(order[field]).strip()
            if written not in known and written:
                raise RecordRefused("bad_value", f"{field}: is not a value that adapter {self.name} knows")
            order[field] = known.get(written)
        order |= declared.constants
        self.found.update(f"order.{name}" for name, value in order.items() if value not in (None, ""))
        for at, part in enumerate(lines):
            if isinstance(part, dict):
                self.found.update(f"lines.{name}" for name, value in part.items() if value not in (None, ""))
                self._write_plainly(declared, part, _AMOUNTS["lines"], f"lines.{at}.")
        self._write_plainly(declared, order, _AMOUNTS["order"], "")
        if declared.dates and isinstance(order.get("date"), str | int):
            order["date"] = _said("date", partial(moment, str(order["date"]), declared.dates))
        return self._by_code(declared.code, order) if declared.code else order

    def _write_plainly(self, declared: Declaration, part: dict[str, Any], fields: Sequence[str], where: str) -> None:
        numbers = declared.numbers
        for field in fields if numbers else ():
            if numbers and isinstance(part.get(field), str) and part[field]:
                part[field] = _said(where + field, partial(number, part[field], numbers))

    def _of_rows(self, declared: Declaration, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document with the fields of one's own, which the reader leaves on the lines, and those of one heading."""
        order = {name: value for name, value in document.items() if name != "lines"}
        lines = [dict(line) for line in document["lines"]]
        for field in (*declared.more, *[_TIME] * bool(declared.time)):
            said = {line.pop(field, "") for line in lines} - {""}
            if len(said) > 1:
                raise RecordRefused("bad_value", f"{field} is not that of the order's other rows")
            if said:
                order[field] = said.pop()
        if order.get("date") and (time := order.pop(_TIME, "")):
            order["date"] = f"{order['date'].strip()} {time.strip()}"
        for (part, source), (to_part, field) in self._copies:
            if to_part != "lines":
                order[field] = order.get(source)
            for line in lines if to_part == "lines" else ():
                line[field] = line.get(source) if part == "lines" else order.get(source)
        return order | {"lines": lines}

    def _mapped(self, declared: Declaration, document: Mapping[str, Any]) -> dict[str, Any]:
        order: dict[str, Any] = {
            field: _text_of(_search(path, document), field) for field, path in (declared.order | declared.more).items()
        }
        if declared.lines_at:
            lines = _search(declared.lines_at, document)
            if lines is None:
                raise RecordRefused("missing_field", f"lines: nothing is at {declared.lines_at}")
            for line in (lines := lines if isinstance(lines, list) else [lines]):
                if isinstance(line, Mapping):
                    refuse_references(line)
            order["lines"] = [
                {field: _text_of(_search(path, line), f"lines.{at}.{field}") for field, path in declared.lines.items()}
                for at, line in enumerate(lines)
            ]
        return order

    def _by_code(self, path: str, order: dict[str, Any]) -> Any:
        try:
            return order_function(path)(order)
        except RecordRefused:
            raise
        except Exception as error:  # what it says may hold what it was given
            at = traceback.extract_tb(error.__traceback__)[-1].lineno
            why = f"{Path(path).name} failed with {type(error).__name__} at line {at}"
            raise RecordRefused("bad_value", why) from None


_COLUMN = {("order", field): column for column, field in ORDER_COLUMNS.items()} | {
    ("lines", field): column for column, field in LINE_COLUMNS.items()
}


def _columns(declared: Declaration) -> Iterator[tuple[str, str, str]]:
    for part, fields in (("order", declared.order), ("more", declared.more), ("lines", declared.lines)):
        for field, heading in fields.items():
            yield part, field, f"lines.{heading}" if part == "lines" and declared.lines_file else heading
    if declared.time:
        yield "time", _TIME, declared.time


def _search(path: str, document: Any) -> Any:
    try:
        return jmespath.search(path, document)
    except JMESPathError as error:
        raise RecordRefused("bad_value", f"{path} cannot be evaluated here ({type(error).__name__})") from None


def _text_of(value: Any, field: str) -> Any:
    """A field's value; of an XML element with attributes its text."""
    if isinstance(value, Mapping) and "#text" in value:
        return value["#text"]
    if isinstance(value, Mapping | list):
        raise RecordRefused("bad_value", f"{field}: there is {'a list' if isinstance(value, list) else 'an object'}")
    return value


def _said(field: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValueError as error:
        raise RecordRefused("bad_value", f"{field}: {error}") from None
