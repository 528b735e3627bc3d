"""What all tasks, processes and workers know together of an outside service: whose turn it is, and whether it is down.

pyrate-limiter and pybreaker decide; only where they keep their few numbers is ours. The limiter's own SQL buckets are
not used: that for SQLite reads and writes in two steps unless a file lock is installed, that for PostgreSQL needs a
connection pool of its own, refuses instead of waiting, and both make their tables behind Alembic's back. All times are
the database's, so a worker with a wrong clock neither jumps the queue nor holds it up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa
from pybreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitMemoryStorage
from pyrate_limiter import Limiter, Rate, SingleBucketFactory, StateBucket, StateStore, TokenBucket

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import services

_MARGIN = 0.95
_LOOK_AGAIN_SECONDS = 1.0


def shared_turns(ledger: Ledger, service: str, per_second: float) -> Callable[[], None]:
    """What waits for the next turn to call a service, among all that share this ledger.

    Turns come evenly spaced and 5 % slower than the limit: calls take a moment to arrive, and a second in which they
    arrive up to 50 ms closer together still sees no more of them than the limit.

    :param per_second: calls per second that the service takes.
    """
    # Counted over 1,000 s, so that 0.5 and 2.5 a second are exact; a burst of one is even spacing.
    rate = Rate(max(1, round(per_second * _MARGIN * 1000)), 1_000_000, burst=1)
    bucket = StateBucket([rate], TokenBucket(), store=_SharedTurns(ledger, service))
    limiter = Limiter(SingleBucketFactory(bucket, schedule_leak=False), buffer_ms=1)
    one_at_a_time = threading.Lock()  # of a process' threads one asks the ledger, the others wait behind it

    def take_turn() -> None:
        with one_at_a_time:
            limiter.try_acquire(service)

    return take_turn


class _SharedTurns(StateStore):
    """The limiter's one number, the moment of the next free turn, in the ledger."""

    def __init__(self, ledger: Ledger, service: str) -> None:
        self._ledger = ledger
        self._service = service
        _make_known(ledger, service)

    def check(self, algorithm: Any, rates: list[Rate], now: int, weight: int) -> Any:  # noqa: ARG002  not our clock
        with self._ledger.write() as connection:
            at = _now_ms(connection)
            next_turn = connection.scalars(
                sa.select(services.c.next_turn).where(services.c.service == self._service).with_for_update()
            ).one()
            spacing = max(rate.burst * rate.interval * 1000 // rate.limit for rate in rates)
            if next_turn > at * 1000 + 2 * spacing:
                next_turn = 0  # the database's clock was set back
            (after,), decision = algorithm.step(rates, (next_turn,), at, weight)
            if decision.allowed:
                connection.execute(
                    sa.update(services).where(services.c.service == self._service).values(next_turn=after)
                )
        return decision

    def read(self, algorithm: Any, rates: list[Rate]) -> Any:  # noqa: ARG002  of one shape for all
        with self._ledger.read() as connection:
            turn = sa.select(services.c.next_turn).where(services.c.service == self._service)
            return (connection.scalars(turn).one(),)

    def reset(self) -> None:
        with self._ledger.write() as connection:
            connection.execute(sa.update(services).where(services.c.service == self._service).values(next_turn=0))


class SharedCircuit(CircuitMemoryStorage):
    """A breaker's state in the ledger: the first task that finds a service down tells all others.

    Failing calls are counted in this process; that the breaker is open, and since when, is known to all, at the
    latest a second later. Half open is this process' own affair: each tries the service by one call.
    """

    def __init__(self, ledger: Ledger, service: str) -> None:
        super().__init__(STATE_CLOSED)
        self._ledger = ledger
        self._service = service
        self._lock = threading.Lock()
        self._half_open = False
        self._last_answer = ""
        self._open_for_ms: int | None = None
        self._looked_at = float("-inf")
        _make_known(ledger, service)

    @property
    def state(self) -> str:
        if self._half_open:
            return STATE_HALF_OPEN
        return STATE_CLOSED if self._look() is None else STATE_OPEN

    @state.setter
    def state(self, state: str) -> None:
        was_half_open, self._half_open = self._half_open, state == STATE_HALF_OPEN
        if state == STATE_OPEN:
            self._write(opened=True)
        elif state == STATE_CLOSED and (was_half_open or self._look() is not None):
            self._write(opened=False)

    @property
    def opened_at(self) -> datetime | None:
        """By this machine's clock, which pybreaker compares it with."""
        open_for = self._look()
        return None if open_for is None else datetime.now(timezone.utc) - timedelta(milliseconds=open_for)

    @opened_at.setter
    def opened_at(self, _moment: datetime) -> None:
        """Written together with the state, by the database's clock."""

    @property
    def last_answer(self) -> str:
        """What the last failing call was answered: of this process, or of the one that opened the breaker."""
        self._look()
        return self._last_answer

    @last_answer.setter
    def last_answer(self, told: str) -> None:
        self._last_answer = told[:250]

    def _look(self) -> int | None:
        """Milliseconds for which the breaker has been open, None when it is closed; asked at most once a second."""
        with self._lock:
            since = time.monotonic() - self._looked_at
            if since >= _LOOK_AGAIN_SECONDS:
                with self._ledger.read() as connection:
                    opened = sa.select(services.c.opened_at, services.c.last_answer)
                    opened_at, told = connection.execute(opened.where(services.c.service == self._service)).one()
                    self._last_answer = told if opened_at is not None and told else self._last_answer
                    self._open_for_ms = None if opened_at is None else self._age(connection, opened_at)
                self._looked_at, since = time.monotonic(), 0.0
            return None if self._open_for_ms is None else self._open_for_ms + int(since * 1000)

    def _age(self, connection: sa.Connection, opened_at: int) -> int:
        age = _now_ms(connection) - opened_at
        return age if age >= 0 else 86_400_000  # the database's clock was set back: long ago, so try the service

    def _write(self, *, opened: bool) -> None:
        with self._lock:
            with self._ledger.write() as connection:
                connection.execute(
                    sa.update(services)
                    .where(services.c.service == self._service)
                    .values(
                        opened_at=_now_ms(connection) if opened else None,
                        last_answer=self._last_answer if opened else None,
                    )
                )
            self._open_for_ms, self._looked_at = (0 if opened else None), time.monotonic()


def _make_known(ledger: Ledger, service: str) -> None:
    with ledger.read() as connection:
        if connection.scalars(sa.select(services.c.service).where(services.c.service == service)).first():
            return
    with ledger.write() as connection:
        connection.execute(
            ledger.insert(services)
            .values(service=service, next_turn=0)
            .on_conflict_do_nothing(index_elements=["service"])
        )


def _now_ms(connection: sa.Connection) -> int:
    """The database's clock. SQLite's is that of the one machine that can open the file."""
    if connection.dialect.name == "sqlite":
        return time.time_ns() // 1_000_000
    milliseconds = sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()) * 1000, sa.BigInteger)
    return connection.scalars(sa.select(milliseconds)).one()
