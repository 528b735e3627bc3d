"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Alarm:
    """Calls back once at the earliest of the instants it was told; who is called looks for what is due and tells the
    next one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._at: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def by(self, instant: int) -> None:
        """Call back at an instant (milliseconds since 1970) at the latest."""
        if self._at is not None and self._at <= instant:
            return
        self.cancel()
        self._at = instant
        # One millisecond more: a timer that rings early would find nothing due.
        self._timer = self._loop.call_later(max(0, instant - now() + 1) / 1000, self._ring)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._at = None

    def _ring(self) -> None:
        self._timer = self._at = None
        self._callback()
