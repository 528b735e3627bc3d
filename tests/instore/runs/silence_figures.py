"""After how long a silent store is told, by its volume: ``python -m tests.instore.runs.silence_figures``.

The orders of the year's third-1 are dealt out to ever more stores, so that each has a share of them at the same hours.
Of one of these it prints how many orders it has, how many hours after it fell silent it is told, and what it would cost
to tell it after two hours, whatever its volume: the false alarms of eight ordinary weeks.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from include.instore.ledger.arrivals import KEPT_HOURS, Arrived, hour_of
from tests.instore.runs.test_silence import QUIET, WEEK, YEAR, judged, silent

STORE = "store one"
BUSY = (17, 20, 23)
"""Hours of the day, UTC, at which it falls silent: it is busy in those that follow."""
OPEN = frozenset(range(13, 24))
"""The hours of the day in which the stores of the year bring most of their orders."""
_LONGEST = 7 * 24
_FIRST = hour_of(QUIET)


@dataclass(frozen=True)
class Figures:
    """What was measured of one store.

    :param busy: orders in an hour, on an average of its busiest six. :param told: hours until it was told, by when it
        fell silent. :param alarms: false ones in eight weeks. :param at_two_hours: false ones, were it told after two
        open hours without an order.
    """

    orders_a_day: float
    busy: float
    told: Sequence[int]
    alarms: int
    at_two_hours: int

    def line(self) -> str:
        told = f"{median(self.told):g} ({min(self.told)} to {max(self.told)})"
        return f"{self.orders_a_day:>12.0f}{self.busy:>12.1f}{told:>18}{self.alarms:>8}{self.at_two_hours:>18}"


def a_share(of: int) -> list[Arrived]:
    """The orders of one store of so many, and those of the others beside it, from six weeks before the quiet weeks."""
    chance, rows = random.Random(of), []
    for row in YEAR:
        if row.store == "third-1" and _FIRST - KEPT_HOURS <= row.hour < _FIRST + 8 * WEEK + _LONGEST:
            mine = sum(chance.randrange(of) == 0 for _ in range(row.orders))
            dealt = (("one", mine), ("others", row.orders - mine))
            rows += [Arrived(row.hour, "topic", store, orders) for store, orders in dealt if orders]
            rows.append(Arrived(row.hour, "topic", "well", 1))  # the feed is never silent
    return rows


def measured(of: int, days: Sequence[int] = range(0, 7, 2), weeks: int = 8) -> Figures:
    """The figures of one store of so many. :param days: of the second quiet week, on which it falls silent."""
    rows = a_share(of)
    mine = Counter({row.hour: row.orders for row in rows if row.store == "one"})
    told = []
    for muted in (_FIRST + WEEK + day * 24 + hour for day in days for hour in BUSY):
        until = [row for row in rows if row.store != "one" or row.hour < muted]
        hours = range(muted + 1, muted + _LONGEST)
        told.append(next((hour - muted for hour in hours if STORE in silent(judged(until, hour))), _LONGEST))
    quiet = range(_FIRST, _FIRST + weeks * WEEK)
    by_hour = Counter({hour: sum(mine[each] for each in quiet if each % 24 == hour) for hour in range(24)})
    alarms = [STORE in silent(judged(rows, hour)) for hour in quiet]
    return Figures(
        sum(mine[hour] for hour in quiet) / 7 / weeks,
        sum(orders for _, orders in by_hour.most_common(6)) / 6 / 7 / weeks,
        told,
        sum(alarm and not before for before, alarm in zip([False, *alarms], alarms, strict=False)),
        sum(
            not (mine[hour] or mine[hour + 1]) and bool(mine[hour - 1])
            for hour in quiet
            if {hour % 24, (hour + 1) % 24} <= OPEN
        ),
    )


def main() -> None:
    print(f"{'orders a day':>12}{'busy hour':>12}{'told after, h':>18}{'false':>8}{'false, after 2 h':>18}")  # noqa: T201
    for of in (1, 2, 3, 4, 6, 8, 12, 20):
        print(measured(of).line(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
