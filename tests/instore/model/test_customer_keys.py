"""Cards and emails as people, tills and spreadsheets write them: one reading is repaired, all else names nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from include.instore.ledger.intake import arrival
from include.instore.ledger.records import Record
from include.instore.model.customer_keys import card_of, email_of
from include.instore.model.errors import ConfigurationError, RecordRefused
from include.instore.model.orders import order_from_document, parse_order
from include.instore.model.settings import Settings, load_settings
from tests.instore import given as orders

MakeSettings = Callable[..., Settings]
JANE = "jane@example.com"


@pytest.mark.parametrize(
    "written",
    [
        JANE,
        "jane@example.com; ",
        "jane@example.com,",
        " ;jane@example.com;;",
        "<jane@example.com>",
        "Jane<jane@example.com>",
        '"Doe, Jane" <jane@example.com>',
        "Doe, Jane <jane@example.com>;",
        "jane@example.com\u200b",
        "\ufeffjane@exam\u00adple.com",
        "\u00a0jane@example.com\u2003\n",
        "'jane@example.com'",
        '"jane@example.com"',
        "(jane@example.com)",
        "[jane@example.com]",
        "mailto:jane@example.com",
        "MAILTO: jane@example.com",
        "<mailto:jane@example.com>",
        "jane @ example.com",
        "jane\uff20example.com",
        "\uff4aane@example\uff0ecom",
        "jane@example.com;jane@example.com",
    ],
    ids=ascii,
)
def test_an_address_is_repaired_where_there_is_one_reading(written: str) -> None:
    assert email_of(written) == JANE


@pytest.mark.parametrize("written", ["Jane.Doe+shop@Example.COM", "o'hara@example.com", "jané@example.com"])
def test_an_address_that_is_one_stays_as_it_is_written(written: str) -> None:
    assert email_of(written) == written
    assert email_of(email_of(written)) == written


@pytest.mark.parametrize(
    "written",
    [
        "jane@example.com; bob@example.com",
        "jane@example.com,bob@example.com",
        "jane@example.com bob@example.com",
        "bob@example.com <jane@example.com>",
        "jane doe@example.com",
        "'jane@example.com",
        "jane@",
        "@example.com",
        "@",
        "jane@example",
        "jane@example..com",
        "jane@localhost",
        "kassa@store.local",
        "jane@127.0.0.1",
        "jane@@example.com",
        "j***@example.com",
        "jane@example.com\0",
        "ja\tne@example.com",
        "jane\ud800@example.com",
        "j" * 250 + "@example.com",
    ],
    ids=ascii,
)
def test_an_address_with_no_reading_or_two_is_none(written: str) -> None:
    with pytest.raises(ValueError, match="is not an email address") as error:
        email_of(written)
    assert "jane" not in str(error.value)


@pytest.mark.parametrize(
    "written", [None, "", "  ", ";", "\u200b", "n/a", "N/A", "none", "-", "keine E-Mail", "0", "?"]
)
def test_a_text_that_does_not_try_to_be_an_address_is_no_address(written: str | None) -> None:
    assert email_of(written) is None


@pytest.mark.parametrize(
    "written",
    ["noreply@store.example.com", "No-Reply@example.com", "<none@example.com>", "unknown@x.org", "a@test.com"],
)
def test_a_placeholder_address_is_no_address(settings: MakeSettings, written: str) -> None:
    more = settings(placeholder_emails=Settings().orders.placeholder_emails + ", *@TEST.com")
    assert email_of(written, more.orders) is None
    assert email_of(JANE, more.orders) == JANE
    assert email_of(written, settings(placeholder_emails="").orders) is not None


@pytest.mark.parametrize(
    ("written", "card"),
    [
        ("6035 4300 0000 0005", "6035430000000005"),
        ("6035\u20134300\u20130000\u20130005", "6035430000000005"),
        ("\uff16\uff10\uff13\uff15\uff0d\uff14\uff13", "603543"),
        ("\u0666\u0660", "\u0666\u0660"),
        ("6035\u2212\u2014\u2015\ufe58\ufe6343", "603543"),
        ("\u200e6035\u200f", "6035"),
        ("'0012345", "0012345"),
        ('="0012345"', "0012345"),
        ('"0012345"', "0012345"),
        ("12E5", "12E5"),
        ("AB.12", "AB.12"),
        ("########", None),
        ("-", None),
        ("?", None),
        ("", None),
        (None, None),
        (12345, "12345"),
    ],
    ids=ascii,
)
def test_a_card_is_one_text_however_it_is_written(written: Any, card: str | None) -> None:
    assert card_of(written) == card
    assert card_of(card) == card


@pytest.mark.parametrize(
    "written",
    [
        "6.03543E+15",
        "6,03543E+15",
        "6.03543e15",
        "6E+15",
        "\uff16.03543E+15",
        "6035430000000005.0",
        "6035430000000005,00",
        "6 035 430 000 000 005,00",
        "6,035,430,000,000,005",
        "6.035.430.000.000.005",
        "6035-4300-0000-0005.0",
        6035430000000005.0,
        Decimal("6035430000000005.0"),
        True,
    ],
    ids=ascii,
)
def test_a_card_that_a_spreadsheet_has_made_a_number_of_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="number") as error:
        card_of(written)
    assert "6" not in str(error.value)


@pytest.mark.parametrize(
    ("written", "length", "card"),
    [
        ("12345", 8, "00012345"),
        (12345, 8, "00012345"),
        ("000123456789", 8, "000123456789"),
        ("AB12", 8, "AB12"),
        ("12345", 0, "12345"),
    ],
)
def test_a_card_that_lost_its_leading_zeros_gets_them_back_by_setting(
    settings: MakeSettings, written: Any, length: int, card: str
) -> None:
    assert card_of(written, settings(card_length=length).orders) == card


@pytest.mark.parametrize("written", ["0", "0000000000", "n/a", "NULL", "none", "#N/A", "9999", "99-99 1"])
def test_a_dummy_card_is_no_card(settings: MakeSettings, written: str) -> None:
    some = settings(dummy_cards=Settings().orders.dummy_cards + ",9999*", card_length=12)
    assert card_of(written, some.orders) is None
    assert card_of("1009999", some.orders) == "000001009999"
    assert card_of(written, settings(dummy_cards="").orders) is not None


_ODD = st.text(st.sampled_from("60.,E+-'=\" \u2013\uff16\u00b2\u0301\u200da@#\u0660\u3000;<>"), max_size=12) | st.text(
    max_size=12
)


@given(_ODD)
@example("6-035.0")
@example("''60")
@example("a\u200d\u0301")
def test_a_card_that_is_read_once_is_read_the_same_again(written: str) -> None:
    try:
        card = card_of(written)
    except ValueError:
        return
    assert card_of(card) == card


@given(_ODD, st.sampled_from(["", "example.com", "B\u00fccher.example", "xn--bcher-kva.example"]))
def test_an_address_that_is_read_once_is_read_the_same_again(written: str, domain: str) -> None:
    try:
        address = email_of(f"{written}@{domain}")
    except ValueError:
        return
    assert email_of(address) == address


def test_a_card_longer_than_the_ledger_keeps_is_not_made_by_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_CARD_LENGTH", "65")
    with pytest.raises(ConfigurationError, match="INSTORE_CARD_LENGTH"):
        load_settings()


def landed(settings: Settings, **changes: Any) -> dict[str, Any]:
    raw = orders.body(**changes)
    return arrival(Record("topic", "r", raw, parse_order(raw, 10_000)), settings).row


@pytest.mark.parametrize(
    "email", ["n/a", "jane@", "kassa@store.local", "noreply@x.org", "a@x.org;b@x.org", 7, "a\0@b.c"]
)
def test_a_bad_address_beside_a_card_is_dropped_and_the_order_stays(settings: MakeSettings, email: Any) -> None:
    row = landed(settings(), emailAddress=email)
    assert (row["loyalty_card"], row["email"], row["status"]) == (orders.CARD, None, "pending")
    assert json.loads(row["payload"])["emailAddress"] is None


@pytest.mark.parametrize("email", ["jane@", "kassa@store.local", "a@x.org;b@x.org", 7])
def test_a_bad_address_without_a_card_is_refused(settings: MakeSettings, email: Any) -> None:
    with pytest.raises(RecordRefused, match=r"bad_value: emailAddress: .*is not an email address"):
        landed(settings(), emailAddress=email, loyaltyCardNumber=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"loyaltyCardNumber": None, "emailAddress": "n/a"},
        {"loyaltyCardNumber": None, "emailAddress": "noreply@x.org"},
        {"loyaltyCardNumber": "0000", "emailAddress": "none"},
        {"loyaltyCardNumber": "n/a"},
    ],
)
def test_an_order_of_placeholders_alone_names_nobody(settings: MakeSettings, changes: dict[str, Any]) -> None:
    row = landed(settings(), **changes)
    assert (row["loyalty_card"], row["email"]) == (None, None)
    assert (row["status"], row["reason"]) == ("unmatched", "no_customer_key")


def test_an_order_and_its_copy_from_a_source_that_lost_the_zeros_are_the_same(settings: MakeSettings) -> None:
    some = settings(card_length=10)
    rows = [landed(some, loyaltyCardNumber=card) for card in ("0000012345", "12345", 12345)]
    assert {row["loyalty_card"] for row in rows} == {"0000012345"}
    assert len({row["fingerprint"] for row in rows}) == 1


def test_the_address_of_an_order_is_the_repaired_one_everywhere(settings: MakeSettings) -> None:
    row = landed(settings(), emailAddress="Jane<jane@example.com>")
    assert row["email"] == json.loads(row["payload"])["emailAddress"] == JANE
    assert row["fingerprint"] == order_from_document(orders.document(emailAddress=JANE)).fingerprint()
