"""Sending a batch's events: ``sending`` committed before each request, every answer committed after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from operator import add
from typing import Any, Protocol

from include.instore import fault_points
from include.instore.destinations.doubts import Doubts
from include.instore.ledger import Ledger, deliveries
from include.instore.ledger.claims import hold
from include.instore.ledger.deliveries import OutgoingBatch, OutgoingOrder, Renewed, ready_orders, record_outcomes
from include.instore.model.destinations import ReadingSide
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import SendingSettings

_ROUNDS = 3
"""How often a batch is sent again after its doubts were settled, before the task is tried again as a whole."""
_SMALL_BULK = 12
"""Events; a hundred are cut into halves three times before nothing more is sent."""
_LEASE_SECONDS = 1.0
"""How long after `sending` was committed a request may leave without saying so again."""

log = logging.getLogger(__name__)


class EventOutcome(Protocol):
    """What became of one event that was handed to a destination."""

    @property
    def track_id(self) -> str: ...
    @property
    def state(self) -> str:
        """accepted, refused, unsent (certainly not taken) or ambiguous (nobody knows)."""
        ...

    @property
    def status_code(self) -> int | None: ...
    @property
    def detail(self) -> str: ...
    @property
    def retry_after(self) -> float | None:
        """Of an unsent one, the seconds after which the destination can be asked again; None when it did not say."""
        ...


class Destination(ReadingSide, Protocol):
    """Where events go. The Profile Store is one; another is one new file."""

    @property
    def bulk_events(self) -> int:
        """Events handed over at once, at most."""
        ...

    def event(self, order: OutgoingOrder) -> tuple[dict[str, Any], bool]:
        """The order's event with its ``trackId``, and whether it had to be truncated. :raises ValueError: none."""
        ...

    def send_events(
        self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
    ) -> Iterable[EventOutcome]:
        """Send events, each with its ``trackId``, and yield each one's outcome as soon as it is known.

        :param before_leaving: called before every single request, retries included; when it raises, nothing leaves.
        :raises ConfigurationError: refused as a whole until a person changes something; what has no outcome yet was
            not taken.
        """
        ...


@dataclass(frozen=True)
class Delivered:
    """What one batch's sending came to, in orders of this try.

    :param in_doubt: those of which a later run has to find out whether they were taken.
    :param held: those of which a person has to.
    """

    sent: int = 0
    rejected: int = 0
    verified: int = 0
    truncated: int = 0
    in_doubt: int = 0
    held: int = 0

    def __add__(self, other: Delivered) -> Delivered:
        return Delivered(*map(add, astuple(self), astuple(other)))


def send_batch(destination: Destination, ledger: Ledger, held: OutgoingBatch, settings: SendingSettings) -> Delivered:
    """Send the batch's ready orders, and find out what became of those that are in doubt, which hold up no other.

    Every destination has a task of its own: one that is down, or refuses, does not touch the others.

    With ``enable_track_events`` off nothing is sent and the orders stay ready.

    :raises ConfigurationError: the destination refuses everything until a person changes something.
    :raises RetriableError: the destination did not take all; what it did not take is ready, what is in doubt stays
        ``sending`` until it is known.
    """
    if not settings.enable_track_events:
        log.info("batch %d: INSTORE_ENABLE_TRACK_EVENTS is off; nothing is sent, its orders stay ready", held.batch)
        return Delivered()
    batch = held.batch
    hold(ledger, held)
    doubts = Doubts(destination, ledger, held, settings)
    tally = [Delivered()]
    size = destination.bulk_events
    for round_ in range(_ROUNDS):
        keys = ready_orders(ledger, held)
        if not keys and (round_ or not doubts.known()):
            break
        rest = keys
        while bulk := rest[: min(size, max(0, len(rest) - doubts.to_keep_back()))]:
            rest = rest[len(bulk) :]
            done, doubtful = _send(destination, ledger, held, settings, bulk)
            tally.append(done)
            if doubtful == len(bulk):
                # Something on the way may not let so large a body pass. Where a small one gets no answer either, it is
                # a service in trouble: settle these before putting more in doubt.
                size = max(1, len(bulk) // 2)
                log.warning("batch %d: %d events left without an answer; the next are %d", batch, doubtful, size)
                if len(bulk) <= _SMALL_BULK:
                    rest = rest[: doubts.to_keep_back()]

        def send_witnesses(kept: Sequence[str] = rest, at_once: int = size) -> None:
            for start in range(0, len(kept), at_once):
                part = kept[start : start + at_once]
                tally.append(_send(destination, ledger, held, settings, part)[0])

        if doubts.known():
            doubts.settle(send_witnesses)
    verified = Delivered(sent=doubts.verified, verified=doubts.verified, in_doubt=len(doubts.known()), held=doubts.held)
    delivered = sum(tally, verified)
    log.info(
        "batch %d: sent=%d rejected=%d verified=%d truncated=%d in_doubt=%d held=%d",
        batch, delivered.sent, delivered.rejected, delivered.verified, delivered.truncated, delivered.in_doubt,
        delivered.held,
    )  # fmt: skip
    if left := len(ready_orders(ledger, held)):
        raise RetriableError(f"{left} events of batch {batch} were never answered; they stay ready for the next try.")
    return delivered


def _send(
    destination: Destination, ledger: Ledger, held: OutgoingBatch, settings: SendingSettings, keys: Sequence[str]
) -> tuple[Delivered, int]:
    """Send one bulk; what it came to, and how many of its events left without an answer."""
    marked = deliveries.mark_sending(ledger, held, keys)
    lease = _Lease(ledger, held, {order.event_id: order.attempts for order in marked}, settings)
    events, truncated, rejected = _events_of(destination, marked)
    sent: list[str] = []
    unsent: list[str] = []
    doubtful = 0
    why_unsent, patience = "", None
    unanswered = {event["trackId"] for event in events}
    fault_points.reach("delivery.after_sending")
    try:
        for outcome in destination.send_events(events, lease.check):
            fault_points.reach("delivery.answered")
            unanswered.discard(outcome.track_id)
            if outcome.state == "accepted":
                sent.append(outcome.track_id)
            elif outcome.state == "refused":
                rejected[outcome.track_id] = f"{outcome.status_code}: {outcome.detail}"
            elif outcome.state == "unsent":
                unsent.append(outcome.track_id)
                why_unsent = why_unsent or outcome.detail
                patience = max(patience or 0.0, outcome.retry_after) if outcome.retry_after else patience
            else:
                doubtful += 1
    except ConfigurationError:
        unsent.extend(unanswered)
        raise
    finally:
        record_outcomes(
            ledger, held, sent=sent, rejected=rejected, unsent=unsent,
            truncated=len(truncated.intersection(sent)), attempts=lease.attempts,
        )  # fmt: skip
    for track_id, reason in rejected.items():
        log.warning("event %s was refused: %s", track_id, reason)
    if unsent:
        raise RetriableError(
            f"The destination did not accept {len(unsent)} of {len(events)} events "
            f"({why_unsent or 'no reason given'}); they stay ready, the next try sends them.",
            patience,
        )
    return Delivered(len(sent), len(rejected), 0, len(truncated.intersection(sent))), doubtful + len(unanswered)


def _events_of(
    destination: Destination, marked: Sequence[OutgoingOrder]
) -> tuple[list[dict[str, Any]], set[str], dict[str, str]]:
    """The events; the ids of those that are truncated; and of orders of which none can be made, by id, why."""
    events: list[dict[str, Any]] = []
    truncated: set[str] = set()
    rejected: dict[str, str] = {}
    for order in marked:
        try:
            event, cut = destination.event(order)
        except ValueError as error:  # one order of which no event can be made must not keep back its whole batch
            rejected[order.event_id] = f"no event can be built of it ({type(error).__name__})"
            continue
        if cut:
            truncated.add(order.event_id)
        events.append(event)
    return events, truncated, rejected


class _Lease:
    """The right of this try of the task to send what it has marked as ``sending``.

    Another try may work on the same batch: Airflow gives up a worker that hangs, and the worker goes on later. The
    other try sends an event again when it is not shown ``verify_after`` after its time of sending. So an event leaves
    only shortly after that time was committed; later, the time is committed again first, or the event does not leave.
    Each request but the first commits it again, and looks whether a person has been suppressed meanwhile.
    """

    def __init__(
        self, ledger: Ledger, held: OutgoingBatch, attempts: Mapping[str, int], settings: SendingSettings
    ) -> None:
        self.attempts = attempts
        self._place = ledger, held
        self._seconds = min(_LEASE_SECONDS, settings.verify_after / 4)
        self._until = time.monotonic() + self._seconds
        self._first = True

    def check(self) -> None:
        """:raises RetriableError: these events must not leave: another try has them, or somebody is suppressed."""
        fresh, self._first = self._first and time.monotonic() < self._until, False
        if fresh:
            return
        renewed = deliveries.renew_sending(*self._place, self.attempts)
        if renewed is Renewed.TAKEN_OVER:
            raise RetriableError(
                f"Another try of this task has taken over batch {self._place[1].batch}; this one sends nothing more."
            )
        if renewed is Renewed.SUPPRESSED:
            raise RetriableError(
                f"A person of batch {self._place[1].batch} has been suppressed while a request was tried again; what "
                "became of its events is verified by the next try, which sends the others."
            )
