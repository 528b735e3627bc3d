"""Reading back what the previous run sent: a sample, of what had the time to show, and what cannot be told by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.tables import runs
from include.instore.model.destinations import PROFILE_STORE
from include.instore.model.errors import RetriableError
from include.instore.model.settings import Settings
from include.instore.runs.read_back import ReadBack, read_back
from tests.instore import given

MakeSettings = Callable[..., Settings]


class Reading:
    """A reading side that shows all but some, or answers in its own way."""

    def __init__(self, *, hides: Iterable[str] = (), answer: str = "absent", reads_back: bool = True) -> None:
        self.hides = set(hides)
        self.answer = answer
        self.reads_back = reads_back
        self.asked: list[str] = []

    def look_for(self, event_ids: Iterable[str]) -> Mapping[str, str]:
        self.asked += event_ids
        if self.answer == "away":
            raise RetriableError("away")
        return {each: self.answer if each in self.hides else "shown" for each in self.asked}


def sent(ledger: Ledger, run: str, *numbers: str, hours: float = 1) -> list[str]:
    """Orders that a run sent so many hours ago; their event ids."""
    given.ready(ledger, *numbers, run=given.run(run))
    its = given.orders.c.order_number.in_(numbers)
    given.set_orders(ledger, its, status="sent", outcome_run=run, sent_at=given.hours_ago(hours))
    with ledger.engine.begin() as connection:
        connection.execute(sa.update(runs).where(runs.c.run_id == run).values(started_at=given.hours_ago(hours)))
    return [given.row(ledger, number)["event_id"] for number in numbers]


def back(ledger: Ledger, reading: Reading, settings: Settings, run: str = "run-9") -> ReadBack:
    @contextmanager
    def opened() -> Iterator[Reading]:
        yield reading

    given.landed(ledger, run=given.run(run))
    return read_back(opened, PROFILE_STORE, ledger, run, settings.sending)


def test_a_sample_of_what_the_previous_run_sent_is_asked_for_and_no_other(
    ledger: Ledger, settings: MakeSettings
) -> None:
    sent(ledger, "run-1", "A1", "A2", hours=2)
    events = sent(ledger, "run-2", *(f"B{number}" for number in range(30)))
    reading = Reading()
    assert back(ledger, reading, settings()) == ReadBack("on", asked=20)
    assert set(reading.asked) <= set(events)
    assert back(ledger, Reading(), settings(read_back_sample=0), "run-10") == ReadBack("on")


def test_those_that_are_not_shown_are_counted_and_stay_sent(ledger: Ledger, settings: MakeSettings) -> None:
    events = sent(ledger, "run-1", "A1", "A2", "A3")
    assert back(ledger, Reading(hides=events[:2]), settings()) == ReadBack("on", asked=3, not_visible=2)
    assert set(given.statuses(ledger).values()) == {"sent"}


def test_a_run_that_sent_nothing_is_passed_over(ledger: Ledger, settings: MakeSettings) -> None:
    sent(ledger, "run-1", "A1")
    given.landed(ledger, run=given.run("run-2"))
    assert back(ledger, Reading(), settings()).asked == 1


def test_what_left_a_moment_ago_has_the_time_to_show(ledger: Ledger, settings: MakeSettings) -> None:
    (event,) = sent(ledger, "run-1", "A1", hours=50 / 3600)
    assert back(ledger, Reading(hides=[event]), settings(verify_after=60)) == ReadBack("on")
    assert back(ledger, Reading(hides=[event]), settings(verify_after=40), "run-10").not_visible == 1


@pytest.mark.parametrize("word", ["ignored_filter", "empty_pages", "away"])
def test_what_keeps_events_from_being_read_back_is_said_by_name(
    ledger: Ledger, settings: MakeSettings, word: str
) -> None:
    events = sent(ledger, "run-1", "A1", "A2")
    assert back(ledger, Reading(hides=events[:1], answer=word), settings()) == ReadBack(word, asked=2)


def test_without_a_reading_side_it_is_off(ledger: Ledger, settings: MakeSettings) -> None:
    sent(ledger, "run-1", "A1")
    assert back(ledger, Reading(reads_back=False), settings()) == ReadBack("off")
