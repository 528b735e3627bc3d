"""A wrong clock for one process: every place where the pipeline, the provider and the bus's SDK ask for the time.

No preloaded library is assumed on the machine, so the shift is made in Python: ``datetime`` in the modules of the
pipeline, the provider and azure.servicebus becomes a class whose ``now`` is off, and ``time.time`` is off for all.
``time.monotonic`` stays, as it does on a machine whose clock is set.
"""

from __future__ import annotations

import datetime as real
import sys
import time
from typing import Any

_SHIFTED = ("include.", "instore_provider.", "azure.")
_true_now = real.datetime.now
_true_time = time.time


class Clock:
    """Off by ``seconds``; from its ``jump_after``-th question on, off by ``jump_to`` seconds instead."""

    def __init__(self, seconds: float, jump_after: int | None = None, jump_to: float = 0) -> None:
        self._seconds = seconds
        self._jump_after = jump_after
        self._jump_to = jump_to
        self.asked = 0

    def offset(self) -> float:
        self.asked += 1
        if self._jump_after is not None and self.asked > self._jump_after:
            return self._jump_to
        return self._seconds


def shift_clock(seconds: float, jump_after: int | None = None, jump_to: float = 0) -> Clock:
    """Set this process's clock wrong, for good."""
    clock = Clock(seconds, jump_after, jump_to)

    class AnyDatetime(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real.datetime)  # those that others made are no others

    class ShiftedDatetime(real.datetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: Any = None) -> real.datetime:  # type: ignore[override]
            return _true_now(tz) + real.timedelta(seconds=clock.offset())

        @classmethod
        def utcnow(cls) -> real.datetime:  # type: ignore[override]
            return cls.now(real.timezone.utc).replace(tzinfo=None)

    for name, module in list(sys.modules.items()):
        if not name.startswith(_SHIFTED) or name.startswith("sandbox"):
            continue
        for attribute, value in list(vars(module).items()):
            if value is real.datetime:
                setattr(module, attribute, ShiftedDatetime)
            elif value is real:
                setattr(module, attribute, _shifted_module(ShiftedDatetime))
    time.time = lambda: _true_time() + clock.offset()
    return clock


def _shifted_module(shifted: type[real.datetime]) -> Any:
    from types import ModuleType

    module = ModuleType("datetime")
    module.__dict__.update(vars(real))
    module.datetime = shifted  # type: ignore[attr-defined]
    return module
