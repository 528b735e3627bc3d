"""Ends or freezes the process it is in at a named place of the pipeline (include/instore/fault_points.py)."""

from __future__ import annotations

import os
import signal

from include.instore import fault_points


class FatalPlace:
    """The signal for one place, at one of its passings.

    :param plan: ``topic.after_commit:2`` kills with SIGKILL when that place is passed for the second time;
        ``delivery.after_sending:1:STOP`` freezes there, as a scheduler sees a worker it believes dead.
    """

    def __init__(self, plan: str) -> None:
        self._place, passing, *rest = plan.split(":")
        self._passings = int(passing)
        self._signal = signal.Signals[f"SIG{rest[0]}"] if rest else signal.SIGKILL
        fault_points.watch(self._passed)

    def _passed(self, place: str) -> None:
        if place != self._place:
            return
        self._passings -= 1
        if self._passings == 0:  # only then: a frozen process that is thawed goes on undisturbed
            os.kill(os.getpid(), self._signal)
