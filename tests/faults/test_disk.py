"""Family 6: the ledger's disk and its database server.

A full disk is a small tmpfs where this process may mount one, and everywhere SQLite's own: ``max_page_count``
(SQLITE_FULL) and a file size limit of the process (a failing write, SQLITE_IOERR). Read-only is ``query_only``
(SQLITE_READONLY), because a read-only file does not stop root.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.disks import fill, small_disk
from tests.faults.judge import Judge
from tests.faults.postgres import PostgresPair, PostgresServer, postgres_pair, postgres_server
from tests.faults.proxy import HttpRelay, Trouble
from tests.faults.world import Killer, World

RUN = {"run_id": "scheduled__disk", "run_type": "scheduled"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with postgres_pair() as pair:
        yield pair


def _first_day(world: World, judge: Judge, orders: int = 120) -> None:
    """One good day, so that there is a ledger; then the day on which the disk fails."""
    world.extract("2017/06/05/orders.csv", world.source.take(60))
    world.recover(world.run())
    world.publish(world.source.take(orders))
    world.extract("2017/06/06/orders.csv", world.source.take(orders))
    judge.fault_happened()


def _ledger_on(disk: Path) -> dict[str, str]:
    return {"conn_type": "sqlite", "host": str(disk / "ledger.db")}


def _pages(world: World) -> int:
    with sqlite3.connect(str(world.ledger["host"])) as database:
        pages = int(database.execute("PRAGMA page_count").fetchone()[0])
    database.close()
    return pages


@pytest.mark.weight(20)
@pytest.mark.parametrize("room", in_smoke([1, 6, 20], 6))
def test_ledger_is_full(make_world: MakeWorld, room: int) -> None:
    world, judge = make_world(601, claim_minutes=0.002)
    _first_day(world, judge)
    world.inject(6, f"the ledger may grow by {room} pages only")
    done = world.run(pragma=f"max_page_count={_pages(world) + room}")
    assert not done.green
    assert any("full" in each.error for _, each in done.tries)
    judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=190, deliveries=4, recovered=True)


@pytest.mark.mounts
@pytest.mark.weight(20)
@pytest.mark.parametrize("room", in_smoke([0, 40, 400], 40))
def test_disk_of_the_ledger_is_full(make_world: MakeWorld, tmp_path: Path, room: int) -> None:
    """A real one: the write-ahead log and its index have to grow as well, and without room for that not even a look
    at the ledger is possible.
    """
    with small_disk(tmp_path / "disk") as disk:
        world, judge = make_world(606, ledger=_ledger_on(disk), claim_minutes=0.002)
        _first_day(world, judge)
        world.inject(6, f"the ledger's disk has {room} KB left")
        ballast = fill(disk, room)
        done = world.run()
        assert not done.green
        assert any(("full" if room else "disk I/O error") in each.error for _, each in done.tries)
        ballast.unlink()
        judge.nothing_completed_that_is_not_on_disk()
        world.recover()
        judge.check(at_least=190, deliveries=4, recovered=True)


@pytest.mark.mounts
@pytest.mark.weight(20)
def test_dry_run_on_a_full_disk_leaves_nothing_behind(make_world: MakeWorld, tmp_path: Path) -> None:
    """There is no room for its scratch ledger, and half of one must not take the last of it.

    SQLite says "disk I/O error" where its log's index, and "disk is full" where its file cannot grow.
    """
    with small_disk(tmp_path / "disk") as disk:
        world, judge = make_world(607, ledger=_ledger_on(disk), claim_minutes=0.002)
        _first_day(world, judge)
        world.inject(6, "a dry run has no room for its own ledger")
        ballast = fill(disk, 40)
        done = world.run(run_type="manual", params={"dry_run": True}, tries=1)
        assert set(done.states.values()) == {"failed"}
        for _, each in done.tries:
            assert each.error.startswith("The ledger (connection instore_ledger) failed: OperationalError: "), each
            assert "disk" in each.error
        ledger = {f"ledger.db{ending}" for ending in ("", "-wal", "-shm")}
        assert {path.name for path in disk.iterdir()} - ledger == {ballast.name}
        ballast.unlink()
        world.recover()
        judge.check(at_least=190, recovered=True)


@pytest.mark.parametrize("kilobytes", [64, 256])
def test_writes_fail(make_world: MakeWorld, kilobytes: int) -> None:
    world, judge = make_world(602, claim_minutes=0.002)
    _first_day(world, judge)
    world.inject(6, f"no file of the process may grow over {kilobytes} KB: writes to the ledger fail")
    done = world.run(file_size_limit=kilobytes * 1024)
    assert not done.green
    judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=190, deliveries=4, recovered=True)


def test_ledger_is_read_only(make_world: MakeWorld) -> None:
    world, judge = make_world(603, claim_minutes=0.002)
    _first_day(world, judge)
    world.inject(6, "the ledger is read-only")
    done = world.run(pragma="query_only=ON")
    assert set(done.states.values()) == {"failed"}
    judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=190, deliveries=4, recovered=True)


def test_ledger_is_locked_for_some_seconds(make_world: MakeWorld) -> None:
    _locked(*make_world(604), seconds=4)


@pytest.mark.weight(90)
@pytest.mark.timeout(300)
def test_ledger_is_locked_for_longer_than_a_minute(make_world: MakeWorld) -> None:
    """Longer than a statement waits: every task fails with one sentence, nothing is settled, the next run goes on."""
    world, judge = make_world(605)
    _first_day(world, judge)
    world.inject(6, "another process holds the ledger for 65 seconds")
    with _Locked(Path(world.ledger["host"]), 65):
        done = world.step("drain_topic", RUN)
        assert done.state == "failed"
        assert "locked" in done.error
        judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=190, deliveries=4, recovered=True)


def _locked(world: World, judge: Judge, seconds: float) -> None:
    _first_day(world, judge)
    world.inject(6, f"another process holds the ledger for {seconds} seconds, again and again")
    with _Locked(Path(world.ledger["host"]), seconds):
        world.run()
    judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=190, deliveries=4, recovered=True)


class _Locked:
    """A writer that began and does not end for a while."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._has_it = threading.Event()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._has_it.wait(10)

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _hold(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        database.execute("BEGIN IMMEDIATE")
        self._has_it.set()
        time.sleep(self._seconds)
        database.execute("ROLLBACK")
        database.close()


@pytest.mark.smoke
def test_postgres_restarts_while_a_request_is_under_way(make_world: MakeWorld, postgres: PostgresServer) -> None:
    """The answer comes, and there is no ledger to write it into."""
    world, judge = make_world(610, ledger=postgres.ledger(), use_topic=False, claim_minutes=0.002)
    world.extract("2017/06/05/orders.csv", world.source.take(150))
    judge.fault_happened()

    def restart() -> None:
        world.inject(6, "PostgreSQL stops")
        postgres.stop()

    with HttpRelay(world.sandbox.store.url, [Trouble(), Trouble("after", hook=restart)]) as relay:
        world.through(store=relay.url)
        done = world.run(tries=1)
        assert relay.met == 2
        assert not done.green
        postgres.start()
        world.recover()
    judge.check(at_least=100, recovered=True)


@pytest.mark.weight(35)
@pytest.mark.parametrize("seed", range(611, 614))
def test_postgres_crashes_at_any_moment(make_world: MakeWorld, postgres: PostgresServer, seed: int) -> None:
    world, judge = make_world(seed, ledger=postgres.ledger(), claim_minutes=0.002)
    for n in range(3):
        world.publish(world.source.take(120))
        world.extract(f"2017/06/{n + 1:02d}/orders.csv", world.source.take(120))
        judge.fault_happened()
        after = world.random.uniform(0.3, 3.0)
        timer = threading.Timer(after, postgres.crash)
        world.inject(6, f"PostgreSQL crashes after {after:.1f} s and recovers")
        timer.start()
        world.run()
        timer.join()
        judge.nothing_completed_that_is_not_on_disk()
        world.recover()
        judge.check(at_least=len(world.published) * 2 // 3, deliveries=4 * (n + 1))


@pytest.mark.weight(25)
@pytest.mark.parametrize("seed", [623, 648, 657])  # in the draining, a look-up, the sending
def test_postgres_fails_over_in_mid_run(make_world: MakeWorld, pair: PostgresPair, seed: int) -> None:
    """The primary never comes back; its standby, which has all that was confirmed, takes its place."""
    world, judge = make_world(seed, ledger=pair.ledger(), claim_minutes=0.002)
    _first_day(world, judge)
    task, after, away = world.random.randint(1, 7), world.random.uniform(0, 0.5), world.random.uniform(0, 0.6)
    what = f"PostgreSQL's primary is gone {after:.2f} s into task {task}, {away:.2f} s later its standby is promoted"
    world.inject(6, what)
    timer = threading.Timer(after, pair.fail_over, args=(away,))
    world.run(killer=_AtTask(task, timer.start), tries=6)  # which are minutes apart in Airflow, not here
    timer.join()
    judge.nothing_completed_that_is_not_on_disk()
    world.recover()
    judge.check(at_least=190, deliveries=4, recovered=True)


class _AtTask(Killer):
    """Kills no task; does something when the run's n-th begins. The same moment on any machine, however busy."""

    def __init__(self, number: int, do: Callable[[], None]) -> None:
        super().__init__()
        self._to_come = number
        self._do = do

    def plan(self, task: str) -> str:
        self._to_come -= 1
        if self._to_come == 0:
            self._do()
        return super().plan(task)


@pytest.mark.weight(30)
@pytest.mark.parametrize("seed", range(615, 617))
def test_killed_on_postgres(make_world: MakeWorld, postgres: PostgresServer, seed: int) -> None:
    world, judge = make_world(seed, ledger=postgres.ledger(), claim_minutes=0.002)
    points = [("drain_topic", "ledger.before_commit:2"), ("plan_batches", "claims.planned:1"),
              ("send_events", "delivery.after_sending:1"), ("send_events", "ledger.before_commit:3")]  # fmt: skip
    for n, (task, point) in enumerate(points):
        world.publish(world.source.take(100))
        world.extract(f"2017/06/{n + 1:02d}/orders.csv", world.source.take(60))
        judge.fault_happened()
        world.inject(6, f"killed at {point} with PostgreSQL as the ledger")
        done = world.run(killer=Killer({task: [point]}))
        assert done.kills == 1
        judge.nothing_completed_that_is_not_on_disk()
        world.recover(done)
        judge.check(at_least=len(world.published) * 2 // 3, recovered=True)


def test_deadlock(make_world: MakeWorld, postgres: PostgresServer) -> None:
    """Somebody else holds rows that the pipeline needs and wants those that it has; the pipeline is the victim."""
    world, judge = make_world(620, ledger=postgres.ledger(), use_topic=False, claim_minutes=0.002)
    world.extract("2017/06/05/orders.csv", world.source.take(40, only="sent"))
    judge.fault_happened()
    for task in ("load_extracts", "plan_batches"):
        planned = world.step(task, RUN).value
    looked_up = world.step("look_up_customers", RUN, batch=planned[0]).value
    engine = postgres.engine(str(world.ledger["schema"]))
    with engine.connect() as other:
        other.execute(sa.text("SET deadlock_timeout = '60s'"))  # not this one gives up
        last = other.scalar(sa.text("SELECT max(order_number) FROM orders"))
        other.execute(sa.text("SELECT 1 FROM orders WHERE order_number = :n FOR UPDATE"), {"n": last})
        world.inject(6, "a deadlock with another session")
        sending = world.start_step("send_events", RUN, batch=looked_up)
        _until_somebody_waits(postgres)
        other.execute(sa.text("SELECT 1 FROM orders ORDER BY order_number FOR UPDATE"))
        done = sending.wait()
        other.rollback()
    assert done.state == "failed"
    assert "eadlock" in done.error
    world.recover()
    judge.check(at_least=40, recovered=True)


def _until_somebody_waits(postgres: PostgresServer) -> None:
    engine = postgres.engine()
    until = time.monotonic() + 20
    with engine.connect() as connection:
        while not connection.scalar(sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")):
            connection.rollback()
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.weight(25)
def test_serialization_failures(make_world: MakeWorld, postgres: PostgresServer) -> None:
    """The strictest isolation, and two runs at once: transactions are rolled back, nothing is lost."""
    ledger = postgres.ledger(default_transaction_isolation="serializable")
    world, judge = make_world(621, ledger=ledger)
    for n in range(2):
        world.publish(world.source.take(120))
        world.extract(f"2017/06/{n + 1:02d}/orders.csv", world.source.take(150))
        judge.fault_happened()
        world.inject(6, "two runs at once under serializable isolation")
        window = {"start": "2017-06-01T00:00:00+00:00", "end": "2017-07-01T00:00:00+00:00"}
        other = threading.Thread(target=world.run, args=(f"backfill__{n}",), kwargs={"run_type": "backfill", **window})
        other.start()
        world.run(f"scheduled__{n}")
        other.join()
        world.recover()
        judge.check(at_least=len(world.published) * 2 // 3, deliveries=6, recovered=True)
    failed = [each.error for run in world.runs for _, each in run.tries if each.state == "failed"]
    world.timeline.note(f"{sum('serialize' in error for error in failed)} tries failed to serialize")


@pytest.mark.smoke
def test_the_disk_for_temporary_files_is_full(make_world: MakeWorld) -> None:
    """The file is not damaged: it is read again when there is room."""
    world, judge = make_world(650, use_topic=False)
    assert world.run().green  # the ledger is there, and small
    padded = [order.with_description("x" * 4000) for order in world.source.take(200, only="sent")]
    path = world.extract("2017/06/05/orders.csv", padded)
    limit = path.stat().st_size // 2
    judge.fault_happened()
    world.inject(6, f"no file may be larger than {limit} bytes")
    full = world.run(tries=1, only=["load_extracts"], file_size_limit=limit)
    (error,) = full.errors("load_extracts")
    assert "The disk for temporary files failed" in error
    done = world.run()
    assert done.green
    assert (done.report or {})["unread_files"] == 0
    world.recover(done)
    judge.check(at_least=200, recovered=True)
