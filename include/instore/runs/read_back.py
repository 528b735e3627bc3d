"""Reading back a sample of what the previous run sent: whether what was accepted is visible by now."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from include.instore.ledger import Ledger
from include.instore.ledger.deliveries import sent_by_the_previous_run
from include.instore.model.destinations import ABSENT, SHOWN, ReadingSide
from include.instore.model.errors import InStoreError
from include.instore.model.settings import SendingSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadBack:
    """What one destination shows of the sample.

    :param state: ``on``; ``off``, there is no reading side; or why nothing can be told, ``ignored_filter``,
        ``empty_pages`` or ``away``.
    :param not_visible: those of the asked that it says it does not have. They were accepted and are not called lost:
        it may be slow, and of blacklisted people it never shows any.
    """

    state: str
    asked: int = 0
    not_visible: int = 0


def read_back(
    open_: Callable[[], AbstractContextManager[ReadingSide]],
    name: str,
    ledger: Ledger,
    run_id: str,
    settings: SendingSettings,
) -> ReadBack:
    """Ask a destination for a sample of what the run before this one sent, at least ``verify_after`` ago."""
    before = datetime.now(timezone.utc) - timedelta(seconds=settings.verify_after)
    sample = sent_by_the_previous_run(ledger, name, run_id, before, settings.read_back_sample)
    try:
        with open_() as destination:
            if not destination.reads_back:
                return ReadBack("off")
            answers = Counter(destination.look_for(sample).values())
    except InStoreError as error:  # a report does not fail for it
        log.warning("%s could not be asked for the events of the previous run: %s", name, error)
        return ReadBack("away", len(sample))
    log.info("%s: %d events of the previous run read back: %s", name, len(sample), dict(answers))
    unclear = [answer for answer, _ in answers.most_common() if answer not in (SHOWN, ABSENT)]
    return ReadBack(unclear[0] if unclear else "on", len(sample), answers[ABSENT])
