"""A file of orders and one of their lines, in one archive: joined by the key; what has no other half is set aside."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.quarantined import Wanted
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.sources.extracts import Storage, load_extracts
from include.instore.sources.extracts.formats import read_file
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord
from include.instore.sources.quarantine import redrive
from tests.instore import given

MakeSettings = Callable[..., Settings]
DECLARED = """
format: csv
encoding: {encoding}
delimiter: ";"
title_lines: 1
lines_file: "*_pos.csv"
key: [Beleg, BelegNr]
order: {{orderNumber: Beleg, date: Datum, storeId: Laden, loyaltyCardNumber: Karte, total: Betrag}}
lines: {{productCode: Artikel, quantity: Menge, total: Betrag}}
constants: {{currency: EUR}}
numbers: {{decimal: ","}}
dates: {{formats: ["%d.%m.%Y %H:%M"], zone: Europe/Berlin}}
"""
HEADS = [
    "Beleg;Datum;Laden;Karte;Betrag",
    "1001;24.11.2026 10:15;Köln;6035770741165744;7,50",
    "1002;24.11.2026 10:20;Köln;6035770741165744;3,50",
]
LINES = ["BelegNr;Artikel;Menge;Betrag;Kasse", "1001;A;1;4,00;7", "1002;C;1;3,50;7", "1001;B;1;3,50;8"]


def text_of(rows: list[str], title: str = "Liste") -> str:
    return "\r\n".join([title, *rows, ""])


def archive(heads: list[str] = HEADS, lines: list[str] = LINES, encoding: str = "utf-8") -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as opened:
        for name, rows in (("day_pos.csv", lines), ("day.csv", heads)):
            if rows:
                opened.writestr(name, text_of(rows).encode(encoding))
    return raw.getvalue()


def with_adapter(folder: Path, settings: MakeSettings, encoding: str = "utf-8") -> Settings:
    path = folder / "till.yaml"
    path.write_text(DECLARED.format(encoding=encoding))
    return settings(extract_adapters={"*": str(path)})


def read(raw: bytes, settings: Settings) -> list[ExtractRecord]:
    return list(read_file(io.BytesIO(raw), "a.zip", settings))


def told(records: list[ExtractRecord]) -> list[object]:
    return [
        [record.order.order_number, record.order.store_id, *(str(line.total) for line in record.order.lines)]
        if isinstance(record.order, InStoreOrder) else str(record.order) for record in records
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_orders_get_their_lines_by_the_key(settings: MakeSettings, tmp_path: Path, encoding: str) -> None:
    records = read(archive(encoding=encoding), with_adapter(tmp_path, settings, encoding))
    assert told(records) == [["1001", "Köln", "4.00", "3.50"], ["1002", "Köln", "3.50"]]
    assert {record.member for record in records} == {"day.csv"}


def test_what_has_no_other_half_is_set_aside_by_name(settings: MakeSettings, tmp_path: Path) -> None:
    records = read(archive(lines=[*LINES[:2], "1003;D;1;1,00;7", LINES[3]]), with_adapter(tmp_path, settings))
    assert told(records) == [
        ["1001", "Köln", "4.00", "3.50"],
        "missing_field: it has no lines in the file of the lines",
        "missing_field: a line of an order that the file of the orders does not have",
    ]
    assert [(record.line, record.member) for record in records] == [(3, "day.csv"), (4, "day.csv"), (4, "day_pos.csv")]
    assert b"1002;24.11" in records[1].raw
    assert records[2].raw == b"1003;D;1;1,00;7\n"


def test_what_is_refused_names_its_line_in_the_file_of_the_lines(settings: MakeSettings, tmp_path: Path) -> None:
    lines = [LINES[0], '1001;"A\nB";1;4,00;7', "1002;C;one;3,50;7", LINES[3]]
    first, second = read(archive(lines=lines), with_adapter(tmp_path, settings))
    assert (first.line, first.member, second.line) == (3, "day.csv", 4)
    assert isinstance(second.order, RecordRefused)
    assert second.order.detail.endswith("; its lines begin at line 5 of day_pos.csv")


@pytest.mark.parametrize(
    ("heads", "lines", "why"),
    [
        (HEADS, [], "has 0 files with lines"),
        ([], LINES, "and 0 others"),
        ([*HEADS, HEADS[1]], LINES, "the Beleg of its order is there twice"),
        ([*HEADS, "1004;24"], LINES, "line 5: in day.csv: has 2 columns, the header has 5"),
        (HEADS, [*LINES, '1001;"A;1;4,00;7'], "the row cannot be read"),
        (HEADS, [LINES[0].replace("BelegNr", "Bon"), *LINES[1:]], "0 columns BelegNr, the key"),
        (HEADS, [LINES[0].replace("Artikel", "Ware"), *LINES[1:]], r"column lines\.Artikel of lines\.productCode is"),
    ],
    ids=["no lines", "no orders", "twice", "cut", "quote", "no key", "no column"],
)  # fmt: skip
def test_files_that_cannot_be_joined_break_the_archive(
    settings: MakeSettings, tmp_path: Path, heads: list[str], lines: list[str], why: str
) -> None:
    with pytest.raises(BrokenExtract, match=why):
        read(archive(heads, lines), with_adapter(tmp_path, settings))


def test_a_file_that_comes_without_its_archive_waits(settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(BrokenExtract, match="declared to be in another file of the same"):
        list(read_file(io.BytesIO(text_of(HEADS).encode()), "day.csv", with_adapter(tmp_path, settings)))


def test_they_land_and_what_is_refused_is_read_again_with_its_lines(
    settings: MakeSettings, tmp_path: Path, ledger: Ledger
) -> None:
    chosen = with_adapter(tmp_path, settings)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.zip").write_bytes(archive([*HEADS[:2], HEADS[2].replace("24.11.2026", "2026-11-24")]))
    run = given.run()
    open_run(ledger, run)
    loaded = load_extracts(Storage.local(tmp_path / "in"), ledger, run, chosen)
    assert (loaded.landed.orders, loaded.landed.quarantined, loaded.files) == (1, 1, 1)
    (tmp_path / "till.yaml").write_text(
        DECLARED.format(encoding="utf-8").replace('"%d.%m.%Y %H:%M"', '"%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M"')
    )
    assert [each.outcome for each in redrive(ledger, Wanted(), chosen)] == ["landed"]
    payloads = [json.loads(row["payload"]) for row in given.rows(ledger, "orders")]
    assert {each["orderNumber"]: len(each["lines"]) for each in payloads} == {"1001": 2, "1002": 1}
