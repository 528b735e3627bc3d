"""The same orders, written as many systems write them: a proposal reads them right, or one sentence says what to do."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.instore.ledger.intake import Arrival
from include.instore.model.declarations import load_declaration
from include.instore.model.errors import FatalError, RecordRefused
from include.instore.model.orders import order_of_payload
from include.instore.model.settings import load_settings
from include.instore.sources.adapters import Adapter
from include.instore.sources.checking import check_file
from include.instore.sources.suggesting import as_yaml, suggest
from tests.instore.given import CARD

Write = Callable[[], "str | bytes"]


@dataclass(frozen=True)
class Sold:
    number: str
    at: datetime
    store: str
    lines: tuple[tuple[str, str, int, Decimal], ...]

    @property
    def total(self) -> Decimal:
        return sum((price * quantity for _, _, quantity, price in self.lines), Decimal(0))


SOLD = [
    Sold(
        f"10020{at}",
        datetime(2026, 11, 13 + at, 9 + at, 5 * at, tzinfo=timezone.utc),
        f"041{at}",
        tuple((f"A{at}{n}", ("Müsli", "Tasche; blau", 'T-Shirt "L"')[n], 1 + n, Decimal("1234.50")) for n in lines),
    )
    for at, lines in enumerate((range(1), range(2), range(3), range(2)))
]
HEADING = [
    "order_no", "order_date", "store_no", "card_no", "currency", "order_total", "sku", "item_name", "qty", "unit_price",
    "line_total",
]  # fmt: skip


def plain(value: Any) -> str:
    return str(value)


def german(value: Any) -> str:
    return f"{value:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")


def rows(
    heading: list[str], amount: Callable[[Any], str] = plain, date: str = "%Y-%m-%dT%H:%M:%SZ", delimiter: str = ","
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(heading)
    for each in SOLD:
        order = [each.number, each.at.strftime(date), each.store, CARD, "EUR", amount(each.total)]
        for code, name, quantity, price in each.lines:
            writer.writerow([*order, code, name, quantity, amount(price), amount(price * quantity)])
    return text.getvalue()


def documents(order: Callable[[Sold], dict[str, Any]]) -> list[dict[str, Any]]:
    return [order(each) for each in SOLD]


def nested(each: Sold) -> dict[str, Any]:
    return {
        "header": {"orderNumber": each.number, "orderDate": each.at.isoformat(), "storeId": each.store},
        "customer": {"card": {"number": "1"}, "loyaltyId": CARD},
        "amounts": {"currency": "EUR", "total": str(each.total)},
        "positions": {"position": [{"sku": c, "quantity": q, "unitPrice": str(p)} for c, _, q, p in each.lines]},
    }  # fmt: skip


def event(each: Sold) -> dict[str, Any]:
    data = {
        "orderNumber": each.number, "date": each.at.isoformat(), "storeId": each.store, "loyaltyCardNumber": CARD,
        "currency": "EUR", "total": str(each.total),
        "lines": [{"productCode": c, "quantity": q, "unitPrice": str(p)} for c, _, q, p in each.lines],
    }  # fmt: skip
    return {"specversion": "1.0", "id": f"e-{each.number}", "source": "/pos", "time": each.at.isoformat(), "data": data}


def idoc() -> str:
    def order(each: Sold) -> str:
        lines = "".join(
            f"<E1WPB02><ARTNR>{c}</ARTNR><MENGE>{q}.000</MENGE><EINZELPREIS>{p}</EINZELPREIS></E1WPB02>"
            for c, _, q, p in each.lines
        )
        return (
            f"<IDOC><EDI_DC40><DOCNUM>0000{each.number}</DOCNUM></EDI_DC40><E1WPB01><POSKREIS>{each.store}</POSKREIS>"
            f"<VORGDATUM>{each.at:%Y%m%d}</VORGDATUM><VORGZEIT>{each.at:%H%M%S}</VORGZEIT><BONNUMMER>{each.number}"
            f"</BONNUMMER><BELEGWAERS>EUR</BELEGWAERS><KUNDNR>{CARD}</KUNDNR><SUMME>{each.total}</SUMME>{lines}"
            "</E1WPB01></IDOC>"
        )

    return f"<WPUBON01>{''.join(map(order, SOLD))}</WPUBON01>"


def attributes() -> str:
    def order(each: Sold) -> str:
        lines = "".join(f'<item sku="{c}" qty="{q}" price="{p}"/>' for c, _, q, p in each.lines)
        return (
            f'<order no="{each.number}" date="{each.at.isoformat()}" store="{each.store}" card="{CARD}" currency="EUR" '
            f'total="{each.total}">{lines}</order>'
        )

    return f"<export><orders>{''.join(map(order, SOLD))}</orders></export>"


def alone_in_its_list() -> str:
    text = "".join(
        f"<Sale><ReceiptNumber>{each.number}</ReceiptNumber><TransactionDate>{each.at.isoformat()}</TransactionDate>"
        f"<StoreCode>{each.store}</StoreCode><MemberId>{CARD}</MemberId><Currency>EUR</Currency><Items><Item><Sku>"
        f"{each.lines[0][0]}</Sku><Qty>1</Qty><Price>{each.lines[0][3]}</Price></Item></Items>"
        f"<GrandTotal>{each.total}</GrandTotal></Sale>"
        for each in SOLD[:1]
    )
    return f'<s:Sales xmlns:s="urn:x">{text}</s:Sales>'


GERMAN = [
    "Belegnr", "Datum", "Filiale", "Kundenkarte", "Währung", "Summe", "Artikelnr", "Bezeichnung", "Menge",
    "Einzelpreis", "Betrag",
]  # fmt: skip
SWEDISH = [
    "Kvittonr", "Datum", "Butik", "Medlemsnummer", "Valuta", "Totalt", "Artikelnr", "Benämning", "Antal", "Pris",
    "Belopp",
]  # fmt: skip
SUMS = "Summe;;;;;9.876,00\n"
READ: dict[str, Write] = {
    "plain": lambda: rows(HEADING),
    "titles above, tabs": lambda: "Sales\nFrom 2026-11-13\n\n" + rows(HEADING, delimiter="\t"),
    "UTF-16": lambda: rows(HEADING, delimiter="\t").encode("utf-16"),
    "UTF-16 without its mark": lambda: rows(HEADING, delimiter=";").encode("utf-16-le"),
    "quoted decimals": lambda: rows(HEADING, lambda value: german(value).replace(".", "")),
    "seconds since 1970": lambda: rows(HEADING, date="%s"),
    "German, a row of sums": lambda: (rows(GERMAN, german, "%d.%m.%Y %H:%M", ";") + SUMS).encode("cp1252"),
    "Swedish": lambda: rows(SWEDISH, lambda value: f"{german(value).replace('.', ' ')} kr", "%Y-%m-%d %H:%M", "\t"),
    "years of two digits": lambda: rows(HEADING, date="%d.%m.%y %H:%M", delimiter="|"),
    "American": lambda: rows(HEADING, lambda value: f"${value:,.2f}", "%b %d, %Y %I:%M:%S %p"),
    "nested JSON": lambda: json.dumps({"page": 1, "orders": documents(nested)}),
    "JSON Lines of CloudEvents": lambda: "\n".join(map(json.dumps, documents(event))),
    "an IDoc": idoc,
    "attributes": attributes,
    "one line alone in its list": alone_in_its_list,
}  # fmt: skip
TOLD: dict[str, tuple[Write, str]] = {
    "a workbook": (lambda: b"PK\3\4" + bytes(50), "save it as CSV"),
    "Parquet": (lambda: b"PAR1" + bytes(50), "declare `format: parquet`"),
    "fixed widths": (lambda: "FHEAD0000000001RTLG\nTHEAD0000000002\nFTAIL0000000003\n", "have it exported as CSV"),
    "records of several kinds": (lambda: "H;1001;13.11.2026;0404;3,50\nP;A;1;3,50\nP;B;2;7,00\n", "a row a line"),
    "a page": (lambda: "<html><body><p>Sign in</p><p>again</p></body></html>", "is it the right one"),
    "numbers": (lambda: "[1, 2, 3]", "is it the right one"),
}


def told(path: Path) -> tuple[str, dict[str, str]]:
    """The proposal with the one answer that it asks for here, and what else it asks for."""
    guesses = suggest(path)
    text = as_yaml(guesses).replace("  # zone: ?", "  zone: UTC")
    return text, {each.name: each.why for each in guesses if not each.is_what and each.name != "dates.zone"}


def read(path: Path, declared: str) -> list[Arrival | RecordRefused]:
    proposal = path.with_name("acme.yaml")
    proposal.write_text(declared, encoding="utf-8")
    adapter = Adapter(load_settings(), load_declaration(str(proposal)))
    return [became for _, became in check_file(path, adapter.settings, adapter)]


def put(folder: Path, content: str | bytes) -> Path:
    path = folder / "export.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", READ)
def test_what_a_proposal_reads_is_what_was_sold(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, READ[name]())
    declared, asked = told(path)
    assert asked == {}
    found = read(path, declared)
    for became, each in zip(found, SOLD, strict=name != "one line alone in its list"):
        assert isinstance(became, Arrival), became
        order = order_of_payload(became.row["payload"])
        assert (order.order_number, order.store_id, order.total) == (each.number, each.store, each.total)
        assert (became.row["order_time"], order.currency, order.loyalty_card_number) == (each.at, "EUR", CARD)
        lines = [(line.product_code, line.quantity, line.unit_price) for line in order.lines]
        assert lines == [(code, quantity, price) for code, _, quantity, price in each.lines]


@pytest.mark.parametrize("name", TOLD)
def test_what_no_declaration_reads_is_one_sentence_with_the_remedy(tmp_path: Path, name: str) -> None:
    write, remedy = TOLD[name]
    with pytest.raises(FatalError, match=remedy):
        suggest(put(tmp_path, write()))


def test_a_heading_that_is_there_twice_is_asked_for(tmp_path: Path) -> None:
    heading = ["Total" if name in ("order_total", "line_total") else name for name in HEADING]
    _, asked = told(put(tmp_path, rows(heading)))
    assert asked["order.total"].endswith("the export has Total twice: have it name them apart")


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("dates.formats", lambda: rows(HEADING, date="%m/%H/%Y")),
        ("numbers.decimal", lambda: rows(HEADING, lambda value: f"{value // 1:,}".replace(",", "."))),
    ],
)
def test_what_may_mean_two_things_is_left_open_and_nothing_is_read_by_it(
    tmp_path: Path, question: str, content: Write
) -> None:
    path = put(tmp_path, content())
    declared, asked = told(path)
    assert set(asked) == {question}
    assert all(isinstance(became, RecordRefused) for became in read(path, declared))


def test_a_row_of_sums_that_is_refused_says_what_to_declare(tmp_path: Path) -> None:
    path = put(tmp_path, rows(HEADING))
    declared, _ = told(path)
    with path.open("a", encoding="utf-8") as file:
        file.write("Total,,,,,9876.00,,,,,\n")
    *_, last = read(path, declared)
    assert isinstance(last, RecordRefused)
    assert last.detail.endswith("if the last line is a row of sums, declare `trailer`")
