"""A connection's `rate_limit`: calls per second that its service takes (pyrate-limiter does the waiting)."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from pyrate_limiter import Limiter, Rate, SingleBucketFactory, StateBucket, TokenBucket

TakeTurn = Callable[[], object]
"""Waits until one more call may be made."""

LimiterMaker = Callable[[float], TakeTurn]
"""Makes what waits for turns, from the calls per second that are allowed."""

_limiters: dict[tuple[str, str, float], Limiter] = {}
_limiters_lock = Lock()


def rate_limit_of(conn_id: str, host: str, per_second: float | None, limiter: LimiterMaker | None) -> TakeTurn:
    """
    Return what waits for this connection's turn.

    :param per_second: calls; None is no limit.
    :param limiter: None: all hooks and threads of this process share the connection's turns.
    """
    if per_second is None:
        return lambda: None
    if limiter is not None:
        return limiter(per_second)
    key = (conn_id, host, per_second)
    with _limiters_lock:
        if key not in _limiters:
            # Evenly spaced, because a provider with a limit of 3/s answers a burst of 3 with 429 as well. Counted over
            # 1,000 s, so that 0.5 and 2.5 a second are exact. No leaking thread: a token bucket has nothing to leak.
            rate = Rate(max(1, round(per_second * 1000)), 1_000_000, burst=1)
            bucket = StateBucket([rate], TokenBucket())
            _limiters[key] = Limiter(SingleBucketFactory(bucket, schedule_leak=False), buffer_ms=1)
        found = _limiters[key]
    return found.try_acquire
