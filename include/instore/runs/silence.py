"""Nothing came: which feeds and stores have been silent for longer than their own past explains.

An hour counts as much as its hour of the week usually brings in orders: a closed one nothing, a busy one much. Measured
so, the time between two orders is alike at noon and at night, and a store that is silent when it would be busy is found
sooner. A store or feed is silent once it misses more orders than twice the 99th percentile of its past gaps, and than
by chance alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from itertools import accumulate, pairwise
from zoneinfo import ZoneInfo

from include.instore.ledger.arrivals import Arrived, Silence, hour_of
from include.instore.model.settings import Settings

SEVERAL = "several stores"
_WEEK = 7 * 24
_PAST = 4 * _WEEK
_YOUNG = 2 * _WEEK
"""Hours of past below which it says too little."""

_CHANCE = 10.0
"""Orders: of gaps between independent orders one in 22,000 misses as many."""

_TIMES = 2.0
_FEW = 20
"""Orders in six weeks, of a store that says nothing by its silence."""

_NAMED_STORES = 5
"""More silent stores than these are one alert: it is hardly the stores."""


def silences(
    rows: Iterable[Arrived], now: datetime, feeds: Collection[str], since: datetime, settings: Settings
) -> dict[str, Silence | int | None]:
    """Every feed and store that can be judged: its silence, or None where it is as usual.

    The stores of a silent feed are not judged, nor those of one that nobody listened to; where more than five others
    are silent, their number is told for :data:`SEVERAL`.

    :param feeds: those that were read to their end by now.
    :param since: when the ledger's first run began: before it nothing is known.
    """
    by_feed: dict[str, Counter[int]] = {feed: Counter() for feed in feeds}
    by_store: dict[str, Counter[int]] = {}
    of_store: dict[str, set[str]] = {}
    for row in rows:
        if row.feed in by_feed:
            by_feed[row.feed][row.hour] += row.orders
        by_store.setdefault(row.store, Counter())[row.hour] += row.orders
        of_store.setdefault(row.store, set()).add(row.feed)
    judged: dict[str, Silence | int | None] = {
        feed: _silence(came, now, since, settings) for feed, came in by_feed.items()
    }
    heard = {feed for feed in feeds if judged[feed] is None}
    silent: dict[str, Silence] = {}
    for store, came in by_store.items():
        if not of_store[store] <= heard:
            continue
        found = None
        if sum(came.values()) >= _FEW:
            found = _silence(came, now, since, settings)
        judged[f"store {store}"] = found
        if found is not None:
            silent[f"store {store}"] = found
    judged[SEVERAL] = None
    if len(silent) > _NAMED_STORES:
        judged = {name: found for name, found in judged.items() if name not in silent} | {SEVERAL: len(silent)}
    return judged


def _silence(came: Mapping[int, int], now: datetime, since: datetime, settings: Settings) -> Silence | None:
    if not settings.alerts.alert_silence_hours:
        return None
    this_hour = hour_of(now)
    first, last = min(came, default=hour_of(since)), max(came, default=hour_of(since))
    if last - first < _YOUNG:
        hours = max(0, this_hour - last - 1)
        return Silence(hours) if hours >= settings.alerts.alert_silence_hours else None
    first = max(first, last - _PAST + 1)
    seen = Counter(hour % _WEEK for hour in range(first, last + 1))
    usual: Counter[int] = Counter()
    for hour, orders in came.items():
        if hour >= first:
            usual[hour % _WEEK] += orders

    def between(start: int, end: int) -> tuple[float, int]:
        """Orders that usually come in the hours after one and before another, and how many of these bring any."""
        return missed[end - 1 - first] - missed[start - first], opened[end - 1 - first] - opened[start - first]

    span = range(first, max(this_hour, last + 1))
    missed = list(accumulate(usual[hour % _WEEK] / max(1, seen[hour % _WEEK]) for hour in span))
    opened = list(accumulate(int(usual[hour % _WEEK] > 0) for hour in span))
    ends = sorted(hour for hour in came if hour >= first)
    gaps = [(*between(start, end), end) for start, end in pairwise(ends)]
    in_order = sorted(gap for gap, _, _ in gaps)
    limit = max(_CHANCE, _TIMES * in_order[-1 - len(in_order) // 100])
    now_missed, now_opened = between(last, max(this_hour, last + 1))
    if now_missed <= limit:
        return None
    zone = ZoneInfo(settings.orders.store_timezone)

    def weekday(hour: int) -> str:
        return f"{datetime.fromtimestamp(hour * 3600, timezone.utc).astimezone(zone):%A}"

    today = weekday(this_hour)
    longest = max((open_ for _, open_, end in gaps if weekday(end) == today), default=None)
    return Silence(now_opened, now_missed, longest, today)
