"""Named places that a test may watch, to end or freeze this very process there (tests/faults); else they cost one test.

Nothing in the product watches them, and no variable or setting can: the watcher is given by a call.

    ledger.before_commit     a transaction is written, not committed      ledger.after_commit    it is on disk
    topic.after_receive      a block is received                          topic.after_commit     it is landed
    topic.between_completes  one message of the block is settled
    extracts.after_block     a block of a file is landed
    claims.planned           the claims are written, not committed
    extracts.read            a file was read to its end, nothing of it is landed
    lookup.answered          one card is answered, nothing is remembered
    lookup.remembered        a block of answers is remembered, no order has moved
    delivery.after_sending   `sending` is committed, no request has left
    delivery.answered        an answer has come, its outcome is not committed
    report.released          the claims are given up, nothing is counted
    report.closed            the report is in the ledger, nobody has been told
"""

from __future__ import annotations

from collections.abc import Callable

_watcher: Callable[[str], object] | None = None


def reach(point: str) -> None:
    """Say that the process is at a named place."""
    if _watcher is not None:
        _watcher(point)


def watch(watcher: Callable[[str], object]) -> None:
    """Call ``watcher`` with the name of every place reached from now on, in whatever thread reaches it."""
    global _watcher
    _watcher = watcher
