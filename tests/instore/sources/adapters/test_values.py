"""Numbers and dates: as declared, or refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.instore.model.declarations import Dates, Numbers
from include.instore.sources.adapters.values import moment, number

GERMAN = {"decimal": ",", "thousands": "."}
ALL = ("minus", "trailing_minus", "parentheses")


@pytest.mark.parametrize(
    ("text", "rules", "amount"),
    [
        ("150.000", {}, "150.000"),
        ("150.000", GERMAN, "150000"),
        ("1.234,50", GERMAN, "1234.50"),
        ("1234,50", GERMAN, "1234.50"),
        (",5", GERMAN, "0.5"),
        ("1,234.50", {"thousands": ","}, "1234.50"),
        ("1 234,50", {"decimal": ",", "thousands": " "}, "1234.50"),
        ("1\u202f234,50", {"decimal": ",", "thousands": " "}, "1234.50"),
        ("12’345.00", {"thousands": "'"}, "12345.00"),
        ("-5", {}, "-5"),
        ("\u22125", {}, "-5"),
        ("+5", {}, "5"),
        ("5-", {"negative": ALL}, "-5"),
        ("(5.00)", {"negative": ALL}, "-5.00"),
        ("€ 5,00", {**GERMAN, "currency_signs": ("€",)}, "5.00"),
        ("-€5,00", {**GERMAN, "currency_signs": ("€",)}, "-5.00"),
        ("€-5,00", {**GERMAN, "currency_signs": ("€",)}, "-5.00"),
        ("1.234,50 kr", {**GERMAN, "currency_signs": ("kr", "€")}, "1234.50"),
        ("(5,00 €)", {**GERMAN, "currency_signs": ("€",), "negative": ALL}, "-5.00"),
    ],
)
def test_a_number_is_what_its_dialect_says(text: str, rules: dict[str, Any], amount: str) -> None:
    assert number(text, Numbers(**rules)) == Decimal(amount)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("1.234.50", {}),
        ("1,50", {}),
        ("1.5", GERMAN),
        ("12.34", GERMAN),
        ("1.2345", GERMAN),
        ("1.234.5", GERMAN),
        ("1,234,50", GERMAN),
        ("1,234", {}),
        ("5-", {}),
        ("(5)", {}),
        ("-5", {"negative": ("parentheses",)}),
        ("(5", {"negative": ALL}),
        ("-5-", {"negative": ALL}),
        ("€5", {}),
        ("$5", {"currency_signs": ("€",)}),
        ("1e5", {}),
        ("NaN", {}),
        ("٣", {}),
        ("5.", {}),
        ("1 234", {}),
        ("-", {}),
        ("€", {"currency_signs": ("€",)}),
    ],
)
def test_a_number_written_otherwise_is_refused(text: str, rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a number as it is declared"):
        number(text, Numbers(**rules))


@settings(max_examples=200, deadline=None)
@given(
    amount=st.decimals(min_value=-(10**9), max_value=10**9, places=2),
    marks=st.sampled_from([(".", ""), (".", ","), (",", "."), (",", " "), (".", "'")]),
    grouped=st.booleans(),
)
def test_what_python_writes_in_a_dialect_is_read_as_it_was(
    amount: Decimal, marks: tuple[str, str], grouped: bool
) -> None:
    decimal, thousands = marks
    text = f"{amount:,.2f}" if grouped and thousands else f"{amount:.2f}"
    text = text.replace(",", "\0").replace(".", decimal).replace("\0", thousands)
    assert number(text, Numbers(decimal=decimal, thousands=thousands)) == amount  # type: ignore[arg-type]


BERLIN = {"zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("text", "rules", "iso"),
    [
        ("24.11.2026", {"formats": ["%d.%m.%Y"], **BERLIN}, "2026-11-24T00:00:00+01:00"),
        ("24.07.2026 10:15", {"formats": ["%d.%m.%Y", "%d.%m.%Y %H:%M"], **BERLIN}, "2026-07-24T10:15:00+02:00"),
        ("24.11.2026", {"formats": ["%d.%m.%Y"]}, "2026-11-24T00:00:00"),
        ("2026-11-24 09:50:26 +0200", {"formats": ["%Y-%m-%d %H:%M:%S %z"], **BERLIN}, "2026-11-24T09:50:26+02:00"),
        ("2026-11-24T10:00:00", BERLIN, "2026-11-24T10:00:00+01:00"),
        ("2026-11-24T10:00:00Z", BERLIN, "2026-11-24T10:00:00+00:00"),
        ("/Date(1571234567000+0200)/", BERLIN, "2019-10-16T16:02:47+02:00"),
        ("/Date(1571234567000)/", BERLIN, "2019-10-16T14:02:47+00:00"),
        ("1571234567", {"formats": ["unix"]}, "2019-10-16T14:02:47+00:00"),
        ("1571234567000", {"formats": ["unix_ms"]}, "2019-10-16T14:02:47+00:00"),
        ("11/11/2026", {"formats": ["%d/%m/%Y", "%m/%d/%Y"]}, "2026-11-11T00:00:00"),
    ],
)
def test_a_date_is_what_its_formats_say(text: str, rules: dict[str, Any], iso: str) -> None:
    assert moment(text, Dates(**rules)) == iso


@pytest.mark.parametrize(
    ("text", "rules", "why"),
    [
        ("2026-11-24", {"formats": ["%d.%m.%Y"]}, "none of the declared"),
        ("24.11.2026", {}, "none of the declared"),
        ("31.02.2026", {"formats": ["%d.%m.%Y"]}, "none of the declared"),
        ("1571234567", {}, "none of the declared"),
        ("05/06/2026", {"formats": ["%d/%m/%Y", "%m/%d/%Y"]}, "mean different moments"),
        ("99999999999999", {"formats": ["unix"]}, "none of the declared"),
        ("", {"formats": ["unix", "%d.%m.%Y"]}, "none of the declared"),
    ],
)
def test_a_date_written_otherwise_is_refused(text: str, rules: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        moment(text, Dates(**rules))
