"""The one way in: a source's records are landed block by block, each in one commit, and then the source is told.

Topic, extracts, dead letters and quarantine are sources of this loop. A source that is told what became of a block
settles it: a message is completed, a file is loaded, a row of the quarantine gets today's reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from include.instore.ledger import Ledger
from include.instore.ledger.intake import Landed, LoadedExtract, arrival, land, refusal
from include.instore.ledger.known_again import AcceptAs
from include.instore.ledger.quarantined import known_keys
from include.instore.ledger.records import Arrival
from include.instore.ledger.records import Record as Record
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder, parse_order
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter, read_body

_NAMED = 20
"""Of so many orders a line of the log says where they came from."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """The records of one commit.

    :param extract: the file that is loaded with it, counted without this block.
    :param redriven: ids of the quarantine rows that the records come out of.
    :param all_or_none: where one of them is refused, or another order has its key, nothing is landed.
    :param accept_as: what a person says they are.
    """

    records: Sequence[Record]
    extract: LoadedExtract | None = None
    redriven: Sequence[str] = ()
    all_or_none: bool = False
    accept_as: AcceptAs | None = None


@dataclass(frozen=True)
class LandedBlock:
    """What became of a block.

    :param refused: by the record's index in the block. Of a block of all or none they say why nothing was landed.
    """

    landed: Landed = field(default_factory=Landed)
    refused: Mapping[int, RecordRefused] = field(default_factory=dict)


class Source(Protocol):
    """Where records come from."""

    def blocks(self) -> Iterator[Block]:
        """The records, each block after the one before has been settled."""
        ...

    def settle(self, block: Block, outcome: LandedBlock, /) -> None:
        """The block is on disk now."""
        ...


Lander = Callable[[Block], LandedBlock]


def land_all(source: Source, lander: Lander, *, settles: bool = True) -> Landed:
    """Land everything a source has.

    :param lander: :func:`into_ledger`, or :func:`would_land` for a look that changes nothing.
    :param settles: False: the source is not told, as in a dry run of one that does not know of dry runs.
    :raises RetriableError: the source or the ledger failed; what was settled has landed, all else comes again.
    """
    total = Landed()
    for block in source.blocks():
        outcome = lander(block)
        if settles:
            source.settle(block, outcome)
        total += outcome.landed
    return total


def into_ledger(ledger: Ledger, run_id: Callable[[], str], settings: Settings) -> Lander:
    """Land a block in one commit. :param run_id: of the run that it belongs to."""

    def lander(block: Block) -> LandedBlock:
        arrivals, refused = sort_block(block, settings)
        if block.all_or_none and refused:
            return LandedBlock(refused=refused)
        if short := [item.row["reference"] for item in arrivals if item.short]:
            log.info("lines of %d orders do not make their totals: %s", len(short), ", ".join(short[:_NAMED]))
        refusals = [refusal(block.records[index], error) for index, error in refused.items()]
        extract = block.extract and replace(
            block.extract,
            orders=block.extract.orders + len(arrivals),
            bad_rows=block.extract.bad_rows + len(refusals),
        )
        try:
            landed = land(
                ledger, run_id(), arrivals, refusals, extract, block.redriven,
                refuse_collisions=block.all_or_none, accept_as=block.accept_as,
            )  # fmt: skip
        except RecordRefused as error:
            return LandedBlock(refused={0: error})
        return LandedBlock(landed, refused)

    return lander


def would_land(ledger: Ledger, settings: Settings) -> Lander:
    """Say what landing a block would come to; nothing is written."""

    def lander(block: Block) -> LandedBlock:
        arrivals, refused = sort_block(block, settings)
        if block.all_or_none and refused:
            return LandedBlock(refused=refused)
        known = known_keys(ledger, [item.key for item in arrivals])
        new = len({item.key for item in arrivals} - known)
        landed = Landed(len(block.records), new, len(arrivals) - new, quarantined=len(refused))
        return LandedBlock(landed, refused)

    return lander


def records_of_body(
    source: str, reference: str, raw: bytes, published_at: datetime | None, adapter: Adapter
) -> list[Record]:
    """The orders of a body, or why it has none; of several each is a record of its own."""
    parts = read_body(raw, adapter)
    return [
        Record(
            source,
            reference if len(parts) == 1 else f"{reference}[{at}]",
            part.raw,
            part.order,
            published_at=published_at,
            adapter=part.adapter,
            fields=part.fields,
        )
        for at, part in enumerate(parts)
    ]


def order_or_refusal(raw: bytes, settings: Settings) -> InStoreOrder | RecordRefused:
    """The order of an order document, or why it is none."""
    try:
        return parse_order(raw, settings.orders.max_message_bytes)
    except RecordRefused as error:
        return error


def sort_block(block: Block, settings: Settings) -> tuple[list[Arrival], dict[int, RecordRefused]]:
    """The orders of a block, and its refusals by the record's index."""
    arrivals: list[Arrival] = []
    refused: dict[int, RecordRefused] = {}
    for index, record in enumerate(block.records):
        try:
            arrivals.append(arrival(record, settings))
        except RecordRefused as error:
            refused[index] = error
    return arrivals, refused
