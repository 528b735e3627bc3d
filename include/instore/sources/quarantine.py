"""Redriving and discarding what is in quarantine.

A record that was refused may be accepted by today's settings (a larger ``max_message_bytes``, another column map) or by
a newer release. It is read again from its raw bytes and lands like any arrival, in a run of kind ``redrive``, in one
commit with its row becoming ``redriven``. What is still refused stays, with the reason of today.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.known_again import AcceptAs
from include.instore.ledger.quarantined import (
    DISCARDED,
    QUARANTINED,
    Quarantined,
    Wanted,
    find,
    looked_into,
    move,
    note_reason,
)
from include.instore.model.codes import BROKEN_FILE, COLLISION, CUT_ORDER, SPLIT_ORDER, SUSPECTED_TWIN
from include.instore.model.errors import RecordRefused
from include.instore.model.identifiers import number_root
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.model.states import Source
from include.instore.model.windows import Run
from include.instore.runs.report import report_run
from include.instore.sources.adapters import Adapter, Blobs, adapter_named, adapter_of_file, adapter_of_topic
from include.instore.sources.extracts.csv_lines import read_csv
from include.instore.sources.extracts.formats import format_of
from include.instore.sources.extracts.records import BrokenExtract
from include.instore.sources.landing import (
    Block,
    LandedBlock,
    Record,
    into_ledger,
    land_all,
    records_of_body,
    would_land,
)

_AMQP = b"\x00\x53"
"""How the raw bytes of an undecodable message begin, for whatever it is refused later; no order begins like this."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became, or with a dry run would become, of one record.

    :param id: of the quarantine row, or of the dead letter's message.
    :param outcome: landed; accepted, as what a person said it is; known, the ledger had the order already; refused, it
        stays with this reason; impossible, it stays for the reason in ``detail``; discarded; unchanged, it was redriven
        or discarded before.
    """

    id: str
    reference: str
    outcome: str
    reason: str = ""
    detail: str = ""


def tally_of(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many records each outcome has."""
    return dict(sorted(Counter(each.outcome for each in outcomes).items()))


def tallied(outcomes: Sequence[Outcome]) -> str:
    """The same in words."""
    return ", ".join(f"{count} {name}" for name, count in tally_of(outcomes).items())


@contextlib.contextmanager
def redrive_run(ledger: Ledger, settings: Settings) -> Iterator[Callable[[], str]]:
    """A run of kind ``redrive``, by what gives its id: from the first time that is asked for, it is in the ledger.

    It is counted at its end whatever happens; one that is killed leaves its orders like any other run.
    """
    run = Run(f"redrive__{datetime.now(timezone.utc).isoformat()}", "redrive", None, False, False, "own")
    run_id = cache(lambda: open_run(ledger, run).run_id)
    try:
        yield run_id
    finally:
        if run_id.cache_info().currsize:
            red = report_run(ledger, run, [], settings).red
            log.info("run %s: %s", run.run_id, "; ".join(red) or "the numbers add up")


def redrive(
    ledger: Ledger,
    wanted: Wanted,
    settings: Settings,
    blobs: Blobs | None = None,
    *,
    dry_run: bool = False,
    accept_as: AcceptAs | None = None,
) -> list[Outcome]:
    """Read quarantined records again and land those that are orders now.

    :param accept_as: what a person says they are, of records that have another order's key or seem to be another one.
    :param dry_run: only say what would happen; nothing is written.
    :raises NotInQuarantine: an id fits no row, or several.
    :raises RetriableError: the ledger failed; what landed before has landed.
    """
    source = _Rows(ledger, wanted, settings, blobs, dry_run, accept_as)
    with redrive_run(ledger, settings) as run:
        land_all(source, would_land(ledger, settings) if dry_run else into_ledger(ledger, run, settings))
    return source.outcomes


class _Rows:
    """The rows of the quarantine that are wanted, one a block."""

    def __init__(
        self,
        ledger: Ledger,
        wanted: Wanted,
        settings: Settings,
        blobs: Blobs | None,
        dry_run: bool,
        accept_as: AcceptAs | None,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._ledger = ledger
        self._wanted = wanted
        self._rows = find(ledger, wanted)
        self._settings = settings
        self._blobs = blobs
        self._dry_run = dry_run
        self._accept_as = accept_as

    def blocks(self) -> Iterator[Block]:
        for row in self._rows:
            if row.state != QUARANTINED:
                self.outcomes.append(Outcome(row.id, row.reference, "unchanged", detail=f"it is {row.state}"))
                continue
            (whole,) = find(self._ledger, Wanted(ids=(row.id,)), with_raw=True)  # one at a time: it may have megabytes
            if why := _why_impossible(whole, self._settings, named=bool(self._wanted.ids), accept_as=self._accept_as):
                self.outcomes.append(Outcome(row.id, row.reference, "impossible", row.reason, why))
                continue
            records = _read_again(whole, self._settings, self._blobs)
            # Of a message with several orders each refused one goes into quarantine again, alone.
            alone = len(records) > 1 and whole.source != "extract"
            yield Block(records, redriven=[row.id], all_or_none=not alone, accept_as=self._accept_as)

    def settle(self, block: Block, outcome: LandedBlock) -> None:
        id, reference = block.redriven[0], block.records[0].reference
        if not outcome.refused or (not block.all_or_none and len(outcome.refused) < len(block.records)):
            fate = "accepted" if self._accept_as else "landed" if outcome.landed.orders else "known"
            self.outcomes.append(Outcome(id, reference, fate))
            return
        error = next(iter(outcome.refused.values()))
        if not self._dry_run:
            note_reason(self._ledger, id, error.reason, error.detail)
        self.outcomes.append(Outcome(id, reference, "refused", error.reason, error.detail))


def discard(ledger: Ledger, wanted: Wanted, *, dry_run: bool = False) -> list[Outcome]:
    """Give up quarantined records for good: they are kept, and never redriven.

    :raises NotInQuarantine: an id fits no row, or several.
    """
    rows = find(ledger, wanted)
    waiting = [row.id for row in rows if row.state == QUARANTINED]
    moved = set(waiting if dry_run or not waiting else move(ledger, waiting, DISCARDED))
    return [
        Outcome(row.id, row.reference, "discarded", row.reason)
        if row.id in moved
        else Outcome(row.id, row.reference, "unchanged", detail=f"it is {row.state}")
        for row in rows
    ]


def order_numbers(ledger: Ledger, rows: Sequence[Quarantined], settings: Settings) -> dict[str, str]:
    """Id to the order number in the raw record, of those records in which one can be read."""
    found = {row.id: _number_in(row, settings) for row in looked_into(ledger, [row.id for row in rows])}
    return {id: number for id, number in found.items() if number}


def quarantined_as(ledger: Ledger, number: str, settings: Settings) -> list[Quarantined]:
    """Records in quarantine that bear this order number."""
    rows = looked_into(ledger, holding=number) if number else []
    return [row for row in rows if number_root(_number_in(row, settings)) == number_root(number)]


def _number_in(row: Quarantined, settings: Settings) -> str:
    adapter = _adapter_of(row, settings)
    unreadable = (ValueError, LookupError, StopIteration, RecursionError, AttributeError, csv.Error, RecordRefused)
    with contextlib.suppress(*unreadable):
        if row.heading:
            text = (row.heading + row.raw).decode(adapter.settings.extracts.extract_encoding, "replace")
            return adapter.number_in_rows(text)[:64]
        return adapter.number_in(json.loads(row.raw))[:64]
    return ""


def _adapter_of(row: Quarantined, settings: Settings, blobs: Blobs | None = None) -> Adapter:
    """The one that read it; where none did, today's."""
    of_files = row.source == Source.EXTRACT
    named = adapter_named(row.adapter, settings, of_files=of_files, blobs=blobs) if row.adapter else None
    return named or (adapter_of_file(_file_of(row), settings) if of_files else adapter_of_topic(settings, blobs))


def _read_again(row: Quarantined, settings: Settings, blobs: Blobs | None) -> list[Record]:
    """The orders of its raw bytes, or why they are none; not published later than they were received."""
    adapter = _adapter_of(row, settings, blobs)
    if _is_document(row) and adapter.declared and adapter.declared.is_rows:
        adapter = Adapter(settings)  # no row of the file, but what the ledger had
    if row.source != Source.EXTRACT and row.raw.startswith(_AMQP):
        from include.instore.sources.bus import records_of_undecodable  # the SDK is loaded where it is needed only

        return records_of_undecodable(row.raw, row.reference, row.received_at, adapter)
    if row.source != Source.EXTRACT or _is_document(row):
        return records_of_body(row.source, row.reference, row.raw, row.received_at, adapter)
    return [
        Record(row.source, row.reference, row.raw, order, row.heading, row.received_at, row.adapter)
        for order in _read_file_again(row, adapter)
    ]


def _read_file_again(row: Quarantined, adapter: Adapter) -> list[InStoreOrder | RecordRefused]:
    read = format_of(_file_of(row), adapter)
    if read is None:
        return [RecordRefused(row.reason, "its file's name no longer names a known format")]
    try:
        alone = adapter.settings.having(extract_trailer="")
        orders = [record.order for record in read(io.BytesIO(row.heading + row.raw), alone, adapter)]
    except BrokenExtract as error:
        return [RecordRefused("bad_value", f"its rows break off: {error.detail}")]
    return orders or [RecordRefused("bad_value", "its rows hold no order")]


def _why_impossible(row: Quarantined, settings: Settings, *, named: bool, accept_as: AcceptAs | None) -> str:
    if accept_as and row.reason not in (COLLISION, *([SUSPECTED_TWIN] if accept_as is AcceptAs.NEW_ORDER else [])):
        return f"a record that is {row.reason} cannot be accepted as a {accept_as.value}"
    if row.reason in (CUT_ORDER, SPLIT_ORDER) and not named:
        return "it may be the half of an order; have the ERP deliver its file again, or redrive it by its id"
    if row.reason == BROKEN_FILE:
        return "the file is broken from there on; have the ERP deliver it whole again, under this name or another"
    if row.adapter and adapter_named(row.adapter, settings, of_files=row.source == Source.EXTRACT) is None:
        return f"it was read by adapter {row.adapter}, which no setting names; name its file again"
    if row.source != Source.EXTRACT:
        return ""
    if row.reason == "too_large":
        return "only its beginning was kept; raise INSTORE_MAX_MESSAGE_BYTES and have the ERP deliver the file again"
    is_rows = format_of(_file_of(row), _adapter_of(row, settings)) is read_csv
    if not row.heading and is_rows and not _is_document(row):
        return "its file's column names were not kept; have the ERP deliver the file again"
    return ""


def _is_document(row: Quarantined) -> bool:
    """Whether it is JSON: a line of a file, or an order that was in the ledger before it came to be a piece."""
    return not row.heading and row.raw.startswith(b"{")


def _file_of(row: Quarantined) -> str:
    return row.reference.rpartition(":")[0]
