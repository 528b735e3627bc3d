"""A circuit breaker, by pybreaker: after a number of failed calls in a row a service is not called for a while."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from threading import Event
from typing import Any, TypeVar

from pybreaker import (
    STATE_CLOSED,
    STATE_OPEN,
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerListener,
    CircuitMemoryStorage,
)

T = TypeVar("T")


class _Memory(CircuitMemoryStorage):
    last_answer = ""


class Breaker:
    """
    Counts one service's failed calls in a row, and says when not to call it. Threads may share it.

    While it is open nothing is called. After `seconds` one call at a time tries the service: the first that is well
    closes the breaker, one that is not opens it again.

    :param failures: failing calls in a row that open it.
    :param seconds: how long it stays open.
    :param storage: where its state is kept, and as `last_answer` a text; None for the memory of this process.
    """

    def __init__(self, *, failures: int = 10, seconds: float = 30.0, storage: Any = None) -> None:
        self.failures = failures
        self.seconds = seconds
        self._opened = Event()
        self._storage = storage or _Memory(STATE_CLOSED)
        self._circuit = CircuitBreaker(
            fail_max=failures,
            reset_timeout=seconds,
            state_storage=self._storage,
            listeners=[_Bell(self._opened)],
            throw_new_error_on_trip=False,
        )

    def rests_for(self) -> float | None:
        """Return the seconds for which the circuit is open, or None when the service may be called."""
        if self._circuit.current_state != STATE_OPEN:
            return None
        opened_at = self._storage.opened_at
        if opened_at is None:
            return None
        left = self.seconds - (datetime.now(timezone.utc) - opened_at).total_seconds()
        return left if left > 0 else None

    @property
    def last_answer(self) -> str:
        """The answer to the last failed call, in words without personal data; empty if it is not known."""
        return str(self._storage.last_answer)

    @last_answer.setter
    def last_answer(self, told: str) -> None:
        self._storage.last_answer = told

    def watch(self, call: Callable[[], T], well: Callable[[T], bool | None], *, counts: bool = True) -> T | None:
        """
        Make a call and count its result; None when the circuit is open and the call was not made.

        :param well: whether the result is one of a service in health; None for a call that did not take place.
        :param counts: whether a failure counts while the breaker is closed.
        """
        if self._circuit.current_state == STATE_CLOSED:
            # pybreaker holds its lock throughout a call: made through it, the calls of all threads would queue up.
            result = call()
            if (is_well := well(result)) is not None and (is_well or counts):
                self._learn(is_well)
            return result
        try:
            result = self._circuit.call(_trial, call, well)
        except CircuitBreakerError:
            return None
        except _Unwell as unwell:
            result = unwell.result
        return result

    def sleep(self, seconds: float) -> None:
        """Wait between two calls, but no longer than until the breaker opens."""
        self._opened.wait(seconds)

    def _learn(self, is_well: bool) -> None:
        with suppress(_Unwell, CircuitBreakerError):  # it is counted, which is all
            self._circuit.call(_trial, lambda: None, lambda _: is_well)


class _Unwell(Exception):
    def __init__(self, result: Any) -> None:
        super().__init__("the service is not well")
        self.result = result


def _trial(call: Callable[[], T], well: Callable[[T], bool | None]) -> T:
    result = call()
    if well(result) is False:
        raise _Unwell(result)
    return result


class _Bell(CircuitBreakerListener):
    """Wakes the threads that wait between two calls when the breaker opens."""

    def __init__(self, opened: Event) -> None:
        self._opened = opened

    def state_change(self, cb: CircuitBreaker, old_state: Any, new_state: Any) -> None:  # noqa: ARG002
        if new_state.name == STATE_OPEN:
            self._opened.set()
        else:
            self._opened.clear()
