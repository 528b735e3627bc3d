"""A dry run's scratch ledger: filled with what is due in its window, told of what is known, and never left behind."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.dry_runs import discard, discard_dead, scratch
from include.instore.ledger.runs import count_run, faults_in
from include.instore.ledger.tables import metadata, orders, pipeline
from tests.instore import given

DRY = given.run("dry", "manual", dry_run=True)
OF_A_DAY = given.run(
    "dry", "manual", window=given.window("2017-06-05", "2017-06-06"), claims="in_window", resend=True, dry_run=True
)


def left(ledger: Ledger) -> list[str]:
    """What scratch ledgers left on the disk, or in the database."""
    if ledger.engine.dialect.name == "sqlite":
        path = Path(str(ledger.engine.url.database))
        return sorted(each.name for each in path.parent.glob(f"{path.name}.*"))
    with ledger.engine.connect() as connection:
        return [name for name in sa.inspect(connection).get_schema_names() if name.startswith("dry_")]


def contents_of(ledger: Ledger) -> dict[str, list[tuple[object, ...]]]:
    with ledger.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table))] for table in metadata.sorted_tables
        }


@pytest.fixture
def history(ledger: Ledger) -> Ledger:
    """Orders of two days that were sent, one that waits, and a refused record."""
    days = ("2017-06-05T10:00:00Z", "2017-06-06T10:00:00Z")
    sent = [given.document(f"S{number}", date=days[number % 2]) for number in range(40)]
    given.landed(ledger, *sent, given.document("W1"), refusals=[given.refused(b"bad")])
    given.planned(ledger)
    given.set_orders(ledger, orders.c.order_number != "W1", status="sent", email="a@example.com")
    release(ledger, "run-1")
    return ledger


def test_it_holds_what_is_due_and_no_more(history: Ledger) -> None:
    with closing(scratch(history, DRY)) as made:
        assert given.statuses(made) == {"W1": "pending"}
        discard(made)
    with closing(scratch(history, OF_A_DAY)) as made:
        assert len(given.rows(made, "orders")) == 21
        assert given.row(made, "S0")["status"] == "sent"
        assert sum(batch.orders for batch in given.planned(made, OF_A_DAY)) == 21, "it would be sent again"
        discard(made)
    assert left(history) == []


def test_what_arrives_is_known_from_the_real_ledger_which_stays_as_it_is(history: Ledger) -> None:
    before = contents_of(history)
    with closing(scratch(history, DRY)) as made:
        one_day, other_day = {"date": "2017-06-05T10:00:00Z"}, {"date": "2017-06-06T10:00:00Z"}
        arrived = [
            given.document("S1", **other_day),  # known
            given.document("S0", **one_day, total="9"),  # corrected
            given.document("S0", storeId="0999"),  # another store's
            given.document("0S9", **other_day),  # a twin
            given.document("N1"),
        ]
        landed = given.landed(made, *arrived, run=DRY, refusals=[given.refused(b"bad"), given.refused(b"other")])
        assert (landed.orders, landed.duplicates, landed.corrections, landed.collisions) == (1, 2, 1, 2)
        assert landed.quarantined == 3
        given.planned(made, DRY)
        counts = count_run(made, "dry")
        assert (counts.claimed, counts.corrected_after_sent) == (2, 1)
        assert faults_in(counts) == []
    assert contents_of(history) == before


def test_all_tasks_of_the_run_have_the_same_and_another_run_has_its_own(history: Ledger) -> None:
    with closing(scratch(history, DRY)) as one, closing(scratch(history, DRY)) as two:
        given.landed(one, given.document("N1"), run=DRY)
        assert set(given.statuses(two)) == {"W1", "N1"}
        with closing(scratch(history, given.run("other", dry_run=True))) as third:
            assert set(given.statuses(third)) == {"W1"}
    assert len({name for name in left(history) if not name.endswith(("-wal", "-shm"))}) == 2


def test_one_that_was_killed_is_removed_once_it_gives_no_sign_of_life(history: Ledger) -> None:
    with closing(scratch(history, DRY)):
        assert discard_dead(history, 120) == 0, "it is at work"
    assert left(history)
    if history.engine.dialect.name == "sqlite":
        path = Path(str(history.engine.url.database))
        draft = path.with_name(f"{left(history)[0]}.half")
        draft.touch()
        for each in path.parent.glob(f"{path.name}.dry_*"):
            os.utime(each, (0, 0))
        assert discard_dead(history, 120) == 2, "the half of one, too"
    else:
        with history.engine.begin() as connection:
            began = metadata.tables["pipeline"].to_metadata(sa.MetaData(), schema=left(history)[0])
            connection.execute(
                sa.update(began).where(began.c.setting == "dry_run_began").values(value="2020-01-01T00:00:00+00:00")
            )
        assert discard_dead(history, 120) == 1
    assert left(history) == []
    assert len(given.rows(history, "orders")) == 41


def test_another_schema_s_dry_runs_are_left_alone(history: Ledger) -> None:
    if history.engine.dialect.name == "sqlite":
        other = Ledger(f"{history.engine.url}2")
    else:
        with history.engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema("brand_b"))
        other = Ledger(history.engine.url.update_query_dict({"options": "-csearch_path=brand_b"}))
    with closing(other):
        other.migrate()
        scratch(other, DRY).close()
        assert discard_dead(history, 0) == 0
        assert discard_dead(other, 0) == 1


def test_the_real_ledger_is_never_discarded(history: Ledger) -> None:
    with pytest.raises(ValueError, match="not a dry run's ledger"):
        discard(history)
    with history.read() as connection:
        assert connection.scalar(sa.select(pipeline.c.value).where(pipeline.c.setting == "dry_run_began")) is None
