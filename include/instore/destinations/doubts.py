"""Events in doubt: the destination is asked for them, and that one was not accepted is proven by witnesses.

A destination shows what it accepted after a time that nobody knows, so an event that is not shown may have been
accepted. It was not where events that were sent later, by the ledger's sequence numbers, are shown and it still is not
(design.md, invariant 4).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta, timezone

from include.instore.ledger import Ledger
from include.instore.ledger.deliveries import (
    Doubt,
    OutgoingBatch,
    give_back,
    hold_for_a_person,
    in_doubt,
    keep_in_doubt,
    left_later,
    record_outcomes,
    waited_for,
)
from include.instore.model.destinations import (
    ABSENT,
    BY_SETTING,
    EMPTY_PAGES,
    IGNORED_FILTER,
    LAG,
    NO_READ_SIDE,
    SHOWN,
    ReadingSide,
)
from include.instore.model.errors import InStoreError
from include.instore.model.settings import SendingSettings

_FIRST_PAUSE = 1 / 8
"""Of ``verify_after``; the pauses double."""
_CANDIDATES = 5
"""So many times the witnesses needed are asked for at either end: some may be of people whom the destination hides."""

log = logging.getLogger(__name__)


class Doubts:
    """The events in doubt of one batch, while one try of its task is at work."""

    def __init__(
        self, destination: ReadingSide, ledger: Ledger, held: OutgoingBatch, settings: SendingSettings
    ) -> None:
        self._destination = destination
        self._place = ledger, held
        self._settings = settings
        self._asks = settings.on_ambiguous == "verify" and destination.reads_back
        # Measured in this process, not by the times in the ledger: another machine's clock may be wrong. An event that
        # was sent again meanwhile is a new doubt.
        self._known_since: dict[tuple[str, datetime], float] = {}
        self._unclear: Counter[str] = Counter()
        self.held = 0
        self.verified = 0

    def known(self) -> list[Doubt]:
        """Those there are now."""
        doubts, now = in_doubt(*self._place), time.monotonic()
        for doubt in doubts:
            self._known_since.setdefault((doubt.event_id, doubt.sending_at), now)
        return doubts

    def to_keep_back(self) -> int:
        """How many ready events are to leave after the wait, so that there are witnesses."""
        return self._settings.verify_witnesses if self._asks and self.known() else 0

    def settle(self, send_witnesses: Callable[[], None]) -> None:
        """Find out what became of them; those not taken are ready again, what cannot be known yet stays in doubt.

        :param send_witnesses: sends what was kept back; called once, whatever there is in doubt.
        """
        if not self._asks:
            self._settle_unasked()
            send_witnesses()
            return
        try:
            self._wait()
        except InStoreError:
            send_witnesses()  # whoever is ready does not wait for a reading side that is away
            raise
        waited_for(*self._place, [doubt for doubt in self.known() if doubt.waited is None])
        send_witnesses()
        self._prove([doubt for doubt in self.known() if doubt.waited is not None])
        why = next((word for word, _ in self._unclear.most_common(1)), LAG)
        if doubts := self.known():
            keep_in_doubt(*self._place, doubts, why)
            log.warning("%d events stay in doubt: %s", len(doubts), why)
        oldest = datetime.now(timezone.utc) - timedelta(hours=self._settings.doubt_hours)
        self._hold(
            [doubt for doubt in self.known() if doubt.sending_at < oldest],
            f"{why}: not known for {self._settings.doubt_hours:g} hours whether it was taken",
        )

    def _settle_unasked(self) -> None:
        if self._settings.on_ambiguous == "resend":
            doubts = self.known()
            give_back(*self._place, doubts)
            if doubts:
                log.warning("%d events in doubt are sent again, by INSTORE_ON_AMBIGUOUS", len(doubts))
        elif self._settings.on_ambiguous == "hold":
            self._hold(self.known(), f"{BY_SETTING}: not known whether it was taken, and INSTORE_ON_AMBIGUOUS is hold")
        else:
            self._hold(
                self.known(), f"{NO_READ_SIDE}: not known whether it was taken, and the destination cannot be asked"
            )

    def _hold(self, doubts: Collection[Doubt], reason: str) -> None:
        if doubts:
            hold_for_a_person(*self._place, doubts, reason)
            self.held += len(doubts)
            log.warning("%d events are held for a person: %s", len(doubts), reason)

    def _wait(self) -> None:
        """Look for them until none is left, or each has been known for ``verify_after``."""
        pauses = self._pauses()
        while doubts := self.known():
            self._look({doubt.event_id for doubt in doubts})
            waiting = [doubt for doubt in self.known() if doubt.waited is None]
            if not waiting:
                return
            due = (
                max(self._known_since[doubt.event_id, doubt.sending_at] for doubt in waiting)
                + self._settings.verify_after
            )
            if (left := due - time.monotonic()) <= 0:
                return
            time.sleep(min(next(pauses), left))

    def _prove(self, doubts: Collection[Doubt]) -> None:
        """Give back those that are not shown though enough events are that left after the wait for them."""
        if not doubts:
            return
        shown_up_to = self._witnessed(doubts)
        provable = [doubt for doubt in doubts if doubt.waited is not None and doubt.waited < shown_up_to]
        missing = self._absent({doubt.event_id for doubt in provable})
        if missing:
            time.sleep(self._settings.verify_after / 2)
            missing = self._absent(missing)
        give_back(*self._place, [doubt for doubt in provable if doubt.event_id in missing])

    def _witnessed(self, doubts: Collection[Doubt]) -> int:
        """Up to where in the order of leaving enough events are shown; 0 where there are too few."""
        needed = self._settings.verify_witnesses
        first = min(doubt.waited or 0 for doubt in doubts)
        last = max(doubt.waited or 0 for doubt in doubts)
        candidates = left_later(self._place[0], self._place[1].destination, first, _CANDIDATES * needed)
        if len(candidates) < needed:
            return 0
        shown: list[int] = []
        until, pauses = time.monotonic() + self._settings.verify_after, self._pauses()
        while True:
            answers = self._destination.look_for(candidates)
            self._note(answers)
            shown += [candidates.pop(event_id) for event_id, answer in answers.items() if answer == SHOWN]
            reached = sorted(shown, reverse=True)[needed - 1] if len(shown) >= needed else 0
            left = until - time.monotonic()
            if reached > last or not candidates or left <= 0:
                return reached
            time.sleep(min(next(pauses), left))

    def _absent(self, event_ids: set[str]) -> set[str]:
        """Those the destination says it does not have, where it says so of one that nobody sent as well."""
        if not event_ids:
            return set()
        unknown = str(uuid.uuid4())
        answers = self._look(event_ids, unknown)
        if answers[unknown] != ABSENT:
            log.warning(
                "the destination answers %s for an event that was never sent, so its answers prove nothing",
                answers[unknown],
            )
            self._note({} if answers[unknown] != SHOWN else {unknown: IGNORED_FILTER})
            return set()
        return {event_id for event_id in event_ids if answers[event_id] == ABSENT}

    def _look(self, event_ids: set[str], *others: str) -> dict[str, str]:
        """Ask for these and others, and take those of these that are shown for sent."""
        asked = [*sorted(event_ids), *others]
        answers = dict.fromkeys(asked, EMPTY_PAGES) | dict(self._destination.look_for(asked))
        seen = {event_id for event_id in event_ids if answers[event_id] == SHOWN}
        record_outcomes(*self._place, sent=seen)
        self.verified += len(seen)
        self._note(answers)
        return answers

    def _note(self, answers: Mapping[str, str]) -> None:
        unclear = Counter(answer for answer in answers.values() if answer not in (SHOWN, ABSENT))
        self._unclear += unclear
        if unclear:
            log.warning("the destination did not honour the filter: %s of %d", dict(unclear), len(answers))

    def _pauses(self) -> Iterator[float]:
        pause = self._settings.verify_after * _FIRST_PAUSE
        while True:
            yield pause
            pause *= 2
