"""Parquet, a row a line as in a CSV; needs pyarrow, which requirements-parquet.txt names."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import date
from typing import Any, BinaryIO

from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter
from include.instore.sources.extracts.csv_lines import read_csv
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord

_MAGIC = b"PAR1"
_ROWS = 1000


def read_parquet(stream: BinaryIO, settings: Settings, adapter: Adapter) -> Iterator[ExtractRecord]:
    """The orders of a Parquet file, of which no more than a row group is in memory.

    Its rows are read as those of a CSV, and are kept as such; what is read again from the quarantine is one.

    :raises BrokenExtract: it is damaged, has columns of lists or objects, or pyarrow is not installed.
    """
    settings = settings.having(extract_encoding="utf-8", extract_trailer="")
    if stream.read(len(_MAGIC)) != _MAGIC:
        stream.seek(0)
        yield from read_csv(stream, settings, adapter)
        return
    try:
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile
    except ImportError:
        why = "pyarrow is not installed; install requirements-parquet.txt, and release the file"
        raise BrokenExtract(1, why) from None
    try:
        stream.seek(0)
        file = ParquetFile(stream, pre_buffer=False)
        nested = next((each.name for each in file.schema_arrow if types.is_nested(each.type)), None)
        if nested is not None:
            raise BrokenExtract(1, f"column {nested[:64]} has lists or objects; have it written with a row a line")
        yield from read_csv(io.BufferedReader(Written(_rows_of(file))), settings, adapter)
    except (ArrowException, OSError, EOFError) as error:
        raise BrokenExtract(1, f"the Parquet data is damaged ({type(error).__name__})") from None


class Written(io.RawIOBase):
    """Lines as a stream; empty where there is nothing."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and (line := next(self._lines, b"")):
            self._rest = line
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _rows_of(file: Any) -> Iterator[bytes]:
    names = file.schema_arrow.names
    yield csv_text(names).encode(errors="surrogateescape")
    for batch in file.iter_batches(batch_size=_ROWS):
        for row in zip(*(batch.column(at).to_pylist() for at in range(len(names))), strict=True):
            yield csv_text([value.isoformat() if isinstance(value, date) else value for value in row]).encode(
                errors="surrogateescape"
            )


def csv_text(values: list[Any], delimiter: str = ",") -> str:
    """A row as a line of a CSV."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(values)
    return text.getvalue()
