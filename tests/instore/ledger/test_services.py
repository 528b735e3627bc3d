"""What all processes know together of an outside service: whose turn it is, and that it is down. Both databases."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from pybreaker import CircuitBreaker, CircuitBreakerError

from include.instore.ledger import Ledger
from include.instore.ledger.services import SharedCircuit, shared_turns
from include.instore.ledger.tables import services
from include.instore.model.errors import RetriableError

ROOT = Path(__file__).parents[3]
_TAKE_TURNS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from include.instore.ledger import Ledger
from include.instore.ledger.services import shared_turns
ledger = Ledger(sys.argv[1])
take = shared_turns(ledger, "loyalty", float(sys.argv[2]))
def turn(_):
    take()
    return time.time()
with ThreadPoolExecutor(4) as threads:
    print(*threads.map(turn, range(int(sys.argv[3]))))
ledger.close()
"""


def down() -> None:
    raise ConnectionError


def circuit(ledger: Ledger, seconds: float = 60, service: str = "loyalty") -> CircuitBreaker:
    return CircuitBreaker(fail_max=2, reset_timeout=seconds, state_storage=SharedCircuit(ledger, service))


def open_it(breaker: CircuitBreaker) -> None:
    with pytest.raises(ConnectionError):
        breaker.call(down)
    with pytest.raises(CircuitBreakerError):
        breaker.call(down)


def set_columns(ledger: Ledger, **values: int) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(sa.update(services).values(**values))


def test_three_processes_with_four_threads_each_share_one_limit(ledger_url: sa.URL) -> None:
    command = [sys.executable, "-W", "error", "-c", _TAKE_TURNS, ledger_url.render_as_string(hide_password=False)]
    processes = [
        subprocess.Popen([*command, "20", "10"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [process.communicate(timeout=60) for process in processes]
    assert [errors for _, errors in results] == [""] * 3
    turns = sorted(float(each) for out, _ in results for each in out.split())
    assert len(turns) == 30
    # 29 spaces of 1/20 s at least; the margin makes them 5 % longer.
    assert turns[-1] - turns[0] >= 29 / 20
    # Nor is it much slower than it has to be.
    assert turns[-1] - turns[0] < 29 / 20 * 2


def test_services_have_limits_of_their_own(ledger: Ledger) -> None:
    slow, fast = shared_turns(ledger, "loyalty", 0.01), shared_turns(ledger, "profile store", 1000)
    slow()
    begun = time.monotonic()
    fast()
    fast()
    assert time.monotonic() - begun < 2


def test_a_database_clock_that_was_set_back_an_hour_holds_nobody_up(ledger: Ledger) -> None:
    take = shared_turns(ledger, "loyalty", 100)
    set_columns(ledger, next_turn=(time.time_ns() // 1000) + 3_600_000_000)
    begun = time.monotonic()
    take()
    assert time.monotonic() - begun < 2


def test_a_ledger_that_fails_while_a_turn_is_taken_is_an_error_to_try_again(ledger: Ledger) -> None:
    take = shared_turns(ledger, "loyalty", 100)
    with ledger.engine.begin() as connection:
        services.drop(connection)
    with pytest.raises(RetriableError, match="instore_ledger"):
        take()


def test_a_breaker_that_one_process_opens_is_open_for_the_others_a_second_later(
    ledger: Ledger, another_process: Ledger
) -> None:
    other = circuit(another_process)
    assert other.call(lambda: "called") == "called"
    open_it(circuit(ledger))
    time.sleep(1.05)
    with pytest.raises(CircuitBreakerError):
        other.call(lambda: "never called")


def test_services_have_breakers_of_their_own(ledger: Ledger) -> None:
    open_it(circuit(ledger))
    assert circuit(ledger, service="profile store").call(lambda: "called") == "called"


def test_after_its_time_one_call_that_is_well_closes_the_breaker_for_all(
    ledger: Ledger, another_process: Ledger
) -> None:
    breaker = circuit(ledger, seconds=0.2)
    open_it(breaker)
    time.sleep(0.25)
    assert breaker.call(lambda: "well") == "well"
    assert circuit(another_process).call(lambda: "called") == "called"


def test_after_its_time_one_call_that_fails_opens_it_again(ledger: Ledger, another_process: Ledger) -> None:
    breaker = circuit(ledger, seconds=0.2)
    open_it(breaker)
    time.sleep(0.25)
    with pytest.raises(CircuitBreakerError):
        breaker.call(down)
    with pytest.raises(CircuitBreakerError):
        circuit(another_process).call(lambda: "never called")


def test_a_breaker_opened_in_the_future_of_a_clock_set_back_tries_the_service(ledger: Ledger) -> None:
    circuit(ledger)
    set_columns(ledger, opened_at=(time.time_ns() // 1_000_000) + 3_600_000)
    breaker = circuit(ledger)
    assert breaker.current_state == "open"
    assert breaker.call(lambda: "called") == "called"


def test_failures_that_are_not_in_a_row_leave_the_breaker_closed(ledger: Ledger) -> None:
    breaker = circuit(ledger)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            breaker.call(down)
        breaker.call(lambda: "well")
    assert breaker.current_state == "closed"
