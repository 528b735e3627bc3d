"""CSV extracts: one row per order line, rows of an order adjacent (contracts.md section 1)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, BinaryIO

from pydantic.alias_generators import to_camel

from include.instore.model.errors import RecordRefused
from include.instore.model.identifiers import is_rounded
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter
from include.instore.sources.adapters.columns import LINE_COLUMNS, ORDER_COLUMNS, OUR_COLUMNS
from include.instore.sources.adapters.fields import shape_of_date
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord, Lines

_MEANT = 0.85
_TELL_ORDERS_APART = ("order_type", "store_id", "order_date")
"""Beside its number: a return may bear that of its sale, and two stores may count alike."""
_REQUIRED = ("order_number", "order_date", "store_id", "currency", "order_total")
_DELIMITERS = ",;\t|"
_ENOUGH_ROWS = 20
"""So many values of one length, and a shorter one that no line break follows seems cut."""
_AMOUNT = re.compile(r"\s*[+-]?\d*\.(\d+)")
_SEPARATOR = re.compile(r"sep=(.)\s*", re.IGNORECASE)
"""How a spreadsheet is told what stands between the columns, in a line before the heading."""
_TOO_LONG = "longer than INSTORE_MAX_MESSAGE_BYTES"
_BYTE_ORDER_MARK = "\ufeff"  # where the set encoding does not take it for one
_AROUND = f"{_BYTE_ORDER_MARK} "


def read_csv(stream: BinaryIO, settings: Settings, adapter: Adapter | None = None) -> Iterator[ExtractRecord]:
    """The orders of a CSV file, in file order; one that is refused does not stop the ones after it.

    An empty file is one of no orders.

    :raises BrokenExtract: a required column is missing, its heading is not in the set encoding, the file breaks off, or
        it is not what its trailer says.
    """
    adapter = adapter or Adapter(settings)
    lines = Lines(stream, settings, adapter)
    return lines.checked(_records(lines, settings, adapter))


def _records(lines: Lines, settings: Settings, adapter: Adapter) -> Iterator[ExtractRecord]:
    for _ in range(adapter.declared.title_lines if adapter.declared else 0):
        next(lines, "")
    header_line = next((line for line in lines if line.strip(_BYTE_ORDER_MARK).strip()), "")
    if _SEPARATOR.fullmatch(header_line.removeprefix(_BYTE_ORDER_MARK)):
        header_line = next(lines, "")
    if not header_line:
        return
    if fault := lines.fault():
        raise BrokenExtract(1, fault, lines.taken())
    titles, header, delimiter = _names(lines.texts(), adapter)
    _check(header, adapter)
    heading = lines.taken()
    if not lines.complete and _is_begun(header[-1]):
        raise BrokenExtract(1, "ends in the name of a column", heading)
    csv.field_size_limit(settings.orders.max_message_bytes)
    order = _OrderRows(header, heading, settings.orders.max_message_bytes, adapter)
    last_column, last = _LastColumn(), [""]
    for first, row, raw, fault, broken in _Rows(lines, delimiter, len(header), settings).rows():
        last = row
        if broken is None and not lines.complete and (len(row) < len(header) or last_column.breaks_off(row[-1])):
            broken = BrokenExtract(first, "ends in the middle of a line")
        last_column.learn(row)
        # Of a row that breaks off the last field may be half of itself.
        number = row[order.key] if len(row) > order.key + (broken is not None) else None
        if broken is None and number and _is_another_heading(row, number, titles):
            broken = BrokenExtract(first, "another heading, whose columns are others or in another order")
        if order.raw and number is not None and order.ends_before(row, number, whole=broken is None):
            yield order.record(settings)
            order = _OrderRows(header, heading, settings.orders.max_message_bytes, adapter)
        if broken is not None:
            raise BrokenExtract(broken.line, broken.detail, order.raw + raw) from None
        order.add(row, first, raw, number, fault)
    if order.raw:
        yield order.record(settings, ends=lines.complete, last=last)


class _Rows:
    """The rows of the lines; one that is no CSV takes no other with it."""

    def __init__(self, lines: Lines, delimiter: str, columns: int, settings: Settings) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._columns = columns
        self._longest = settings.extracts.extract_row_lines  # beyond them a quote in it is a stray one
        self._encoding = settings.extracts.extract_encoding
        self._rows = csv.reader(self, delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._lines.texts()) >= self._longest:
            raise csv.Error(f"a quote that is not closed for {self._longest} lines")
        line = next(self._lines)
        if self._lines.too_long:
            raise csv.Error(_TOO_LONG)
        return line

    def rows(self) -> Iterator[tuple[int, list[str], bytes, str, BrokenExtract | None]]:
        """Of each row its line, its cells, its bytes, what is wrong with it, and how the file breaks off in it."""
        while True:
            first = self._lines.number + 1
            try:
                row, fault, breaks_off = self._next_row()
            except StopIteration:
                return
            except BrokenExtract as error:
                text = error.raw.decode(self._encoding, errors="surrogateescape")
                yield first, _first_row(text, self._delimiter), error.raw + self._lines.taken(), "", error
                return
            raw = self._lines.taken()
            if row or fault:
                yield first, row, raw, fault, BrokenExtract(first, f"ends early ({fault})") if breaks_off else None

    def _next_row(self) -> tuple[list[str], str, bool]:
        """A row, what is wrong with it, and whether the file breaks off in it.

        :raises BrokenExtract: the stream cannot be read on. :raises StopIteration: there is none.
        """
        fault, row = "", []
        try:
            row = next(self._rows)
        except csv.Error as error:
            fault = str(error)
        behind = self._lines.texts()[1:]
        # A line within its quotes that has all columns by itself is a row, and no text.
        holds_rows = any(
            text.count(self._delimiter) >= self._columns - 1 and len(_first_row(text, self._delimiter)) >= self._columns
            for text in behind
        )
        if holds_rows or (fault and len(behind) + 1 >= self._longest):
            fault = fault or "a quote in it is not closed, and the rows behind it are within the quotes"
            self._lines.give_back()
        breaks_off = bool(fault) and (not self._lines.complete or ("end of data" in fault and not holds_rows))
        if fault:
            row = _first_row(self._lines.text(), self._delimiter)
        return row, fault or self._lines.fault(), breaks_off


def _is_another_heading(row: Sequence[str], number: str, titles: Sequence[str]) -> bool:
    if number.strip(_AROUND) not in titles:
        return False
    names = [name.strip(_AROUND) for name in row]
    return names != titles and len(set(names) & set(titles)) > len(_REQUIRED) // 2


def _is_begun(name: str) -> bool:
    """Whether this is the beginning of one of our columns' names, and none itself."""
    return name not in OUR_COLUMNS and any(each.startswith(name) for each in OUR_COLUMNS)


class _LastColumn:
    """What the last column's values have in common, so that the half of one is told from a whole one.

    A file may end without a line break, so that alone says nothing.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._decimals: int | None = None  # the fewest
        self._zeros_are_written = False
        self._lengths: set[int] = set()

    def learn(self, row: Sequence[str]) -> None:
        if not row:
            return
        self._rows += 1
        decimals = _decimals(row[-1])
        if self._decimals is None or decimals < self._decimals:
            self._decimals, self._zeros_are_written = decimals, False
        if decimals == self._decimals and row[-1].endswith("0"):
            self._zeros_are_written = True
        if len(self._lengths) < 2:
            self._lengths.add(len(row[-1]))

    def breaks_off(self, value: str) -> bool:
        """Whether this one has fewer decimals than a writer of trailing zeros writes, or is shorter than all others."""
        if value.endswith(".") and _decimals(value + "0"):
            return True
        if self._decimals and self._zeros_are_written and _decimals(value) < self._decimals:
            return True
        return self._rows >= _ENOUGH_ROWS and len(self._lengths) == 1 and len(value) < min(self._lengths)


def _decimals(value: str) -> int:
    found = _AMOUNT.fullmatch(value)
    return len(found[1]) if found else 0


def _names(lines: Sequence[str], adapter: Adapter) -> tuple[list[str], list[str], str]:
    """The heading, its columns as we call them, and what stands between them.

    :raises BrokenExtract: a declared one is not there, or twice.
    """
    declared = adapter.declared
    lines = lines[declared.title_lines :] if declared else lines
    first = next(line.removeprefix(_BYTE_ORDER_MARK) for line in lines if line.strip(_BYTE_ORDER_MARK).strip())
    told = _SEPARATOR.fullmatch(first.rstrip("\r\n"))
    line = lines[-1].removeprefix(_BYTE_ORDER_MARK)
    delimiter = (declared and declared.delimiter) or (told[1] if told else max(_DELIMITERS, key=line.count))
    try:
        titles = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
        return titles, adapter.columns(titles), delimiter
    except (ValueError, csv.Error) as error:  # of Python 3.10: a NUL is in it
        raise BrokenExtract(1, str(error)) from None


def _check(header: Sequence[str], adapter: Adapter) -> None:
    """:raises BrokenExtract: a column is missing, there twice or misspelt."""
    missing = [name for name in _REQUIRED if name not in header and not adapter.gives(name)]
    if missing:
        raise BrokenExtract(
            1, f"column {missing[0]} is missing; map the ERP's heading to it with INSTORE_EXTRACT_COLUMNS"
        )
    if twice := [name for name in header if name in OUR_COLUMNS and header.count(name) > 1]:
        raise BrokenExtract(
            1,
            f"column {twice[0]} is there twice; have the ERP leave one out, or map one to another name with "
            "INSTORE_EXTRACT_COLUMNS",
        )
    # A column that is left out is legal, so a name with a slip in it would go unnoticed, and with it every card.
    for name in set() if adapter.declared else set(header) - OUR_COLUMNS:
        meant = get_close_matches(name.casefold(), sorted(OUR_COLUMNS - set(header)), n=1, cutoff=_MEANT)
        if meant:
            raise BrokenExtract(
                1,
                f"column {name[:64]} is not known; did you mean {meant[0]}? Map it with INSTORE_EXTRACT_COLUMNS, to "
                "another name where it is not",
            )
    if not {"loyalty_card", "email"} & set(header) and not (adapter.declared and adapter.declared.code):
        raise BrokenExtract(
            1,
            "there is no column loyalty_card, and none email, so no order would find its customer; map the ERP's "
            "heading with INSTORE_EXTRACT_COLUMNS",
        )


def _first_row(text: str, delimiter: str) -> list[str]:
    """The fields of text that is no CSV by the strict rules, as far as they can be told: whose row is it?"""
    try:
        return next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter), [])
    except csv.Error:
        return []


class _OrderRows:
    """The adjacent rows of one order, as they are read."""

    def __init__(self, header: Sequence[str], heading: bytes, limit: int, adapter: Adapter) -> None:
        self._header = header
        self._adapter = adapter
        self._first_row_only = bool(adapter.declared and adapter.declared.first_row_only)
        self._heading = heading
        self._limit = limit
        self._count = 0
        self.key = header.index("order_number")
        self.number: str | None = None
        self.raw = b""
        self._line = 0
        self._rows: list[dict[str, str]] = []
        self._said: dict[str, str] = {}  # of the order, by its columns
        self._fault: str | None = None
        self._has_its_end = True
        self._disagreement: str | None = None

    def ends_before(self, row: Sequence[str], number: str, *, whole: bool) -> bool:
        """Whether this row is another order's; columns that say nothing, as in all rows but the first, tell nothing.

        :param whole: of a row that breaks off, its number alone tells.
        """
        if self._first_row_only and not number.strip():
            return False
        if number != self.number or is_rounded(number):  # rounded, the numbers of many orders look like one
            return True
        if not whole:
            return False
        theirs = dict(zip(self._header, row, strict=False))
        for column in _TELL_ORDERS_APART:
            one, other = self._said.get(column, ""), theirs.get(column, "").strip()
            if one and other and one != other:
                return True
        totals = self._said.get("order_total", ""), theirs.get("order_total", "").strip()
        return all(totals) and len({total.startswith("-") for total in totals}) == 2

    def add(self, row: Sequence[str], line: int, raw: bytes, number: str | None, fault: str) -> None:
        if number is not None and (number.strip() or not self._first_row_only):
            self.number = number
        self._line = self._line or line
        self._count += 1
        if len(self.raw) > self._limit:
            return  # too large already; the rest of it is not kept
        self.raw += raw
        if fault:
            self._fault = self._fault or f"line {line}: {fault}"
            self._has_its_end = self._has_its_end and fault != _TOO_LONG
        elif len(row) != len(self._header):
            self._fault = self._fault or f"line {line} has {len(row)} columns, the header has {len(self._header)}"
        else:
            self._rows.append(dict(zip(self._header, row, strict=True)))
            self._agree(self._rows[-1], line)

    def _agree(self, row: Mapping[str, str], line: int) -> None:
        """The first row that says something of the order speaks for it, and no other may say otherwise."""
        for column in ORDER_COLUMNS.keys() & row.keys():
            value = row[column].strip()
            if value and self._said.setdefault(column, value) != value:
                self._disagreement = (
                    self._disagreement or f"line {line}: {column} is not that of the order's other rows"
                )

    def record(self, settings: Settings, *, ends: bool = True, last: Sequence[str] | None = None) -> ExtractRecord:
        """:param last: the row at the end of the file, of the order that it is in."""
        order = self._order(settings)
        if last and isinstance(order, RecordRefused) and 2 * sum(map(bool, last)) < len(self._header):
            order = RecordRefused(order.reason, f"{order.detail}; if the last line is a row of sums, declare `trailer`")
        unused = {f"{name} (not used)" for name in self._adapter.unused}  # that it is new is told all the same
        columns = (frozenset(self._header) | unused) - {""}
        return ExtractRecord(
            self._line, self.raw, order, self._heading, ends, self.number, self._count, columns,
            fields=frozenset({shape_of_date(self._said.get("order_date", ""))}),
        )  # fmt: skip

    def _order(self, settings: Settings) -> Any:
        try:
            # Before any other fault: of these the raw rows are not whole, so they are never read again.
            if len(self.raw) > settings.orders.max_message_bytes or not self._has_its_end:
                raise RecordRefused(
                    "too_large", f"{len(self.raw)} bytes, {settings.orders.max_message_bytes} are accepted"
                )
            if fault := self._fault or self._disagreement:
                raise RecordRefused("bad_value", fault)
            document: dict[str, Any] = {ORDER_COLUMNS[column]: value for column, value in self._said.items()}
            document["lines"] = [_line(row) for row in self._rows]
            return self._adapter.read(document, of_rows=True)
        except RecordRefused as error:
            return error


def _line(row: Mapping[str, str]) -> dict[str, Any]:
    """A line's own columns, and the unknown ones: they are kept, not refused."""
    known = {name: row[column] for column, name in LINE_COLUMNS.items() if column in row}
    # An empty amount is an absent one; an empty description is real.
    known = {name: value for name, value in known.items() if value != "" or name == "description"}
    unknown = {
        to_camel(column): value
        for column, value in row.items()
        if column not in LINE_COLUMNS and column not in ORDER_COLUMNS and column
    }
    return {**unknown, **known}
