"""JSON Lines: one order per line, the same document as a message's body."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from include.instore.model.errors import RecordRefused
from include.instore.model.settings import Settings
from include.instore.sources.extracts.json_lines import read_json_lines
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord
from tests.instore.given import body

MakeSettings = Callable[..., Settings]


def read(content: bytes, settings: Settings) -> tuple[list[ExtractRecord], BrokenExtract | None]:
    records: list[ExtractRecord] = []
    try:
        for record in read_json_lines(io.BytesIO(content), settings):
            records.append(record)
    except BrokenExtract as broken:
        return records, broken
    return records, None


def told(records: list[ExtractRecord]) -> list[str]:
    return [each.order.reason if isinstance(each.order, RecordRefused) else each.order.order_number for each in records]


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n", b"\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_each_line_is_an_order(settings: MakeSettings, line_break: bytes, mark: bytes) -> None:
    records, broken = read(mark + line_break.join([body("S1"), body("S2"), b""]), settings())
    assert (told(records), broken) == (["S1", "S2"], None)


def test_the_last_line_needs_no_line_break(settings: MakeSettings) -> None:
    assert told(read(body("S1") + b"\n" + body("S2"), settings())[0]) == ["S1", "S2"]


def test_a_bad_line_is_refused_as_a_message_is_and_does_not_stop_the_ones_after_it(settings: MakeSettings) -> None:
    lines = [
        body("S1"),
        b"{",
        b"[]",
        body("S2", total="ten"),
        body("S3", total=None),
        body("S4", orderType="x"),
        body("S5"),
    ]
    records, broken = read(b"\n".join(lines), settings())
    assert broken is None
    assert told(records) == ["S1", "not_json", "not_an_object", "bad_value", "missing_field", "unsupported_type", "S5"]
    assert [record.line for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert [record.raw.strip() for record in records] == lines


def test_a_line_over_the_limit_is_too_large_and_the_ones_after_it_are_read(settings: MakeSettings) -> None:
    raw = b"\n".join([body("S1"), body("S2", storeName="x" * 10_000), body("S3"), body("S4", storeName="å" * 2000)])
    records, broken = read(raw, settings(max_message_bytes=2048))
    assert (told(records), broken) == (["S1", "too_large", "S3", "too_large"], None)
    assert [record.line for record in records] == [1, 2, 3, 4]


def test_a_file_cut_in_the_middle_of_a_line_keeps_the_orders_before(settings: MakeSettings) -> None:
    raw = body("S1") + b"\n" + body("S2") + b"\n" + body("S3")[:-20]
    records, broken = read(raw, settings())
    assert told(records) == ["S1", "S2"]
    assert broken is not None
    assert (broken.line, broken.raw) == (3, body("S3")[:-20])


def test_a_byte_of_another_encoding_spoils_its_line_only(settings: MakeSettings) -> None:
    raw = b"\n".join([body("S1"), body("S2").replace(b"Store", b"St\xffre"), body("S3"), b""])
    records, broken = read(raw, settings())
    assert (told(records), broken) == (["S1", "not_json", "S3"], None)
    assert b"".join(record.raw for record in records) == raw


def test_a_declared_trailer_is_compared_with_the_lines(settings: MakeSettings) -> None:
    declared = settings(extract_trailer=r"#(?P<count>\d+)")
    lines = body("S1") + b"\n" + body("S2") + b"\n"
    assert read(lines + b"#2\n", declared)[1] is None
    for wrong in (lines, lines + b"#3\n", body("S1") + b"\n#2\n"):
        assert read(wrong, declared)[1] is not None


def test_an_empty_file_has_no_orders_and_is_not_broken(settings: MakeSettings) -> None:
    assert read(b"", settings()) == ([], None)
