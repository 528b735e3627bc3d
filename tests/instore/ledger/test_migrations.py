"""The migrations make what tables.py says, on both databases, also when several processes start at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from include.instore.ledger import Ledger
from include.instore.ledger.tables import metadata
from include.instore.model.errors import ConfigurationError, RetriableError
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
