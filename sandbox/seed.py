"""Puts the week of sample orders where the pipeline finds them: messages on the topic, extracts in a folder.

`hostile` adds what a real ERP sends on a bad day: five malformed messages, and one extract that breaks off.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from . import week
from .week import SampleMessage

TOPIC = "orders"
CUT_EXTRACT = Path("2017/06/12/orders-2017-06-12.csv.gz")
CUT_EXTRACT_ORDERS = 20
# What the malformed messages must be refused for, in order (contracts.md, section 1).
MALFORMED_REASONS = ("not_json", "not_an_object", "missing_field", "bad_value", "unsupported_type")

Cut = Literal["line", "gzip", "none"]


@dataclass(frozen=True)
class Seeded:
    """What was put where.

    messages: good order messages sent. malformed: malformed ones sent beside them. extracts: files copied whole.
    cut_extract: the broken file, relative to the extracts folder, or None. cut_extract_whole_orders: how many orders
    stand in it before the one that is broken.
    """

    messages: int = 0
    malformed: int = 0
    extracts: int = 0
    cut_extract: str | None = None
    cut_extract_whole_orders: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the same as a JSON object."""
        return asdict(self)


def seed(
    *,
    connection_string: str | None = None,
    extracts: Path | None = None,
    topic: str = TOPIC,
    hostile: bool = False,
    cut: Cut = "line",
) -> Seeded:
    """Send the week's messages and copy its extracts; leave out the side whose place is None.

    Sending again sends again: the topic is not asked what it has. Copying again overwrites with the same.
    Raises azure.servicebus.exceptions.ServiceBusError when the topic cannot be reached.
    """
    sent = malformed = copied = whole_orders = 0
    if connection_string is not None:
        bad = malformed_messages() if hostile else []
        send([*week.messages(), *bad], connection_string, topic)
        sent, malformed = sum(1 for _ in week.messages()), len(bad)
    if extracts is not None:
        copied = copy_extracts(extracts)
        if hostile:
            whole_orders = write_cut_extract(extracts, cut)
    return Seeded(sent, malformed, copied, CUT_EXTRACT.as_posix() if whole_orders else None, whole_orders)


def send(messages: Iterable[SampleMessage], connection_string: str, topic: str = TOPIC) -> int:
    """Send messages in as few batches as they fit in, in order, and return how many there were."""
    # Here and not above: the SDK takes half a second to import, and the stand-ins start without it.
    from azure.servicebus import ServiceBusClient, ServiceBusMessage

    sent = 0
    with (
        ServiceBusClient.from_connection_string(connection_string) as client,
        client.get_topic_sender(topic) as sender,
    ):
        batch = sender.create_message_batch()
        for message in messages:
            wire = ServiceBusMessage(
                message.body,
                content_type="application/json",
                message_id=message.order_number,
                subject=message.store_id,
                application_properties={"source": "pos", "event": "OrderCompleted"},
            )
            try:
                batch.add_message(wire)
            except ValueError:  # the batch is full
                sender.send_messages(batch)
                batch = sender.create_message_batch()
                batch.add_message(wire)
            sent += 1
        if len(batch):
            sender.send_messages(batch)
    return sent


def malformed_messages() -> list[SampleMessage]:
    """Return one message for each of MALFORMED_REASONS, in that order."""
    front = b'"date":"2017-06-11T12:00:00Z","storeId":"0404","storeName":"Store 0404","loyaltyCardNumber":null,'
    middle = b'"emailAddress":"household1@example.com","currency":"USD",'
    return [
        SampleMessage(b'{"orderNumber":"S0404-20170611-H1","date":"2017-06-1', "S0404-20170611-H1", "0404"),
        SampleMessage(b'"S0404-20170611-H2"', "S0404-20170611-H2", "0404"),
        SampleMessage(b"{" + front + middle + b'"total":"9.99","lines":[]}', "S0404-20170611-H3", "0404"),
        SampleMessage(
            b'{"orderNumber":"S0404-20170611-H4",' + front + middle + b'"total":"nine dollars","lines":[]}',
            *("S0404-20170611-H4", "0404"),
        ),
        SampleMessage(
            b'{"orderNumber":"S0404-20170611-H5",'
            + front
            + middle
            + b'"total":"9.99","orderType":"raffle","lines":[]}',
            *("S0404-20170611-H5", "0404"),
        ),
    ]


def copy_extracts(folder: Path) -> int:
    """Copy the week's extracts below the folder as YYYY/MM/DD/…, each as old as its day, and return their number."""
    sources = week.extracts()
    for source in sources:
        place = source.relative_to(week.WEEK / "extracts")
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed, so that a run never sees half a file that is meant to be whole.
        passing = target.with_name(target.name + ".tmp")
        shutil.copyfile(source, passing)
        _set_evening(passing, place)
        passing.replace(target)
    return len(sources)


def write_cut_extract(folder: Path, cut: Cut = "line") -> int:
    """Write the extract that breaks off, and return how many whole orders stand in it before the break.

    cut: "line" ends a well-formed gzip in the middle of a line, so early in it that columns are missing; "gzip" ends
    the gzip itself half way; "none" delivers it whole.
    """
    header, orders = _orders_for_the_cut_extract()
    lines = [line for order in orders for line in order]
    if cut == "line":
        # The last order has lines left before the break: whoever takes it for whole loses part of a basket.
        broken = lines[-1][: lines[-1].index(",") + len(",2017-06-1")]
        packed = gzip.compress("".join([header, *lines[:-1], broken]).encode(), mtime=0)
        whole = len(orders) - 1
    else:
        packed = gzip.compress("".join([header, *lines]).encode(), mtime=0)
        whole = len(orders)
    if cut == "gzip":
        packed = packed[: len(packed) // 2]
        whole = _whole_orders_in(packed)
    target = folder / CUT_EXTRACT
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(packed)
    _set_evening(target, CUT_EXTRACT)
    return whole


def _orders_for_the_cut_extract() -> tuple[str, list[list[str]]]:
    """Return the heading and the lines, order by order, of 20 matched orders, made of real ones by renumbering."""
    matched = week.matched_cards()
    rows_of: dict[str, list[dict[str, str]]] = {}
    for row in week.read_extract(week.extracts()[0]):
        if row["loyalty_card"] in matched:
            rows_of.setdefault(row["order_number"], []).append(row)
    picked = [rows for rows in rows_of.values() if len(rows) >= 3][:CUT_EXTRACT_ORDERS]
    columns = list(picked[0][0])
    orders = []
    for number, rows in enumerate(picked, start=1):
        renumbered = [
            {
                **row,
                "order_number": f"S{row['store_id']}-20170612-90000{number:02d}",
                "order_date": row["order_date"].replace("2017-06-05", "2017-06-12"),
            }
            for row in rows
        ]
        orders.append([_csv_line(columns, row) for row in renumbered])
    return ",".join(columns) + "\n", orders


def _csv_line(columns: list[str], row: dict[str, str]) -> str:
    line = io.StringIO()
    csv.DictWriter(line, columns, lineterminator="\n").writerow(row)
    return line.getvalue()


def _whole_orders_in(packed: bytes) -> int:
    """Return how many orders of a truncated gzip are followed by the beginning of another."""
    readable = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            while piece := file.read1(64):
                readable.write(piece)
    except EOFError:
        pass
    whole_lines = readable.getvalue().decode("utf-8", "ignore").split("\n")[1:-1]
    return len({line.partition(",")[0] for line in whole_lines}) - 1


def _set_evening(path: Path, place: Path) -> None:
    year, month, day = (int(part) for part in place.parts[:3])
    evening = datetime(year, month, day, 23, 59, tzinfo=timezone.utc).timestamp()
    os.utime(path, (evening, evening))
