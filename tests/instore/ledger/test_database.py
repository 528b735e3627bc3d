"""Transactions, consistent looks, and what a failing database looks like to the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.intake import land
from include.instore.ledger.runs import close_run
from include.instore.model.errors import ConfigurationError, RetriableError
from tests.instore import given


def test_a_block_that_raises_leaves_nothing_behind(ledger: Ledger) -> None:
    given.landed(ledger)

    def interrupted() -> None:
        with ledger.write() as connection:
            connection.execute(sa.delete(given.runs))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(given.rows(ledger, "runs")) == 1


def test_one_look_stays_the_same_while_others_write(ledger: Ledger, another_process: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    count = sa.select(sa.func.count()).select_from(given.orders)
    with ledger.read() as connection:
        assert connection.scalar(count) == 1
        given.landed(another_process, given.document("S2"))
        assert connection.scalar(count) == 1
    with ledger.read() as connection:
        assert connection.scalar(count) == 2


def test_writers_of_two_processes_wait_for_each_other(ledger: Ledger, another_process: Ledger) -> None:
    given.landed(ledger)
    raise_by_one = sa.update(given.runs).values(received=given.runs.c.received + 1)

    def count(handle: Ledger) -> None:
        for _ in range(15):
            with handle.write() as connection:
                before = connection.scalar(sa.select(given.runs.c.received).with_for_update())
                connection.execute(raise_by_one)
                assert connection.scalar(sa.select(given.runs.c.received)) == before + 1

    threads = [threading.Thread(target=count, args=(handle,)) for handle in (ledger, another_process) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given.tally(ledger)["received"] == 60


def failing(ledger: Ledger, ledger_url: sa.URL, other: Ledger) -> RetriableError:
    """Land an order full of canaries in a ledger that fails half way, and return what is raised."""
    order = given.document(given.CANARY, loyaltyCardNumber=given.CANARY, emailAddress=f"{given.CANARY}@x.org")
    if ledger_url.get_backend_name() == "sqlite":
        impatient = Ledger(ledger_url, busy_seconds=0.1)
        with other.write(), pytest.raises(RetriableError) as caught:
            land(impatient, "run-1", given.arrivals(order), [])
        impatient.close()
    else:
        with pytest.raises(RetriableError) as caught:
            _write_over_a_connection_that_ends(ledger, other)
    return caught.value


def _write_over_a_connection_that_ends(ledger: Ledger, other: Ledger) -> None:
    with ledger.write() as connection:
        connection.execute(sa.insert(given.quarantine).values(**_quarantined()))
        with other.write() as administrator:
            administrator.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": _pid(connection)})
        connection.execute(sa.insert(given.quarantine).values(**_quarantined()))


def _pid(connection: sa.Connection) -> int:
    return int(connection.connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]


def _quarantined() -> dict[str, object]:
    text = dict.fromkeys(("id", "source", "reference", "reason", "detail", "run", "state"), given.CANARY)
    return {**text, "raw": given.CANARY.encode(), "received_at": given.hours_ago(0)}


def test_a_failing_database_is_an_error_to_try_again_that_tells_no_row(
    ledger: Ledger, ledger_url: sa.URL, another_process: Ledger
) -> None:
    given.landed(ledger)
    error = failing(ledger, ledger_url, another_process)
    assert "instore_ledger" in str(error)
    assert given.CANARY not in str(error)
    # "from None": the driver's own error, with the row in it, is not printed beneath ours.
    assert error.__suppress_context__
    assert given.on_the_way(ledger) == given.rows(ledger, "quarantine") == []
    assert given.landed(ledger, given.document("S1")).orders == 1


def test_a_row_the_database_refuses_is_not_told(ledger: Ledger) -> None:
    given.landed(ledger)
    items = given.arrivals(given.document("S1", storeName=given.CANARY))
    items[0].row["source"] = None
    with pytest.raises(RetriableError) as caught:
        land(ledger, "run-1", items, [])
    assert given.CANARY not in str(caught.value)
    assert given.CARD not in str(caught.value)


def test_a_ledger_without_a_free_connection_is_an_error_to_try_again(ledger_url: sa.URL) -> None:
    ledger = Ledger(ledger_url.update_query_dict({}))
    ledger.engine.dispose()
    ledger.engine.pool._timeout = 0.05  # type: ignore[attr-defined]
    with pytest.raises(RetriableError, match="no free database connection"):
        _open_reads(ledger, 20)
    ledger.close()


def _open_reads(ledger: Ledger, count: int) -> None:
    if count:
        with ledger.read() as connection:
            connection.execute(sa.select(1))
            _open_reads(ledger, count - 1)


def test_a_run_closed_keeps_its_report(ledger: Ledger) -> None:
    given.landed(ledger)
    close_run(ledger, "run-1", {"sent": 3})
    tally = given.tally(ledger)
    assert (tally["counts"], tally["ended_at"] is not None) == ('{"sent": 3}', True)


def test_what_sqlite_has_committed_is_on_disk(ledger: Ledger) -> None:
    if ledger.engine.name == "sqlite":
        with ledger.read() as connection:
            kept = [connection.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")]
        assert kept == ["wal", 2]


def test_a_ledger_in_memory_is_refused() -> None:
    ledger = Ledger("sqlite://")
    with pytest.raises(ConfigurationError, match=r"journal_mode=memory.*path of a file"):
        ledger.migrate()


@pytest.fixture
def alter_system(postgres: sa.URL) -> Iterator[Callable[[str, str], None]]:
    """Set a parameter of the whole server until the test ends."""
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def setter(name: str, value: str) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text(f"ALTER SYSTEM SET {name} = {value}"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
            while connection.scalar(sa.text(f"SHOW {name}")) != value:
                pass

    yield setter
    setter("fsync", "on")


def _refused(url: sa.URL) -> str:
    ledger = Ledger(url)
    with pytest.raises(ConfigurationError) as caught, ledger.read():
        raise AssertionError("it was opened")
    ledger.close()
    return str(caught.value)


def test_postgresql_that_does_not_write_through_is_refused(
    postgres: sa.URL, alter_system: Callable[[str, str], None]
) -> None:
    alter_system("fsync", "off")
    assert "fsync=off" in _refused(postgres)


@pytest.mark.parametrize("scope", ["DATABASE ", "ROLE postgres IN DATABASE "])
def test_postgresql_whose_commits_do_not_wait_for_the_disk_is_refused(ledger_url: sa.URL, scope: str) -> None:
    if ledger_url.get_backend_name() == "postgresql":
        engine = sa.create_engine(ledger_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(f"ALTER {scope}{ledger_url.database} SET synchronous_commit = off"))
        assert "synchronous_commit=off" in _refused(ledger_url)
        for mode in ("local", "remote_write"):
            with engine.connect() as connection:
                connection.execute(sa.text(f"ALTER {scope}{ledger_url.database} SET synchronous_commit = {mode}"))
            ledger = Ledger(ledger_url)
            with ledger.read() as connection:
                assert connection.scalar(sa.text("SHOW synchronous_commit")) == mode
            ledger.close()
