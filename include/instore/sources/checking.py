"""What files and messages would become, before any run: read and checked as a run does it, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from azure.servicebus import ServiceBusClient, ServiceBusMessageState

from include.instore.ledger.records import Arrival
from include.instore.model.codes import BROKEN_FILE
from include.instore.model.errors import RecordRefused
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter
from include.instore.sources.bus import bus_errors, peeked, receivers_of, records_of
from include.instore.sources.extracts.apart import OrdersOfFile
from include.instore.sources.extracts.discovery import ExtractFile
from include.instore.sources.extracts.loading import Reading
from include.instore.sources.feeds import FeedLooks
from include.instore.sources.landing import Block, Record, records_of_body, sort_block

Checked = tuple[Record, Arrival | RecordRefused]


def check_file(path: Path, settings: Settings, adapter: Adapter) -> Iterator[Checked]:
    """What a run would make of an extract's file. Of one that is broken it would load nothing."""
    file = ExtractFile(str(path), path.name, "", path.stat().st_mtime)
    with OrdersOfFile(settings) as orders:
        reading = Reading(path, file, orders, FeedLooks(path.name, None), settings, adapter)
        fault = reading.to_its_end()
        for block in reading.blocks():
            yield from _checked(block, settings)
        if fault and not reading.fault:  # each record can be read, and yet it seems not to be whole
            broken = RecordRefused(BROKEN_FILE, f"line {fault.line}: {fault.detail}")
            yield Record("extract", f"{path.name}:{fault.line}", b"", broken), broken


def check_message(path: Path, settings: Settings, adapter: Adapter) -> Iterator[Checked]:
    """What a run would make of a message with this body."""
    records = records_of_body("topic", "body", path.read_bytes(), datetime.now(timezone.utc), adapter)
    yield from _checked(Block(records), settings)


def check_topic(client: ServiceBusClient, settings: Settings, adapter: Adapter) -> Iterator[Checked]:
    """What a run would make of the messages on the subscription, ``drain_max_messages`` at most, which stay there.

    :raises ConfigurationError: wrong key, or no such topic or subscription. :raises RetriableError: the bus failed.
    """
    with bus_errors(settings.bus), client:
        for receiver in receivers_of(client, settings.bus):
            for messages in peeked(receiver, settings.bus.drain_block, settings.bus.drain_max_messages):
                active = [message for message in messages if message.state == ServiceBusMessageState.ACTIVE]
                records = [record for message in active for record in records_of(message, adapter)]
                yield from _checked(Block(records), settings)


def _checked(block: Block, settings: Settings) -> Iterator[Checked]:
    arrivals, refused = sort_block(block, settings)
    landed = iter(arrivals)
    for index, record in enumerate(block.records):
        yield record, refused.get(index) or next(landed)
