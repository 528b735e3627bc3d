"""Firing for what is new where somebody looks again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

__all__ = ["WatchingTrigger"]

_LONGEST_WAIT = 300.0

log = logging.getLogger(__name__)


class WatchingTrigger(BaseEventTrigger):
    """
    Look again and again, and fire once for all that is new.

    An event holds one number, `new`. One that starts anew fires for whatever is there. Errors are logged and tried
    again for ever, after 2 s at first and after 5 minutes at last; of those that stay a subclass tells somebody.

    :param poll_interval: seconds between two looks.
    :param debounce: seconds it waits for more before it fires.
    """

    told_after = 300.0
    """Seconds that looking fails until it is told."""

    def __init__(self, *, poll_interval: float = 2.0, debounce: float = 2.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poll_interval = poll_interval
        self.debounce = debounce

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {"poll_interval": self.poll_interval, "debounce": self.debounce}

    @abstractmethod
    def look(self) -> int:
        """Return how many are new since the last look that did not fail. In a thread, never two at a time."""

    def hang_up(self) -> None:
        """Forget connections, without waiting for them: the next look opens new ones."""

    async def tell(self, _error: Exception | None) -> bool:
        """
        Tell somebody that looking has failed for 5 minutes, or that it works again.

        :param _error: the last one; None: it works again.
        :return: whether it is told; otherwise it is called again with the next error.
        """
        return True

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for ever, and fire for what is new."""
        new = failures = 0
        told, works_since = False, time.monotonic()
        try:
            while True:
                try:
                    if found := await asyncio.to_thread(self.look):
                        new += found
                        await asyncio.sleep(self.debounce)
                        new += await asyncio.to_thread(self.look)
                except Exception as error:  # whatever it is: nobody would start this trigger again
                    failures += 1
                    # Not the error's own text: it may hold the connection string.
                    log.warning("%s failed (%s); it is tried again", type(self).__name__, type(error).__name__)
                    self.hang_up()
                    if not told and time.monotonic() - works_since >= self.told_after:
                        told = await self._told(error)
                    await asyncio.sleep(min(_LONGEST_WAIT, 2.0 ** min(failures, 10)))
                    continue
                if told:
                    await self._told(None)
                failures, told, works_since = 0, False, time.monotonic()
                if new:
                    yield TriggerEvent({"new": new})  # type: ignore[no-untyped-call]
                    new = 0
                await asyncio.sleep(self.poll_interval)
        finally:
            self.hang_up()

    async def _told(self, error: Exception | None) -> bool:
        try:
            return await self.tell(error)
        except Exception as failed:
            log.warning("%s could not tell that it fails (%s)", type(self).__name__, type(failed).__name__)
            return False
