"""Exports in the style of shops and tills that nobody described to us, each read by a declaration of its own.

tests/cli/foreign has them with their declarations: numbers, dates, encodings, titles and quotes as people really have.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.instore.model.declarations import load_declaration
from tests.cli.test_check import check, suggested

FOREIGN = Path(__file__).with_name("foreign")
ORDERS = {
    "d365.json": ["T-1001 return 052 2026-11-24T00:00:00Z -30.0 USD 1 card, email"],
    "french.csv": [
        "T-001 sale Lyon 2026-11-24T08:50:00Z 1234.50 EUR 1, no totals card",
        "T-002 return Lyon 2026-11-24T09:12:00Z -12.00 EUR 1, no totals nobody",
        "T-003 sale Paris 2026-11-25T09:12:00Z 24.00 EUR 1, no totals nobody",
    ],
    "german_till.csv": [
        "1001 sale 12 2026-11-24T08:50:26Z 1250.00 EUR 1 card",
        "1002 return 12 2026-11-24T09:12:00Z -12.50 EUR 1 nobody",
    ],
    "idoc.xml": [
        "4711 sale 0404 2026-11-24T08:50:26Z 30.00 EUR 1 card",
        "4712 sale 0404 2026-11-24T09:12:00Z 12.50 EUR 1 nobody",
    ],
    "lightspeed.csv": [
        "1001 sale Downtown 2026-11-24T15:50:00Z 32.40 USD 1, do not add up email",
        "1002 sale Downtown 2026-11-24T21:12:00Z 10.80 USD 1, do not add up nobody",
    ],
    "magento.csv": [
        "000000123 sale main 2026-11-24T15:50:26Z 1234.50 USD 1, no totals email",
        "000000124 sale main 2026-11-24T21:12:00Z 35.00 USD 1, no totals email",
    ],
    "sfcc.xml": [
        "00001001 sale 0404 2026-11-24T09:50:26Z 30.00 EUR 1 email",
        "00001002 sale 0404 2026-11-24T10:12:00Z 12.00 EUR 1 email",
    ],
    "square.csv": [
        "XqA1 sale Main Street 2026-11-24T14:50:26Z 29.16 USD 1, no totals card",
        "XqA2 sale Main Street 2026-11-24T15:12:00Z 1200.00 USD 1, no totals nobody",
        "XqA3 return Main Street 2026-11-24T16:00:00Z -12.00 USD 1, no totals nobody",
    ],
    "swiss.txt": [
        "77 sale ZH01 2026-11-24T08:50:26Z 1234.50 CHF 1, no totals card",
        "78 sale ZH01 2026-11-24T09:12:00Z 12.00 CHF 1, no totals nobody",
    ],
    "woo.csv": [
        "4711 sale web 2026-11-24T08:50:00Z 35.70 EUR 1, do not add up email",
        "4712 sale web 2026-11-24T09:12:00Z 11.90 EUR 1, do not add up email",
    ],
    "wrapped.json": ["9001 sale S7 2026-11-24T09:50:26Z 99.90 EUR 1, no totals card"],
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_foreign_file_flows_with_a_declaration(name: str) -> None:
    told = check(FOREIGN / name, "--adapter", (FOREIGN / name).with_suffix(".yaml"), "--json")
    (found,) = json.loads(told.stdout)
    fields = ("number", "becomes", "store", "time", "total", "lines", "customer")
    assert [" ".join(each[field] for field in fields) for each in found["records"]] == ORDERS[name]
    assert (told.exit_code, found["refused"], found["never_found"]) == (0, 0, [])


@pytest.mark.parametrize("name", ORDERS)
def test_what_a_proposal_is_sure_of_is_what_the_declaration_says(name: str) -> None:
    declared = load_declaration(str((FOREIGN / name).with_suffix(".yaml"))).model_dump(mode="json")
    for guess in suggested(FOREIGN / name).values():
        part, _, field = guess["name"].partition(".")
        said = (declared[part] or {}).get(field) if field else declared[part]
        if guess["sure"] == "sure" and guess["name"] != "dates.formats":
            assert str(guess["is_what"]) in str(said), guess  # a path may be a part of one
        if guess["name"] in ("title_lines", "time", "orders"):
            assert guess["is_what"] == said


def test_a_row_of_sums_is_refused_and_a_trailer_takes_it(tmp_path: Path) -> None:
    declared = tmp_path / "till.yaml"
    text = (FOREIGN / "german_till.yaml").read_text(encoding="utf-8")
    declared.write_text("\n".join(line for line in text.splitlines() if not line.startswith("trailer")))
    told = check(FOREIGN / "german_till.csv", "--adapter", declared)
    assert (told.exit_code, "refused: line 5: missing_field: date is required" in told.stdout) == (1, True)
    sample = tmp_path / "till.csv"
    raw = (FOREIGN / "german_till.csv").read_bytes()
    sample.write_bytes(raw.replace(b"1.237,50", b"1.237,51"))
    told = check(sample, "--adapter", FOREIGN / "german_till.yaml")
    assert "its orders do not make the sum that its trailer says" in told.stdout
