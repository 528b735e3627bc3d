"""Asking the Profile Store what it has, where the ledger may know less than it: after a restored backup, or in doubt.

The ledger's word for an order that is not sent is only as good as its last commit. An old backup does not know what was
sent since, and the next run would send it a second time. The destination knows: an event has one id, whatever the
source, run or try. This moves orders to sent on its word, and nothing else; what it does not show stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.unsent import count_held, mark_sent, unsent_after
from include.instore.model.destinations import ABSENT, SHOWN, ReadingSide
from include.instore.model.errors import RetriableError
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.runs.report import report_run

_BLOCK = 200
"""Orders asked for and marked in one commit: what an interruption costs is asked again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconciled:
    """What asking came to, in orders.

    :param asked: those the ledger took for not sent, and no live run held.
    :param sent: those of them that the destination shows: marked as sent, or with a dry run to be marked.
    :param held: not asked for, because a run that gave a sign of life within ``claim_minutes`` holds them.
    """

    asked: int = 0
    sent: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        """Asked for, not shown, and as they were."""
        return self.asked - self.sent


def reconcile(
    destination: ReadingSide,
    name: str,
    ledger: Ledger,
    settings: Settings,
    *,
    dry_run: bool = False,
    after_block: Callable[[Reconciled], None] = lambda _: None,
) -> Reconciled:
    """Ask the destination for every order that is not sent by the ledger, and mark those it shows as sent.

    Block by block, each committed: stopped half way it is simply started again. What is marked is counted as that of
    a run of kind ``reconcile``.

    :param name: the destination's.
    :param dry_run: ask, and change nothing.
    :param after_block: called with what it has come to so far.
    :raises ConfigurationError: the destination cannot be asked until a person changes something; nothing is changed.
    :raises RetriableError: the destination or the ledger failed, or the answers do not say whether an event is there;
        what was marked before is marked.
    """
    destination.look_for([])  # whether it can be asked at all is told even where there is nothing to ask
    run = Run(f"reconcile__{datetime.now(timezone.utc).isoformat()}", "reconcile", None, False, False, "own")
    done, last, opened = Reconciled(held=count_held(ledger, name, settings.runs.claim_minutes)), "", False
    try:
        while block := unsent_after(ledger, name, last, limit=_BLOCK, claim_minutes=settings.runs.claim_minutes):
            last = next(reversed(block))  # by the database's own order of texts
            answers = destination.look_for(block.values())
            if unclear := sum(answer not in (SHOWN, ABSENT) for answer in answers.values()):
                raise RetriableError(
                    f"The Profile Store answered {unclear} of {len(block)} questions for one event with other events, "
                    "or with a count and none, so what it does not show may be there; have the filter on TrackId "
                    "looked at, and start again."
                )
            shown = {key for key, event_id in block.items() if answers[event_id] == SHOWN}
            if shown and not dry_run:
                if not opened:
                    open_run(ledger, run)
                    opened = True
                marked = mark_sent(ledger, name, run.run_id, shown, settings.runs.claim_minutes)
            else:
                marked = len(shown)
            done = replace(done, asked=done.asked + len(block), sent=done.sent + marked)
            log.info("asked=%d sent=%d", done.asked, done.sent)
            after_block(done)
    finally:
        if opened:
            report_run(ledger, run, [], settings)
    return done
