"""The migrations make what tables.py says, on both databases, also when several processes start at once."""

from __future__ import annotations

import re
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

from benchmarks.databases import KINDS, opened
from benchmarks.upgrade import BEFORE, measure
from include.instore.customers.lookup import look_up_batch
from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.customers import CardAnswer
from include.instore.ledger.intake import land
from include.instore.ledger.keys import check_key
from include.instore.ledger.tables import metadata
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import Settings, load_settings
from tests.instore import given
from tests.instore.destinations.test_delivery import Store

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


def test_the_name_of_each_migration_carries_a_release_of_the_changelog() -> None:
    releases = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    said = {}
    for text in releases:
        for first, last in re.findall(r"^Ledger: revisions? (\d+)(?: to (\d+))?", text, re.MULTILINE):
            said |= {f"{n:04}": re.split(r"[,\s]", text)[0] for n in range(int(first), int(last or first) + 1)}
    names = [path.name for path in (ROOT / "include/instore/ledger/migrations/versions").glob("0*.py")]
    found = {name[:4]: ".".join(name[5:].split("_")[:3]) for name in names}
    assert found == said
    assert len(found) == len(names) >= 4


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_ledger_of_the_release_before_goes_forward_and_by_its_backup_back(kind: Any) -> None:
    with opened(kind) as database:
        found = measure(database, 500)
    assert (found["before"]["revision"], found["after"]["revision"]) == (BEFORE, "0004")
    assert found["before"]["sent"] > 300
    assert found["right"], found


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
    rows = {row["order_number"]: row for row in given.on_the_way(ledger)}
    assert {number: row["event_id"] for number, row in rows.items()} == events
    assert {row["edition"] for row in rows.values()} == {1}
    assert (rows["S1"]["key"], rows["S1"]["store_id"], rows["S1"]["day"]) == ('["s1", "sale"]', "0404", "2017-06-06")
    assert (rows["R1"]["key"], rows["R1"]["day"]) == ('["r1", "return"]', "2017-06-05")
    assert {row["origin"] for row in rows.values()} == {row["reference"] for row in rows.values()} == {"ref-0"}
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


EVERY_STATE = {
    "pending": {"status": "pending"},
    "ready": {"status": "ready", "email": "ready@example.com"},
    "sending": {"status": "sending", "email": "sending@example.com", "attempts": 1, "sending_at": given.hours_ago(5)},
    "sent twice": {"status": "sent", "email": "sent@example.com", "sends": 2, "attempts": 2, "outcome_run": "run-0"},
    "rejected": {"status": "rejected", "email": "rejected@example.com", "reason": "400", "outcome_run": "run-0"},
    "unmatched due": {"status": "unmatched", "reason": "not_found", "next_attempt": given.hours_ago(1)},
    "unmatched expired": {"status": "unmatched", "reason": "not_found"},
    "suppressed": {"status": "suppressed", "reason": "suppressed"},
    "live claim": {"status": "pending", "claim_run": "run-live", "claim_batch": 0, "claim_time": given.hours_ago(1)},
    "dead claim": {"status": "pending", "claim_run": "run-dead", "claim_batch": 0, "claim_time": given.hours_ago(3)},
}


def _in_every_state(url: sa.URL) -> dict[str, str]:
    """A ledger of the first edition with an order in each state, an open run and a quarantined row; number to event."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    config, old = Config(), sa.MetaData()
    config.set_main_option("script_location", str(ROOT / "include/instore/ledger/migrations"))
    events = {}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        old.reflect(connection)
        for number, state in EVERY_STATE.items():
            # A customer each, or one that is suppressed would stand for all.
            row = given.arrivals(given.document(number, loyaltyCardNumber=f"card {len(events)}"))[0].row
            known = {name: value for name, value in row.items() if name in old.tables["orders"].c}
            known |= {"received_at": given.hours_ago(5), "received_run": "run-0", "sends": 0, **state}
            connection.execute(sa.insert(old.tables["orders"]).values(known))
            events[number] = row["event_id"]
        tallies = {column.name: 0 for column in old.tables["runs"].c if not column.nullable}
        run = {**tallies, "run_id": "run-live", "kind": "scheduled", "started_at": given.hours_ago(1)}
        connection.execute(sa.insert(old.tables["runs"]).values(run))
        bad = {"id": "q1", "source": "extract", "reference": "a.csv:2", "reason": "bad_value", "detail": "d"}
        bad |= {"raw": b"S9,x", "heading": b"order_number,x", "run": "run-0", "state": "quarantined"}
        connection.execute(sa.insert(old.tables["quarantine"]).values(**bad, received_at=given.hours_ago(5)))
        broken = {"path": "b.csv", "version": "1", "orders": 3, "bad_rows": 1, "broken": True, "run": "run-0"}
        connection.execute(sa.insert(old.tables["extracts"]).values(**broken, loaded_at=given.hours_ago(5)))
    engine.dispose()
    return events


def test_the_hour_after_a_migration_sends_nothing_twice_and_finishes_what_was_under_way(empty_url: sa.URL) -> None:
    events = _in_every_state(empty_url)
    ledger = Ledger(empty_url)
    ledger.migrate()
    rows = {row["order_number"]: row for row in given.on_the_way(ledger)}
    assert {number: row["event_id"] for number, row in rows.items()} == events
    assert {number: row["status"] for number, row in rows.items()} == {
        number: state["status"] for number, state in EVERY_STATE.items()
    }
    assert {row["edition"] for row in rows.values()} == {1}
    assert [(each["run"], each["batch"]) for each in given.rows(ledger, "claims")] == [("run-dead", 0), ("run-live", 0)]
    assert [each["heading"] for each in given.rows(ledger, "quarantine")] == [b"order_number,x"]
    assert [(each["state"], each["detail"]) for each in given.rows(ledger, "extracts")] == [("loaded", "broken")]

    class Everybody:
        """A loyalty provider that knows every card."""

        def resolve(self, card: str) -> CardAnswer:
            return CardAnswer(card, "matched", f"{card.replace(' ', '')}@example.com")

    (batch,) = given.planned(ledger, given.run("run-1"), claim_minutes=120)
    settings = load_settings(verify_after=0)
    look_up_batch([Everybody()], ledger, given.batch(), settings)
    store = Store(ledger)
    store.shows = False
    given.send(store, ledger, given.batch(), settings)
    assert batch.orders == 5
    assert sorted(store.orders) == ["dead claim", "pending", "ready", "unmatched due"]
    # What had left may have been taken: it is asked for, and stays in doubt where that is not known.
    assert given.statuses(ledger)["sending"] == "sending"
    assert given.row(ledger, "live claim")["claim_run"] == "run-live"

    # A new edition of what was sent twice under one id has an id of its own.
    day = given.window("2017-06-05", "2017-06-06")
    release(ledger, "run-1")
    given.planned(ledger, given.run("again", "backfill", window=day, claims="in_window", resend=True))
    assert given.row(ledger, "sent twice")["edition"] == 2
    assert given.row(ledger, "sent twice")["event_id"] != events["sent twice"]
    ledger.close()
