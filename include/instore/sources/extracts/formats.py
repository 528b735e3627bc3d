"""The formats an extract may have; a new one is one new file and one line here."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from typing import BinaryIO, cast

from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter, adapter_of_file
from include.instore.sources.extracts.csv_lines import read_csv
from include.instore.sources.extracts.documents import read_json, read_xml
from include.instore.sources.extracts.joined import read_joined
from include.instore.sources.extracts.json_lines import read_json_lines
from include.instore.sources.extracts.parquet import read_parquet
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord, Format

_FORMATS: dict[str, Format] = {
    "csv": read_csv,
    "json": read_json,
    "json_lines": read_json_lines,
    "parquet": read_parquet,
    "xml": read_xml,
}
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".parquet": "parquet",
}
"""Formats by a file's name, where no adapter says which it is."""
COMPRESSED = ".gz"
ARCHIVE = ".zip"


def format_of(name: str, adapter: Adapter) -> Format | None:
    """The format of a file of this name beneath .gz, or None where nothing names one."""
    plain = name.lower().removesuffix(COMPRESSED)
    named = next((form for ending, form in ENDINGS.items() if plain.endswith(ending)), "")
    return _FORMATS.get(adapter.declared.format if adapter.declared else named)


def is_read(name: str, settings: Settings) -> bool:
    """Whether files of this name are read at all."""
    return name.lower().endswith(ARCHIVE) or format_of(name, adapter_of_file(name, settings)) is not None


def read_file(raw: BinaryIO, name: str, settings: Settings, adapter: Adapter | None = None) -> Iterator[ExtractRecord]:
    """The records of a file, uncompressed as it is read; of an archive those of every file in it.

    :param adapter: the one of the settings where none is given.
    :raises BrokenExtract: it cannot be read further.
    """
    if name.lower().endswith(ARCHIVE):
        yield from _of_archive(raw, name, settings, adapter)
        return
    adapter = adapter or adapter_of_file(name, settings)
    read = format_of(name, adapter)
    if read is None:
        raise BrokenExtract(1, f"the name of {name[-64:]} is that of no extract; those end in {', '.join(ENDINGS)}")
    if adapter.declared and adapter.declared.lines_file and ".zip/" not in name:
        raise BrokenExtract(1, "the lines of its orders are declared to be in another file of the same .zip")
    compressed = name.lower().endswith(COMPRESSED)
    with cast(BinaryIO, _Unzipped(raw, settings.extracts.max_extract_bytes)) if compressed else raw as stream:
        for record in read(stream, adapter.settings, adapter):
            yield record if record.adapter else replace(record, adapter=adapter.own_name)


def _of_archive(raw: BinaryIO, name: str, settings: Settings, adapter: Adapter | None) -> Iterator[ExtractRecord]:
    """:raises BrokenExtract: it is damaged or locked, would be too large, or has a file that nobody reads."""
    with raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                members = [
                    each for each in archive.infolist() if not each.is_dir() and not _is_the_zippers(each.filename)
                ]
                size = sum(each.file_size for each in members)
                if size > settings.extracts.max_extract_bytes:
                    raise BrokenExtract(1, f"holds {size} bytes, {settings.extracts.max_extract_bytes} are accepted")
                for member in members:
                    inner = f"{name}/{member.filename}"
                    chosen = adapter or adapter_of_file(inner, settings)
                    if member.filename.lower().endswith(ARCHIVE):
                        raise BrokenExtract(1, "holds another archive")
                    others = _with_lines(members, chosen)
                    if member in others:
                        continue  # read with the orders
                    try:
                        if others:
                            lines = cast(BinaryIO, archive.open(others[0]))
                            stream = cast(BinaryIO, archive.open(member))
                            records = read_joined(stream, lines, chosen, others[0].filename)
                        else:
                            records = read_file(cast(BinaryIO, archive.open(member)), inner, settings, chosen)
                        for record in records:
                            yield replace(
                                record,
                                member=record.member or member.filename,
                                adapter=record.adapter or chosen.own_name,
                            )
                    except BrokenExtract as error:
                        raise BrokenExtract(error.line, f"in {member.filename}: {error.detail}", error.raw) from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise BrokenExtract(
                1, f"the archive is damaged, or locked by a password ({type(error).__name__})"
            ) from None


def _with_lines(members: list[zipfile.ZipInfo], adapter: Adapter) -> list[zipfile.ZipInfo]:
    """The member with the lines of the orders, where the declaration says that they are in one of their own.

    :raises BrokenExtract: there is not one, or none with the orders.
    """
    pattern = adapter.declared.lines_file if adapter.declared else ""
    found = [each for each in members if pattern and fnmatch(each.filename, pattern)]
    if pattern and (len(found) != 1 or len(members) < 2):
        raise BrokenExtract(1, f"has {len(found)} files with lines ({pattern}), and {len(members) - len(found)} others")
    return found


def _is_the_zippers(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] == ".DS_Store"


class _Unzipped(gzip.GzipFile):
    """A gzip stream of so many bytes at most, unpacked as it is read; it closes the file beneath it as well."""

    def __init__(self, raw: BinaryIO, limit: int) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._beneath = raw
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        return self._within_limit(super().read(self._limit + 1 if size is None or size < 0 else size))

    def read1(self, size: int = -1) -> bytes:
        return self._within_limit(super().read1(size))

    def _within_limit(self, block: bytes) -> bytes:
        if self.tell() > self._limit:
            raise BrokenExtract(1, f"unpacks to more than {self._limit} bytes, which is all that is accepted")
        return block

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._beneath.close()
