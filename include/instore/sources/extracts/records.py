"""What a format yields, and how it says that a file breaks off."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import BinaryIO

from include.instore.model.declarations import Numbers
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter, Part
from include.instore.sources.adapters.values import number


@dataclass(frozen=True)
class ExtractRecord:
    """One order of a file, or what stands in its place.

    :param line: line number, from 1, of the record's first line; in a JSON array its place.
    :param order: the order, or the reason why it is none.
    :param heading: the line with the columns' names, without which the raw rows of a CSV say nothing.
    :param ends: whether its last line ends in a line break.
    :param adapter: by whose name the raw bytes are read again.
    :param member: of an archive, the file that it is in.
    :param number: the order's number as its rows have it, also of one that is refused.
    :param rows: how many it is made of.
    :param columns: of its file, with our names for those that are mapped.
    :param fields: of its document, and how its date is written.
    """

    line: int
    raw: bytes = field(repr=False)
    order: InStoreOrder | RecordRefused = field(repr=False)
    heading: bytes = field(default=b"", repr=False)
    ends: bool = field(default=True, repr=False)
    number: str | None = field(default=None, repr=False)
    rows: int = field(default=1, repr=False)
    columns: frozenset[str] | None = field(default=None, repr=False)
    adapter: str = field(default="", repr=False)
    member: str = field(default="", repr=False)
    fields: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of_part(cls, line: int, part: Part) -> ExtractRecord:
        return cls(line, part.raw, part.order, adapter=part.adapter, fields=part.fields)


class BrokenExtract(Exception):
    """The file cannot be read past this line; the records before it are good."""

    def __init__(self, line: int, detail: str, raw: bytes = b"") -> None:
        super().__init__(f"line {line}: {detail}")
        self.line = line
        self.detail = detail
        self.raw = raw


Format = Callable[[BinaryIO, Settings, Adapter], Iterator[ExtractRecord]]
"""Reads an uncompressed stream; raises :class:`BrokenExtract` where it breaks off."""


_NOT_DECODED = re.compile("[\udc80-\udcff]")
_DAMAGED = re.compile("[\udc80-\udcff]{16}")
"""No letters of another encoding among ours, but a page of a disk, or a file of another encoding altogether."""
_LINE_BREAKS = ("\n", "\r")


class Lines:
    """The lines of a stream, one at a time and bounded, with what a breaking file needs to know.

    ``number`` is the line read last, ``complete`` whether it ended in a line break, ``too_long`` whether it is over the
    limit, so that only its beginning was handed over, and :meth:`taken` hands over the text read since it was last
    asked. A declared trailer is no line: :meth:`checked` compares it.

    :raises BrokenExtract: the stream cannot be read on.
    """

    def __init__(self, stream: BinaryIO, settings: Settings, adapter: Adapter) -> None:
        self._encoding = settings.extracts.extract_encoding
        # Text is decoded in blocks: a byte of another encoding is let through, so that it spoils its own line and not
        # the good ones of its block.
        self._text = io.TextIOWrapper(stream, encoding=self._encoding, errors="surrogateescape", newline="")
        self._limit = settings.orders.max_message_bytes
        # Remembers that the byte order mark is written: only the file's first line has one. UTF-8 needs none.
        written = self._encoding if codecs.lookup(self._encoding).name != "utf-8-sig" else "utf-8"
        self._encoder = codecs.getincrementalencoder(written)(errors="surrogateescape")
        self._taken: list[tuple[str, bool]] = []
        self._back: deque[tuple[str, bool]] = deque()
        self._trailer = re.compile(settings.extracts.extract_trailer) if settings.extracts.extract_trailer else None
        self._said: re.Match[str] | None = None
        self._goes_on = False  # behind its trailer
        self._numbers = adapter.declared.numbers if adapter.declared else None
        self._tolerance = settings.orders.sums_tolerance
        self.number = 0
        self.complete = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, complete = self._back.popleft() if self._back else self._read_on()
        if not line:
            raise StopIteration
        self.number += 1
        self.complete = complete
        self._taken.append((line, complete))
        if not line.isascii() and _DAMAGED.search(line):
            raise BrokenExtract(self.number, f"damaged here, or the text is not {self._encoding}", self.taken())
        return line

    @property
    def too_long(self) -> bool:
        line, _ = self._taken[-1] if self._taken else ("", True)
        return len(line) >= self._limit and not line.endswith(_LINE_BREAKS)

    def texts(self) -> list[str]:
        """The lines taken."""
        return [line for line, _ in self._taken]

    def give_back(self) -> None:
        """All lines taken but the first come again."""
        self._back.extendleft(reversed(self._taken[1:]))
        self.number -= len(self._taken) - 1
        del self._taken[1:]
        self.complete = self._taken[0][1]

    def text(self) -> str:
        """What :meth:`taken` will hand over, as text."""
        return "".join(self.texts())

    def taken(self) -> bytes:
        text, self._taken = self.text(), []
        return self._encoder.encode(text)

    def fault(self) -> str:
        """What is wrong with the text taken where it is of another encoding."""
        return f"the text is not {self._encoding}" if _NOT_DECODED.search(self.text()) else ""

    def checked(self, records: Iterable[ExtractRecord]) -> Iterator[ExtractRecord]:
        """The records of the file, and behind the last one whether they are what a declared trailer says.

        :raises BrokenExtract: they are not, or the trailer is missing.
        """
        if self._trailer is None:
            yield from records
            return
        rows = orders = refused = 0
        totals = [Decimal(0), Decimal(0)]  # of orders, and of lines
        for record in records:
            yield record
            rows, orders = rows + record.rows, orders + 1
            if isinstance(record.order, RecordRefused):
                refused += 1
                continue
            totals[0] += record.order.total
            totals[1] += sum((line.total or Decimal(0) for line in record.order.lines), Decimal(0))
        if self._said is None or self._goes_on:
            raise BrokenExtract(self.number + 1, "it does not end in the trailer that INSTORE_EXTRACT_TRAILER declares")
        said = {
            name: _number(text, self._numbers if name == "sum" else None)
            for name, text in self._said.groupdict().items()
        }
        if "count" in said and said["count"] not in (rows, orders):
            detail = f"its trailer says {self._said['count']}, and there are {rows} rows of {orders} orders"
            raise BrokenExtract(self.number + 1, detail)
        # What a refused one would add nobody knows.
        if "sum" in said and not refused and min(abs(each - said["sum"]) for each in totals) > self._tolerance:
            raise BrokenExtract(self.number + 1, "its orders do not make the sum that its trailer says")

    def __del__(self) -> None:
        # The stream belongs to whoever opened it: a wrapper that dies with it closes it, and warns that nobody had.
        with contextlib.suppress(AttributeError, ValueError):
            self._text.detach()

    def _read_on(self) -> tuple[str, bool]:
        """The next line, or the beginning of one over the limit, and whether it ends in a line break."""
        while True:
            line = self._read()
            complete = line.endswith(_LINE_BREAKS)
            while not complete and len(line) >= self._limit and (rest := self._read()):
                complete = rest.endswith(_LINE_BREAKS)
            self._goes_on = self._goes_on or bool(self._said and line.strip())
            found = self._trailer.fullmatch(line.strip()) if self._trailer and line else None
            if not found:
                return line, complete
            self._said = found

    def _read(self) -> str:
        try:
            return self._text.readline(self._limit)
        except UnicodeDecodeError:
            raise BrokenExtract(self.number + 1, f"the text is not {self._encoding}", self.taken()) from None
        except (EOFError, OSError, ValueError) as error:
            # gzip ends too early, or its checksum is wrong; a storage that fails in mid-file is a RetriableError.
            raise BrokenExtract(
                self.number + 1, f"unreadable from here ({type(error).__name__})", self.taken()
            ) from None
        except Exception as error:
            if type(error).__module__ == "zlib":
                raise BrokenExtract(self.number + 1, "the compressed data is damaged", self.taken()) from None
            raise


def _number(text: str | None, rules: Numbers | None) -> Decimal:
    try:
        return number(text or "", rules) if rules else Decimal((text or "").replace(",", "."))
    except (InvalidOperation, ValueError):
        return Decimal("Infinity")  # which nothing makes
