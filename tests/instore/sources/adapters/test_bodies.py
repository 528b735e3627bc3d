"""Message bodies: out of what publishers wrap them in, by the path to the order, and each order of several alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter, Part, adapter_named, adapter_of_topic, read_body
from tests.instore import given
from tests.instore.given import CANARY, body, document

MakeSettings = Callable[..., Settings]
NAMESPACE = b"\x08\x33http://schemas.microsoft.com/2003/10/Serialization/"


def data_contract(*records: bytes, name: bytes = b"string") -> bytes:
    """A string as .NET's binary XML has it: an element with a namespace around records of text."""
    return b"@" + bytes([len(name)]) + name + NAMESPACE + b"".join(records)


def chars(kind: int, text: bytes, size: int) -> bytes:
    return bytes([kind]) + len(text).to_bytes(size, "little") + text


def read(raw: bytes, settings: Settings) -> list[Part]:
    return read_body(raw, adapter_of_topic(settings))


def only(raw: bytes, settings: Settings) -> InStoreOrder:
    (part,) = read(raw, settings)
    assert isinstance(part.order, InStoreOrder), part.order
    assert part.raw == raw
    return part.order


LONG = body(lines=[{"description": "x" * 300}])


@pytest.mark.parametrize(
    "raw",
    [
        gzip.compress(body()),
        body().decode().encode("utf-16"),
        body().decode().encode("utf-16-le"),
        body().decode().encode("utf-16-be"),
        body().decode().encode("utf-8-sig"),
        json.dumps(body().decode()).encode(),
        json.dumps(json.dumps(body().decode())).encode(),
        data_contract(chars(0x9B, body(), 2)),
        data_contract(chars(0x9D, body(), 4)),
        data_contract(chars(0x98, body()[:50], 1), chars(0x9B, body()[50:], 2)),
        data_contract(chars(0x9A, body(), 2), b"\x01"),
        data_contract(chars(0xB9, body().decode().encode("utf-16-le"), 2)),
        data_contract(chars(0xA1, body(), 2), name=b"base64Binary"),
        gzip.compress(data_contract(chars(0x9B, body(), 2))),
    ],
    ids=lambda raw: raw[:4].hex() + f"-{len(raw)}",
)
def test_a_wrapped_body_is_the_same_order(raw: bytes, settings: MakeSettings) -> None:
    assert only(raw, settings()) == only(body(), settings())


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (gzip.compress(body())[:-12], "not_json", "gzip data ends early"),
        (b"\x1f\x8b\x08\x00\xff", "not_json", "gzip data"),
        (gzip.compress(b"0" * 5_000_000), "too_large", "1048576 are accepted"),
        (data_contract(chars(0x9B, body(), 2)[:-5]), "not_json", ".NET string that ends early"),
        (data_contract(b"\x83"), "not_json", ".NET string with a record of kind 0x83"),
        (data_contract(), "not_json", "not JSON"),
        (b"\xff\xfe\x00", "not_json", "utf-16"),
        (b"[]", "not_an_object", "holds no order"),
        (b"", "not_json", "not JSON"),
        (b"1", "not_an_object", "a JSON int"),
        (b'"text"', "not_an_object", "a JSON str"),
    ],
)
def test_a_body_that_cannot_be_read_says_what_it_is(
    raw: bytes, reason: str, detail: str, settings: MakeSettings
) -> None:
    (part,) = read(raw, settings())
    assert isinstance(part.order, RecordRefused)
    assert (part.order.reason, part.raw) == (reason, raw)
    assert detail in part.order.detail


def declared(folder: Path, text: str, name: str = "acme") -> dict[str, str]:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return {"topic_adapter": str(path)}


@pytest.mark.parametrize(
    ("envelope", "path"),
    [
        ({"specversion": "1.0", "type": "order", "data": document()}, "data"),
        ({"specversion": "1.0", "data": json.dumps(document())}, "data"),
        ({"messageId": "1", "messageType": ["urn:message:Order"], "message": document()}, "message"),
        ({"$type": "Sales.OrderPlaced, Sales", "Order": document()}, "Order"),
        ([{"data": document()}], "[].data"),
    ],
)
def test_an_envelope_is_opened_by_the_path_to_the_order(
    envelope: Any, path: str, settings: MakeSettings, tmp_path: Path
) -> None:
    chosen = settings(**declared(tmp_path, f"format: json\norders: '{path}'\n"))
    assert only(json.dumps(envelope).encode(), chosen) == only(body(), settings())


def test_where_the_path_leads_nowhere_the_message_is_refused(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = settings(**declared(tmp_path, "format: json\norders: message.order\n"))
    (part,) = read(body(), chosen)
    assert str(part.order) == "missing_field: nothing is at message.order, where the order is declared to be"


def test_each_order_of_an_array_is_a_record_of_its_own(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = settings(**declared(tmp_path, "format: json\norders: orders\n"))
    orders = [document("S1"), {"orderNumber": CANARY}, document("S2", total="3.5000")]
    first, second, third = read(json.dumps({"orders": orders}).encode(), chosen)
    assert isinstance(first.order, InStoreOrder)
    assert isinstance(third.order, InStoreOrder)
    assert (first.order.order_number, third.order.order_number) == ("S1", "S2")
    assert isinstance(second.order, RecordRefused)
    assert second.order.reason == "missing_field"
    assert CANARY not in repr(second)
    # What is kept of each is read again without the others, and without their path.
    again = adapter_named(third.adapter, chosen, of_files=False)
    assert again is not None
    assert [part.order for part in read_body(third.raw, again)] == [third.order]


def test_numbers_of_an_array_s_orders_keep_their_digits(settings: MakeSettings) -> None:
    raw = b"[%b, %b]" % (body("S1").replace(b'"3.50"', b"3.5000000000000000001"), b'{"total": 1.10}')
    first, second = read(raw, settings())
    assert isinstance(first.order, InStoreOrder)
    assert first.order.total == Decimal("3.5000000000000000001")
    assert second.raw == b'{"total": 1.10}'


MAPPED = """
format: json
order:
  orderNumber: head.no
  date: head.at
  storeId: head.shop
  loyaltyCardNumber: card
  currency: head.cur
  total: head.sum
more: {tillId: head.till}
lines_at: rows
lines: {productCode: sku, quantity: n, total: sum}
constants: {storeName: Main}
values: {orderType: {X: return}}
numbers: {decimal: ","}
"""
FOREIGN = {
    "head": {"no": 7, "at": "/Date(1571234567000+0200)/", "shop": "S1", "cur": "eur", "sum": "5,50", "till": "2"},
    "card": given.CARD,
    "rows": [{"sku": "A", "n": 1, "sum": "5,50"}],
    "unknown": "dropped",
}


def test_a_foreign_document_is_mapped_field_by_field(settings: MakeSettings, tmp_path: Path) -> None:
    order = only(json.dumps(FOREIGN).encode(), settings(**declared(tmp_path, MAPPED)))
    assert json.loads(order.payload()) == {
        "orderNumber": "7",
        "date": "2019-10-16T16:02:47+02:00",
        "storeId": "S1",
        "storeName": "Main",
        "loyaltyCardNumber": given.CARD,
        "currency": "EUR",
        "total": 5.5,
        "orderType": "sale",
        "tillId": "2",
        "lines": [{"productCode": "A", "quantity": 1, "total": 5.5}],
    }


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"head": FOREIGN["head"] | {"sum": "5.50"}}, "total: is not a number as it is declared"),
        ({"rows": [{"sku": "A", "sum": CANARY}]}, "lines.0.total: is not a number"),
        ({"rows": None}, "lines: nothing is at rows"),
        ({"rows": [{"sku": [CANARY]}]}, "lines.0.productCode: there is a list"),
        ({"rows": [{"$ref": "1"}]}, "Newtonsoft"),
        ({"head": FOREIGN["head"] | {"no": None}}, "orderNumber is required"),
        ({"head": {"$ref": "1"}}, "Newtonsoft"),
        ({"head": FOREIGN["head"] | {"at": "24.11.2026"}}, "date: "),
    ],
)
def test_what_does_not_match_is_refused_by_its_field(
    changes: Any, detail: str, settings: MakeSettings, tmp_path: Path
) -> None:
    (part,) = read(json.dumps({**FOREIGN, **changes}).encode(), settings(**declared(tmp_path, MAPPED)))
    assert isinstance(part.order, RecordRefused)
    assert detail in part.order.detail
    assert CANARY not in str(part.order)


def test_a_value_that_is_not_declared_is_refused(settings: MakeSettings, tmp_path: Path) -> None:
    text = "format: json\nvalues: {orderType: {V: sale, R: return}}\n"
    chosen = settings(**declared(tmp_path, text))
    assert only(body(orderType="R", total="-1"), chosen).order_type == "return"
    (part,) = read(body(orderType=CANARY), chosen)
    assert str(part.order) == "bad_value: orderType: is not a value that adapter acme knows"


def test_a_number_is_a_value_like_any_other(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = settings(**declared(tmp_path, "format: json\nvalues: {orderType: {0: return, 1: sale}}\n"))
    assert only(body(orderType=0), chosen).order_type == "return"


def test_a_dot_net_string_is_utf_8_whatever_is_declared(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = settings(**declared(tmp_path, "format: json\nencoding: cp1252\n"))
    text = body(storeName="Köln").decode().encode().decode("unicode_escape")
    assert only(data_contract(chars(0x9B, text.encode(), 2)), chosen).store_name == "Köln"
    assert only(text.encode("cp1252"), chosen).store_name == "Köln"


def test_code_has_the_last_word_and_its_errors_tell_no_value(settings: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(
        "def order_of(document):\n    document['total'] = sum(int(line['total']) for line in document['lines'])\n"
        "    return document\n"
    )
    chosen = settings(**declared(tmp_path, "format: json\ncode: acme.py\n"))
    assert only(body(total="0", lines=[{"total": "2"}, {"total": "3"}]), chosen).total == 5
    (part,) = read(body(lines=[{"total": CANARY}]), chosen)
    assert str(part.order) == "bad_value: acme.py failed with ValueError at line 2"


def test_an_adapter_that_no_setting_names_is_not_found(settings: MakeSettings, tmp_path: Path) -> None:
    chosen = settings(**declared(tmp_path, "format: json\n"))
    assert adapter_named("acme", chosen, of_files=False) is not None
    assert adapter_named("acme", chosen, of_files=True) is None
    assert adapter_named("other", chosen, of_files=False) is None
    assert Adapter(chosen).name == ""
