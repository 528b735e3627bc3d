"""What a format yields, and how it says that a file breaks off."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from include.instore.errors import RecordRefused
from include.instore.orders import InStoreOrder
from include.instore.settings import Settings


@dataclass(frozen=True)
class ExtractRecord:
    """One order of a file, or what stands in its place.

    :param line: line number, from 1, of the record's first line.
    :param order: the order, or the reason why it is none.
    :param heading: the line with the columns' names, without which the raw rows of a CSV say nothing.
    """

    line: int
    raw: bytes = field(repr=False)
    order: InStoreOrder | RecordRefused = field(repr=False)
    heading: bytes = field(default=b"", repr=False)


class BrokenExtract(Exception):
    """The file cannot be read past this line; the records before it are good."""

    def __init__(self, line: int, detail: str, raw: bytes = b"") -> None:
        super().__init__(f"line {line}: {detail}")
        self.line = line
        self.detail = detail
        self.raw = raw


Format = Callable[[BinaryIO, Settings], Iterator[ExtractRecord]]
"""Reads an uncompressed stream; raises :class:`BrokenExtract` where it breaks off."""


class Lines:
    """The lines of a stream, one at a time and bounded, with what a breaking file needs to know.

    ``number`` is the line read last, ``complete`` whether it ended in a line break, and :meth:`taken` hands over the
    text read since it was last asked.
    """

    def __init__(self, stream: BinaryIO, settings: Settings) -> None:
        self._encoding = settings.extract_encoding
        self._text = io.TextIOWrapper(stream, encoding=self._encoding, newline="")
        self._limit = settings.max_message_bytes
        # Remembers that the byte order mark is written: only the file's first line has one.
        self._encoder = codecs.getincrementalencoder(self._encoding)(errors="surrogatepass")
        self._taken: list[str] = []
        self.number = 0
        self.complete = True

    def __iter__(self) -> Iterator[str]:
        while line := self._read():
            self.number += 1
            self.complete = line.endswith(("\n", "\r"))
            self._taken.append(line)
            if not self.complete and len(line) >= self._limit:
                raise BrokenExtract(self.number, f"longer than {self._limit} characters", self.taken())
            yield line

    def taken(self) -> bytes:
        text, self._taken = "".join(self._taken), []
        return self._encoder.encode(text)

    def _read(self) -> str:
        try:
            return self._text.readline(self._limit)
        except UnicodeDecodeError:
            raise BrokenExtract(self.number + 1, f"the text is not {self._encoding}", self.taken()) from None
        except (EOFError, OSError, ValueError) as error:
            # gzip ends too early, its checksum is wrong, or the storage stopped answering in mid-file.
            raise BrokenExtract(
                self.number + 1, f"unreadable from here ({type(error).__name__})", self.taken()
            ) from None
        except Exception as error:
            if type(error).__module__ == "zlib":
                raise BrokenExtract(self.number + 1, "the compressed data is damaged", self.taken()) from None
            raise
