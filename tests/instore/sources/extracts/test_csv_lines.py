"""CSV: adjacent rows are an order, delimiters and encodings differ, a file may break off (contracts.md section 1)."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from decimal import Decimal
from typing import BinaryIO, cast

import pytest

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder, order_from_document
from include.instore.model.settings import Settings
from include.instore.sources.extracts.csv_lines import read_csv
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord
from tests.instore.sources.extracts.rows import HEADER, csv_text, orders_text, row

MakeSettings = Callable[..., Settings]


def read(content: bytes | str | BinaryIO, settings: Settings) -> tuple[list[ExtractRecord], BrokenExtract | None]:
    """The records of a file, and where it broke."""
    raw = content.encode() if isinstance(content, str) else content
    stream = io.BytesIO(raw) if isinstance(raw, bytes) else raw
    records: list[ExtractRecord] = []
    try:
        for record in read_csv(stream, settings):
            records.append(record)
    except BrokenExtract as broken:
        return records, broken
    return records, None


def orders(content: bytes | str, settings: Settings) -> dict[str, InStoreOrder]:
    """The orders of a file without a fault in it."""
    records, broken = read(content, settings)
    assert broken is None
    found = [record.order for record in records]
    assert not [each for each in found if isinstance(each, RecordRefused)]
    return {each.order_number: each for each in found if isinstance(each, InStoreOrder)}


def told(records: list[ExtractRecord]) -> list[str]:
    """The order number, or the reason, of each record."""
    return [each.order.reason if isinstance(each.order, RecordRefused) else each.order.order_number for each in records]


def test_adjacent_rows_of_an_order_are_its_lines(settings: MakeSettings) -> None:
    found = orders(orders_text("S1", "S2"), settings())
    assert list(found) == ["S1", "S2"]
    first = found["S1"]
    assert [line.product_code for line in first.lines] == ["947861", "947862"]
    assert (first.store_id, first.store_name, first.loyalty_card_number) == ("0404", "Store 0404", "6035770741165744")
    assert (first.currency, first.total, first.email_address) == ("USD", Decimal("3.50"), None)
    line = first.lines[0]
    assert (line.description, line.quantity, line.unit_price) == ("CANDY", Decimal(2), Decimal("1.75"))
    assert (str(line.discount), str(line.total)) == ("0.0", "3.50")


def test_a_csv_order_is_the_twin_of_its_message(settings: MakeSettings) -> None:
    message = order_from_document(
        {
            "orderNumber": "S1",
            "date": "2017-06-05T10:04:12Z",
            "storeId": "0404",
            "storeName": "Store 0404",
            "loyaltyCardNumber": "6035770741165744",
            "emailAddress": None,
            "currency": "USD",
            "total": 3.5,
            "lines": [
                {
                    "productCode": f"94786{line}",
                    "description": "CANDY",
                    "quantity": 2,
                    "unitPrice": "1.75",
                    "discount": "0",
                    "total": "3.5",
                }
                for line in (1, 2)
            ],
        }
    )
    assert orders(orders_text("S1"), settings())["S1"].fingerprint() == message.fingerprint()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(settings: MakeSettings, delimiter: str) -> None:
    text = csv_text(row("S1", description="a, b; c\td | e"), delimiter=delimiter)
    assert orders(text, settings())["S1"].lines[0].description == "a, b; c\td | e"


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_quoted_line_breaks_and_quotes_are_part_of_a_field(settings: MakeSettings, line_break: str) -> None:
    text = csv_text(row("S1", description='two\nlines "quoted"'), row("S2")).replace("\n", line_break)
    records, broken = read(text, settings())
    assert (told(records), broken, [record.line for record in records]) == (["S1", "S2"], None, [2, 4])
    assert isinstance(records[0].order, InStoreOrder)
    assert records[0].order.lines[0].description == f'two{line_break}lines "quoted"'


@pytest.mark.parametrize(
    ("encoding", "setting"),
    [
        ("utf-8", "utf-8-sig"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-8-sig", "utf-8"),
        ("cp1252", "cp1252"),
        ("iso-8859-15", "iso-8859-15"),
        ("utf-16", "utf-16"),
    ],
)
def test_text_is_read_in_the_set_encoding_with_or_without_byte_order_mark(
    settings: MakeSettings, encoding: str, setting: str
) -> None:
    text = csv_text(row("S1", description="Blåbær €"))
    assert orders(text.encode(encoding), settings(extract_encoding=setting))["S1"].lines[0].description == "Blåbær €"


@pytest.mark.parametrize("ending", ["", "\n", "\n\n\n", "\r\n"])
def test_the_end_of_the_file_needs_no_line_break_and_may_have_several(settings: MakeSettings, ending: str) -> None:
    assert list(orders(orders_text("S1", "S2").rstrip() + ending, settings())) == ["S1", "S2"]


def test_columns_may_come_in_another_order(settings: MakeSettings) -> None:
    text = csv_text(list(reversed(row("S1"))), header=list(reversed(HEADER)))
    assert orders(text, settings()) == orders(csv_text(row("S1")), settings())


def test_a_column_map_translates_an_erps_headings(settings: MakeSettings) -> None:
    header = ["Receipt No", "When", " Shop ", *HEADER[3:]]
    names = {"Receipt No": "order_number", "When": "order_date", "Shop": "store_id"}
    assert list(orders(csv_text(row("S1"), header=header), settings(extract_columns=names))) == ["S1"]


def test_added_columns_are_kept_on_their_line(settings: MakeSettings) -> None:
    text = csv_text([*row("S1"), "7", ""], header=[*HEADER, "till_number", "Cashier"])
    (line,) = orders(text, settings())["S1"].model_dump(by_alias=True)["lines"]
    assert (line["tillNumber"], line["cashier"]) == ("7", "")


def test_optional_columns_may_be_missing(settings: MakeSettings) -> None:
    header = ["order_number", "order_date", "store_id", "currency", "order_total"]
    values = ["S1", "2017-06-05T10:00:00Z", "1", "USD", "1"]
    for column, value in (("loyalty_card", "6035"), ("email", "a@example.com")):
        (order,) = orders(csv_text([*values, value], header=[*header, column]), settings()).values()
        assert (order.loyalty_card_number, order.email_address).count(None) == 1
    # But not both: no order would find its customer, and nobody would hear of it.
    records, broken = read(csv_text(values, header=header), settings())
    assert records == []
    assert broken is not None
    assert "loyalty_card" in broken.detail


@pytest.mark.parametrize("column", ["order_number", "order_date", "store_id", "currency", "order_total"])
def test_a_missing_required_column_breaks_the_file_at_its_first_line(settings: MakeSettings, column: str) -> None:
    records, broken = read(orders_text("S1").replace(column, "other", 1), settings())
    assert records == []
    assert broken is not None
    assert (broken.line, broken.detail) == (
        1,
        f"column {column} is missing; map the ERP's heading to it with INSTORE_EXTRACT_COLUMNS",
    )


@pytest.mark.parametrize("content", ["", "\n", "\ufeff", "\ufeff\r\n \n"])
def test_an_empty_file_is_one_of_no_orders(settings: MakeSettings, content: str) -> None:
    assert read(content, settings()) == ([], None)


@pytest.mark.parametrize("content", ["  \nS1", "sep=;", "sep=;\nS1;S2\n"])
def test_a_file_without_a_header_has_no_order(settings: MakeSettings, content: str) -> None:
    records, broken = read(content, settings())
    assert (records, broken is None) == ([], content == "sep=;")


@pytest.mark.parametrize("told", ["sep=;", "SEP=; ", "\ufeffsep=;"])
def test_a_first_line_tells_what_stands_between_the_columns(settings: MakeSettings, told: str) -> None:
    text = csv_text(row("S1", description="a,b,c,d,e,f,g,h,i,j,k,l,m,n")).replace(",", ";")
    (record,), broken = read(f"{told}\r\n{text}", settings())
    assert isinstance(record.order, InStoreOrder)
    assert (record.order.order_number, broken) == ("S1", None)
    # As it stands in the quarantine, it is read the same way again.
    (again,), _ = read((record.heading + record.raw).decode("utf-8-sig"), settings())
    assert again.order == record.order


@pytest.mark.parametrize(
    ("column", "column_map", "told"),
    [
        ("order_total", {}, "order_total is there twice"),
        ("Gesamt", {"Gesamt": "order_total"}, "order_total is there twice"),
        ("loyalty_crd", {}, "did you mean loyalty_card?"),
        ("Loyalty_Card", {}, "did you mean loyalty_card?"),
        ("e_mail", {}, "did you mean email?"),
    ],
)
def test_a_heading_with_two_meanings_or_a_slip_is_refused(
    settings: MakeSettings, column: str, column_map: dict[str, str], told: str
) -> None:
    kept = [name for name in HEADER if name not in ("loyalty_card", "email")]
    if "twice" in told:
        kept = HEADER
    text = ",".join([*kept, column]) + "\n" + ",".join("1" for _ in [*kept, column]) + "\n"
    records, broken = read(text, settings(extract_columns=column_map))
    assert records == []
    assert broken is not None
    assert told in broken.detail


def test_a_column_of_the_erp_s_own_is_no_slip(settings: MakeSettings) -> None:
    columns = ["till_id", "card_type", "description2", "store", "discount_code", "total"]
    text = ",".join([*HEADER, *columns]) + "\n"
    assert read(text, settings()) == ([], None)


def test_an_empty_amount_is_absent_and_an_empty_description_is_real(settings: MakeSettings) -> None:
    text = csv_text(row("S1", description="", quantity="0", unit_price="", discount=""))
    (line,) = orders(text, settings())["S1"].model_dump(by_alias=True, exclude_unset=True)["lines"]
    assert (line["description"], line["quantity"]) == ("", 0)
    assert "unitPrice" not in line
    assert "discount" not in line


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"order_total": "ten"}, "bad_value", "total"),
        ({"order_total": ""}, "missing_field", "total is required"),
        ({"quantity": "two"}, "bad_value", "lines.0.quantity"),
        ({"order_date": "yesterday"}, "bad_value", "date"),
    ],
)
def test_a_bad_order_does_not_stop_the_ones_after_it(
    settings: MakeSettings, changes: dict[str, str], reason: str, detail: str
) -> None:
    text = csv_text(row("S1"), row("S2", **changes), row("S3"))
    records, broken = read(text, settings())
    assert (told(records), broken) == (["S1", reason, "S3"], None)
    assert records[1].line == 3
    assert records[1].raw.decode() == text.splitlines(keepends=True)[2]
    assert isinstance(records[1].order, RecordRefused)
    assert records[1].order.detail.startswith(detail)


@pytest.mark.parametrize("width", [13, 15])
def test_a_row_with_another_number_of_columns_spoils_its_order_only(settings: MakeSettings, width: int) -> None:
    odd = [*row("S2", 2), "more"][:width]
    records, broken = read(csv_text(row("S1"), row("S2"), odd, row("S2", 3), row("S3")), settings())
    assert (told(records), broken) == (["S1", "bad_value", "S3"], None)
    assert isinstance(records[1].order, RecordRefused)
    assert records[1].order.detail == f"line 4 has {width} columns, the header has 14"
    assert records[1].raw.count(b"\n") == 3


@pytest.mark.parametrize("place", [2, 3, 4], ids=["first of the file", "first of its order", "last of its order"])
def test_a_row_that_is_no_csv_spoils_its_order_only(settings: MakeSettings, place: int) -> None:
    numbers = ["S2", "S2", "S3"] if place == 2 else ["S1", "S2", "S2", "S3"]
    lines = csv_text(*(row(number) for number in numbers)).splitlines(keepends=True)
    lines[place - 1] = lines[place - 1].replace("Store 0404", '"Store" 0404')
    records, broken = read("".join(lines), settings())
    expected = [(number, line) for line, number in enumerate(numbers, 2) if number not in numbers[: line - 2]]
    assert broken is None
    assert told(records) == [number.replace("S2", "bad_value") for number, _ in expected]
    assert [record.line for record in records] == [line for _, line in expected]


def test_an_order_over_the_limit_is_too_large(settings: MakeSettings) -> None:
    many = [row("S1", line % 10) for line in range(30)]
    records, broken = read(csv_text(*many, row("S2")), settings(max_message_bytes=2048))
    assert (told(records), broken) == (["too_large", "S2"], None)


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_line_over_the_limit_is_too_large_and_the_orders_behind_it_are_read(
    settings: MakeSettings, quote: str
) -> None:
    text = csv_text(row("S1"), row("S2", description="x" * 10_000), row("S2", 2), row("S3")).replace(
        "xx", quote + "xx", 1
    )
    records, broken = read(text, settings(max_message_bytes=2048))
    assert (told(records), broken) == (["S1", "too_large", "S3"], None)
    assert [record.line for record in records] == [2, 3, 5]


@pytest.mark.parametrize("cut", [5, 40, 90])
def test_a_file_cut_in_the_middle_of_a_line_keeps_the_orders_before(settings: MakeSettings, cut: int) -> None:
    text = orders_text("S1", "S2")
    whole = orders_text("S1")
    records, broken = read(text[: len(whole) + cut], settings())
    assert told(records)[:1] == ["S1"]
    assert "S2" not in told(records)
    assert broken is not None
    assert broken.line == 4
    assert broken.raw.endswith(text[len(whole) : len(whole) + cut].encode())


def test_a_file_cut_in_the_middle_of_an_orders_second_line_does_not_land_half_of_it(settings: MakeSettings) -> None:
    text = orders_text("S1", "S2").rstrip()
    records, broken = read(text[:-30], settings())
    assert told(records) == ["S1"]
    assert broken is not None
    assert (broken.line, broken.raw.decode()) == (5, "".join(text[:-30].splitlines(keepends=True)[3:]))


def test_a_file_cut_in_the_middle_of_an_order_number_does_not_take_it_for_another(settings: MakeSettings) -> None:
    text = orders_text("S1", "S21")
    records, broken = read(text[: text.rindex("S21") + 2], settings())
    assert told(records) == ["S1"]
    assert broken is not None
    assert (broken.line, broken.raw.count(b"\n")) == (5, 1)


def test_a_file_cut_inside_quotes_is_broken_where_the_field_began(settings: MakeSettings) -> None:
    text = csv_text(row("S1"), row("S2", description="one\ntwo\nthree"))
    records, broken = read(text[: text.index("three") + 2], settings())
    assert told(records) == ["S1"]
    assert (broken is not None and broken.line) == 3


@pytest.mark.parametrize("place", ["number", "description"])
def test_a_byte_of_another_encoding_spoils_its_order_only(settings: MakeSettings, place: str) -> None:
    raw = orders_text("S1", "S2", "S3", "S4").encode()
    at = raw.index(b"S3,") + (1 if place == "number" else raw.index(b"CANDY") - raw.index(b"S1,"))
    raw = raw[:at] + b"\xff" + raw[at:]
    records, broken = read(raw, settings())
    assert broken is None
    assert [each for each in told(records) if each != "bad_value"] == [
        "S1",
        "S2",
        *(["S3"] * (place == "number")),
        "S4",
    ]
    refused = next(each for each in records if isinstance(each.order, RecordRefused))
    assert isinstance(refused.order, RecordRefused)
    assert (refused.order.detail, refused.line) == ("line 6: the text is not utf-8-sig", 6)
    assert b"\xff" in refused.raw
    assert b"".join(record.raw for record in records) == raw.split(b"\n", 1)[1]


def test_a_page_of_other_bytes_breaks_the_file_where_it_begins(settings: MakeSettings) -> None:
    raw = orders_text("S1", "S2", "S3", "S4").encode()
    at = raw.index(b"S3,") + 8
    records, broken = read(raw[:at] + b"\xff\xfe\x81" * 50 + raw[at + 150 :], settings())
    assert told(records) == ["S1", "S2"]
    assert broken is not None
    assert (broken.line, broken.detail) == (6, "damaged here, or the text is not utf-8-sig")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_behind_another_heading_a_file_is_not_read_on_and_behind_the_same_it_is(
    settings: MakeSettings, mark: str
) -> None:
    """Exports one behind the other: by the heading of the first the columns of the second would be taken for others."""
    whole = orders_text("S1", "S2")
    other = csv_text(row("S3"), header=[])
    swapped = [*HEADER[:-2], HEADER[-1], HEADER[-2]]
    records, broken = read(f"{whole}{mark}{','.join(swapped)}\n{other}", settings())
    assert (told(records), broken is not None and "another heading" in broken.detail) == (["S1", "S2"], True)
    records, broken = read(f"{whole}{mark}{','.join(HEADER)}\n{other}", settings())
    assert (told(records), broken) == (["S1", "S2", "bad_value", "S3"], None)


def test_a_heading_of_another_encoding_breaks_the_file(settings: MakeSettings) -> None:
    records, broken = read(orders_text("S1").encode().replace(b"store_name", b"store_n\xe4me"), settings())
    assert records == []
    assert broken is not None
    assert broken.detail == "the text is not utf-8-sig"


@pytest.mark.parametrize("behind", [0, 1, 2, 3, 30])
@pytest.mark.parametrize(
    "what", ["CANDY", "S2", "947862"], ids=["in its text", "before its number", "in its second row"]
)
def test_a_stray_quote_spoils_its_order_only(settings: MakeSettings, what: str, behind: int) -> None:
    """However many rows are behind it, and whether or not another quote closes it."""
    before, others = orders_text("S1"), [f"S{3 + number}" for number in range(behind)]
    order = orders_text("S2").split("\n", 1)[1]
    text = before + order.replace(what, f'"{what}', 1) + orders_text(*others).split("\n", 1)[1]
    for ending in ("", csv_text(row("S99", description='says "hi"'), header=[]).lstrip()):
        records, broken = read(text + ending, settings())
        if (what, behind, ending) == ("947862", 0, ""):
            assert broken is not None, "in a file's last row a quote may be the beginning of a field that is cut"
            continue
        assert broken is None, ending
        good = [each for each in told(records) if each not in ("bad_value", "S2")]
        assert good == ["S1", *others, *(["S99"] * bool(ending))]
        assert ("S2" in told(records)) == (what == "S2"), "but its own second row, which nobody could know"
        assert b"".join(record.raw for record in records).decode() == (text + ending).split("\n", 1)[1]


def test_two_stray_quotes_that_look_like_one_field_hide_no_order(settings: MakeSettings) -> None:
    text = csv_text(row("S1"), row("S2", description="A"), row("S3", description="B"), row("S4"))
    records, broken = read(text.replace(",A,", ',"A,').replace(",B,", ',B",'), settings())
    assert broken is None
    assert told(records) == ["S1", "bad_value", "S3", "S4"]


@pytest.mark.parametrize("lines", [19, 25])
def test_a_field_of_more_lines_than_the_setting_is_a_stray_quote(settings: MakeSettings, lines: int) -> None:
    text = csv_text(row("S1"), row("S2", description="\n".join("text" for _ in range(lines))), row("S3"))
    assert told(read(text, settings())[0]) == ["S1", "S2", "S3"] or lines == 25
    records, broken = read(text, settings(extract_row_lines=10))
    assert (told(records)[0], "S2" in told(records), told(records)[-1], broken) == ("S1", False, "S3", None)


TRAILER = r"EOF;(?P<count>\d+);(?P<sum>-?[\d.]+)"


@pytest.mark.parametrize(
    ("ending", "told_of"),
    [
        ("EOF;4;7.00\n", ""),
        ("EOF;2;14.00", ""),
        ("EOF;4;7.00\n\n", ""),
        ("", "it does not end in the trailer"),
        ("EOF;4;", "ends in the middle"),
        ("EOF;3;7.00\n", "its trailer says 3, and there are 4 rows of 2 orders"),
        ("EOF;4;8.00\n", "do not make the sum"),
        ("EOF;4;7.00\nS9\n", "it does not end in the trailer"),
    ],
)
def test_a_declared_trailer_is_compared_with_the_rows(settings: MakeSettings, ending: str, told_of: str) -> None:
    records, broken = read(orders_text("S1", "S2") + ending, settings(extract_trailer=TRAILER))
    assert told(records)[:2] == ["S1", "S2"] or told_of == "ends in the middle"
    assert (broken.detail if broken else "").startswith(told_of) or told_of in (broken.detail if broken else "")
    assert (broken is None) == (not told_of)


def test_the_sum_of_a_trailer_says_nothing_beside_a_refused_order(settings: MakeSettings) -> None:
    text = csv_text(row("S1"), row("S2", order_total="ten"))
    assert read(text + "EOF;2;99\n", settings(extract_trailer=TRAILER))[1] is None
    assert read(text + "EOF;3;99\n", settings(extract_trailer=TRAILER))[1] is not None


def unzipped(raw: bytes) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=io.BytesIO(raw), mode="rb"))


@pytest.mark.parametrize("damage", ["truncated", "damaged", "checksum", "no gzip"])
def test_a_damaged_gzip_keeps_the_orders_before_the_damage(settings: MakeSettings, damage: str) -> None:
    numbers = [f"S{number:05}" for number in range(3000)]
    raw = gzip.compress(orders_text(*numbers).encode(), 1)
    middle = len(raw) // 2
    content = {
        "truncated": raw[:middle],
        "damaged": raw[:middle] + bytes(byte ^ 0xFF for byte in raw[middle : middle + 64]) + raw[middle + 64 :],
        "checksum": raw[:-8] + b"\0" * 8,
        "no gzip": b"PK\x03\x04" + raw,
    }[damage]
    records, broken = read(unzipped(content), settings())
    good = [each.order.order_number for each in records if isinstance(each.order, InStoreOrder)]
    assert (len(good) == 0) == (damage == "no gzip")
    # Damaged data may be inflated to nonsense before the checksum tells; what is good is as it was.
    assert good[: len(good) // 2] == numbers[: len(good) // 2]
    assert broken is not None
    assert broken.line >= 2 * len(good)


def test_raw_text_is_the_files_own_bytes(settings: MakeSettings) -> None:
    raw = csv_text(row("S1", order_total="x", description="Blåbær"), row("S2", order_total="y")).encode("cp1252")
    records, _ = read(raw, settings(extract_encoding="cp1252"))
    assert b"".join(record.raw for record in records) == raw.split(b"\n", 1)[1]
    raw = csv_text(row("S1", order_total="x", description="Blåbær"), row("S2", order_total="y")).encode("utf-8-sig")
    records, _ = read(raw, settings())
    assert b"".join(record.raw for record in records) == raw.split(b"\n", 1)[1]
    assert {record.heading for record in records} == {csv_text().encode()}


def test_records_show_no_content_in_their_repr(settings: MakeSettings) -> None:
    (record,), _ = read(csv_text(row("S1")), settings())
    assert repr(record) == "ExtractRecord(line=2)"


def test_a_return_under_its_sale_s_number_is_an_order_of_its_own(settings: MakeSettings) -> None:
    by_total = csv_text(row("S1", 1), row("S1", 2), row("S1", order_total="-3.50"))
    assert told(read(by_total, settings())[0]) == ["S1", "S1"]
    by_type = csv_text([*row("S1"), "sale"], [*row("S1"), "return"], header=[*HEADER, "order_type"])
    records, _ = read(by_type, settings())
    assert [record.order.order_type for record in records if isinstance(record.order, InStoreOrder)] == [
        "sale", "return",
    ]  # fmt: skip


@pytest.mark.parametrize(("column", "other"), [("store_id", "0500"), ("order_date", "2017-06-06T10:04:12Z")])
def test_rows_of_two_stores_or_moments_under_one_number_are_two_orders(
    settings: MakeSettings, column: str, other: str
) -> None:
    records, _ = read(csv_text(row("S1"), row("S1", **{column: other})), settings())
    assert told(records) == ["S1", "S1"]


def test_columns_that_only_an_order_s_first_row_fills_are_the_order_s(settings: MakeSettings) -> None:
    blank = dict.fromkeys(("order_date", "store_id", "store_name", "loyalty_card", "currency", "order_total"), "")
    found = orders(csv_text(row("S1"), row("S1", 2, **blank), row("S2"), row("S2", 2, **blank)), settings())
    assert {number: len(order.lines) for number, order in found.items()} == {"S1": 2, "S2": 2}
    assert found["S2"].loyalty_card_number == "6035770741165744"


@pytest.mark.parametrize(
    ("column", "other"), [("order_total", "4.50"), ("currency", "EUR"), ("loyalty_card", "77"), ("email", "a@x.org")]
)
def test_rows_that_do_not_agree_about_their_order_are_refused_with_the_line_and_the_column(
    settings: MakeSettings, column: str, other: str
) -> None:
    first = {"email": "b@x.org"} if column == "email" else {}
    records, _ = read(csv_text(row("S1", **first), row("S1", 2, **{**first, column: other}), row("S2")), settings())
    assert told(records) == ["bad_value", "S2"]
    (refused, _) = [record.order for record in records]
    assert isinstance(refused, RecordRefused)
    assert refused.detail == f"line 3: {column} is not that of the order's other rows"
    assert records[0].raw.count(b"\n") == 2, "both rows are kept"


def test_a_row_that_breaks_off_in_its_date_is_still_its_order_s(settings: MakeSettings) -> None:
    whole = csv_text(row("S1"), row("S1", 2))
    records, broken = read(whole[: whole.rindex("2017-06-05") + 6], settings())
    assert records == []
    assert broken is not None
    assert broken.raw.count(b"S1") == 2


def test_rows_whose_numbers_a_spreadsheet_rounded_are_refused_one_by_one(settings: MakeSettings) -> None:
    records, _ = read(csv_text(*(row("1.23457E+11", line) for line in (1, 2, 3))), settings())
    assert told(records) == ["bad_value"] * 3
