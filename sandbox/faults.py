"""The fault knobs of the HTTP stand-ins: what goes wrong, on which call, decided without chance.

An *answer* in these settings is either a status (an integer) or an accident (a word):

    lost            the request is processed and committed, then the connection closes without an answer
    reset           the connection is reset before the request is processed
    html            200 with an HTML body, from something in between: the request is NOT processed
    html_404        404 with the same body, such as of a site under maintenance: the request is NOT processed
    accepted_html   the request is processed, its answer replaced by 200 with an HTML body
    truncated       the request is processed, the answer is well-formed HTTP but only the first half of its JSON
    cut             the request is processed, the connection closes in the middle of the promised body
    slow            the request is processed, the body of the answer dribbles over `slow_seconds`
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from fractions import Fraction
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Accident = Literal["lost", "reset", "html", "html_404", "accepted_html", "truncated", "cut", "slow"]
Answer = Annotated[int, Field(ge=200, le=599)] | Accident

# Accidents in which the service never sees the request.
UNPROCESSED: frozenset[str] = frozenset({"reset", "html", "html_404"})

EVERY_CALL = "*"


class GivenAnswer(BaseModel):
    """An answer word for word. body: a text goes out as it is, anything else as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: int = Field(default=200, ge=200, le=599)
    body: Any = ""
    headers: dict[str, str] = {}


class FaultSettings(BaseModel):
    """What a stand-in does wrong. The default is nothing.

    share: the part of the calls (0 to 1) that get an entry of `answers`, spread evenly: 0.1 is every tenth call.
    answers: statuses or accidents, taken in turn by the calls that `share` picks.
    only: operations the faults are limited to, by the beginning of their name, such as "POST " or
        "GET /api/v1.0/trackevents/"; empty means every operation. Calls outside are not counted for `share`.
    script: answers per order number or loyalty card, one used up by each call concerning it; 2xx means "process
        normally". A call concerning several takes a step of each, and the first that is not 2xx decides.
    given: answers word for word per order number or loyalty card, or "*" for every call; the request is NOT processed.
    largest_body: bytes; a call with a larger body is reset before it is processed, as by a proxy in between.
    refuse: order numbers or cards answered 400 for good. A bulk request with one of them is refused whole.
    retry_after: the Retry-After header of fault answers: seconds, "date+N" for an HTTP date N seconds ahead, or any
        other text exactly as it is.
    retry_after_statuses: the statuses that carry it.
    latency: seconds every call waits before it is looked at.
    slow_seconds: how long the body of a `slow` answer takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(default=0, ge=0, le=1)
    answers: tuple[Answer, ...] = Field(default=(503,), min_length=1)
    only: tuple[str, ...] = ()
    script: dict[str, tuple[Answer, ...]] = {}
    given: dict[str, GivenAnswer] = {}
    largest_body: int | None = Field(default=None, ge=0)
    refuse: frozenset[str] = frozenset()
    retry_after: int | str | None = None
    retry_after_statuses: tuple[int, ...] = (429, 503)
    latency: float = Field(default=0, ge=0)
    slow_seconds: float = Field(default=2, ge=0)


SettingsT = TypeVar("SettingsT", bound=FaultSettings)


class Faults(Generic[SettingsT]):
    """Decides, call by call, what goes wrong. Two equal sequences of calls meet equal faults."""

    def __init__(self, settings: SettingsT) -> None:
        # Tests replace the settings from their own thread while the server's thread reads them.
        self._lock = threading.Lock()
        self.settings = settings
        self._calls = 0
        self._picked = 0
        self._steps: dict[str, int] = {}

    def replace(self, settings: SettingsT) -> None:
        """Take new settings and start all counting anew."""
        with self._lock:
            self.settings = settings
            self._calls = self._picked = 0
            self._steps = {}

    def next_answer(self, operation: str, subjects: Iterable[str]) -> Answer | None:
        """Return the fault for this call, or None when it is to be processed normally.

        operation: the call's name, such as "POST /api/v1.0/Track".
        subjects: the order numbers or cards it concerns.
        """
        with self._lock:
            settings = self.settings
            if settings.only and not operation.startswith(settings.only):
                return None
            scripted = self._scripted(settings, subjects)
            # Exact arithmetic: with floats, the 29th of 100 calls at 0.29 would be forgotten.
            share = Fraction(str(settings.share))
            self._calls += 1
            if int(self._calls * share) > int((self._calls - 1) * share):
                self._picked += 1
                picked: Answer | None = settings.answers[(self._picked - 1) % len(settings.answers)]
            else:
                picked = None
            return scripted if scripted is not None else picked

    def _scripted(self, settings: SettingsT, subjects: Iterable[str]) -> Answer | None:
        decided: Answer | None = None
        for subject in subjects:
            script = settings.script.get(subject, ())
            step = self._steps.get(subject, 0)
            if step >= len(script):
                continue
            self._steps[subject] = step + 1
            answer = script[step]
            passes = isinstance(answer, int) and answer < 300
            if decided is None and not passes:
                decided = answer
        return decided

    def given_answer(self, operation: str, subjects: Iterable[str]) -> GivenAnswer | None:
        """Return the answer that is given to this call word for word, or None."""
        settings = self.settings
        if settings.only and not operation.startswith(settings.only):
            return None
        return next((settings.given[each] for each in (*subjects, EVERY_CALL) if each in settings.given), None)

    def refuses(self, subjects: Iterable[str]) -> bool:
        """Return whether one of these order numbers or cards is to be refused with 400."""
        refuse = self.settings.refuse
        return bool(refuse) and any(subject in refuse for subject in subjects)

    def retry_after(self, status: int) -> str | None:
        """Return the Retry-After header's value for a fault answer of this status, or None for no header."""
        settings = self.settings
        if settings.retry_after is None or status not in settings.retry_after_statuses:
            return None
        value = str(settings.retry_after)
        if value.startswith("date+"):
            when = datetime.now(timezone.utc) + timedelta(seconds=float(value[len("date+") :]))
            return format_datetime(when, usegmt=True)
        return value
