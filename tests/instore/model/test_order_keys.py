"""Which orders are the same order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.instore.model.customer_keys import card_of
from include.instore.model.errors import ConfigurationError, RecordRefused
from include.instore.model.order_keys import key_fields, order_key
from include.instore.model.orders import order_from_document, parse_order
from include.instore.model.settings import load_settings
from tests.instore import given


def key(setting: str = "order_number", **changes: Any) -> list[str]:
    order = order_from_document(given.document(**changes))
    return list(json.loads(order_key(order, key_fields(setting), "Europe/Stockholm")))


def test_the_key_is_the_number_and_the_type_unless_more_is_named() -> None:
    assert key() == ["s1", "sale"]
    assert key(total="-1") == ["s1", "return"]


@pytest.mark.parametrize("number", ["S1", "s1", "\ufeffS1", "Ｓ1", "S\u200b1", " S1\u00ad ", "S1\u2060"])
def test_spellings_of_one_number_are_one_key(number: str) -> None:
    assert key(number=number) == ["s1", "sale"]


@pytest.mark.parametrize("numbers", [("S1", "S01"), ("S1", "S-1"), ("12E5", "1200000"), ("1", "1/1")])
def test_other_numbers_are_other_keys(numbers: tuple[str, str]) -> None:
    assert key(number=numbers[0]) != key(number=numbers[1])


def test_any_field_can_be_named_in_either_spelling_and_the_day_of_the_store() -> None:
    named = "store_id,day,tillId,OrderNumber"
    assert key(named, tillId=4, date="2017-06-05T23:30:00Z") == ["0404", "2017-06-06", "4", "s1", "sale"]
    assert key("day", date="2017-06-05T23:30:00") == ["2017-06-05", "sale"]


def test_a_column_that_every_row_repeats_is_the_order_s() -> None:
    lines = [{"productCode": "a", "tillId": "4"}, {"productCode": "b", "tillId": "4"}]
    assert key("tillId", lines=lines) == ["4", "sale"]
    with pytest.raises(RecordRefused, match="missing_field: tillId"):
        key("tillId", lines=[lines[0], {**lines[1], "tillId": "5"}])


@pytest.mark.parametrize("till", [None, "", " ", "\u200b"])
def test_an_order_without_a_named_field_is_refused(till: str | None) -> None:
    with pytest.raises(RecordRefused, match="missing_field: tillId is required, because INSTORE_ORDER_KEY names it"):
        key("tillId,order_number", tillId=till)


@pytest.mark.parametrize("till", [True, {"a": 1}, [4], "1.23457E+11"])
def test_what_is_no_identifier_is_refused(till: Any) -> None:
    with pytest.raises(RecordRefused, match="bad_value: tillId"):
        key("tillId", tillId=till)


@pytest.mark.parametrize("number", ["1.23457E+11", "1,23457E+11", "1e+12", " 6.00124E+15", "-1.5E+10"])
@pytest.mark.parametrize("field", ["orderNumber", "storeId", "loyaltyCardNumber"])
def test_a_number_that_a_spreadsheet_has_rounded_is_refused(field: str, number: str) -> None:
    with pytest.raises(RecordRefused, match=f"bad_value: {field}.*spreadsheet"):
        order_from_document(given.document(**{field: number}) if field != "orderNumber" else given.document(number))


@pytest.mark.parametrize("number", ["12E5", "1E+1", "E+11", "A1.2E+11"])
def test_a_number_that_only_looks_like_it_stays(number: str) -> None:
    assert order_from_document(given.document(number)).order_number == number


@pytest.mark.parametrize("written", ['="0001234"', "'0001234", ' "0001234" ', "0001234\u200b"])
@pytest.mark.parametrize("field", ["orderNumber", "storeId"])
def test_a_number_that_a_spreadsheet_keeps_a_text_is_the_same_number(field: str, written: str) -> None:
    document = given.document(written) if field == "orderNumber" else given.document(storeId=written)
    order = order_from_document(document)
    assert {"orderNumber": order.order_number, "storeId": order.store_id}[field] == "0001234"


@pytest.mark.parametrize("number", ["1.0", "1.5", "1E5", "1.23457E+11"])
@pytest.mark.parametrize("field", ["orderNumber", "storeId"])
def test_a_json_float_is_no_identity(field: str, number: str) -> None:
    raw = given.body(**{"number" if field == "orderNumber" else field: "@"}).replace(b'"@"', number.encode())
    with pytest.raises(RecordRefused, match=f"bad_value: {field}"):
        parse_order(raw, 10_000)


def test_a_rounded_card_of_the_mapping_file_is_no_card() -> None:
    with pytest.raises(ValueError, match="spreadsheet"):
        card_of("6.03577E+15")


@pytest.mark.parametrize("setting", ["", "a,,b", "order_number,order_number", "order_number,orderNumber", "order_type"])
def test_a_key_that_names_nothing_or_one_thing_twice_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("INSTORE_ORDER_KEY", setting)
    with pytest.raises(ConfigurationError, match="INSTORE_ORDER_KEY"):
        load_settings()


def test_a_key_that_no_column_holds_is_refused() -> None:
    with pytest.raises(RecordRefused, match="bad_value: the fields of its key are longer than 480"):
        key("tillId", tillId="x" * 600)
