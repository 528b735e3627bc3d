"""What a format yields, and how it says that a file breaks off."""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings


@dataclass(frozen=True)
class ExtractRecord:
    """One order of a file, or what stands in its place.

    :param line: line number, from 1, of the record's first line.
    :param order: the order, or the reason why it is none.
    :param heading: the line with the columns' names, without which the raw rows of a CSV say nothing.
    :param ends: whether its last line ends in a line break.
    """

    line: int
    raw: bytes = field(repr=False)
    order: InStoreOrder | RecordRefused = field(repr=False)
    heading: bytes = field(default=b"", repr=False)
    ends: bool = field(default=True, repr=False)


class BrokenExtract(Exception):
    """The file cannot be read past this line; the records before it are good."""

    def __init__(self, line: int, detail: str, raw: bytes = b"") -> None:
        super().__init__(f"line {line}: {detail}")
        self.line = line
        self.detail = detail
        self.raw = raw


class CutExtract(BrokenExtract):
    """Every line of the file can be read, but it seems to have lost its end; the last record may be half an order."""


Format = Callable[[BinaryIO, Settings], Iterator[ExtractRecord]]
"""Reads an uncompressed stream; raises :class:`BrokenExtract` where it breaks off."""


_NOT_DECODED = re.compile("[\udc80-\udcff]")


class Lines:
    """The lines of a stream, one at a time and bounded, with what a breaking file needs to know.

    ``number`` is the line read last, ``complete`` whether it ended in a line break, and :meth:`taken` hands over the
    text read since it was last asked.

    :param skip_long: go on behind a line over the limit, of which only the beginning is handed over and which
        ``too_long`` tells; otherwise the file breaks there.
    """

    def __init__(self, stream: BinaryIO, settings: Settings, *, skip_long: bool = False) -> None:
        self._encoding = settings.extract_encoding
        # Text is decoded in blocks: a byte of another encoding is let through, so that it breaks its own line and not
        # the good ones of its block.
        self._text = io.TextIOWrapper(stream, encoding=self._encoding, errors="surrogateescape", newline="")
        self._limit = settings.max_message_bytes
        self._skip_long = skip_long
        # Remembers that the byte order mark is written: only the file's first line has one. UTF-8 needs none.
        written = self._encoding if codecs.lookup(self._encoding).name != "utf-8-sig" else "utf-8"
        self._encoder = codecs.getincrementalencoder(written)(errors="surrogateescape")
        self._taken: list[str] = []
        self.number = 0
        self.complete = True
        self.too_long = False

    def __iter__(self) -> Iterator[str]:
        while line := self._read():
            self.number += 1
            self.complete = line.endswith(("\n", "\r"))
            self.too_long = not self.complete and len(line) >= self._limit
            self._taken.append(line)
            if _NOT_DECODED.search(line):
                raise BrokenExtract(self.number, f"the text is not {self._encoding}", self.taken())
            if self.too_long and not self._skip_long:
                raise BrokenExtract(self.number, f"longer than {self._limit} characters", self.taken())
            while self.too_long and not self.complete and (rest := self._read()):
                self.complete = rest.endswith(("\n", "\r"))
            yield line

    def text(self) -> str:
        """What :meth:`taken` will hand over, as text."""
        return "".join(self._taken)

    def __del__(self) -> None:
        # The stream belongs to whoever opened it: a wrapper that dies with it closes it, and warns that nobody had.
        with contextlib.suppress(AttributeError, ValueError):
            self._text.detach()

    def taken(self) -> bytes:
        text, self._taken = self.text(), []
        return self._encoder.encode(text)

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
