"""The mapping file: who a card belongs to by a nightly export, as systems and spreadsheets write one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from include.instore.customers.mapping_file import MappingFile
from include.instore.model.errors import ConfigurationError, RecordRefused
from include.instore.model.orders import parse_order
from include.instore.model.settings import Settings
from tests.instore import given

MakeSettings = Callable[..., Settings]
SETTINGS = Settings()


def test_a_mapping_file_answers_by_card(tmp_path: Path) -> None:
    file = tmp_path / "cards.csv"
    file.write_text(
        "\ufeffcard,email,name\n"
        "00-12 34,ann@example.com,Ann\n"
        '77,"bo@example.com"\n'
        "88,c1@example.com\n"
        "88,c2@example.com\n"
        "99,Same@example.com\n"
        "99,same@EXAMPLE.com\n"
        "55,\n"
        "44,@\n"
        "33\n"
        "\n",
        encoding="utf-8",
    )
    mapping = MappingFile(file, SETTINGS.orders)
    answers = {card: mapping.resolve(card) for card in ("001234", "77", "88", "99", "55", "44", "33", "card", "1234")}
    assert {card: (each.outcome, each.email) for card, each in answers.items() if card != "99"} == {
        "001234": ("matched", "ann@example.com"),
        "77": ("matched", "bo@example.com"),
        "88": ("ambiguous", None),
        "55": ("no_email", None),
        "44": ("no_email", None),
        "33": ("not_found", None),
        "card": ("not_found", None),
        "1234": ("not_found", None),
    }
    assert answers["99"].outcome == "matched"


@pytest.mark.parametrize(
    "between",
    [
        " ",
        "-",
        "\u00a0",
        "\u202f",
        "\u2007",
        "\u3000",
        "\u2011",
        "\u2013",
        "\u00ad",
        "\u200b",
        "\u2060",
        "\ufeff",
        "\t",
        " - ",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("around", ["", "\u00a0", " \u2003", "\ufeff"], ids=ascii)
def test_a_card_is_the_same_in_the_mapping_file_and_in_an_order(tmp_path: Path, between: str, around: str) -> None:
    """A tab inside a card makes an order a refused one; in the file it is a row that answers for nobody."""
    card = f"{around}6035{between}7707{around}"
    file = tmp_path / "cards.csv"
    file.write_text(f"card,email\n{card},ann@example.com\n42,bo@example.com\n", encoding="utf-8")
    mapping = MappingFile(file, SETTINGS.orders)
    try:
        of_order = parse_order(given.body(loyaltyCardNumber=card), 1_000_000).loyalty_card_number
    except RecordRefused:
        of_order = None
    assert of_order == ("60357707" if between != "\t" else None)
    assert mapping.resolve("60357707").outcome == ("matched" if of_order else "not_found")
    assert mapping.resolve("42").outcome == "matched"


def test_a_row_whose_card_cannot_be_read_is_told_by_its_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cards.csv"
    file.write_text(
        "card,email\n42,bo@example.com\n6035\x007,ann@example.com\n6035\t8,cy@example.com\n", encoding="utf-8"
    )
    assert MappingFile(file, SETTINGS.orders).resolve("42").outcome == "matched"
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "2 rows" in message
    assert "line 3" in message
    assert "6035" not in message


@pytest.mark.parametrize("content", [None, b"card,email\n1,\xff@x.org\n"], ids=["missing", "not UTF-8"])
def test_a_mapping_file_that_cannot_be_read_names_its_setting(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "cards.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="INSTORE_MAPPING_FILE"):
        MappingFile(file, SETTINGS.orders)


ROWS = (("2001", "ann@example.com"), ("2002", "bo@example.com"))


def written(file: Path, heading: str, *rows: str, before: str = "") -> MappingFile:
    file.write_text(before + "\n".join([heading, *rows, ""]), encoding="utf-8")
    return MappingFile(file, SETTINGS.orders)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"], ids=ascii)
@pytest.mark.parametrize("before", ["", "\ufeff", "sep={}\n", "\ufeffsep={}\n"], ids=ascii)
def test_the_delimiter_is_that_of_the_heading(tmp_path: Path, delimiter: str, before: str) -> None:
    rows = [delimiter.join(row) for row in ROWS]
    mapping = written(tmp_path / "cards.csv", delimiter.join(["card", "email"]), *rows, before=before.format(delimiter))
    assert [mapping.resolve(card).email for card, _ in ROWS] == ["ann@example.com", "bo@example.com"]


@pytest.mark.parametrize(
    ("heading", "row"),
    [
        ("email,card", "ann@example.com,2001"),
        ("Name;E-Mail Address;Loyalty Card Number", "Ann, A.;ann@example.com;2001"),
        ("id,LOYALTY_CARD,first,EmailAddress", "7,2001,Ann,ann@example.com"),
        ('"Card No.";"Mail"', '"2001";"ann@example.com"'),
        ("Kundenkarte;Adresse", "2001;ann@example.com"),
    ],
)
def test_the_columns_are_found_by_their_headings_or_are_the_first_two(tmp_path: Path, heading: str, row: str) -> None:
    answer = written(tmp_path / "cards.csv", heading, row).resolve("2001")
    assert (answer.outcome, answer.email) == ("matched", "ann@example.com")


@pytest.mark.parametrize(
    "lines",
    [
        ("card email", "2001 ann@example.com"),
        ("card;email", "2001,ann@example.com"),
        ("email,id", "ann@example.com,2001"),
        ("Adresse;Kundenkarte", "ann@example.com;2001"),
        ("card,email", "2001,", "2002,none"),
        ("card,email", "6.03543E+15,ann@example.com"),
        ("card,email", "n/a,ann@example.com"),
        ("card,email",),
        ("",),
    ],
)
def test_a_file_no_row_of_which_has_card_and_email_is_refused(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as error:
        written(tmp_path / "cards.csv", *lines)
    assert str(error.value) == (
        "No row of the file of setting INSTORE_MAPPING_FILE has a card and an email; make it a CSV with the headings "
        "card and email, and , ; tab or | between the columns."
    )


def test_the_log_says_how_many_cards_the_file_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="include.instore")
    written(tmp_path / "cards.csv", "card,email", "1,a@x.org", "1,a@x.org", "2,b@x.org", "3,", "4,noreply@x.org")
    assert [record.getMessage() for record in caplog.records] == ["the mapping file has 4 cards"]


def test_a_card_of_the_file_is_read_by_the_same_rules_as_one_of_an_order(
    tmp_path: Path, settings: MakeSettings
) -> None:
    file = tmp_path / "cards.csv"
    file.write_text("card,email\n12345,<Ann@Example.com>;\n\uff17\uff17\u20138,bo@example.com\n", encoding="utf-8")
    mapping = MappingFile(file, settings(card_length=8).orders)
    assert (mapping.resolve("00012345").email, mapping.resolve("00000778").email) == (
        "Ann@Example.com",
        "bo@example.com",
    )
