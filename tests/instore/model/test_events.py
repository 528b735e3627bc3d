"""The tracking event: the original design's, plus trackId (contracts.md section 2)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import simplejson
from instore_provider.events import encode

from include.instore.model.events import build_event, customer_key, event_bytes, event_id, event_kind, utc_milliseconds
from include.instore.model.orders import order_from_document, parse_order
from include.instore.model.settings import Settings
from sandbox import week
from tests.instore import given

MakeSettings = Callable[..., Settings]


def event(settings: Settings, email: str = "ann@example.com", **changes: Any) -> tuple[dict[str, Any], bool]:
    order = order_from_document(given.document(**changes))
    return build_event(
        track_id="track-1",
        order_type=order.order_type,
        order_time=order.time("UTC"),
        payload=order.payload(),
        email=email,
        settings=settings.events,
    )


def test_the_event_is_exactly_the_original_designs_and_a_track_id(settings: MakeSettings) -> None:
    assert event(settings()) == (
        {
            "trackId": "track-1",
            "deviceId": "InStoreDevice",
            "eventType": "StorePurchase",
            "value": "StorePurchase",
            "eventTime": "2017-06-05T10:04:12.000Z",
            "scope": "Default",
            "user": {"email": "ann@example.com"},
            "payload": {
                "orderNumber": "S1",
                "date": "2017-06-05T10:04:12Z",
                "storeId": "0404",
                "storeName": "Store 0404",
                "loyaltyCardNumber": given.CARD,
                "currency": "USD",
                "total": Decimal("3.50"),
                "orderType": "sale",
                "lines": [{"productCode": "947865", "description": "CANDY", "quantity": 2, "total": Decimal("3.50")}],
            },
        },
        False,
    )


def test_amounts_are_on_the_wire_with_their_exact_digits(settings: MakeSettings) -> None:
    text = simplejson.dumps(event(settings(), total="1.10")[0], use_decimal=True, separators=(",", ":"))
    assert '"total":1.10,' in text


def test_a_return_is_never_a_purchase(settings: MakeSettings) -> None:
    sent, _ = event(settings(), total="-3.50")
    assert (sent["eventType"], sent["value"]) == ("StoreReturn", "StoreReturn")
    assert sent["payload"]["orderType"] == "return"


def test_event_types_and_values_are_settings(settings: MakeSettings) -> None:
    own = settings(event_type="a", event_value="b", return_event_type="c", return_event_value="d")
    assert (event_kind("sale", own.events), event_kind("return", own.events)) == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2017, 9, 19, 8, 24, 19, 996_000, timezone.utc), "2017-09-19T08:24:19.996Z"),
        (datetime(2017, 9, 19, 8, 24, 19, 996_999, timezone.utc), "2017-09-19T08:24:19.996Z"),
        (datetime(2017, 9, 19, 8, 24, tzinfo=timezone.utc), "2017-09-19T08:24:00.000Z"),
        (datetime(2017, 9, 19, 1, tzinfo=timezone(timedelta(hours=2))), "2017-09-18T23:00:00.000Z"),
    ],
)
def test_event_time_is_in_utc_with_milliseconds(moment: datetime, text: str) -> None:
    assert utc_milliseconds(moment) == text


def test_the_device_is_a_constant_or_one_of_the_customers_own(settings: MakeSettings) -> None:
    own = settings(device_id="store-{customer_key}", scope="web")
    device = event(own)[0]["deviceId"]
    assert device == f"store-{customer_key('web', 'ann@example.com')}"
    assert uuid.UUID(device[6:]).version == 5
    assert event(own, email=" Ann@Example.com ")[0]["deviceId"] == device
    assert event(own, email="bo@example.com")[0]["deviceId"] != device
    assert event(settings(device_id="{customer_key}", scope="other"))[0]["deviceId"] != device[6:]
    assert event(settings(device_id="Till"))[0]["deviceId"] == "Till"
    assert "ann" not in device


def test_an_event_id_is_stable_and_distinct() -> None:
    assert event_id("Default", "StorePurchase", "S1") == "bf9e3ae0-f75e-538a-874b-701dface1a3c"
    others = [
        ("Default", "StorePurchase", "S2"),
        ("Default", "StoreReturn", "S1"),
        ("web", "StorePurchase", "S1"),
        ("Default", "StorePurchaseS", "1"),
        ("DefaultStorePurchase", "", "S1"),
        ("Default", 'StorePurchase", "S1', ""),
    ]
    assert len({event_id(*each) for each in [("Default", "StorePurchase", "S1"), *others]}) == 7


def test_an_event_over_the_limit_loses_its_lines_to_a_summary(settings: MakeSettings) -> None:
    lines = [{"productCode": str(number), "description": "x" * 1000} for number in range(300)]
    sent, truncated = event(settings(), lines=lines, comment="y" * 1000)
    assert truncated
    assert sent["payload"] == {
        "orderNumber": "S1",
        "date": "2017-06-05T10:04:12Z",
        "storeId": "0404",
        "storeName": "Store 0404",
        "loyaltyCardNumber": given.CARD,
        "currency": "USD",
        "total": Decimal("3.50"),
        "orderType": "sale",
        "lineCount": 300,
        "payloadTruncated": True,
    }
    assert event_bytes(sent) < 1024


def test_the_limit_is_bytes_on_the_wire(settings: MakeSettings) -> None:
    whole, _ = event(settings(), storeName="å" * 500)
    size = len(json.dumps(json.loads(simplejson.dumps(whole, use_decimal=True)), separators=(",", ":")).encode())
    # 3.50 has a digit more than json's own 3.5, twice.
    assert event_bytes(whole) == size + 2
    assert event(settings(max_event_bytes=event_bytes(whole)), storeName="å" * 500) == (whole, False)
    assert event(settings(max_event_bytes=event_bytes(whole) - 1), storeName="å" * 500)[1]


@pytest.mark.parametrize("field", ["storeName", "comment"])
def test_no_event_is_over_the_limit(settings: MakeSettings, field: str) -> None:
    sent, truncated = event(settings(), **{field: "z" * 300_000})
    assert (truncated, event_bytes(sent) <= 256_000) == (True, True)
    assert sent["payload"]["orderNumber"] == "S1"


def test_an_event_without_an_email_is_not_built(settings: MakeSettings) -> None:
    with pytest.raises(ValueError, match="email"):
        event(settings(), email="")


def test_what_goes_out_is_byte_for_byte_what_the_stored_order_says_in_ascii(settings: MakeSettings) -> None:
    of_a_week = [parse_order(each.body, 1_000_000) for each in week.messages()]
    odd = [
        order_from_document(given.document(storeName='Zürich \u2028 "A" \U0001f600', rate=Decimal("1.50"))),
        order_from_document(given.document(total=Decimal("0.10"), big=12345678901234567890123, deep={"b": [1, {}]})),
    ]
    for order in [*of_a_week, *odd]:
        sent, _ = build_event(
            track_id="t", order_type="sale", order_time=order.time("UTC"), payload=order.payload(),
            email="a@example.com", settings=settings().events,
        )  # fmt: skip
        parsed = {**sent, "payload": json.loads(order.payload(), parse_float=Decimal)}
        assert encode(0, sent) == encode(0, parsed)
        assert event_bytes(sent) == event_bytes(parsed)


def test_a_stored_order_that_is_no_json_makes_no_event(settings: MakeSettings) -> None:
    for text in ('{"total":', "", '{"total":1}}'):
        with pytest.raises(ValueError, match=r"Expecting|Extra"):
            build_event(
                track_id="t", order_type="sale", order_time=datetime.now(timezone.utc), payload=text,
                email="a@example.com", settings=settings().events,
            )  # fmt: skip
