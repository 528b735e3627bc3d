"""The formats an extract may have, by file name; a new one is one new file and one line here."""

from __future__ import annotations

import gzip
from typing import BinaryIO, cast

from include.instore.sources.extracts.csv_lines import read_csv
from include.instore.sources.extracts.json_lines import read_json_lines
from include.instore.sources.extracts.records import Format

FORMATS: dict[str, Format] = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines}
COMPRESSED = ".gz"


def format_of(name: str) -> Format | None:
    """The format of a file of this name, or None where its ending names none."""
    plain = name.lower().removesuffix(COMPRESSED)
    return next((read for ending, read in FORMATS.items() if plain.endswith(ending)), None)


def uncompressed(raw: BinaryIO, name: str) -> BinaryIO:
    """The content as a stream of bytes, uncompressed as it is read; memory does not grow with the file."""
    return cast(BinaryIO, _Unzipped(raw)) if name.lower().endswith(COMPRESSED) else raw


class _Unzipped(gzip.GzipFile):
    """A gzip stream that closes the file beneath it as well."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._beneath = raw

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._beneath.close()
