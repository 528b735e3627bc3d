"""JSON arrays, XML, Parquet and archives: each order alone, and a file that breaks says where."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.sources.extracts.formats import read_file
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord
from tests.instore.given import CARD, document
from tests.instore.sources.extracts.rows import HEADER, csv_text, orders_text, row

MakeSettings = Callable[..., Settings]


def read(name: str, raw: bytes, settings: Settings) -> tuple[list[ExtractRecord], BrokenExtract | None]:
    """The records of a file, and where it broke."""
    records: list[ExtractRecord] = []
    try:
        for record in read_file(io.BytesIO(raw), name, settings):
            records.append(record)
    except BrokenExtract as broken:
        return records, broken
    return records, None


def told(records: list[ExtractRecord]) -> list[str]:
    return [each.order.reason if isinstance(each.order, RecordRefused) else each.order.order_number for each in records]


def with_adapter(folder: Path, text: str, settings: MakeSettings, **more: Any) -> Settings:
    path = folder / "acme.yaml"
    path.write_text(text)
    return settings(extract_adapters={"*": str(path)}, **more)


ORDERS = [document("S1"), document("S2", total="2.5000"), document("S3")]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_each_element_of_an_array_is_an_order(settings: MakeSettings, indent: int | None, mark: str) -> None:
    records, broken = read("a.json", json.dumps(ORDERS, indent=indent).encode(mark), settings())
    assert (told(records), broken, [each.line for each in records]) == (["S1", "S2", "S3"], None, [1, 2, 3])
    assert json.loads(records[1].raw)["total"] == "2.5000"


@pytest.mark.parametrize("text", ["", " \n", "[]", " [ ] "])
def test_a_file_without_orders_is_one_of_none(settings: MakeSettings, text: str) -> None:
    assert read("a.json", text.encode(), settings()) == ([], None)


def test_one_document_is_an_order_and_so_are_several_one_behind_the_other(settings: MakeSettings) -> None:
    one = json.dumps(document("S1"), indent=1)
    assert told(read("a.json", one.encode(), settings())[0]) == ["S1"]
    assert told(read("a.json", (one + "\n" + json.dumps(document("S2"))).encode(), settings())[0]) == ["S1", "S2"]


def test_an_element_that_is_no_order_is_set_aside_alone(settings: MakeSettings) -> None:
    raw = json.dumps([document("S1"), 5, {"orderNumber": "S2"}, document("S3")]).encode()
    records, broken = read("a.json", raw, settings())
    assert (told(records), broken) == (["S1", "not_an_object", "missing_field", "S3"], None)
    assert (records[1].raw, json.loads(records[2].raw)) == (b"5", {"orderNumber": "S2"})


def test_numbers_keep_their_digits(settings: MakeSettings) -> None:
    raw = json.dumps([document("S1")]).replace('"3.50"', "3.50000000000000000001").encode()
    ((record,), _) = read("a.json", raw, settings())
    assert isinstance(record.order, InStoreOrder)
    assert str(record.order.total) == "3.50000000000000000001"


def test_an_order_of_an_array_that_says_two_things_is_set_aside_alone(settings: MakeSettings) -> None:
    contradicting = [
        json.dumps(document(number))[:-1] + twice
        for number, twice in (("S1", ', "total": "9.99"}'), ("S2", ', "lines": [{"total": "1", "total": "2"}]}'))
    ]
    same = json.dumps(document("S3"))[:-1] + ', "total": "3.50"}'
    records, broken = read("a.json", f"[{', '.join([*contradicting, same])}]".encode(), settings())
    assert (told(records), broken) == (["bad_value", "bad_value", "S3"], None)


def test_a_cut_array_breaks_behind_its_last_whole_order(settings: MakeSettings) -> None:
    raw = json.dumps(ORDERS).encode()
    for cut in range(1, len(raw)):
        records, broken = read("a.json", raw[:cut], settings())
        assert broken is not None, cut
        assert told(records) == ["S1", "S2", "S3"][: len(records)]


def test_an_order_over_the_limit_is_too_large_and_one_without_end_breaks_the_file(settings: MakeSettings) -> None:
    small = settings(max_message_bytes=1024)
    raw = json.dumps([document("S1"), document("S2", note="x" * 2000), document("S3")]).encode()
    records, broken = read("a.json", raw, small)
    assert (told(records), broken) == (["S1", "too_large", "S3"], None)
    records, broken = read("a.json", b'[{"a": "' + b"x" * 3_000_000 + b'"}]', small)
    assert (records, str(broken)) == ([], "line 1: an order of more than 1024 bytes")


def test_nesting_without_end_is_refused(settings: MakeSettings) -> None:
    records, broken = read("a.json", b"[" + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"]", settings())
    assert broken is not None or told(records) == ["not_json"]


@pytest.mark.parametrize("orders", [ORDERS, ORDERS[:1], [], ORDERS[0]])
def test_the_orders_are_found_by_their_path(settings: MakeSettings, tmp_path: Path, orders: Any) -> None:
    chosen = with_adapter(tmp_path, "format: json\norders: body.value\n", settings)
    records, broken = read("a.json", json.dumps({"count": 3, "body": {"x": 1, "value": orders}}).encode(), chosen)
    numbers = [each["orderNumber"] for each in (orders if isinstance(orders, list) else [orders])]
    assert (told(records), broken) == (numbers, None)
    assert {record.adapter for record in records} <= {"acme[]"}


def test_a_path_that_leads_nowhere_breaks_the_file(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = with_adapter(tmp_path, "format: json\norders: value\n", settings)
    _, broken = read("a.json", json.dumps({"values": ORDERS}).encode(), chosen)
    assert str(broken) == "line 1: nothing is at value, where the orders are declared to be"


def test_in_an_array_the_path_begins_at_each_element(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = with_adapter(tmp_path, "format: json\norders: data.order\n", settings)
    raw = json.dumps([{"data": {"order": each}} for each in ORDERS[:2]] + [{"data": {}}]).encode()
    assert told(read("a.json", raw, chosen)[0]) == ["S1", "S2", "missing_field"]


def test_utf_16_is_read_where_it_is_declared(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = with_adapter(tmp_path, "format: json\nencoding: utf-16\n", settings)
    assert told(read("a.json", json.dumps(ORDERS).encode("utf-16"), chosen)[0]) == ["S1", "S2", "S3"]
    assert "the text is not utf-16" in str(read("a.json", b"\xff\xfe[\x00\x00\xd8", chosen)[1])


XML = """
format: xml
orders: Order
lists: [Line]
order: {orderNumber: '"@no"', date: Date, storeId: Store, loyaltyCardNumber: Card, currency: Total."@cur", total: Total}
lines_at: Lines.Line
lines: {productCode: Sku, description: Text, total: Sum}
"""
ORDER = (
    '<o:Order no="{0}"><Date>2026-11-24T10:00:00Z</Date><Store> S1 </Store><Card>' + CARD + "</Card>"
    '<Total cur="EUR">2.50</Total><Lines><!-- a --><Line><Sku>A<!-- b -->1</Sku><Text><![CDATA[a < b]]></Text>'
    "<Sum>2.50</Sum></Line></Lines></o:Order>"
)


def xml(*numbers: str, inside: str = "") -> bytes:
    orders = "\n".join(ORDER.format(number) for number in numbers)
    return f'<Orders xmlns:o="urn:o">\n{orders}{inside}\n</Orders>'.encode()


def test_an_xml_element_is_an_order(settings: MakeSettings, tmp_path: Path) -> None:
    records, broken = read("a.xml", xml("X1", "X2"), with_adapter(tmp_path, XML, settings))
    assert (told(records), broken, [each.line for each in records]) == (["X1", "X2"], None, [2, 3])
    order = records[0].order
    assert isinstance(order, InStoreOrder)
    assert (order.store_id, order.loyalty_card_number, str(order.total), order.currency) == ("S1", CARD, "2.50", "EUR")
    assert [(line.product_code, line.description) for line in order.lines] == [("A1", "a < b")]
    again, broken = read("a.xml", records[1].raw, with_adapter(tmp_path, XML, settings))
    assert (broken, [each.order for each in again]) == (None, [records[1].order])


@pytest.mark.parametrize("text", ["", "\n", "<Orders/>", "<Orders>\n</Orders>"])
def test_an_xml_file_without_orders_is_one_of_none(settings: MakeSettings, tmp_path: Path, text: str) -> None:
    assert read("a.xml", text.encode(), with_adapter(tmp_path, XML, settings)) == ([], None)


def test_an_xml_file_without_the_declared_element_is_broken(settings: MakeSettings, tmp_path: Path) -> None:
    raw = xml("X1").replace(b"Order ", b"Sale ").replace(b"o:Order>", b"o:Sale>")
    _, broken = read("a.xml", raw, with_adapter(tmp_path, XML, settings))
    assert "it has no element Order" in str(broken)


BOMB = '<!DOCTYPE o [<!ENTITY a "{}"><!ENTITY b "{}"><!ENTITY c "{}">]>'.format("x" * 1000, "&a;" * 1000, "&b;" * 1000)


@pytest.mark.parametrize(
    "raw",
    [
        BOMB.encode() + xml("X1", inside="<a>&c;</a>"),
        BOMB.encode() + xml("X1").replace(b"A<", b"&c;<"),
        BOMB.encode() + b"<Orders/>",
        b'<!DOCTYPE o [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + xml("X1").replace(b"A<", b"&a;<"),
        b'<!DOCTYPE o SYSTEM "http://127.0.0.1:9/o.dtd">' + xml("X1").replace(b"A<", b"&a;<"),
    ],
    ids=["behind", "in it", "no order", "a file", "a network"],
)
def test_entities_are_never_expanded(settings: MakeSettings, tmp_path: Path, raw: bytes) -> None:
    records, broken = read("a.xml", raw, with_adapter(tmp_path, XML, settings))
    assert broken is not None
    assert all("root:" not in record.raw.decode() for record in records)


def test_a_cut_xml_file_breaks_behind_its_last_whole_order(settings: MakeSettings, tmp_path: Path) -> None:
    raw, chosen = xml("X1", "X2"), with_adapter(tmp_path, XML, settings)
    for cut in range(1, len(raw), 7):
        records, broken = read("a.xml", raw[:cut], chosen)
        assert broken is not None, cut
        assert told(records) == ["X1", "X2"][: len(records)]


def test_xml_without_an_adapter_is_not_read(settings: MakeSettings) -> None:
    _, broken = read("a.xml", xml("X1"), settings())
    assert "is that of no extract" in str(broken)


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return out.getvalue()


def test_every_file_of_an_archive_is_read(settings: MakeSettings) -> None:
    raw = archive(
        **{
            "in/a.csv": orders_text("S1").encode(),
            "b.json": json.dumps([document("S2")]).encode(),
            "c.jsonl.gz": gzip.compress(json.dumps(document("S3")).encode()),
            "__MACOSX/in/._a.csv": b"\0",
            "in/": b"",
        }
    )
    records, broken = read("a.zip", raw, settings())
    assert (told(records), broken) == (["S1", "S2", "S3"], None)
    assert [record.member for record in records] == ["in/a.csv", "b.json", "c.jsonl.gz"]


@pytest.mark.parametrize("name", ["readme.pdf", "a.zip", "a.xml"])
def test_a_file_in_an_archive_that_nobody_reads_breaks_it(settings: MakeSettings, name: str) -> None:
    _, broken = read("a.zip", archive(**{name: b"PK", "z.csv": orders_text("S1").encode()}), settings())
    assert "is that of no extract" in str(broken) or "another archive" in str(broken)


def test_a_broken_file_in_an_archive_is_named(settings: MakeSettings) -> None:
    raw = archive(**{"a.csv": orders_text("S1").encode(), "in/b.json": b"[{"})
    records, broken = read("a.zip", raw, settings())
    assert (told(records), str(broken)) == (["S1"], "line 1: in in/b.json: the text is not JSON from here")


def test_an_archive_that_would_be_too_large_is_refused_before_it_is_read(settings: MakeSettings) -> None:
    raw = archive(**{f"{n}.csv": b"0" * 1_000_000 for n in range(3)})
    records, broken = read("a.zip", raw, settings(max_extract_bytes=2_000_000))
    assert (records, str(broken)) == ([], "line 1: holds 3000000 bytes, 2000000 are accepted")


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "xml", "parquet"])
def test_a_gzip_file_that_unpacks_to_too_much_is_given_up_there(
    settings: MakeSettings, tmp_path: Path, ending: str
) -> None:
    body = json.dumps(document("S1")).encode()
    texts = {
        "csv": orders_text("S1").encode() + b"\n" * 300_000,
        "json": body + b" " * 300_000,
        "jsonl": body + b"\n" * 300_000,
        "xml": b"<all>" + b"<a/>" * 75_000 + b"</all>",
        "parquet": b"PAR1" + bytes(300_000),
    }
    declared = tmp_path / "acme.yaml"
    declared.write_text("format: xml\norders: order\n")
    limits = settings(max_extract_bytes=200_000, extract_adapters={"*.xml.gz": str(declared)})
    raw = gzip.compress(texts[ending])
    assert len(raw) < 20_000
    _, broken = read(f"a.{ending}.gz", raw, limits)
    assert str(broken) == "line 1: unpacks to more than 200000 bytes, which is all that is accepted"
    assert "unpacks" not in str(read(f"a.{ending}.gz", raw, limits.having(max_extract_bytes=400_000))[1])


def test_a_damaged_or_cut_archive_is_broken(settings: MakeSettings) -> None:
    text = csv_text(*(row(f"S{n}", description=f"{n * 7919}") for n in range(300)))
    raw = archive(**{"a.csv": text.encode()})
    for damaged in (raw[:-30], raw[: len(raw) // 2], raw[:400] + b"\xff" * 40 + raw[440:], b"PK\x03\x04"):
        records, broken = read("a.zip", damaged, settings())
        assert broken is not None
        assert len(records) < 300


def test_an_archive_s_adapter_is_chosen_by_either_name(settings: MakeSettings, tmp_path: Path) -> None:
    path = tmp_path / "acme.yaml"
    path.write_text(XML)
    raw = archive(**{"a.xml": xml("X1")})
    for pattern in ("a.zip", "*.zip/*.xml", "*.xml"):
        records, broken = read("a.zip", raw, settings(extract_adapters={pattern: str(path)}))
        assert (told(records), broken) == (["X1"], None)


def as_parquet(table: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, **options)
    return out.getvalue()


def rows_of(*orders: str) -> Any:
    return pa.Table.from_pylist(
        [dict(zip(HEADER, row(number, line), strict=True)) for number in orders for line in (1, 2)]
    )


def test_parquet_is_read_as_a_csv_of_its_rows(settings: MakeSettings) -> None:
    records, broken = read("a.parquet", as_parquet(rows_of("S1", "S2")), settings())
    of_csv, _ = read("a.csv", orders_text("S1", "S2").encode(), settings())
    assert (broken, [each.order for each in records]) == (None, [each.order for each in of_csv])
    again, _ = read("a.parquet", records[1].heading + records[1].raw, settings())
    assert [each.order for each in again] == [records[1].order]


def test_parquet_keeps_decimals_times_and_text(settings: MakeSettings) -> None:
    moment = datetime(2026, 11, 24, 10, 15, 30, 250000, tzinfo=timezone.utc)
    table = pa.table(
        {
            "order_number": ["007"],
            "order_date": pa.array([moment], pa.timestamp("us", "UTC")),
            "store_id": [404],
            "email": ["a@example.com"],
            "currency": ["EUR"],
            "order_total": pa.array([Decimal("12345678901234567.89")], pa.decimal128(20, 2)),
            "description": ['two\nlines, "quoted"'],
            "quantity": pa.array([None], pa.int64()),
        }
    )
    ((record,), _) = read("a.parquet", as_parquet(table), settings())
    order = record.order
    assert isinstance(order, InStoreOrder), order
    assert (order.order_number, order.date, order.store_id) == ("007", moment, "404")
    assert (str(order.total), order.lines[0].description) == ("12345678901234567.89", 'two\nlines, "quoted"')
    assert order.lines[0].quantity is None


def test_a_damaged_parquet_file_or_one_with_lists_is_broken(settings: MakeSettings) -> None:
    whole = as_parquet(rows_of(*(f"S{n}" for n in range(200))), row_group_size=50)
    for damaged in (whole[:-8], whole[: len(whole) // 2], whole[:200] + b"\xff" * 50 + whole[250:], b"PAR1"):
        records, broken = read("a.parquet", damaged, settings())
        assert broken is not None
        assert len(records) < 200
    nested = as_parquet(pa.table({"order_number": ["S1"], "lines": [[{"a": 1}]]}))
    assert str(read("a.parquet", nested, settings())[1]) == (
        "line 1: column lines has lists or objects; have it written with a row a line"
    )


def test_parquet_by_an_adapter(settings: MakeSettings, tmp_path: Path) -> None:
    declared = "format: parquet\norder: {orderNumber: No, date: At, storeId: Shop, emailAddress: Mail, total: Sum}\n"
    chosen = with_adapter(tmp_path, declared + "constants: {currency: EUR}\n", settings)
    table = pa.table(
        {"No": [7], "At": ["2026-11-24T10:00:00Z"], "Shop": ["S1"], "Mail": ["a@example.com"], "Sum": [1.5]}
    )
    assert told(read("a.pq", as_parquet(table), chosen)[0]) == ["7"]


def test_without_pyarrow_a_parquet_file_alone_is_not_read(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    _, broken = read("a.parquet", as_parquet(rows_of("S1")), settings())
    assert "pyarrow is not installed; install requirements-parquet.txt, and release the file" in str(broken)
