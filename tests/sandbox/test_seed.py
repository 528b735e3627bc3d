"""Seeding puts exactly the sample week on the topic and in the folder, and in hostile mode what breaks."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusReceivedMessage

from sandbox import week
from sandbox.seed import (
    CUT_EXTRACT,
    MALFORMED_REASONS,
    copy_extracts,
    malformed_messages,
    seed,
    write_cut_extract,
)
from sandbox.servicebus import ServiceBusStandIn

COUNTS = json.loads((week.WEEK / "counts.json").read_text())


@pytest.fixture
def bus() -> Iterator[ServiceBusStandIn]:
    with ServiceBusStandIn() as stand_in:
        yield stand_in


def _received(bus: ServiceBusStandIn, most: int) -> list[ServiceBusReceivedMessage]:
    found: list[ServiceBusReceivedMessage] = []
    with (
        ServiceBusClient.from_connection_string(bus.connection_string) as client,
        client.get_subscription_receiver("orders", "orderprocessing") as receiver,
    ):
        while len(found) < most:
            found += receiver.peek_messages(250, sequence_number=found[-1].sequence_number + 1 if found else 0)
        assert receiver.peek_messages(1, sequence_number=found[-1].sequence_number + 1) == []
    return found


def test_the_whole_week_is_in_the_subscription_as_a_publisher_would_send_it(bus: ServiceBusStandIn) -> None:
    seeded = seed(connection_string=bus.connection_string)
    assert (seeded.messages, seeded.malformed, seeded.extracts) == (COUNTS["topic"], 0, 0)
    received = _received(bus, 2113)
    assert [b"".join(message.body) for message in received] == [message.body for message in week.messages()]
    first = received[0]
    order = json.loads(b"".join(first.body))
    assert (first.content_type, first.message_id, first.subject) == (
        *("application/json", order["orderNumber"], order["storeId"]),
    )
    assert first.application_properties == {b"source": b"pos", b"event": b"OrderCompleted"}


def test_hostile_adds_five_messages(bus: ServiceBusStandIn) -> None:
    seeded = seed(connection_string=bus.connection_string, hostile=True)
    assert (seeded.messages, seeded.malformed) == (2113, 5)
    assert len(_received(bus, 2118)) == 2118


def test_each_malformed_message_breaks_one_rule_and_no_other() -> None:
    texts = [message.body for message in malformed_messages()]
    assert len(texts) == len(MALFORMED_REASONS) == len({message.order_number for message in malformed_messages()})
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(texts[0])
    assert isinstance(json.loads(texts[1]), str)
    good = {"date", "storeId", "storeName", "loyaltyCardNumber", "emailAddress", "currency", "total", "lines"}
    assert json.loads(texts[2]).keys() == good
    assert json.loads(texts[3]).keys() == json.loads(texts[4]).keys() - {"orderType"} == good | {"orderNumber"}
    assert (json.loads(texts[3])["total"], json.loads(texts[4])["orderType"]) == ("nine dollars", "raffle")


def test_the_extracts_are_copied_by_day_and_as_old_as_their_day(tmp_path: Path) -> None:
    assert copy_extracts(tmp_path) == 7
    orders = set()
    for day in range(5, 12):
        path = tmp_path / f"2017/06/{day:02}/orders-2017-06-{day:02}.csv.gz"
        orders |= {row["order_number"] for row in week.read_extract(path)}
        written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
        assert (written.day, written.hour) == (day, 23)
    assert len(orders) == COUNTS["extract"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 7


def test_the_cut_extract_has_19_whole_orders_and_ends_inside_a_line_of_the_20th(tmp_path: Path) -> None:
    assert write_cut_extract(tmp_path) == 19
    header, *lines = gzip.decompress((tmp_path / CUT_EXTRACT).read_bytes()).decode().split("\n")
    *whole, broken = lines
    assert {len(line.split(",")) for line in whole} == {len(header.split(","))}
    numbers = list(dict.fromkeys(line.split(",")[0] for line in whole))
    assert len(numbers) == 20
    assert broken == f"{numbers[-1]},2017-06-1"
    assert {line.split(",")[1][:10] for line in whole} == {"2017-06-12"}
    assert {line.split(",")[4] for line in whole} <= week.matched_cards()


def test_the_cut_extract_repeats_no_order_of_the_week(tmp_path: Path) -> None:
    write_cut_extract(tmp_path)
    known = {message.order_number for message in week.messages()}
    known |= {row["order_number"] for path in week.extracts() for row in week.read_extract(path)}
    assert len(known) == COUNTS["orders"]
    text = gzip.decompress((tmp_path / CUT_EXTRACT).read_bytes()).decode()
    assert not known & {line.split(",")[0] for line in text.split("\n")[1:]}


def test_the_truncated_gzip_gives_some_whole_orders_before_it_breaks(tmp_path: Path) -> None:
    whole = write_cut_extract(tmp_path, "gzip")
    packed = (tmp_path / CUT_EXTRACT).read_bytes()
    with pytest.raises(EOFError):
        gzip.decompress(packed)
    text = zlib.decompressobj(31).decompress(packed).decode("utf-8", "ignore")
    begun = dict.fromkeys(line.split(",")[0] for line in text.split("\n")[1:-1])
    assert 0 < whole < 20
    assert whole == len(begun) - 1


def test_the_cut_extract_delivered_again_is_whole(tmp_path: Path) -> None:
    write_cut_extract(tmp_path)
    cut = gzip.decompress((tmp_path / CUT_EXTRACT).read_bytes()).decode()
    assert write_cut_extract(tmp_path, "none") == 20
    whole = gzip.decompress((tmp_path / CUT_EXTRACT).read_bytes()).decode()
    assert whole.startswith(cut)
    assert whole.endswith("\n")


def test_seeding_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        copy_extracts(tmp_path / name)
        write_cut_extract(tmp_path / name)
    a, b = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.gz")}
        for name in ("a", "b")
    )
    assert a == b
    assert len(a) == 8


def test_the_refused_orders_are_matched_and_came_by_topic_only() -> None:
    refused = week.orders_to_refuse()
    assert refused == ("S0296-20170606-0586592", "S0372-20170608-3457580", "S0361-20170610-6606013")
    cards = {
        order["orderNumber"]: order["loyaltyCardNumber"]
        for order in (json.loads(message.body) for message in week.messages())
    }
    assert {cards[number] for number in refused} <= week.matched_cards()
    by_file = {row["order_number"] for path in week.extracts() for row in week.read_extract(path)}
    assert not by_file & set(refused)
