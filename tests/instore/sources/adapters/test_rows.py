"""CSV by declaration: columns by their headings, or the file waits; numbers, dates and titles as declared."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.quarantined import Wanted, find
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.sources.extracts import Storage, load_extracts
from include.instore.sources.extracts.formats import read_file
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord
from include.instore.sources.quarantine import order_numbers, redrive
from tests.instore import given

MakeSettings = Callable[..., Settings]
DECLARED = """
format: csv
title_lines: 2
delimiter: ";"
order: {orderNumber: Beleg, date: Datum, storeId: Laden, storeName: Laden, loyaltyCardNumber: Karte, total: Summe}
lines: {productCode: Artikel, description: Artikel, quantity: Menge, total: Betrag}
more: {tillId: Kasse}
optional: [Kasse]
constants: {currency: EUR}
numbers: {decimal: ",", thousands: "."}
dates: {formats: ["%d.%m.%Y %H:%M"], zone: Europe/Berlin}
"""
HEADING = "Beleg;Datum;Laden;Karte;Summe;Artikel;Menge;Betrag;Kasse;Bemerkung"
ROWS = (
    "1001;24.11.2026 10:15;K1;6035770741165744;1.250,50;A;1;1.000,50;7;geheim",
    "1001;24.11.2026 10:15;K1;6035770741165744;1.250,50;B;2;250,00;7;",
    "1002;24.11.2026 10:20;K1;6035770741165744;3,50;A;1;3,50;;",
)


def text_of(*rows: str, heading: str = HEADING) -> str:
    return "\r\n".join(["Umsatzliste", "Stand 24.11.2026;", heading, *rows, ""])


def with_adapter(folder: Path, settings: MakeSettings, text: str = DECLARED, **more: Any) -> Settings:
    path = folder / "till.yaml"
    path.write_text(text)
    return settings(extract_adapters={"*.txt": str(path)}, **more)


def read(text: str, settings: Settings) -> list[ExtractRecord]:
    return list(read_file(io.BytesIO(text.encode()), "a.txt", settings))


def payloads(records: list[ExtractRecord]) -> list[Any]:
    orders = [record.order for record in records]
    assert all(isinstance(order, InStoreOrder) for order in orders), orders
    return [json.loads(order.payload()) for order in orders if isinstance(order, InStoreOrder)]


def test_columns_numbers_and_dates_are_as_declared(settings: MakeSettings, tmp_path: Path) -> None:
    first, second = payloads(read(text_of(*ROWS), with_adapter(tmp_path, settings)))
    assert first == {
        "orderNumber": "1001",
        "date": "2026-11-24T10:15:00+01:00",
        "storeId": "K1",
        "storeName": "K1",
        "loyaltyCardNumber": "6035770741165744",
        "currency": "EUR",
        "total": 1250.5,
        "orderType": "sale",
        "tillId": "7",
        "lines": [
            {"productCode": "A", "description": "A", "quantity": 1, "total": 1000.5},
            {"productCode": "B", "description": "B", "quantity": 2, "total": 250},
        ],
    }
    assert "tillId" not in second


@pytest.mark.parametrize(
    ("heading", "sentence"),
    [
        (HEADING.replace("Karte", "Kartennr"), "column Karte of order.loyaltyCardNumber is missing; did you mean"),
        (HEADING.replace("Bemerkung", "Summe"), "column Summe of order.total is there twice"),
        (HEADING.replace("Beleg", "beleg"), "column Beleg of order.orderNumber is missing; did you mean beleg?"),
    ],
)
def test_a_heading_that_is_not_as_declared_breaks_the_file(
    heading: str, sentence: str, settings: MakeSettings, tmp_path: Path
) -> None:
    with pytest.raises(BrokenExtract) as broken:
        read(text_of(*ROWS, heading=heading), with_adapter(tmp_path, settings))
    assert sentence in str(broken.value)


def test_only_a_column_that_is_declared_optional_may_be_absent(settings: MakeSettings, tmp_path: Path) -> None:
    without = [row.rsplit(";", 2)[0] for row in ROWS]
    heading = HEADING.removesuffix(";Kasse;Bemerkung")
    assert len(read(text_of(*without, heading=heading), with_adapter(tmp_path, settings))) == 2


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        ("3.50", "total: is not a number as it is declared"),
        ("3,5,0", "total: is not a number as it is declared"),
    ],
)
def test_an_amount_in_another_dialect_sets_its_order_aside(
    written: str, detail: str, settings: MakeSettings, tmp_path: Path
) -> None:
    rows = (*ROWS[:2], ROWS[2].replace(";3,50;A", f";{written};A"))
    first, second = read(text_of(*rows), with_adapter(tmp_path, settings))
    assert isinstance(first.order, InStoreOrder)
    assert isinstance(second.order, RecordRefused)
    assert detail in second.order.detail
    assert second.line == 6


def test_three_digits_behind_the_point_are_what_the_dialect_says(settings: MakeSettings, tmp_path: Path) -> None:
    rows = [ROWS[2].replace("3,50", "150.000")]
    for dialect, total in (('{decimal: ",", thousands: "."}', 150_000), ('{decimal: "."}', 150)):
        chosen = with_adapter(tmp_path, settings, DECLARED.replace('{decimal: ",", thousands: "."}', dialect))
        assert payloads(read(text_of(*rows), chosen))[0]["total"] == total
    (record,) = read(
        text_of(*rows),
        with_adapter(tmp_path, settings, DECLARED.replace('numbers: {decimal: ",", thousands: "."}', "")),
    )
    assert "INSTORE_THREE_DECIMALS" in str(record.order)


def test_rows_beneath_the_first_may_be_without_number_where_it_is_declared(
    settings: MakeSettings, tmp_path: Path
) -> None:
    rows = (ROWS[0], ";;;;;B;2;250,00;;", ROWS[2])
    chosen = with_adapter(tmp_path, settings, DECLARED + "first_row_only: true\n")
    assert [len(each["lines"]) for each in payloads(read(text_of(*rows), chosen))] == [2, 1]
    strict = [type(record.order) for record in read(text_of(*rows), with_adapter(tmp_path, settings))]
    assert strict == [InStoreOrder, RecordRefused, InStoreOrder]


def test_a_field_of_one_s_own_that_differs_within_an_order_is_refused(settings: MakeSettings, tmp_path: Path) -> None:
    rows = (ROWS[0], ROWS[1].replace(";7;", ";8;"))
    (record,) = read(text_of(*rows), with_adapter(tmp_path, settings))
    assert str(record.order) == "bad_value: tillId is not that of the order's other rows"


def load(folder: Path, ledger: Ledger, settings: Settings) -> None:
    run = given.run()
    open_run(ledger, run)
    load_extracts(Storage.local(folder), ledger, run, settings)


def test_a_quarantined_order_is_read_again_by_the_adapter_that_read_it(
    settings: MakeSettings, tmp_path: Path, ledger: Ledger
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    text = text_of(ROWS[0], ROWS[1], ROWS[2].replace("24.11.2026", "24/11/2026"))
    (files / "a.txt").write_bytes(text.encode())
    chosen = with_adapter(tmp_path, settings)
    load(files, ledger, chosen)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["adapter"], kept["reference"]) == ("till", "a.txt:6")
    assert order_numbers(ledger, find(ledger, Wanted()), chosen) == {kept["id"]: "1002"}
    (still,) = redrive(ledger, Wanted(), chosen)
    assert (still.outcome, still.detail) == ("refused", "date: is in none of the declared formats")
    # The file may have been moved: the adapter's name counts, not the pattern.
    mended = DECLARED.replace('formats: ["', 'formats: ["%d/%m/%Y %H:%M", "')
    (tmp_path / "till.yaml").write_text(mended)
    moved = settings(extract_adapters={"moved/*": str(tmp_path / "till.yaml")})
    (landed,) = redrive(ledger, Wanted(), moved)
    assert landed.outcome == "landed"
    assert json.loads(given.row(ledger, "1002")["payload"])["date"] == "2026-11-24T10:20:00+01:00"


def test_without_its_adapter_a_record_is_not_read_otherwise(
    settings: MakeSettings, tmp_path: Path, ledger: Ledger
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_bytes(text_of(ROWS[2].replace("24.11.2026", "24/11/2026")).encode())
    load(files, ledger, with_adapter(tmp_path, settings))
    (outcome,) = redrive(ledger, Wanted(), settings())
    assert outcome.outcome == "impossible"
    assert outcome.detail == "it was read by adapter till, which no setting names; name its file again"


def test_an_order_of_a_json_file_with_a_path_is_read_again_without_it(
    settings: MakeSettings, tmp_path: Path, ledger: Ledger
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    bad = given.document("S2", currency="EURO")
    (files / "a.txt").write_text(json.dumps({"value": [given.document("S1"), bad]}))
    chosen = with_adapter(tmp_path, settings, "format: json\norders: value\n")
    load(files, ledger, chosen)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["adapter"], json.loads(kept["raw"])) == ("till[]", bad)
    assert order_numbers(ledger, find(ledger, Wanted()), chosen) == {kept["id"]: "S2"}
    (tmp_path / "till.yaml").write_text("format: json\norders: value\nvalues: {currency: {EURO: EUR}}\n")
    (outcome,) = redrive(ledger, Wanted(), chosen)
    assert outcome.outcome == "landed"
    assert sorted(given.statuses(ledger)) == ["S1", "S2"]
    given.assert_every_record_is_in_one_place(ledger)


def test_the_time_of_day_may_have_a_column_of_its_own(settings: MakeSettings, tmp_path: Path) -> None:
    heading = HEADING.replace("Datum", "Datum;Zeit")
    declared = DECLARED.replace("delimiter", "time: Zeit\ndelimiter")
    rows = [row.replace(" 10:", ";10:") for row in ROWS]
    chosen = with_adapter(tmp_path, settings, declared)
    apart = payloads(read(text_of(*rows, heading=heading), chosen))
    assert apart == payloads(read(text_of(*ROWS), with_adapter(tmp_path, settings)))
    chosen = with_adapter(tmp_path, settings, declared)
    for row, why in ((rows[2].replace("10:20", ""), "in none of the declared formats"), (rows[2], "")):
        (record,) = read(text_of(row, heading=heading), chosen)
        assert (why in record.order.detail) if isinstance(record.order, RecordRefused) else not why
    other = [rows[0], rows[1].replace("10:15", "10:16")]
    (record,) = read(text_of(*other, heading=heading), chosen)
    assert isinstance(record.order, RecordRefused)
    assert record.order.detail == "timeOfDay is not that of the order's other rows"
    with pytest.raises(BrokenExtract, match=r"column Zeit of time\.timeOfDay is missing"):
        read(text_of(*ROWS), chosen)


@pytest.mark.parametrize(
    ("trailer", "fault"), [("Ende;3;1.254,00", ""), ("Ende;3;1.255,00", "the sum"), ("", "end in")]
)
def test_a_trailer_is_declared_with_its_source(
    settings: MakeSettings, tmp_path: Path, trailer: str, fault: str
) -> None:
    declared = DECLARED.replace("delimiter", "trailer: Ende;(?P<count>\\d+);(?P<sum>[\\d.,]+)\ndelimiter")
    chosen = with_adapter(tmp_path, settings, declared)
    text = text_of(*ROWS, *[trailer] * bool(trailer))
    if not fault:
        assert len(payloads(read(text, chosen))) == 2
        return
    with pytest.raises(BrokenExtract, match=fault):
        read(text, chosen)


def test_a_field_of_several_lines_hides_no_row_where_the_last_line_is_none_alone(
    settings: MakeSettings, tmp_path: Path
) -> None:
    heading = "Beleg;Bemerkung;Datum;Laden;Karte;Summe;Artikel;Menge;Betrag;Kasse"
    quoted = '1001;"two\nlines";24.11.2026 10:15;K1;6035770741165744;3,50;"A;B";1;3,50;7'
    (order,) = payloads(read(text_of(quoted, heading=heading), with_adapter(tmp_path, settings)))
    assert order["lines"][0]["productCode"] == "A;B"


def test_a_new_heading_is_told_though_the_declaration_does_not_use_it(
    settings: MakeSettings, tmp_path: Path, ledger: Ledger
) -> None:
    chosen = with_adapter(tmp_path, settings)
    for number, note in enumerate(("Bemerkung", "Bemerkung", "Notiz")):
        (tmp_path / "in").mkdir(exist_ok=True)
        text = text_of(ROWS[0], ROWS[1], heading=HEADING.replace("Bemerkung", note)).replace("1001", f"100{number}")
        (tmp_path / "in" / f"till-{number}.txt").write_text(text)
        run = given.run(f"run-{number}")
        open_run(ledger, run)
        assert load_extracts(Storage.local(tmp_path / "in"), ledger, run, chosen).landed.orders == 1
    details = [row["detail"] for row in given.rows(ledger, "extracts")]
    told = "other fields than before: new Notiz (not used), gone Bemerkung (not used)"
    assert sorted(details, key=str) == sorted([None, None, told], key=str)
