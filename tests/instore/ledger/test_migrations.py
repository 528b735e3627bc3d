"""The migrations make what tables.py says, on both databases, also when several processes start at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from include.instore.ledger import Ledger
from include.instore.ledger.intake import land
from include.instore.ledger.keys import check_key
from include.instore.ledger.tables import metadata
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import Settings
from tests.instore import given

ROOT = Path(__file__).parents[3]
_MIGRATE = """
import sys
from include.instore.ledger import Ledger
ledger = Ledger(sys.argv[1])
ledger.migrate()
ledger.close()
print("migrated")
"""


def test_migrations_from_nothing_make_exactly_the_tables_of_the_code(empty_url: sa.URL) -> None:
    ledger = Ledger(empty_url)
    ledger.migrate()
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert {*sa.inspect(connection).get_table_names()} == {*metadata.tables, "alembic_version"}
    ledger.close()


def test_migrating_again_changes_nothing(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    ledger.migrate()
    assert given.statuses(ledger) == {"S1": "pending"}


def test_four_processes_that_migrate_at_the_same_time_all_succeed(empty_url: sa.URL) -> None:
    url = empty_url.render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _MIGRATE, url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    results = [process.communicate(timeout=60) for process in processes]
    assert results == [("migrated\n", "")] * 4
    ledger = Ledger(empty_url)
    given.landed(ledger, given.document("S1"))
    assert given.statuses(ledger) == {"S1": "pending"}
    ledger.close()


@pytest.mark.parametrize("url", ["not a url", "mysql://localhost/ledger", "oracle+nothing://x", ""])
def test_another_database_is_a_configuration_error_that_names_the_connection(url: str) -> None:
    with pytest.raises(ConfigurationError, match="instore_ledger"):
        Ledger(url)


def test_a_database_without_its_folder_is_an_error_to_try_again(tmp_path: Path) -> None:
    ledger = Ledger(sa.URL.create("sqlite", database=str(tmp_path / "missing" / "ledger.db")))
    with pytest.raises(RetriableError, match="instore_ledger"):
        ledger.migrate()
    ledger.close()


def test_the_repr_of_a_ledger_tells_neither_path_nor_password(tmp_path: Path) -> None:
    ledger = Ledger(sa.URL.create("sqlite", database=str(tmp_path / given.CANARY)))
    assert repr(ledger) == "<Ledger on sqlite>"
    ledger.close()


def _of_the_first_edition(url: sa.URL, documents: list[dict[str, Any]]) -> dict[str, str]:
    """A ledger at revision 0003 with these orders in it, as it was written then; event id by order number."""
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "include/instore/ledger/migrations"))
    old = sa.MetaData()
    events = {}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        old.reflect(connection)
        for document in documents:
            row = given.arrivals(document)[0].row
            known = {name: value for name, value in row.items() if name in old.tables["orders"].c}
            known |= {"received_at": given.hours_ago(5), "received_run": "run-0", "content_at": None}
            known["sends"] = 2  # sent again under the event id it had
            connection.execute(sa.insert(old.tables["orders"]).values(known))
            events[row["order_number"]] = row["event_id"]
        connection.execute(
            sa.insert(old.tables["customers"]),
            [
                {"loyalty_card": card, "outcome": outcome, "email": None, "asked_at": at, "expires_at": at}
                for at in [given.hours_ago(5)]
                for card, outcome in (("x1", "suppressed"), ("n1", "not_found"))
            ],
        )
        run = dict.fromkeys(("duplicates", "dates_without_offset", "claimed", "batches", "looked_up"), 0)
        run |= dict.fromkeys(("cache_hits", "truncated"), 0) | {"received": 4, "changed_duplicates": 2}
        values = {"run_id": "run-0", "kind": "scheduled", "started_at": given.hours_ago(5), **run}
        connection.execute(sa.insert(old.tables["runs"]).values(values))
    engine.dispose()
    return events


def test_a_ledger_of_orders_by_their_number_keeps_its_orders_and_their_event_ids(empty_url: sa.URL) -> None:
    events = _of_the_first_edition(
        empty_url,
        [
            given.document("S1", date="2017-06-05T23:30:00Z"),
            given.document("Z1"),
            given.document("z1"),  # sent as another order than Z1 until now
            given.document("R1", total="-1.00", date="2017-06-05"),
            given.document("X1", loyaltyCardNumber="x1", emailAddress="her-own@example.com"),
        ],
    )
    ledger = Ledger(empty_url, hash_key="of this ledger")
    ledger.migrate("Europe/Stockholm")
    with ledger.read() as connection:
        suppressed = set(connection.scalars(sa.select(metadata.tables["suppressions"].c.hash)))
    assert suppressed == {ledger.keyed_hash("x1"), ledger.keyed_hash("her-own@example.com")}
    rows = {row["order_number"]: row for row in given.rows(ledger, "orders")}
    assert {number: row["event_id"] for number, row in rows.items()} == events
    assert {row["edition"] for row in rows.values()} == {1}
    assert (rows["S1"]["key"], rows["S1"]["store_id"], rows["S1"]["day"]) == ('["s1", "sale"]', "0404", "2017-06-06")
    assert (rows["R1"]["key"], rows["R1"]["day"]) == ('["r1", "return"]', "2017-06-05")
    assert {rows["Z1"]["key"], rows["z1"]["key"]} <= {'["z1", "sale"]', '["Z1", "", "sale"]', '["z1", "", "sale"]'}
    assert (given.tally(ledger, "run-0")["corrections"], given.tally(ledger, "run-0")["corrected_after_sent"]) == (2, 0)
    check_key(ledger, Settings())
    # The same again, corrected later, and corrected by something published before it landed.
    again = given.landed(ledger, given.document("S1", date="2017-06-05T23:30:00Z"), given.document("Z1"))
    assert (again.orders, again.duplicates) == (0, 2)
    assert given.landed(ledger, given.document("Z1", storeName="Corrected")).corrections == 1
    (early,) = given.arrivals(given.document("R1", total="-1.00", date="2017-06-05", storeName="Corrected"))
    early = replace(early, published_at=given.hours_ago(6))
    assert land(ledger, "run-1", [early], []).collisions == 1
    ledger.close()
