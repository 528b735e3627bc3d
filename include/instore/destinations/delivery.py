"""Sending a batch's events: ``sending`` committed before each request, every answer committed after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from operator import add
from typing import Any, Protocol

from include.instore import fault_points
from include.instore.ledger import Ledger, deliveries
from include.instore.ledger.claims import hold
from include.instore.ledger.deliveries import give_back, in_doubt, ready_orders, record_outcomes
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.events import build_event
from include.instore.model.settings import Settings

_ROUNDS = 3
"""How often a batch is sent again after its doubts were settled, before the task is tried again as a whole."""
_POLL_SECONDS = 1.0
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


class Destination(Protocol):
    """Where events go. The Profile Store is one; another is one new file."""

    def send_events(
        self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
    ) -> Iterable[EventOutcome]:
        """Send events, each with its ``trackId``, and yield each one's outcome as soon as it is known.

        :param before_leaving: called before every single request, retries included; when it raises, nothing leaves.
        :raises ConfigurationError: refused as a whole until a person changes something; what has no outcome yet was
            not taken.
        """
        ...

    def sent_track_ids(self, track_ids: Iterable[str]) -> set[str]:
        """Those of the track ids that the destination already shows. :raises RetriableError: it cannot be asked."""
        ...


@dataclass(frozen=True)
class Delivered:
    """What one batch's sending came to, in orders of this try."""

    sent: int = 0
    rejected: int = 0
    verified: int = 0
    truncated: int = 0

    def __add__(self, other: Delivered) -> Delivered:
        return Delivered(*map(add, astuple(self), astuple(other)))


def send_batch(destination: Destination, ledger: Ledger, run_id: str, batch: int, settings: Settings) -> Delivered:
    """Send the batch's ready orders, after settling what an earlier try left in ``sending``.

    With ``enable_track_events`` off nothing is sent and the orders stay ready.

    :raises ConfigurationError: the destination refuses everything until a person changes something.
    :raises RetriableError: the destination did not take all; what it did not take is ready, what is in doubt is
        ``sending`` and is checked before anything is sent again.
    """
    if not settings.enable_track_events:
        log.info("batch %d: INSTORE_ENABLE_TRACK_EVENTS is off; nothing is sent, its orders stay ready", batch)
        return Delivered()
    hold(ledger, run_id, batch)
    delivered = _settle_doubts(destination, ledger, run_id, batch, settings)
    for _ in range(_ROUNDS):
        keys = ready_orders(ledger, run_id, batch)
        if not keys:
            break
        for start in range(0, len(keys), settings.bulk_events):
            delivered += _send(destination, ledger, run_id, batch, settings, keys[start : start + settings.bulk_events])
        delivered += _settle_doubts(destination, ledger, run_id, batch, settings)
    log.info(
        "batch %d: sent=%d rejected=%d verified=%d truncated=%d",
        batch, delivered.sent, delivered.rejected, delivered.verified, delivered.truncated,
    )  # fmt: skip
    if left := len(ready_orders(ledger, run_id, batch)):
        raise RetriableError(f"{left} events of batch {batch} were never answered; they stay ready for the next try.")
    return delivered


def _send(
    destination: Destination, ledger: Ledger, run_id: str, batch: int, settings: Settings, keys: Sequence[str]
) -> Delivered:
    events: list[dict[str, Any]] = []
    truncated: set[str] = set()
    marked = deliveries.mark_sending(ledger, run_id, batch, keys)
    lease = _Lease(ledger, run_id, batch, {order.event_id: order.attempts for order in marked}, settings)
    rejected: dict[str, str] = {}
    for order in marked:
        try:
            event, cut = build_event(
                track_id=order.event_id,
                order_type=order.order_type,
                order_time=order.order_time,
                payload=order.payload,
                email=order.email,
                settings=settings,
            )
        except ValueError as error:  # one order of which no event can be made must not keep back its whole batch
            rejected[order.event_id] = f"no event can be built of it ({type(error).__name__})"
            continue
        if cut:
            truncated.add(order.event_id)
        events.append(event)
    sent: list[str] = []
    unsent: list[str] = []
    doubtful: list[str] = []
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
                doubtful.append(outcome.track_id)
    except ConfigurationError:
        unsent.extend(unanswered)
        raise
    finally:
        record_outcomes(
            ledger, run_id, batch, sent=sent, rejected=rejected, unsent=unsent,
            truncated=len(truncated.intersection(sent)), attempts=lease.attempts,
        )  # fmt: skip
    for track_id, reason in rejected.items():
        log.warning("event %s was refused: %s", track_id, reason)
    if unsent:
        raise RetriableError(
            f"The destination did not take {len(unsent)} of {len(events)} events ({why_unsent or 'no reason given'}); "
            "they stay ready, the next try sends them.",
            patience,
        )
    if doubtful and len(doubtful) == len(events):
        # A whole bulk in doubt is a service in trouble: settle these before putting more in doubt.
        log.warning("%d events left without an answer", len(doubtful))
        return _settle_doubts(destination, ledger, run_id, batch, settings)
    return Delivered(len(sent), len(rejected), 0, len(truncated.intersection(sent)))


class _Lease:
    """The right of this try to send what it has marked.

    Another try may be at work on the same batch: Airflow takes a worker for dead that only hangs. Whoever finds these
    events missing ``verify_after`` after they left sends them itself; so they leave soon after that moment was
    committed, or it is committed anew, or they do not leave.
    """

    def __init__(
        self, ledger: Ledger, run_id: str, batch: int, attempts: Mapping[str, int], settings: Settings
    ) -> None:
        self.attempts = attempts
        self._place = ledger, run_id, batch
        self._seconds = min(_LEASE_SECONDS, settings.verify_after / 4)
        self._until = time.monotonic() + self._seconds

    def check(self) -> None:
        """:raises RetriableError: another try of the task has these events; they must not leave."""
        if time.monotonic() < self._until:
            return
        if not deliveries.renew_sending(*self._place, self.attempts):
            raise RetriableError(
                f"Another try of this task has taken over batch {self._place[2]}; this one sends nothing more."
            )
        self._until = time.monotonic() + self._seconds


def _settle_doubts(destination: Destination, ledger: Ledger, run_id: str, batch: int, settings: Settings) -> Delivered:
    """What became of a request that died is asked, not guessed (invariant 4)."""
    doubts = in_doubt(ledger, run_id, batch)
    if not doubts or settings.on_ambiguous == "hold":
        return Delivered()
    if settings.on_ambiguous == "resend":
        give_back(ledger, run_id, batch, doubts)
        log.warning("batch %d: %d events in doubt are sent again, by INSTORE_ON_AMBIGUOUS", batch, len(doubts))
        return Delivered()
    # By the wait of this process, not by the ledger's times: another machine's clock may be wrong. A request that left
    # once more meanwhile is a new doubt.
    known_since: dict[tuple[str, datetime], float] = {}
    verified = 0
    while doubts:
        # Looked at before asking: only an answer given after the wait proves absence (ingest is asynchronous).
        now = time.monotonic()
        seen = destination.sent_track_ids(list(doubts)) & set(doubts)
        absent = {
            track_id: left_at
            for track_id, left_at in doubts.items()
            if track_id not in seen and now - known_since.setdefault((track_id, left_at), now) >= settings.verify_after
        }
        record_outcomes(ledger, run_id, batch, sent=seen)
        give_back(ledger, run_id, batch, absent)
        verified += len(seen)
        doubts = in_doubt(ledger, run_id, batch)
        if doubts:
            time.sleep(_POLL_SECONDS)
    return Delivered(sent=verified, verified=verified)
