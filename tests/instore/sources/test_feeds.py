"""What changed in a feed of documents since the files before is told before it breaks something."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.tables import runs
from include.instore.model.settings import Settings
from include.instore.runs.report import report_run
from include.instore.sources.extracts import Storage, load_extracts
from tests.instore import given

MakeSettings = Callable[..., Settings]
NUMBER = "orderNumber"
XML = """format: xml
orders: order
lists: [lines]
order: {orderNumber: orderNumber, date: date, storeId: storeId, loyaltyCardNumber: loyaltyCardNumber,
  currency: currency, total: total}
lines_at: lines
lines: {productCode: productCode, quantity: quantity, total: total}
dates: {formats: [iso, '%d.%m.%Y %H:%M'], zone: UTC}
"""


def as_xml(documents: Iterable[dict[str, Any]]) -> str:
    def element(name: str, value: Any) -> str:
        if isinstance(value, list):
            return "".join(element(name, each) for each in value)
        inner = "".join(element(*each) for each in value.items()) if isinstance(value, dict) else value
        return f"<{name}>{inner}</{name}>"

    return f"<orders>{''.join(element('order', each) for each in documents)}</orders>"


WRITTEN: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "json": json.dumps,
    "jsonl": lambda documents: "\n".join(map(json.dumps, documents)),
    "xml": as_xml,
}


class Feed:
    """Files of one feed, each loaded by a run of its own."""

    def __init__(self, folder: Path, form: str, ledger: Ledger, settings: MakeSettings) -> None:
        self._folder, self._form, self._ledger = folder / "in", form, ledger
        self._folder.mkdir()
        (folder / "acme.yaml").write_text(XML.replace("format: xml\norders: order\nlists: [lines]", {
            "xml": "format: xml\norders: order\nlists: [lines]", "json": "format: json", "jsonl": "format: json_lines",
        }[form]))  # fmt: skip
        self._settings = settings(extract_adapters={"*": str(folder / "acme.yaml")})
        self._files = 0

    def comes(self, count: int = 25, later: float = 0, **changes: Any) -> tuple[str | None, int, int]:
        """What is told of a file of so many orders: in its detail, and the counts of the report."""
        self._files += 1
        run = given.run(f"run-{self._files}")
        documents = [given.document(f"S{self._files}x{at}", storeName=None, **changes) for at in range(count)]
        path = self._folder / f"orders-{self._files}.{self._form}"
        path.write_text(WRITTEN[self._form](documents))
        open_run(self._ledger, run)
        if later:
            with self._ledger.write() as connection:
                where = runs.c.run_id == run.run_id
                connection.execute(sa.update(runs).where(where).values(started_at=given.hours_ago(-later)))
        loaded = load_extracts(Storage.local(self._folder), self._ledger, run, self._settings)
        assert (loaded.files, loaded.landed.orders) == (1, count)
        counts = report_run(self._ledger, run, [], self._settings).document
        (row,) = (each for each in given.rows(self._ledger, "extracts") if each["path"] == path.name)
        return row["detail"], counts["changed_fields"], counts["new_stores"]


@pytest.fixture(params=sorted(WRITTEN))
def feed(request: pytest.FixtureRequest, tmp_path: Path, ledger: Ledger, settings: MakeSettings) -> Feed:
    return Feed(tmp_path, request.param, ledger, settings)


def test_a_new_field_is_told_once(feed: Feed) -> None:
    assert feed.comes() == (None, 0, 0)
    assert feed.comes(1, crm={"id": "7"}) == ("other fields than before: new crm, new crm.id", 1, 0)
    assert feed.comes(crm={"id": "7"}) == (None, 0, 0)


def test_a_vanished_field_is_told_where_it_is_no_chance(feed: Feed) -> None:
    feed.comes(100, note="x")
    assert feed.comes(1) == (None, 0, 0), "one order without it"
    assert feed.comes(note="x") == (None, 0, 0)
    assert feed.comes() == ("other fields than before: gone note", 1, 0)


def test_a_field_of_a_line_is_told_as_well(feed: Feed) -> None:
    feed.comes()
    line = {"productCode": "1", "quantity": "1", "total": "3.50", "vat": "0.5"}
    assert feed.comes(lines=[line])[0] == "other fields than before: new lines.vat, gone lines.description"


def test_a_date_that_is_written_in_another_way_than_before_is_told(feed: Feed) -> None:
    assert feed.comes(date="2017-06-05T10:04:12Z") == (None, 0, 0)
    assert feed.comes(date="2018-07-06T11:14:22.123Z") == (None, 0, 0), "fractions come and go"
    told = "other fields than before: new date as 00.00.0000 00:00, gone date as 0000-00-00T00:00:00Z"
    assert feed.comes(date="05.06.2017 10:04") == (told, 1, 0)


def test_names_that_are_data_are_never_told(feed: Feed) -> None:
    feed.comes()
    detail, _, _ = feed.comes(points={"p6035770741165744": "1"})
    assert detail == "other fields than before: new points, new points.p#"


def test_a_feed_whose_names_are_data_is_not_kept_for_ever(feed: Feed, ledger: Ledger) -> None:
    names = ["".join(letters) for letters in product("abcdefghij", repeat=3)]
    feed.comes()
    for at in range(4):
        assert feed.comes(1, articles=dict.fromkeys((f"{name}{'xyzw'[at]}" for name in names), "1"))[1] == 0
    (kept,) = given.rows(ledger, "feeds")
    assert len(json.loads(kept["fields"])) < 20
    assert feed.comes(crm="7")[0] == "other fields than before: new crm"


def test_of_a_feed_of_few_orders_nothing_is_new(feed: Feed) -> None:
    feed.comes(3)
    assert feed.comes(1, crm="7") == (None, 0, 0)


def test_a_new_store_is_counted_once_its_ledger_is_a_week_old(feed: Feed) -> None:
    assert feed.comes(storeId="0404")[2] == 0
    assert feed.comes(storeId="0405")[2] == 0, "a young ledger"
    week = timedelta(days=7) / timedelta(hours=1)
    assert feed.comes(later=week, storeId="0405")[2] == 0
    assert feed.comes(later=week, storeId="0999")[2] == 1
    assert feed.comes(later=week, storeId="0999")[2] == 0
