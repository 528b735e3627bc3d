"""The order message: what is accepted, what it becomes, and why others are refused (contracts.md section 1)."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from include.instore.ledger.intake import arrival
from include.instore.ledger.records import Record
from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder, order_from_document, order_of_payload, parse_order
from sandbox import week
from tests.instore.given import CANARY, SETTINGS, body, document

MAX_BYTES = 1_048_576


def parsed(**changes: Any) -> InStoreOrder:
    return parse_order(body(**changes), MAX_BYTES)


def refusal_of(raw: bytes, max_bytes: int = MAX_BYTES) -> RecordRefused:
    """Why a body never becomes an order in the ledger."""
    with pytest.raises(RecordRefused) as caught:
        arrival(Record("topic", "r", raw, parse_order(raw, max_bytes)), SETTINGS)
    return caught.value


def landed_or_reason(raw: bytes) -> dict[str, Any] | str:
    """The row of an order, or the reason why it never becomes one; nothing else may come out."""
    try:
        return arrival(Record("topic", "r", raw, parse_order(raw, MAX_BYTES)), SETTINGS).row
    except RecordRefused as refused:
        return refused.reason


def payload_of(order: InStoreOrder) -> dict[str, Any]:
    found = json.loads(order.payload(), parse_float=Decimal)
    assert isinstance(found, dict)
    return found


def test_every_field_of_the_contract_is_read() -> None:
    order = parsed(
        number="S1",
        emailAddress="ann@example.com",
        orderType="sale",
        lines=[
            {
                "productCode": "947865",
                "description": "CANDY",
                "quantity": "2",
                "unitPrice": "2.00",
                "discount": "0.50",
                "total": "3.50",
            }
        ],
    )
    assert (order.order_number, order.store_id, order.store_name) == ("S1", "0404", "Store 0404")
    assert order.date == datetime(2017, 6, 5, 10, 4, 12, tzinfo=timezone.utc)
    assert (order.loyalty_card_number, order.email_address) == ("6035770741165744", "ann@example.com")
    assert (order.currency, order.total, order.order_type) == ("USD", Decimal("3.50"), "sale")
    (line,) = order.lines
    assert (line.product_code, line.description) == ("947865", "CANDY")
    assert (line.quantity, line.unit_price, line.discount, line.total) == (
        Decimal("2"),
        Decimal("2.00"),
        Decimal("0.50"),
        Decimal("3.50"),
    )


def test_pascal_case_is_the_same_order() -> None:
    def pascal(value: Any) -> Any:
        if isinstance(value, dict):
            return {name[0].upper() + name[1:]: pascal(inner) for name, inner in value.items()}
        return [pascal(inner) for inner in value] if isinstance(value, list) else value

    order = order_from_document(pascal(document()))
    assert order == order_from_document(document())
    assert payload_of(order) == payload_of(order_from_document(document()))


@pytest.mark.parametrize(
    "twice",
    [
        b'"Total": "2.00"', b'"total": "2.00"', b'"LoyaltyCardNumber": "2"', b'"lines": []', b'"note": 1, "note": 2',
        b'"till": {"id": 1, "id": 2}', b'"Lines": [{"total": "1", "Total": "2"}]',
    ],
)  # fmt: skip
def test_what_is_said_twice_with_two_values_is_refused(twice: bytes) -> None:
    with pytest.raises(RecordRefused, match="twice, with different values"):
        parse_order(body(total="1.00")[:-1] + b", " + twice + b"}", MAX_BYTES)


@pytest.mark.parametrize("twice", [b'"Total": "1.00"', b'"total": "1.00"', b'"Total": null', b'"total": null'])
def test_what_is_said_twice_in_the_same_way_or_left_open_once_is_taken(twice: bytes) -> None:
    raw = body(total="1.00")[:-1] + b", " + twice + b"}"
    assert parse_order(raw, MAX_BYTES) == parse_order(body(total="1.00"), MAX_BYTES)


def test_unknown_fields_are_kept_at_the_top_and_on_the_lines() -> None:
    order = parsed(cashier={"id": 7, "Name": "B"}, Till="4", lines=[{"productCode": "1", "Aisle": 3, "vat": 0.25}])
    sent = payload_of(order)
    assert (sent["cashier"], sent["till"]) == ({"id": 7, "Name": "B"}, "4")
    assert sent["lines"] == [{"productCode": "1", "aisle": 3, "vat": Decimal("0.25")}]


def test_the_payload_is_the_order_in_camel_case_and_says_only_what_the_erp_said() -> None:
    assert payload_of(parsed(loyaltyCardNumber="60-35 77", storeName=None)) == {
        "orderNumber": "S1",
        "date": "2017-06-05T10:04:12Z",
        "storeId": "0404",
        "loyaltyCardNumber": "603577",
        "currency": "USD",
        "total": Decimal("3.50"),
        "orderType": "sale",
        "lines": [{"productCode": "947865", "description": "CANDY", "quantity": 2, "total": Decimal("3.50")}],
    }


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_does_not_matter(mark: str) -> None:
    assert parse_order(body().decode().encode(mark), MAX_BYTES).order_number == "S1"


@pytest.mark.parametrize("spelled", ['"1.10"', "1.10", '" 1.10 "'])
def test_amounts_go_out_with_their_exact_digits(spelled: str) -> None:
    raw = body(total="TOTAL", lines=[{"productCode": "1", "unitPrice": "TOTAL"}]).replace(b'"TOTAL"', spelled.encode())
    sent = parse_order(raw, MAX_BYTES).payload()
    assert '"total":1.10' in sent
    assert '"unitPrice":1.10' in sent


@pytest.mark.parametrize("digits", ["0.1", "12345678901234567890.12", "-0.30", "100", "0.000001"])
def test_no_amount_goes_through_a_float(digits: str) -> None:
    raw = body(total="TOTAL").replace(b'"TOTAL"', digits.encode())
    order = parse_order(raw, MAX_BYTES)
    assert order.total == Decimal(digits)
    assert f'"total":{digits},' in order.payload()


@pytest.mark.parametrize(
    ("card", "cleaned"),
    [
        ("0012-3456 7890", "001234567890"),
        (" 0012\u00a034 ", "001234"),
        ("000", "000"),
        ("AB-12", "AB12"),
        (12345, "12345"),
        (" - ", None),
        ("", None),
        (None, None),
    ],
)
def test_cards_lose_spaces_and_dashes_and_keep_their_leading_zeros(card: Any, cleaned: str | None) -> None:
    assert order_from_document({**document(), "loyaltyCardNumber": card}).loyalty_card_number == cleaned


@pytest.mark.parametrize("email", [None, "", "  "])
def test_a_blank_email_is_none(email: Any) -> None:
    assert order_from_document({**document(), "emailAddress": email}).email_address is None


@pytest.mark.parametrize(
    ("date", "zone", "utc"),
    [
        ("2017-06-05T10:00:00Z", "Europe/Stockholm", "2017-06-05T10:00:00+00:00"),
        ("2017-06-05T10:00:00+02:00", "America/New_York", "2017-06-05T08:00:00+00:00"),
        ("2017-06-05T10:00:00.123-05:30", "UTC", "2017-06-05T15:30:00.123000+00:00"),
        ("2017-06-05T10:00:00", "UTC", "2017-06-05T10:00:00+00:00"),
        ("2017-06-05T10:00:00", "Europe/Stockholm", "2017-06-05T08:00:00+00:00"),
        ("2017-01-05T10:00:00", "Europe/Stockholm", "2017-01-05T09:00:00+00:00"),
        ("2017-03-26T01:59:59", "Europe/Stockholm", "2017-03-26T00:59:59+00:00"),
        ("2017-03-26T03:00:00", "Europe/Stockholm", "2017-03-26T01:00:00+00:00"),
        ("2017-10-29T02:30:00", "Europe/Stockholm", "2017-10-29T00:30:00+00:00"),
        ("2017-06-05 10:00", "UTC", "2017-06-05T10:00:00+00:00"),
        ("2017-06-05", "Europe/Stockholm", "2017-06-04T22:00:00+00:00"),
    ],
)
def test_the_moment_of_an_order_is_in_utc(date: str, zone: str, utc: str) -> None:
    order = parsed(date=date)
    assert order.time(zone).isoformat() == utc
    assert order.has_offset() == (date[10:].find("+") >= 0 or date.endswith(("Z", "-05:30")))


def test_a_date_without_offset_goes_out_as_it_came() -> None:
    assert payload_of(parsed(date="2017-06-05T10:00:00"))["date"] == "2017-06-05T10:00:00"


@pytest.mark.parametrize(
    ("given_type", "total", "kind"),
    [
        (None, "3.50", "sale"),
        (None, "0", "sale"),
        (None, "-0.01", "return"),
        (None, -5, "return"),
        ("", "-1", "return"),
        ("sale", "-1", "sale"),
        ("return", "1", "return"),
        ("Return", "1", "return"),
        (" SALE ", "1", "sale"),
    ],
)
def test_an_order_without_a_type_is_a_return_when_its_total_is_below_zero(
    given_type: Any, total: Any, kind: str
) -> None:
    order = order_from_document({**document(total=total), "orderType": given_type})
    assert order.order_type == kind
    assert payload_of(order)["orderType"] == kind


def test_quantity_zero_and_an_empty_description_are_real() -> None:
    order = parsed(lines=[{"productCode": "1", "description": "", "quantity": "0"}])
    assert payload_of(order)["lines"] == [{"productCode": "1", "description": "", "quantity": 0}]


@pytest.mark.parametrize("lines", [None, []])
def test_an_order_without_lines_is_an_order(lines: Any) -> None:
    assert order_from_document({**document(), "lines": lines}).lines == ()


def test_an_order_without_card_and_email_is_no_refusal() -> None:
    assert parsed(loyaltyCardNumber=None).loyalty_card_number is None


@pytest.mark.parametrize(("field", "value", "kept"), [("orderNumber", 4711, "4711"), ("storeId", 404, "404")])
def test_numbers_are_accepted_where_the_erp_should_have_written_a_string(field: str, value: int, kept: str) -> None:
    assert payload_of(order_from_document({**document(), field: value}))[field] == kept


def test_a_currency_is_upper_case() -> None:
    assert parsed(currency=" usd").currency == "USD"


REFUSED = {
    "not_json": [
        b"",
        b"  ",
        b"{",
        body()[:-1],
        body() + b"}",
        b"\xff\xfe\x00",
        "{}".encode("utf-16"),
        body(total="T").replace(b'"T"', b"NaN"),
        body(total="T").replace(b'"T"', b"-Infinity"),
        body(total="T").replace(b'"T"', b"01"),
        body(total="T").replace(b'"T"', b"9" * 5000),
        body(total="T").replace(b'"T"', b"1e99999999999999999999"),
        body(storeName="T").replace(b'"T"', b'"a\x00b"'),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"<order/>",
    ],
    "not_an_object": [b"null", b"[]", b'"S1"', b"7", b"1.5", b"true", b"[" + body() + b"]"],
    "missing_field": [
        b"{}",
        *(body(**{name: None}) for name in ("date", "storeId", "currency", "total")),
        json.dumps({**document(), "orderNumber": None}).encode(),
        json.dumps({**document(), "orderNumber": ""}).encode(),
        json.dumps({**document(), "date": None}).encode(),
        json.dumps({**document(), "total": ""}).encode(),
    ],
    "bad_value": [
        body(number="x" * 65),
        body(number="a\nb"),
        body(number="a\0b"),
        body(number="\ud800"),
        body(number=["S1"]),
        body(number=True),
        body(date="05/06/2017"),
        body(date="20170605"),
        body(date=1496620800),
        body(date="1496620800"),
        body(date="2017-02-30T00:00:00Z"),
        body(date="2017-06-05T25:00:00Z"),
        body(date="0001-01-01T00:00:00+14:00"),
        body(date="9999-12-31T23:59:59-14:00"),
        body(date=["2017-06-05"]),
        body(storeId={"id": "1"}),
        body(currency="US"),
        body(currency="DOLLAR"),
        body(currency="12€"),
        body(total="ten"),
        body(total="NaN"),
        body(total="Infinity"),
        body(total="1,50"),
        body(total=True),
        body(total=[1]),
        body(total="9" * 5000),
        body(total="1e1000000"),
        body(loyaltyCardNumber="1" * 65),
        body(loyaltyCardNumber=6.5),
        body(loyaltyCardNumber=True),
        body(loyaltyCardNumber="a\0b"),
        body(loyaltyCardNumber=["1"]),
        body(loyaltyCardNumber=None, emailAddress="ann@"),
        body(loyaltyCardNumber=None, emailAddress="a b@example.com"),
        body(loyaltyCardNumber=None, emailAddress="ann@example.com\0"),
        body(loyaltyCardNumber=None, emailAddress="ann\ud800@example.com"),
        body(loyaltyCardNumber=None, emailAddress="a" * 250 + "@example.com"),
        body(loyaltyCardNumber=None, emailAddress=7),
        body(lines="none"),
        body(lines={"productCode": "1"}),
        body(lines=[7]),
        body(lines=[{"quantity": "two"}]),
        body(lines=[{"quantity": False}]),
        body(storeName="\udfff"),
        body(extra="\ud800"),
        body(extra=[{"\ud800": 1}]),
        body(**{"\ud800": 1}),
    ],
    "unsupported_type": [
        *(body(orderType=kind) for kind in ("exchange", "sales", "0", 5, 1.5, True, ["return"], {"a": 1})),
    ],
}


@pytest.mark.parametrize(
    ("reason", "raw"),
    [
        pytest.param(reason, raw, id=f"{reason}-{number}")
        for reason in REFUSED
        for number, raw in enumerate(REFUSED[reason])
    ],
)
def test_what_is_not_an_order_is_refused_with_a_machine_reason(reason: str, raw: bytes) -> None:
    assert refusal_of(raw).reason == reason


def test_a_body_over_the_limit_is_too_large_before_it_is_read() -> None:
    raw = body(storeName="x" * 2000)
    assert parse_order(raw, len(raw)).order_number == "S1"
    assert refusal_of(raw, len(raw) - 1).reason == "too_large"
    assert refusal_of(b"[" * 5000, 1024).reason == "too_large"


@pytest.mark.parametrize("field", ["orderNumber", "date", "storeId", "currency", "total"])
def test_a_missing_field_is_named(field: str) -> None:
    raw = {name: value for name, value in document().items() if name != field}
    assert refusal_of(json.dumps(raw).encode()).detail == f"{field} is required"


@pytest.mark.parametrize("field", ["orderNumber", "date", "storeId", "currency", "total", "loyaltyCardNumber"])
@pytest.mark.parametrize(
    "wrap", [lambda text: f"{text}\0", lambda text: [text], lambda text: text * 9, lambda t: {t: t}]
)
def test_the_detail_of_a_refusal_names_the_field_and_never_the_value(field: str, wrap: Any) -> None:
    refused = refusal_of(json.dumps({**document(), field: wrap(CANARY)}).encode())
    assert refused.detail.startswith(field)
    assert CANARY not in str(refused)
    assert refused.__cause__ is None
    assert refused.__suppress_context__


@pytest.mark.parametrize(
    "raw",
    [
        body(loyaltyCardNumber=None, emailAddress=f"{CANARY}@"),
        body(orderType=CANARY),
        body(lines=[{"quantity": CANARY}]),
        body(lines=CANARY),
        body(storeName=f"{CANARY}\ud800"),
        body()[:-1] + f', "{CANARY}": '.encode(),
        CANARY.encode(),
        CANARY.encode() + b"\xff",
        json.dumps(CANARY).encode(),
    ],
)
def test_no_refusal_tells_what_it_refused(raw: bytes) -> None:
    assert CANARY not in str(refusal_of(raw))


@pytest.mark.parametrize("depth", [50, 200, 300, 400, 600, 900, 990, 3000, 20_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_a_deeply_nested_unknown_field_is_kept_or_refused_but_stops_nothing(
    depth: int, brackets: tuple[str, str]
) -> None:
    nested = brackets[0] * depth + "1" + brackets[1] * depth
    raw = body(extra="NESTED").replace(b'"NESTED"', nested.encode())
    landed = landed_or_reason(raw)
    if isinstance(landed, str):
        assert depth > 50
        assert landed in ("not_json", "bad_value")
    else:
        assert parse_order(landed["payload"].encode(), MAX_BYTES).fingerprint() == landed["fingerprint"]


@pytest.mark.parametrize("number", ["1e1000000", "1e-1000000", "-1e999999999", "9" * 4000, "0." + "1" * 5000])
def test_an_extreme_number_in_an_unknown_field_stops_nothing(number: str) -> None:
    raw = body(extra="N").replace(b'"N"', number.encode())
    row = arrival(Record("topic", "r", raw, parse_order(raw, MAX_BYTES)), SETTINGS).row
    assert json.loads(row["payload"], parse_float=Decimal)["extra"] == Decimal(number)


def test_a_message_and_its_extract_twin_have_the_same_fingerprint() -> None:
    message = order_from_document(
        document(
            emailAddress=None,
            orderType=None,
            total=3.5,
            lines=[{"productCode": 947865, "description": "CANDY", "quantity": 2, "unitPrice": Decimal("1.750")}],
        )
    )
    twin = order_from_document(
        document(
            orderType="Sale",
            total="3.50",
            lines=[{"productCode": "947865", "description": "CANDY", "quantity": "2.0", "unitPrice": "1.75"}],
        )
        | {"emailAddress": ""}
    )
    assert message.fingerprint() == twin.fingerprint()


def test_an_unknown_field_that_is_null_is_one_that_is_absent() -> None:
    assert order_from_document({**document(), "extra": None}).fingerprint() == parsed().fingerprint()


def test_the_same_moment_told_with_another_offset_is_the_same_order() -> None:
    fingerprints = {
        parsed(date=date).fingerprint()
        for date in ("2017-06-05T10:04:12Z", "2017-06-05T10:04:12+00:00", "2017-06-05T12:04:12.000+02:00")
    }
    assert len(fingerprints) == 1


STORED = json.loads((Path(__file__).parent / "fingerprints.json").read_text())
"""Documents and the fingerprints that ledgers in use hold of them."""


@pytest.mark.parametrize("at", range(len(STORED)))
def test_the_fingerprint_of_an_order_never_changes(at: int) -> None:
    text, stored = STORED[at]
    assert parse_order(text.encode(), MAX_BYTES).fingerprint() == stored


def test_the_fingerprints_of_a_week_never_change() -> None:
    all_ = hashlib.sha256()
    for message in week.messages():
        order = parse_order(message.body, MAX_BYTES)
        all_.update(order.fingerprint().encode())
        # Of what the ledger keeps of it as well: pieces are put together of it.
        assert order_of_payload(order.payload()).fingerprint() == order.fingerprint()
    assert all_.hexdigest() == "887a28de62f7172f510dfc8ae4e3dde1ef9159fdb126519530c31d89093ee4b8"


@pytest.mark.parametrize(
    "change",
    [
        {"total": "3.51"},
        {"storeId": "0405"},
        {"loyaltyCardNumber": "1"},
        {"emailAddress": "ann@example.com"},
        {"orderType": "return"},
        {"date": "2017-06-05T10:04:13Z"},
        {"date": "2017-06-05T10:04:12"},
        {"lines": []},
        {"extra": "1"},
    ],
)
def test_another_content_is_another_fingerprint(change: dict[str, Any]) -> None:
    assert parsed(**change).fingerprint() != parsed().fingerprint()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["sale", "2017-06-05", "1.10"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [*document(), "emailAddress", "orderType", "unknown", "OrderNumber", "order_number", "model_config", "date"]
near_orders = st.builds(
    lambda changes, lines: {**document(), **changes, **({} if lines is None else {"lines": lines})},
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
    st.none() | st.lists(st.dictionaries(st.sampled_from(["quantity", "total", "Aisle"]), json_values), max_size=3),
)
quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(
    st.binary(max_size=200)
    | st.binary(max_size=20).map(lambda tail: body() + tail)
    | json_values.map(json.dumps).map(str.encode)
)
@example(b"\xef\xbb\xbf")
@example(b'"\\ud800"')
def test_arbitrary_bytes_raise_nothing_but_a_refusal(raw: bytes) -> None:
    landed = landed_or_reason(raw)
    assert landed in REFUSED if isinstance(landed, str) else landed["order_number"]


@quick
@given(near_orders)
@example({**document(), "total": "1_0"})
@example({**document(), "date": "2017-06-05T10:00:00+00:01"})
def test_what_is_accepted_is_the_same_order_after_a_round_trip_through_its_payload(near: dict[str, Any]) -> None:
    raw = json.dumps(near).encode()
    landed = landed_or_reason(raw)
    if isinstance(landed, str):
        assert landed in REFUSED
        return
    again = parse_order(landed["payload"].encode(), MAX_BYTES)
    assert again.payload() == landed["payload"]
    assert again.fingerprint() == landed["fingerprint"]
    assert again.time("UTC") == parse_order(raw, MAX_BYTES).time("UTC")


def test_an_offset_may_stand_apart() -> None:
    order = order_from_document(document("S1", date="2026-11-24 09:50:26 +0200"))
    assert order.time("UTC").isoformat() == "2026-11-24T07:50:26+00:00"
    assert order_from_document(document("S1", date="2026-11-24 09:50:26 -05:30")).has_offset()


@pytest.mark.parametrize(
    ("amounts", "refused"),
    [
        ({"total": "150.000"}, True),
        ({"total": "-99.500"}, True),
        ({"total": "150.000", "currency": "KWD"}, False),
        ({"total": "1500.000"}, False),
        ({"total": "150.00"}, False),
        ({"lines": [{"quantity": "0.125", "total": "3.50"}]}, False),
        ({"lines": [{"quantity": "1", "unitPrice": "3.500", "total": "3.50"}]}, True),
        ({"lines": [{"quantity": "1", "total": "3.500"}]}, True),
    ],
)
def test_an_amount_in_text_that_may_be_thousands_is_refused_where_it_is_said_so(
    amounts: dict[str, Any], refused: bool
) -> None:
    told = document("S1", **amounts)
    assert order_from_document(told)
    if refused:
        with pytest.raises(RecordRefused, match="INSTORE_THREE_DECIMALS"):
            order_from_document(told, thousands_ok=False)
    else:
        assert order_from_document(told, thousands_ok=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"lines": [{"$id": "1", "productCode": "A"}, {"$ref": "1"}]},
        {"lines": {"$values": [{"productCode": "A"}]}},
        {"store": {"$ref": "3"}},
        {"$ref": "1"},
    ],
)
def test_a_document_with_references_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(RecordRefused, match="Newtonsoft"):
        order_from_document(document("S1", **changes))
    assert order_from_document(document("S1", **{"$id": "1", "$type": "Order"}))


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"<Order/>", "XML"),
        (b"PK\x03\x04\xff", "zip"),
        (json.dumps('{"orderNumber": "S1"}').encode(), "a JSON str, not an object"),
    ],
)
def test_a_body_that_is_no_order_is_told_by_what_it_looks_like(raw: bytes, what: str) -> None:
    with pytest.raises(RecordRefused) as refused:
        parse_order(raw, 100_000)
    assert what in refused.value.detail
