"""Named places where the fault suite ends or freezes this very process (tests/faults); off, they cost one test.

``FAULT_POINT=topic.after_commit:2`` kills the process with SIGKILL when it passes that place for the second time,
``FAULT_POINT=delivery.after_sending:1:STOP`` freezes it there, as a scheduler sees a worker it believes dead. The
variable does not start with ``INSTORE_``: it is no setting of the pipeline.

    ledger.before_commit     a transaction is written, not committed      ledger.after_commit    it is on disk
    topic.after_receive      a block is received                          topic.after_commit     it is landed
    topic.between_completes  one message of the block is settled
    extracts.after_block     a block of a file is landed
    claims.planned           the claims are written, not committed
    lookup.answered          one card is answered, nothing is remembered
    lookup.remembered        a block of answers is remembered, no order has moved
    delivery.after_sending   `sending` is committed, no request has left
    delivery.answered        an answer has come, its outcome is not committed
    report.released          the claims are given up, nothing is counted
    report.closed            the report is in the ledger, nobody has been told
"""

from __future__ import annotations

import os
import signal

VARIABLE = "FAULT_POINT"

_armed = False
_point = ""
_passings = 0
_signal = signal.SIGKILL


def reach(point: str) -> None:
    """Say that the process is at a named place."""
    if _armed:
        _pass(point)


def arm(plan: str) -> None:
    """Take a plan, ``point:passing`` or ``point:passing:SIGNAL``; an empty one switches all of it off."""
    global _armed, _point, _passings, _signal
    if not plan:
        _armed = False
        return
    _point, passing, *rest = plan.split(":")
    _passings = int(passing)
    _signal = signal.Signals[f"SIG{rest[0]}"] if rest else signal.SIGKILL
    _armed = True


def _pass(point: str) -> None:
    global _armed, _passings
    if point != _point:
        return
    _passings -= 1
    if _passings <= 0:
        _armed = False  # a frozen process that is thawed goes on undisturbed
        os.kill(os.getpid(), _signal)


arm(os.environ.get(VARIABLE, ""))
