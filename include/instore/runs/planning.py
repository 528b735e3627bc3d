"""Planning a run: which orders it sends, and waiting for those that another run still holds."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

from include.instore.ledger import Ledger
from include.instore.ledger.claims import Batch, claim, events_again, held_elsewhere
from include.instore.ledger.destinations import destinations_on
from include.instore.ledger.resends import approved_list
from include.instore.ledger.runs import started_at
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import Settings
from include.instore.model.windows import RESEND_DAG, Run

_LOOK_AGAIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class HeldByAnotherRun(RetriableError):
    """Orders of this run's window are in another run's hands; ask again after ``retry_after`` seconds."""


def plan(ledger: Ledger, run: Run, settings: Settings, approved: str = "") -> list[Batch]:
    """Claim the orders this run may send and cut them into batches.

    A run of a window is asked for exactly these orders, so it waits for those that the hourly run beside it holds;
    an ordinary run takes what is free, and the next one the rest. A dry run is asked what would be sent: it plans as if
    tracking were on, and does not wait, because in its own ledger nobody lets go.

    :param approved: digest of the list that a person approved, where the run has one.
    :raises ConfigurationError: the run names a destination that is not on, would send more again than may be without
        approval, or has a list that is not the approved one or expired.
    :raises HeldByAnotherRun: until ``claim_wait`` seconds after the run began; nothing is claimed. Waiting is the
        caller's: a task that waits itself keeps the very slot the other run needs.
    """
    on = destinations_on(ledger)
    if run.destination and run.destination not in on:
        raise ConfigurationError(
            f"Param destination names {run.destination!r}, which is not on; there is {', '.join(on) or 'none'}."
        )
    tracking = settings.sending.enable_track_events or run.dry_run
    if run.claims == "listed":
        approved_list(ledger, run.resend_list, approved or "none")
    elif run.resend and not run.dry_run and (events := events_again(ledger, run)) > settings.sending.resend_approval:
        raise ConfigurationError(
            f"This run would send {events} events again, and more than {settings.sending.resend_approval} need "
            f"approval (INSTORE_RESEND_APPROVAL); list them by `orders resend --day` or on the page, for {RESEND_DAG}."
        )
    if run.claims != "due":
        held = held_elsewhere(ledger, run, claim_minutes=settings.runs.claim_minutes, tracking=tracking)
        waited = datetime.now(timezone.utc) - started_at(ledger, run.run_id)
        if held and not run.dry_run and waited < timedelta(seconds=settings.runs.claim_wait):
            raise HeldByAnotherRun(f"{held} orders of the window are held by another run.", _LOOK_AGAIN_SECONDS)
        if held:
            log.warning("%d orders of the window are held by another run; it or the next run sends them", held)
    most, minutes = settings.runs.batch_orders, settings.runs.claim_minutes
    return claim(ledger, run, batch_orders=most, claim_minutes=minutes, tracking=tracking)
