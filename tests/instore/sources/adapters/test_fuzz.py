"""Made-up orders written in made-up dialects: what is read is what was written, or it is refused by name.

``make fuzz`` runs this for half an hour; with ``make test`` it is short. What stands in the files is read a second time
by another reader: pyarrow for CSV and Parquet, ElementTree for XML, the standard library for JSON.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pyarrow as pa
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from include.instore.model.declarations import Declaration
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import load_settings
from include.instore.sources.adapters import Adapter, read_body
from include.instore.sources.extracts.formats import read_file
from include.instore.sources.extracts.records import BrokenExtract

SETTINGS = load_settings(max_message_bytes=20_000, three_decimals="accept")
ZONE = "Europe/Berlin"
ORDER = {
    "orderNumber": "Beleg", "date": "Datum", "storeId": "Filiale", "total": "Summe", "loyaltyCardNumber": "Karte",
}  # fmt: skip
LINE = {"productCode": "Artikel", "description": "Text", "quantity": "Menge", "total": "Betrag"}
HEADINGS = [*ORDER.values(), *LINE.values()]
DATES = ("%d.%m.%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y%m%d%H%M%S", "iso")

short = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")), deadline=None, suppress_health_check=list(HealthCheck)
)
amounts = st.decimals(-10_000_000, 10_000_000, places=2, allow_nan=False)
names = st.text("ABCxyz0189äßé -_#/", min_size=1, max_size=12).map(str.strip).filter(bool)
texts = st.text("ABCxyz0189äßé ,;|\t\"'<&>\n", max_size=20).map(str.strip)
moments = st.datetimes(datetime(2001, 1, 1), datetime(2026, 10, 24)).map(lambda at: at.replace(microsecond=0))  # noqa: DTZ001
lines = st.fixed_dictionaries({"Artikel": names, "Text": texts, "Menge": amounts, "Betrag": amounts})
cards = st.from_regex(r"\A60[0-9]{14}\Z")
orders = st.lists(
    st.fixed_dictionaries({
        "Beleg": names, "Datum": moments, "Filiale": names, "Summe": amounts, "Karte": cards,
        "lines": st.lists(lines, min_size=1, max_size=3),
    }),
    min_size=1, max_size=5, unique_by=lambda order: order["Beleg"].casefold(),
)  # fmt: skip
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.text("019.,;xä\n<>{}:", max_size=3)), max_size=2)
dialects = st.fixed_dictionaries({
    "decimal": st.sampled_from(".,"), "thousands": st.sampled_from(["", ".", ",", " ", "'"]),
    "negative": st.sampled_from(["minus", "trailing_minus", "parentheses"]), "date": st.sampled_from(DATES),
}).filter(lambda dialect: dialect["decimal"] != dialect["thousands"])  # fmt: skip


def written(value: Any, dialect: dict[str, Any]) -> str:
    """A value as an ERP of this dialect writes it."""
    if isinstance(value, datetime):
        return value.isoformat() if dialect["date"] == "iso" else value.strftime(dialect["date"])
    if not isinstance(value, Decimal):
        return str(value)
    text = f"{abs(value):,.2f}".replace(".", "D").replace(",", dialect["thousands"]).replace("D", dialect["decimal"])
    around = {"minus": f"-{text}", "trailing_minus": f"{text}-", "parentheses": f"({text})"}
    return around[dialect["negative"]] if value < 0 else text


def adapter(form: str, dialect: dict[str, Any], **more: Any) -> Adapter:
    numbers = {"decimal": dialect["decimal"], "thousands": dialect["thousands"], "negative": [dialect["negative"]]}
    declared = {
        "name": "acme", "format": form, "order": ORDER, "lines": LINE, "constants": {"currency": "EUR"},
        "numbers": numbers, "dates": {"formats": [dialect["date"]], "zone": ZONE}, **more,
    }  # fmt: skip
    return Adapter(SETTINGS, Declaration.model_validate(declared))


def told(order: InStoreOrder) -> tuple[Any, ...]:
    """What an order says, in the order of the columns."""
    parts = [(line.product_code, line.description or "", line.quantity, line.total) for line in order.lines]
    at = order.date.replace(tzinfo=None) if isinstance(order.date, datetime) else order.date
    return order.order_number, at, order.store_id, order.total, order.loyalty_card_number, tuple(parts)


def said(order: dict[str, Any]) -> tuple[Any, ...]:
    parts = [tuple(line[name] for name in LINE.values()) for line in order["lines"]]
    return *(order[name] for name in ORDER.values()), tuple(parts)


def found(raw: bytes, name: str, using: Adapter) -> tuple[list[InStoreOrder | RecordRefused], bool]:
    """What is read of a file, and whether to its end."""
    records: list[InStoreOrder | RecordRefused] = []
    try:
        for record in read_file(io.BytesIO(raw), name, SETTINGS, using):
            records.append(record.order)
    except BrokenExtract:
        return records, False
    return records, True


def assert_all_is_right(records: list[InStoreOrder | RecordRefused], truth: list[dict[str, Any]]) -> None:
    """Each order is there as it was written, or refused; none is refused without a reason that fits."""
    assert len(records) == len(truth)
    for record, order in zip(records, truth, strict=True):
        if isinstance(record, RecordRefused):
            # A number that a spreadsheet has damaged, such as 1E01, is what may be refused of these.
            assert record.reason == "bad_value", record.detail
            assert "orderNumber" in record.detail, record.detail
        else:
            assert told(record) == said(order)


def rows(truth: list[dict[str, Any]], dialect: dict[str, Any]) -> Iterator[list[str]]:
    for order in truth:
        for line in order["lines"]:
            whole = {**order, **line}
            yield [written(whole[name], dialect) for name in HEADINGS]


def csv_of(truth: list[dict[str, Any]], dialect: dict[str, Any], delimiter: str, **more: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, **more)
    writer.writerow(HEADINGS)
    writer.writerows(rows(truth, dialect))
    return text.getvalue()


@short
@given(
    truth=orders, dialect=dialects, delimiter=st.sampled_from(",;\t|"), ends=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]), quotes=st.sampled_from([0, 1]),
    titles=st.integers(0, 2), separator=st.booleans(),
)  # fmt: skip
def test_a_csv_of_any_dialect_is_read_as_it_was_written(
    truth: Any, dialect: Any, delimiter: str, ends: str, encoding: str, quotes: int, titles: int, separator: bool
) -> None:
    text = csv_of(truth, dialect, delimiter, lineterminator=ends, quoting=quotes)
    above = f"A title{ends}" * titles + f"sep={delimiter}{ends}" * separator
    using = adapter("csv", dialect, encoding=encoding, delimiter=delimiter, title_lines=titles)
    records, whole = found((above + text).encode(encoding), "a.csv", using)
    assert whole
    assert_all_is_right(records, truth)
    # What another reader has in each cell is what we have written.
    options = arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    table = arrow_csv.read_csv(
        io.BytesIO(text.encode()), parse_options=options,
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(HEADINGS, pa.string())),
    )  # fmt: skip
    cells = [list(row.values()) for row in table.to_pylist()]
    assert cells == list(rows(truth, dialect))


@short
@given(truth=orders, dialect=dialects, changes=edits, cut=st.floats(0, 1) | st.none())
def test_what_is_read_of_a_damaged_csv_is_in_its_cells(truth: Any, dialect: Any, changes: Any, cut: Any) -> None:
    plain = [{**order, "lines": [{**line, "Text": ""} for line in order["lines"]]} for order in truth]
    text = csv_of(plain, dialect, ";", lineterminator="\n", quoting=csv.QUOTE_NONE, escapechar="\\")
    begin = text.index("\n") + 1
    text = damaged(text, changes, begin)
    text = text if cut is None else text[: begin + int(cut * (len(text) - begin))]
    records, _ = found(text.encode(), "a.csv", adapter("csv", dialect, delimiter=";"))
    cells = [line.split(";") for line in text.splitlines()[1:]]
    for record in records:
        if isinstance(record, InStoreOrder):
            mine = [row for row in cells if row[0].strip() == record.order_number]
            assert {line.product_code for line in record.lines} <= {row[5].strip() for row in mine if len(row) == 9}
            assert record.total in {amount(row[3], dialect) for row in mine if len(row) > 3}


def amount(text: str, dialect: dict[str, Any]) -> Decimal | None:
    """What a person would take an amount for."""
    bare = text.strip().strip("-+()").replace(dialect["thousands"] or " ", "").replace(dialect["decimal"], ".").strip()
    try:
        return Decimal(bare) * (-1 if {"-", "("} & set(text) else 1)
    except InvalidOperation:
        return None


def damaged(text: str, changes: list[tuple[float, int, str]], begin: int = 0) -> str:
    for where, gone, new in changes:
        at = begin + int(where * (len(text) - begin))
        text = text[:at] + new + text[at + gone :]
    return text


@short
@given(truth=orders, dialect=dialects, changes=edits, zipped=st.booleans())
def test_xml_is_read_as_another_reader_reads_it(truth: Any, dialect: Any, changes: Any, zipped: bool) -> None:
    def element(order: dict[str, Any]) -> str:
        inner = "".join(f"<{name}>{escape(written(order[name], dialect))}</{name}>" for name in ORDER.values())
        parts = "".join(
            "<Zeile>" + "".join(f"<{name}>{escape(written(line[name], dialect))}</{name}>" for name in LINE.values())
            + "</Zeile>" for line in order["lines"]
        )  # fmt: skip
        return f"<Auftrag>{inner}{parts}</Auftrag>\n"

    text = f"<alle>{''.join(element(order) for order in truth)}</alle>"
    using = adapter("xml", dialect, orders="Auftrag", lists=["Zeile"], lines_at="Zeile")
    records, whole = found(text.encode(), "a.xml", using)
    assert whole
    assert_all_is_right(records, truth)
    text = damaged(text, changes)
    raw = gzip.compress(text.encode()) if zipped else text.encode()
    records, whole = found(raw, "a.xml.gz" if zipped else "a.xml", using)
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        assert not whole or not text.strip()
        return
    numbers = [(each.findtext("Beleg") or "").strip() for each in tree.iter("Auftrag")]
    mine = [record.order_number for record in records if isinstance(record, InStoreOrder)]
    assert set(mine) <= set(numbers)
    assert not whole or len(records) == len(numbers)


@short
@given(truth=orders, dialect=dialects, changes=edits, wrapping=st.integers(0, 3), indent=st.sampled_from([None, 1]))
def test_json_is_read_as_another_reader_reads_it(
    truth: Any, dialect: Any, changes: Any, wrapping: int, indent: int | None
) -> None:
    def plain(values: dict[str, Any]) -> dict[str, Any]:
        return {name: written(value, dialect) for name, value in values.items() if name != "lines"}

    documents = [{**plain(order), "Zeilen": [plain(line) for line in order["lines"]]} for order in truth]
    text = json.dumps({"data": {"value": documents}}, indent=indent, ensure_ascii=False)
    using = adapter("json", dialect, orders="data.value", lines_at="Zeilen")
    records, whole = found(text.encode(), "a.json", using)
    assert whole
    assert_all_is_right(records, truth)
    body = json.dumps(text).encode() if wrapping == 3 else text.encode("utf-16" if wrapping == 1 else "utf-8")
    parts = read_body(gzip.compress(body) if wrapping == 2 else body, using)
    assert_all_is_right([part.order for part in parts], truth)
    text = damaged(text, changes)
    records, whole = found(text.encode(), "a.json", using)
    try:
        read = json.loads(text, parse_float=Decimal)["data"]["value"]
    except (ValueError, LookupError, TypeError):
        return
    assume(isinstance(read, list))
    numbers = [str(each.get("Beleg")).strip() for each in read if isinstance(each, dict)]
    assert {record.order_number for record in records if isinstance(record, InStoreOrder)} <= set(numbers)
    assert not whole or not read or len(records) == len(read)


@short
@given(truth=orders, dialect=dialects, group=st.integers(1, 4))
def test_parquet_is_read_as_it_was_written(truth: Any, dialect: Any, group: int) -> None:
    table = pa.Table.from_pylist([{**order, **line, "lines": None} for order in truth for line in order["lines"]])
    raw = io.BytesIO()
    parquet.write_table(table.drop_columns(["lines"]), raw, row_group_size=group)
    using = adapter("parquet", {**dialect, "date": "iso", "decimal": ".", "thousands": "", "negative": "minus"})
    records, whole = found(raw.getvalue(), "a.parquet", using)
    assert whole
    assert_all_is_right(records, truth)
    assert parquet.read_table(raw).num_rows == sum(len(order["lines"]) for order in truth)
