"""Extracts as sources: each file is read twice, to its end and then in blocks, and is loaded with the last of them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import posixpath
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache, partial
from pathlib import Path
from typing import IO, BinaryIO

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.extract_files import is_released, known_versions, note_left, note_waiting, was_loaded
from include.instore.ledger.intake import Landed, LoadedExtract
from include.instore.ledger.tables import kept_text
from include.instore.model.codes import BROKEN_FILE, CUT_ORDER
from include.instore.model.errors import RecordRefused, RetriableError
from include.instore.model.settings import ExtractSettings, Settings
from include.instore.model.states import Source
from include.instore.model.windows import Run
from include.instore.sources.adapters import Adapter
from include.instore.sources.extracts.apart import OrdersOfFile
from include.instore.sources.extracts.discovery import ExtractFile, find_extracts, marker_of
from include.instore.sources.extracts.formats import ENDINGS, read_file
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord
from include.instore.sources.extracts.storage import Storage
from include.instore.sources.feeds import FeedLooks
from include.instore.sources.landing import Block, LandedBlock, Record, into_ledger, land_all

SOURCE = Source.EXTRACT.value
_PIPELINE = Path(__file__).parents[2]
_COPY_BYTES = 1 << 20
_MARKER_BYTES = 1 << 16
_KEPT_BYTES = 2 << 20
"""Of a file with no more raw records, tenfold as orders, the second reading is what the first one has kept."""
_CHECKSUM = re.compile(r"\b([0-9a-fA-F]{64})\b(?:[ \t]+\*?(\S+))?")
"""As sha256sum writes it: the sum, and the name of the file."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What one run loaded: its orders, and its files.

    :param files: loaded.
    :param unread_files: that could not be read to their end, of which nothing was landed.
    :param left_files: left for the next run, because they are still being written.
    """

    landed: Landed = field(default_factory=Landed)
    files: int = 0
    unread_files: int = 0
    left_files: int = 0


def load_extracts(storage: Storage, ledger: Ledger, run: Run, settings: Settings) -> Loaded:
    """Load every extract of the storage that is due in this run.

    Each is read twice: to its end, landing nothing, and then in blocks. A file that the first reading finds cut or
    damaged waits until it comes whole, or a person decides. A file that changes while it is read is left for the next
    run.

    :raises ConfigurationError: no such folder. :raises RetriableError: the storage, the disk or the ledger failed.
    """
    found = find_extracts(storage, run, partial(known_versions, ledger), settings)
    total, states = Landed(), Counter[str]()
    left = {file.name: (file.version, why) for file, why in found.left.items()}
    read = [file.name for file in (*found.due, *found.unread)]
    note_left(ledger, run.run_id, left, read if run.loads_any_extract else None)
    for file in found.unread:
        # It may be an ERP's extract under a name that nobody expected; one that is none a person forgets.
        detail = (
            f"its name is that of no extract; those end in {', '.join(ENDINGS)}, also with .gz, and .zip; an adapter "
            "in INSTORE_EXTRACT_ADAPTERS reads others"
        )
        log.warning("extract %s waits: %s", file.name, detail)
        note_waiting(ledger, run.run_id, file.name, file.version, 0, detail)
        states["waiting"] += 1
    for file in found.due:
        landed, state = _load(storage, file, ledger, run.run_id, settings)
        total += landed
        states[state] += 1
        if state == "changed":
            note_left(ledger, run.run_id, {file.name: (file.version, "it changed while it was read")})
        log.info(
            "extract %s %s: received=%d orders=%d duplicates=%d quarantined=%d",
            file.name, state, landed.received, landed.orders, landed.duplicates, landed.quarantined,
        )  # fmt: skip
    return Loaded(total, states["loaded"], states["waiting"], len(left) + states["changed"])


def _load(storage: Storage, file: ExtractFile, ledger: Ledger, run_id: str, settings: Settings) -> tuple[Landed, str]:
    # Both readings are of one copy: what was found whole is what is landed.
    with tempfile.NamedTemporaryFile(prefix="instore-extract-") as copy, OrdersOfFile(settings) as orders:
        with storage.open(file.path) as stream:
            whole, checksum = _copy(stream, copy, settings.extracts)
        if storage.look_again(file.path).version != file.version:
            return Landed(), "changed"
        marked = _against_marker(storage, file, checksum, settings.extracts)
        digest = _digest(checksum, settings)
        if whole and not marked and was_loaded(ledger, file.name, file.version, digest):
            return Landed(), "loaded before, its content is the same"
        looks = FeedLooks(file.name, ledger)
        reading = Reading(Path(copy.name), file, orders, looks, settings, digest=digest)
        most = settings.extracts.max_extract_bytes
        fault = reading.to_its_end() if whole else BrokenExtract(1, f"larger than {most} bytes")
        fault = fault or marked
        fault_points.reach("extracts.read")
        # Of a file that was not copied whole nobody knows what is missing: released or not, it waits.
        if fault is not None and not (whole and is_released(ledger, file.name, file.version)):
            size = copy.seek(0, io.SEEK_END)
            behind = reading.orders_behind(fault, size)
            about = f", about {behind} behind it" if behind else ""
            detail = f"line {fault.line}: {fault.detail}; {size} bytes, {reading.orders} orders before it{about}"
            log.warning("extract %s waits: %s", file.name, detail)
            note_waiting(ledger, run_id, file.name, file.version, reading.orders, detail)
            return Landed(), "waiting"
        reading.fault = fault
        return land_all(reading, into_ledger(ledger, lambda: run_id, settings)), "loaded"


def _copy(stream: BinaryIO, copy: IO[bytes], settings: ExtractSettings) -> tuple[bool, str]:
    """Copy the file to disk; False where it is larger than it may be, and its SHA-256."""
    checksum = hashlib.sha256()
    while block := stream.read(_COPY_BYTES):
        checksum.update(block)
        with _disk_errors():
            copy.write(block)
            copy.flush()
        if copy.tell() > settings.max_extract_bytes:
            return False, ""
    return True, checksum.hexdigest()


def _digest(checksum: str, settings: Settings) -> str:
    """Of the file, and of what decides what becomes of its bytes: settings, declarations, code."""
    declared = [Path(path) for path in settings.extracts.extract_adapters.values()]
    beside = sorted(code for path in declared for code in path.parent.glob("*.py"))
    parts = [
        checksum.encode(),
        _code(),
        settings.model_dump_json().encode(),
        *(p.read_bytes() for p in declared + beside),
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@cache
def _code() -> bytes:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_PIPELINE.rglob("*.py")))).digest()


def _against_marker(
    storage: Storage, file: ExtractFile, checksum: str, settings: ExtractSettings
) -> BrokenExtract | None:
    """Why the file is not the one that its marker's checksum is of; nothing where the marker holds none."""
    marker = marker_of(storage, file.path, settings) if settings.extract_marker else None
    if marker is None:
        return None
    with storage.open(marker) as stream:
        said = _CHECKSUM.findall(stream.read(_MARKER_BYTES).decode(errors="replace"))
    mine = [each for each, of in said if posixpath.basename(of or file.path) == posixpath.basename(file.path)]
    if said and checksum not in (each.lower() for each in mine):
        return BrokenExtract(1, f"its SHA-256 is not the one that {posixpath.basename(marker)} holds")
    if not said and "sha256" in posixpath.basename(marker).lower():
        return BrokenExtract(1, f"{posixpath.basename(marker)} holds no SHA-256")
    return None


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """A full disk for temporary files is no fault of the file that is read. :raises RetriableError: it failed."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise RetriableError(
            f"The disk for temporary files failed ({error}); make room in {tempfile.gettempdir()}."
        ) from None


class Reading:
    """The two readings of one file's copy; the second is a source, of a released file up to the fault."""

    def __init__(
        self,
        copy: Path,
        file: ExtractFile,
        orders: OrdersOfFile,
        looks: FeedLooks,
        settings: Settings,
        adapter: Adapter | None = None,
        digest: str = "",
    ) -> None:
        self._copy = copy
        self._adapter = adapter
        self._digest = digest
        self._file = file
        self._modified = datetime.fromtimestamp(file.modified, timezone.utc) if file.modified else None
        self._orders_of_file = orders
        self._looks = looks
        self._settings = settings
        self._bad_rows = self._heading = self._read_bytes = 0
        self._kept: tuple[list[ExtractRecord], BrokenExtract | None] | None = None
        self.orders = 0
        self.fault: BrokenExtract | None = None

    def to_its_end(self) -> BrokenExtract | None:
        """Read it and land nothing; where it cannot be read on, or seems to have lost its end."""
        last = 1
        try:
            for record in self._records():
                with _disk_errors():
                    self._orders_of_file.note(record)
                self._looks.learn(record.order, record.fields, record.columns)
                last = record.line
                self.orders += 1
        except BrokenExtract as error:
            return error
        if why := self._orders_of_file.seems_cut():
            self.orders -= 1
            return BrokenExtract(last, f"the file seems cut: {why}")
        gone = self._looks.fault()
        return BrokenExtract(1, gone) if gone else None

    def orders_behind(self, fault: BrokenExtract, size: int) -> int:
        """An estimate, by those before it; 0 for none, and where it cannot be told, as of what is compressed."""
        rest = size - self._heading - self._read_bytes - len(fault.raw)
        return max(0, round(self.orders * rest / self._read_bytes)) if self.orders and self._read_bytes else 0

    def blocks(self) -> Iterator[Block]:
        self.orders, records = 0, []
        for record in self._whole():
            records.append(record)
            if len(records) >= self._settings.extracts.extract_block:
                yield Block(records)
                records = []
        remark = self._looks.remark()
        detail = f"line {self.fault.line}: {self.fault.detail}" if self.fault else remark
        if detail:
            log.warning("extract %s: %s", self._file.name, detail)
        extract = LoadedExtract(
            self._file.name, self._file.version, self.orders, self._bad_rows, detail and kept_text(detail),
            self._digest, self._looks.row(), bool(remark),
        )  # fmt: skip
        yield Block(records, extract)

    def settle(self, block: Block, outcome: LandedBlock) -> None:
        fault_points.reach("extracts.after_block")
        self.orders += len(block.records) - len(outcome.refused)
        self._bad_rows += len(outcome.refused)

    def _whole(self) -> Iterator[Record]:
        """Its orders, those in rows that stand apart put together behind the others."""
        try:
            for record in self._records():
                if why := self._orders_of_file.lost_a_row(record):
                    yield self._record(replace(record, order=RecordRefused(CUT_ORDER, why)))
                    continue
                with _disk_errors():
                    is_piece = self._orders_of_file.hold(record)
                if not is_piece:
                    yield self._record(record)
        except BrokenExtract as error:
            self.fault = error
            refused = RecordRefused(BROKEN_FILE, f"line {error.line}: {error.detail}")
            yield self._record(ExtractRecord(error.line, error.raw, refused))
        for record in self._orders_of_file.put_together():
            yield self._record(record)

    def _record(self, record: ExtractRecord) -> Record:
        name = f"{self._file.name}/{record.member}" if record.member else self._file.name
        return Record(
            SOURCE, f"{name}:{record.line}", record.raw, record.order, record.heading, self._modified, record.adapter
        )

    def _records(self) -> Iterator[ExtractRecord]:
        if self._kept is None:
            yield from self._read()
            return
        kept, fault = self._kept
        yield from kept
        if fault:
            raise fault

    def _read(self) -> Iterator[ExtractRecord]:
        kept: list[ExtractRecord] = []
        size, fault = 0, None
        try:
            with self._copy.open("rb") as stream:
                for record in read_file(stream, self._file.name, self._settings, self._adapter):
                    size += len(record.raw)
                    self._heading = len(record.heading)
                    if size <= _KEPT_BYTES:
                        kept.append(record)
                    yield record
        except BrokenExtract as error:
            fault = error
        self._read_bytes = size
        if size <= _KEPT_BYTES:
            self._kept = kept, fault
        if fault:
            raise fault
