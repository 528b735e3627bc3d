"""Nothing came: feeds and stores against their own past, in a year of real shopping and in made-up hours."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.arrivals import (
    KEPT_HOURS,
    Arrived,
    Silence,
    first_run_at,
    hour_of,
    note_arrivals,
    recent_arrivals,
)
from include.instore.model.settings import load_settings
from include.instore.runs.silence import SEVERAL, silences
from tests.instore import given

WEEK = 7 * 24
START = given.moment("2017-01-01")
SETTINGS = load_settings(store_timezone="UTC")
QUIET = given.moment("2017-05-21")
"""Eight weeks begin here without a day on which shops are closed."""


def year() -> list[Arrived]:
    path = Path(__file__).parent / "year/hours.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [Arrived(int(row["hour"]), "topic", row["store"], int(row["orders"])) for row in csv.DictReader(file)]


YEAR = year()


def at(hour: int) -> datetime:
    """Ten minutes past an hour."""
    return datetime.fromtimestamp(hour * 3600 + 600, timezone.utc)


def judged(
    rows: Iterable[Arrived], hour: int, feeds: Sequence[str] = ("topic",), since: datetime = START, **settings: object
) -> dict[str, Silence | int | None]:
    """As a report of ten past the hour does it, which has what came before the hour."""
    known = [row for row in rows if hour - KEPT_HOURS <= row.hour < hour]
    return silences(known, at(hour), feeds, since, SETTINGS.having(**settings))


def silent(found: dict[str, Silence | int | None]) -> list[str]:
    return [name for name, silence in found.items() if silence]


def test_in_eight_ordinary_weeks_of_the_year_nobody_is_silent() -> None:
    first = hour_of(QUIET)
    rows = [row for row in YEAR if first - KEPT_HOURS <= row.hour < first + 8 * WEEK]
    alarms = {}
    for hour in range(first, first + 8 * WEEK):
        if found := silent(judged(rows, hour)):
            alarms[hour] = found
    assert alarms == {}


@pytest.mark.parametrize("day", [0, 2, 4, 6])
@pytest.mark.parametrize("hour", [17, 20, 23])
@pytest.mark.parametrize("store", ["third-0", "third-1", "third-2"])
def test_a_store_of_the_year_that_falls_silent_in_its_busy_hours_is_told_within_two_hours(
    store: str, hour: int, day: int
) -> None:
    """They bring five to twenty orders an hour then."""
    muted = hour_of(QUIET) + WEEK + day * 24 + hour
    rows = [row for row in YEAR if row.store != store or row.hour < muted]
    assert f"store {store}" not in silent(judged(rows, muted))
    found = judged(rows, muted + 2)
    assert silent(found) == [f"store {store}"]
    silence = found[f"store {store}"]
    assert isinstance(silence, Silence)
    assert silence.hours == 2


def test_a_store_of_eight_orders_a_day_is_told_once_it_misses_more_than_chance_explains() -> None:
    muted = hour_of(QUIET) + WEEK + 12
    rows = [row for row in YEAR if row.store != "0361" or row.hour < muted]
    told = next(hour for hour in range(muted, muted + 96) if silent(judged(rows, hour)))
    assert 2 < told - muted <= 24


def test_the_figures_say_that_a_small_store_cannot_be_told_within_two_hours() -> None:
    from tests.instore.runs.silence_figures import measured

    small = measured(12, days=[2], weeks=1)
    assert (small.alarms, min(small.told) > 2, small.at_two_hours > 0) == (0, True, True)


def test_a_feed_that_falls_silent_is_told_once_and_its_stores_are_not() -> None:
    muted = hour_of(QUIET) + WEEK + 20
    found = judged([row for row in YEAR if row.hour < muted], muted + 1)
    assert silent(found) == ["topic"]
    assert set(found) == {"topic", SEVERAL}


def steady(hours: Iterable[int], store: str = "0404", feed: str = "topic", orders: int = 6) -> list[Arrived]:
    return [Arrived(hour, feed, store, orders) for hour in hours]


def opening(weeks: int, last: int, opens: int = 9, closes: int = 19, days: int = 6) -> list[int]:
    """The hours of weeks up to one in which a store is open; hour 0 of the epoch is a Thursday's."""
    return [
        hour for hour in range(last - weeks * WEEK, last + 1) if opens <= hour % 24 < closes and hour // 24 % 7 < days
    ]


FRIDAY = hour_of(given.moment("2026-11-27"))


def test_a_night_and_a_closed_day_are_no_silence() -> None:
    rows = steady(opening(5, FRIDAY + 18))
    for hour in range(FRIDAY + 19, FRIDAY + 24 + 9):
        assert silent(judged(rows, hour)) == []


def test_it_says_for_how_many_hours_in_which_there_usually_are_orders_and_how_long_a_gap_was_before() -> None:
    open_hours = [hour for hour in opening(5, FRIDAY + 24 + 10) if hour != FRIDAY - 6 * 24 + 12]
    others = steady(range(FRIDAY - 5 * WEEK, FRIDAY + WEEK), "other")
    found = judged(steady(open_hours) + others, FRIDAY + 24 + 13)
    assert found["store 0404"] == Silence(2, 10.5, 1, "Saturday")


def test_without_a_past_a_feed_is_told_after_so_many_hours() -> None:
    rows = steady(range(FRIDAY - 100, FRIDAY))
    assert silent(judged(rows, FRIDAY + 47)) == []
    assert judged(rows, FRIDAY + 48) == {"topic": Silence(48), SEVERAL: None}
    assert judged([], hour_of(START) + 49, ["extract"]) == {"extract": Silence(48), SEVERAL: None}
    assert silent(judged([], hour_of(START) + 48, ["extract"])) == []


def test_a_new_store_is_told_likewise_but_for_one_of_a_few_orders() -> None:
    others = steady(range(FRIDAY - 5 * WEEK, FRIDAY + 48), "other")
    rows = steady(range(FRIDAY - 10, FRIDAY), "new") + steady([FRIDAY - 1], "once") + others
    assert silent(judged(rows, FRIDAY + 47)) == []
    assert judged(rows, FRIDAY + 48)["store new"] == Silence(48)
    assert silent(judged(rows, FRIDAY + 48)) == ["store new"]


def test_switched_off_nobody_is_silent_and_what_was_told_ends() -> None:
    rows = steady(opening(5, FRIDAY + 10))
    assert silent(judged(rows, FRIDAY + 15)) == ["topic"]
    assert judged(rows, FRIDAY + 15, alert_silence_hours=0)["topic"] is None


def test_a_feed_that_nobody_listened_to_is_not_judged_nor_are_its_stores() -> None:
    rows = steady(opening(5, FRIDAY + 10)) + steady(range(FRIDAY - 5 * WEEK, FRIDAY + 24), "0505", "extract")
    assert judged(rows, FRIDAY + 15, ["extract"]) == {"extract": None, "store 0505": None, SEVERAL: None}


def test_more_than_five_silent_stores_are_one_alert() -> None:
    rows = steady(range(FRIDAY - 5 * WEEK, FRIDAY + 24), "well")
    for number in range(5):
        rows += steady(opening(5, FRIDAY + 10), f"s{number}")
    assert silent(judged(rows, FRIDAY + 15)) == [f"store s{number}" for number in range(5)]
    rows += steady(opening(5, FRIDAY + 10), "s5")
    found = judged(rows, FRIDAY + 15)
    assert found == {"topic": None, "store well": None, SEVERAL: 6}


def test_orders_are_counted_by_the_hour_they_were_published_also_those_that_are_known(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"), given.document("S3", storeId="0505"))
    given.landed(ledger, given.document("S1"), run=given.run("run-2"))
    now = datetime.now(timezone.utc)
    found = recent_arrivals(ledger, now)
    assert sum(row.orders for row in found if row.store == "0404") == 3
    assert sum(row.orders for row in found if row.store == "0505") == 1
    assert {row.feed for row in found} == {"topic"}
    assert all(hour_of(now) - 1 <= row.hour <= hour_of(now) for row in found)
    assert abs((now - first_run_at(ledger)).total_seconds()) < 60


def test_what_is_older_than_six_weeks_is_forgotten(ledger: Ledger) -> None:
    now = datetime.now(timezone.utc)
    with ledger.write() as connection:
        for age in (timedelta(hours=1), timedelta(hours=KEPT_HOURS), timedelta(hours=KEPT_HOURS + 1)):
            note_arrivals(ledger, connection, [(now - age, "topic", "0404")] * 2)
    assert [row.orders for row in recent_arrivals(ledger, now)] == [2, 2]
