"""Landing extracts: streamed row by row, once per file, the file's own row in the commit of its last block."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.intake import (
    Arrival,
    Landed,
    LoadedExtract,
    Refusal,
    arrival,
    land,
    loaded_versions,
    refusal,
)
from include.instore.ledger.tables import BROKEN_FILE, CUT_ORDER
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.sources.extracts.discovery import ExtractFile, find_extracts
from include.instore.sources.extracts.formats import format_of, uncompressed
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord
from include.instore.sources.extracts.storage import Storage

SOURCE = "extract"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What one run loaded: its orders, and its files."""

    landed: Landed = field(default_factory=Landed)
    files: int = 0
    broken_files: int = 0
    left_files: int = 0
    unknown_format: int = 0


def load_extracts(storage: Storage, ledger: Ledger, run: Run, settings: Settings) -> Loaded:
    """Load every extract of the storage that is due in this run.

    A file that breaks half way keeps its good orders and is quarantined with its position. A file that changes while
    it is read is left for the next run; its orders are known then.

    :raises ConfigurationError: no such folder. :raises RetriableError: the storage or the ledger failed.
    """
    found = find_extracts(storage, run, partial(loaded_versions, ledger), settings)
    if found.unknown_format:
        log.warning("%d files below the extracts folder have an ending of no known format", found.unknown_format)
    total, broken, left = Landed(), 0, found.left
    for file in found.due:
        landed, state = _load(storage, file, ledger, run.run_id, settings)
        total += landed
        broken += state == "broken"
        left += state == "changed"
        log.info(
            "extract %s %s: received=%d orders=%d duplicates=%d quarantined=%d",
            file.name, state, landed.received, landed.orders, landed.duplicates, landed.quarantined,
        )  # fmt: skip
    return Loaded(total, len(found.due) - (left - found.left), broken, left, found.unknown_format)


def _load(storage: Storage, file: ExtractFile, ledger: Ledger, run_id: str, settings: Settings) -> tuple[Landed, str]:
    read = format_of(file.name)
    assert read is not None  # noqa: S101  discovery only hands over known formats
    landed, block = Landed(), _Block(file, settings)
    held: ExtractRecord | None = None  # the newest record waits: of a file still growing it may be half an order
    before_it: set[bool | None] = set()  # whether the orders before it add up
    broken: BrokenExtract | None = None
    with uncompressed(storage.open(file.path), file.name) as stream:
        try:
            for record in read(stream, settings):
                if held is not None:
                    block.add(held)
                    before_it.add(_adds_up(held))
                held = record
                if block.full():
                    landed += block.land(ledger, run_id)
        except BrokenExtract as error:
            broken = error
    if storage.look_again(file.path).version != file.version:
        return landed + block.land(ledger, run_id), "changed"
    if held is not None and before_it == {True} and _adds_up(held) is False:
        detail = (
            f"line {held.line}: its lines do not make its total, those of all orders before it do; is the file cut?"
        )
        block.refuse(RecordRefused(CUT_ORDER, detail), held.line, held.raw, held.heading)
    elif held is not None:
        block.add(held)
    if broken is not None:
        log.warning("extract %s is broken at line %d: %s", file.name, broken.line, broken.detail)
        block.refuse(RecordRefused(BROKEN_FILE, f"line {broken.line}: {broken.detail}"), broken.line, broken.raw)
    landed += block.land(ledger, run_id, version=file.version, broken=broken is not None)
    return landed, "broken" if broken else "loaded"


def _adds_up(record: ExtractRecord) -> bool | None:
    """Of an order in a row a line, of which a cut file may hold some lines only."""
    return record.order.adds_up() if record.heading and isinstance(record.order, InStoreOrder) else None


class _Block:
    """The records of one file that the next commit takes, and the file's totals so far."""

    def __init__(self, file: ExtractFile, settings: Settings) -> None:
        self._name = file.name
        self._modified = datetime.fromtimestamp(file.modified, timezone.utc) if file.modified else None
        self._settings = settings
        self._arrivals: list[Arrival] = []
        self._refusals: list[Refusal] = []
        self._orders = 0
        self._bad_rows = 0

    def add(self, record: ExtractRecord) -> None:
        reference = f"{self._name}:{record.line}"
        try:
            if isinstance(record.order, RecordRefused):
                raise record.order
            self._arrivals.append(
                arrival(
                    record.order,
                    source=SOURCE,
                    reference=reference,
                    raw=record.raw,
                    heading=record.heading,
                    settings=self._settings,
                    published_at=self._modified,
                    by_rows=bool(record.heading),
                )
            )
        except RecordRefused as error:
            self.refuse(error, record.line, record.raw, record.heading)

    def refuse(self, error: RecordRefused, line: int, raw: bytes, heading: bytes = b"") -> None:
        where = f"{self._name}:{line}"
        self._refusals.append(refusal(error, source=SOURCE, reference=where, raw=raw, heading=heading))

    def full(self) -> bool:
        return len(self._arrivals) + len(self._refusals) >= self._settings.extract_block

    def land(self, ledger: Ledger, run_id: str, *, version: str | None = None, broken: bool = False) -> Landed:
        """Commit the block; with a version, the file is loaded and its own row is in the same commit."""
        self._orders += len(self._arrivals)
        self._bad_rows += len(self._refusals)
        extract = version and LoadedExtract(self._name, version, self._orders, self._bad_rows, broken)
        landed = land(ledger, run_id, self._arrivals, self._refusals, extract or None)
        fault_points.reach("extracts.after_block")
        self._arrivals, self._refusals = [], []
        return landed
