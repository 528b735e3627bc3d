"""Planning a run: which orders it sends, and waiting for those that another run still holds."""

from __future__ import annotations

import logging

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.instore.ledger import Ledger
from include.instore.ledger.claims import Batch, claim, held_elsewhere
from include.instore.settings import Settings
from include.instore.windows import Run

_LOOK_EVERY_SECONDS = 1.0

log = logging.getLogger(__name__)


def plan(ledger: Ledger, run: Run, settings: Settings) -> list[Batch]:
    """Claim the orders this run may send and cut them into batches.

    A run of a window is asked for exactly these orders, so it waits for those that the hourly run beside it holds;
    an ordinary run takes what is free, and the next one the rest.
    """
    tracking = settings.enable_track_events
    if run.claims != "due":
        looks = Retrying(
            stop=stop_after_delay(settings.claim_wait),
            wait=wait_fixed(_LOOK_EVERY_SECONDS),
            retry=retry_if_result(bool),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        if held := looks(lambda: held_elsewhere(ledger, run, claim_minutes=settings.claim_minutes, tracking=tracking)):
            log.warning("%d orders of the window are held by another run; it or the next run sends them", held)
    return claim(
        ledger,
        run,
        batch_orders=settings.batch_orders,
        claim_minutes=settings.claim_minutes,
        tracking=tracking,
    )
