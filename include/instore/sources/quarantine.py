"""Redriving and discarding what is in quarantine.

A record that was refused may be accepted by today's settings (a larger ``max_message_bytes``, another column map) or by
a newer release. It is read again from its raw bytes and lands like any arrival, in a run of kind ``redrive``, in one
commit with its row becoming ``redriven``. What is still refused stays, with the reason of today.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.intake import Arrival, Landed, Refusal, arrival, land
from include.instore.ledger.quarantined import (
    DISCARDED,
    QUARANTINED,
    Quarantined,
    Wanted,
    find,
    known_keys,
    move,
    note_reason,
)
from include.instore.ledger.tables import BROKEN_FILE, CUT_ORDER
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder, parse_order
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.runs.report import report_run
from include.instore.sources.extracts.formats import format_of
from include.instore.sources.extracts.records import BrokenExtract

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became, or with a dry run would become, of one record.

    :param id: of the quarantine row, or of the dead letter's message.
    :param outcome: landed; known, the ledger had the order already; refused, it stays with this reason; impossible, it
        stays for the reason in ``detail``; discarded; unchanged, it was redriven or discarded before.
    """

    id: str
    reference: str
    outcome: str
    reason: str = ""
    detail: str = ""


class Redrive:
    """A run of kind ``redrive``, which is in the ledger from the first record that lands in it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        now = datetime.now(timezone.utc)
        self._run = Run(f"redrive__{now.isoformat()}", "redrive", None, False, False, "own")
        self._opened = False

    def land(
        self, arrivals: Sequence[Arrival], redriven: Sequence[str] = (), refusals: Sequence[Refusal] = ()
    ) -> Landed:
        """Commit these orders together with the state of the rows they come out of, and what is no order.

        :raises RecordRefused: one is another order than the one that has its key; nothing was written.
        """
        if not self._opened:
            open_run(self._ledger, self._run)
            self._opened = True
        return land(self._ledger, self._run.run_id, arrivals, refusals, redriven=redriven, refuse_collisions=True)

    def close(self, settings: Settings) -> None:
        """Count the run, as every run is counted."""
        if self._opened:
            report = report_run(self._ledger, self._run, [], settings)
            log.info("run %s: %s", self._run.run_id, "; ".join(report.red) or "the numbers add up")


@contextlib.contextmanager
def redrive_run(ledger: Ledger, settings: Settings) -> Iterator[Redrive]:
    """A redrive, counted at its end whatever happens; one that is killed leaves its orders like any other run."""
    run = Redrive(ledger)
    try:
        yield run
    finally:
        run.close(settings)


def redrive(ledger: Ledger, wanted: Wanted, settings: Settings, *, dry_run: bool = False) -> list[Outcome]:
    """Read quarantined records again and land those that are orders now.

    :param dry_run: only say what would happen; nothing is written.
    :raises NotInQuarantine: an id fits no row, or several.
    :raises RetriableError: the ledger failed; what landed before has landed.
    """
    outcomes = []
    rows = find(ledger, wanted)
    with redrive_run(ledger, settings) as run:
        for row in rows:
            if row.state != QUARANTINED:
                outcomes.append(Outcome(row.id, row.reference, "unchanged", detail=f"it is {row.state}"))
                continue
            (whole,) = find(ledger, Wanted(ids=(row.id,)), with_raw=True)  # one at a time: a record may have megabytes
            outcomes.append(_redrive(ledger, run, whole, settings, dry_run, named=bool(wanted.ids)))
    return outcomes


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


def _redrive(
    ledger: Ledger, run: Redrive, row: Quarantined, settings: Settings, dry_run: bool, *, named: bool
) -> Outcome:
    if why := _why_impossible(row, named):
        return Outcome(row.id, row.reference, "impossible", row.reason, why)
    try:
        arrivals = [
            arrival(
                order,
                source=row.source,
                reference=row.reference,
                raw=row.raw,
                heading=row.heading,
                settings=settings,
                published_at=row.received_at,  # not later than that
                by_rows=bool(row.heading),
            )
            for order in _read_again(row, settings)
        ]
        if dry_run:
            new = len(arrivals) - len(known_keys(ledger, [item.key for item in arrivals]))
        else:
            new = run.land(arrivals, [row.id]).orders
    except RecordRefused as error:
        if not dry_run:
            note_reason(ledger, row.id, error.reason, error.detail)
        return Outcome(row.id, row.reference, "refused", error.reason, error.detail)
    return Outcome(row.id, row.reference, "landed" if new else "known")


def _read_again(row: Quarantined, settings: Settings) -> list[InStoreOrder]:
    if row.source != "extract":
        return [parse_order(row.raw, settings.max_message_bytes)]
    read = format_of(_file_of(row))
    if read is None:
        raise RecordRefused(row.reason, "its file's name no longer names a known format")
    try:
        records = list(read(io.BytesIO(row.heading + row.raw), settings))
    except BrokenExtract as error:
        raise RecordRefused("bad_value", f"its rows break off: {error.detail}") from None
    if not records:
        raise RecordRefused("bad_value", "its rows hold no order")
    orders = []
    for record in records:
        if isinstance(record.order, RecordRefused):
            raise record.order
        orders.append(record.order)
    return orders


def _why_impossible(row: Quarantined, named: bool) -> str:
    if row.reason == CUT_ORDER and not named:
        return "it may be the half of an order; have the ERP deliver its file again, or redrive it by its id"
    if row.reason == BROKEN_FILE:
        return "the file is broken from there on; have the ERP deliver it whole again, under this name or another"
    if row.source != "extract":
        return ""
    if row.reason == "too_large":
        return "only its beginning was kept; raise INSTORE_MAX_MESSAGE_BYTES and have the ERP deliver the file again"
    if not row.heading and _file_of(row).lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        return "its file's column names were not kept; have the ERP deliver the file again"
    return ""


def _file_of(row: Quarantined) -> str:
    return row.reference.rpartition(":")[0]
