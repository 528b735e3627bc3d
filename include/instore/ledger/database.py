"""Opening the ledger's database, bringing it to the newest revision, and its transactions."""

from __future__ import annotations

import contextlib
import hmac
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from include.instore import fault_points
from include.instore.ledger.tables import counters
from include.instore.model.errors import ConfigurationError, RetriableError

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

_MIGRATION_LOCK = 7_305_104_218  # any fixed number: PostgreSQL's advisory lock around migrations
_SYNCHRONOUS_FULL = 2
_MAKING_SECONDS = 5
_MIGRATIONS = Path(__file__).with_name("migrations")


class Ledger:
    """A handle on the ledger's database; SQLite (WAL) and PostgreSQL behave alike behind it.

    :param url: SQLAlchemy URL, such as ``sqlite:////var/lib/instore/ledger.db`` or ``postgresql+psycopg://…``.
    :param busy_seconds: how long a statement waits for another process's lock.
    :param hash_key: with which persons are hashed; another one knows nobody as suppressed.
    :raises ConfigurationError: the URL is none of these; at the first transaction: a commit may be lost in a crash.
    """

    def __init__(self, url: str | sa.URL, busy_seconds: float = 60, hash_key: str = "") -> None:
        self.hash_key = hash_key
        try:
            parsed = sa.make_url(url)
        except ArgumentError:
            raise ConfigurationError(
                "Connection instore_ledger is not a database URL; give it type sqlite with a path as host, or postgres."
            ) from None
        self._name = parsed.get_backend_name()
        try:
            if self._name == "sqlite":
                self.engine = sa.create_engine(
                    parsed,
                    hide_parameters=True,
                    connect_args={"timeout": busy_seconds},
                    insertmanyvalues_page_size=100,  # the driver keeps the text of each length of page
                )
                sa.event.listen(self.engine, "connect", _prepare_sqlite)
                sa.event.listen(self.engine, "begin", _begin_sqlite)
            elif self._name == "postgresql":
                # Of a prepared statement PostgreSQL makes one plan for all values, which reads far too much for some.
                how: dict[str, Any] = {"prepare_threshold": None}
                self.engine = sa.create_engine(parsed, hide_parameters=True, pool_pre_ping=True, connect_args=how)
                sa.event.listen(self.engine, "connect", _check_postgresql)
            else:
                raise NoSuchModuleError(self._name)
        except (NoSuchModuleError, ImportError):
            raise ConfigurationError(
                f"Connection instore_ledger names the database {self._name!r}; the ledger runs on sqlite or postgres."
            ) from None
        except ArgumentError as error:  # where it names several hosts
            raise ConfigurationError(
                f"The hosts and ports of connection instore_ledger cannot be read: {error}; give its extra as many "
                "ports as hosts, or none."
            ) from None
        self._reader = self.engine.execution_options(read_only=True)
        if self._name == "postgresql":  # whose default shows each statement another state
            self._reader = self._reader.execution_options(isolation_level="REPEATABLE READ")

    def __repr__(self) -> str:
        return f"<Ledger on {self._name}>"

    def keyed_hash(self, text: str) -> str:
        """A card or an email as the ledger compares persons: whoever lacks the key cannot tell whose it is."""
        return hmac.new(self.hash_key.encode(), text.strip().casefold().encode(errors="replace"), "sha256").hexdigest()

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction: all of it is on disk when the block ends, or none of it.

        :raises RetriableError: the database is locked, full, away or rolled the transaction back.
        """
        with self._translated(), self.engine.begin() as connection:
            yield connection
            fault_points.reach("ledger.before_commit")
        fault_points.reach("ledger.after_commit")

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent look. :raises RetriableError: as :meth:`write`."""
        with self._translated(), self._reader.begin() as connection:
            yield connection

    def migrate(self, store_timezone: str = "UTC", *, only_new: bool = False, dry_run: bool = False) -> str:
        """Bring the database to the newest revision, and return the one it had, or nothing where it was empty.

        Processes that start together do so one after the other.

        :param store_timezone: for the days of orders that are in it already.
        :param only_new: make an empty database, and change none that is in use.
        :param dry_run: change nothing.
        :raises ConfigurationError: the database is of another release.
        """
        from alembic.runtime.migration import MigrationContext

        config, script = _alembic()
        head = script.get_current_head()
        with self.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision() or ""
        if found == head:
            return found
        if found and found not in {revision.revision for revision in script.walk_revisions()}:
            raise ConfigurationError(
                f"The ledger (connection instore_ledger) is of a newer release than this one (revision {found}, newest "
                f"known {head}); deploy that release again."
            )
        if found and only_new:
            raise ConfigurationError(
                f"The ledger (connection instore_ledger) is of an older release (revision {found}, this one needs "
                f"{head}); back it up, then: python -m include.instore set-up."
            )
        if dry_run:
            return found
        with self.write() as connection:  # on SQLite the transaction itself is the lock
            if self._name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if MigrationContext.configure(connection).get_current_revision() != head:
                from alembic import command

                config.attributes |= {
                    "connection": connection,
                    "store_timezone": store_timezone,
                    "keyed_hash": self.keyed_hash,
                }
                command.upgrade(config, "head")
        return found

    def newest_revision(self) -> str:
        """The revision that this release needs."""
        return _alembic()[1].get_current_head() or ""

    def know(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]], refused: Collection[str]) -> None:
        """Of a dry run's ledger: copy what the real one knows of these orders and quarantine ids. Else do nothing."""

    def forget_log(self) -> None:
        """Checkpoint and truncate SQLite's write-ahead log, so that erased data is in neither file."""
        if self._name == "sqlite":
            outside = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            with self._translated(), outside.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of this database's own kind, which knows ``on_conflict_do_nothing`` and ``…_do_update``."""
        if self._name == "sqlite":
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    def next_number(self, connection: sa.Connection, counter: str) -> int:
        """The counter's next number. Whoever takes one after this waits for this transaction to end."""
        statement = self.insert(counters).values(name=counter, value=1)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
        number: int = connection.execute(statement.returning(counters.c.value)).scalar_one()
        return number

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError:
            raise RetriableError("The ledger (connection instore_ledger) has no free database connection.") from None
        except DBAPIError as error:
            # Only the first line: PostgreSQL's DETAIL shows the row.
            first = (str(error.orig).strip().splitlines() or [""])[0]
            raise RetriableError(
                f"The ledger (connection instore_ledger) failed: {type(error.orig).__name__}: {first}"
            ) from None


def _alembic() -> tuple[Config, ScriptDirectory]:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config, ScriptDirectory.from_config(config)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: a write begun late may find the database changed meanwhile.
    connection.isolation_level = None
    # Of two processes that make a ledger at the same time SQLite refuses one at once, whatever its timeout.
    for attempt in Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),
        stop=stop_after_delay(_MAKING_SECONDS),
        wait=wait_fixed(0.05),
        reraise=True,
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode=WAL")
    # What is erased must not stay in the free pages of the file.
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    # A database in memory, or a build of SQLite that takes neither pragma, says nothing and goes on.
    kept = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    if kept != ["wal", _SYNCHRONOUS_FULL]:
        connection.close()
        raise ConfigurationError(
            f"The ledger's SQLite has journal_mode={kept[0]} and synchronous={kept[1]}, so a commit may be lost in a "
            "crash; give connection instore_ledger the path of a file on a local disk as host."
        )


def _check_postgresql(connection: Any, _record: Any) -> None:
    """A message is completed once its row is committed: what a commit promises must hold."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
        fsync, synchronous_commit = cursor.fetchone()
    connection.rollback()
    for name, value in (("fsync", fsync), ("synchronous_commit", synchronous_commit)):
        if value == "off":
            connection.close()
            raise ConfigurationError(
                f"The ledger's PostgreSQL (connection instore_ledger) has {name}=off, so a commit may be lost in a "
                f"crash; switch {name} on for the server, and for the ledger's role and database."
            )


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return  # a checkpoint wants no transaction
    connection.exec_driver_sql("BEGIN" if options.get("read_only", False) else "BEGIN IMMEDIATE")
