"""The ledger in figures: orders by day, store, source or hour; what is not delivered, and until when; runs and files.

None of it reads all orders: what came is counted from one index, and of the delivered ones it is known that they are
the others, since each matched order has a delivery wherever it goes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import alerts, arrivals, contents, deliveries, extracts, orders, quarantine, runs
from include.instore.model.codes import CODES, CORRECTED_AFTER_SENT, LEFT_FILES, UNREAD_FILES, code_of
from include.instore.model.settings import Settings
from include.instore.model.states import ContentState, DeliveryStatus, ExtractState, RecordState, Status

_PLACE = {
    Status.PENDING.value: "waiting", Status.UNMATCHED.value: "unmatched", Status.SUPPRESSED.value: "suppressed",
    Status.MATCHED.value: "delivered", DeliveryStatus.HELD.value: "set_aside",
    DeliveryStatus.REJECTED.value: "set_aside", DeliveryStatus.SENDING.value: "waiting",
    DeliveryStatus.READY.value: "waiting", DeliveryStatus.CANCELLED.value: "set_aside",
}  # fmt: skip
_NOT_SENT = ("held", "rejected", "sending", "ready", "cancelled", "suppressed")
"""Of an order that goes to several destinations the one counts where it fares worst: the first of these."""

_MATCHED = sa.func.coalesce(orders.c.status, "") == Status.MATCHED.value
"""Not the column by itself: SQLite would look each of the matched up in the index of statuses, which are most."""

_FINAL_DAYS = 30
"""Days since its arrival for which an order that stays without a customer is listed: they are more every day."""

COUNTED = ("received", "orders", "sent", "unmatched", "suppressed", "quarantined", "rejected", "carried_over")
"""What is listed of a run."""


class By(str, Enum):
    """What orders are added up by; a day is the store's, an hour is of UTC."""

    DAY = "day"
    STORE = "store"
    SOURCE = "source"
    HOUR = "hour"


@dataclass
class Line:
    """Orders of one group: ``received = delivered + waiting + unmatched + suppressed + set_aside``.

    :param set_aside: rejected, held or cancelled. :param matched: those whose customer is known, wherever they are.
    :param quarantined: records that came (by UTC) and are no orders; they have no store.
    """

    group: str
    received: int = 0
    delivered: int = 0
    waiting: int = 0
    unmatched: int = 0
    suppressed: int = 0
    set_aside: int = 0
    quarantined: int = 0
    matched: int = 0
    unmatched_by: dict[str, int] = field(default_factory=dict)

    def add(self, place: str, count: int) -> None:
        """Count these orders there."""
        setattr(self, place, getattr(self, place) + count)

    def shown(self) -> dict[str, Any]:
        """What people see of it, with the share of the orders searched whose customer was found."""
        searched = self.matched + self.unmatched
        counts = {name: value for name, value in vars(self).items() if name != "matched"}
        return counts | {"match_rate": self.matched / searched if searched else None}


def report(ledger: Ledger, by: By, first: date, last: date) -> list[Line]:
    """The orders of these days, both included, by day, store, source or hour."""
    of_days = (orders.c.day >= first.isoformat(), orders.c.day <= last.isoformat())
    hour = _text(ledger, orders.c.order_time, 13)
    group = {By.DAY: orders.c.day, By.STORE: orders.c.store_id, By.SOURCE: orders.c.source, By.HOUR: hour}[by]
    by_place = (group, orders.c.status, orders.c.reason)
    came = sa.select(*by_place, sa.func.count()).where(*of_days).group_by(*by_place)
    rank = sa.case({status: rank for rank, status in enumerate(_NOT_SENT)}, value=deliveries.c.status)
    stuck = (
        sa.select(group.label("group"), sa.func.min(rank).label("rank"))
        .join(deliveries, deliveries.c.key == orders.c.key)
        .where(deliveries.c.status.in_(_NOT_SENT), deliveries.c.is_latest)
        .where(_MATCHED, *of_days)
        .group_by(orders.c.key, group)
        .subquery()
    )
    undelivered = sa.select(stuck.c.group, stuck.c.rank, sa.func.count()).group_by(stuck.c.group, stuck.c.rank)
    lines: dict[str, Line] = {}
    with ledger.read() as connection:
        for name, status, reason, count in connection.execute(came):
            line = lines.setdefault(name, Line(name))
            line.add("received", count)
            line.add(_PLACE[status], count)
            if status == Status.MATCHED.value:
                line.add("matched", count)
            elif status == Status.UNMATCHED.value:
                line.unmatched_by[reason or "unknown"] = count + line.unmatched_by.get(reason or "unknown", 0)
        for name, rank_found, count in connection.execute(undelivered):
            lines[name].add("delivered", -count)
            lines[name].add(_PLACE[_NOT_SENT[rank_found]], count)
        for name, count in connection.execute(_refused(ledger, by, first, last)):
            lines.setdefault(name, Line(name)).quarantined = count
    return [lines[name] for name in sorted(lines)]


def total(lines: Iterable[Line], group: str = "total") -> Line:
    """All of them added up."""
    whole = Line(group)
    for line in lines:
        for name, value in vars(line).items():
            if isinstance(value, int):
                whole.add(name, value)
        for reason, count in line.unmatched_by.items():
            whole.unmatched_by[reason] = whole.unmatched_by.get(reason, 0) + count
    return whole


def _refused(ledger: Ledger, by: By, first: date, last: date) -> sa.Select[Any]:
    came = quarantine.c.received_at
    group = quarantine.c.source if by is By.SOURCE else _text(ledger, came, 13 if by is By.HOUR else 10)
    begins, ends = (datetime(day.year, day.month, day.day, tzinfo=timezone.utc) for day in (first, last))
    waits = (quarantine.c.state == RecordState.QUARANTINED.value, came >= begins, came < ends + timedelta(days=1))
    return sa.select(group, sa.func.count()).where(*waits, sa.literal(by is not By.STORE)).group_by(group)


def _text(ledger: Ledger, moment: sa.Column[datetime], characters: int) -> sa.ColumnElement[str]:
    """The first characters of a moment in UTC, written as SQLite keeps it: ``2017-06-05 10``."""
    utc = moment if ledger.engine.dialect.name == "sqlite" else sa.func.timezone("UTC", moment)
    text = sa.cast(sa.type_coerce(utc, sa.String), sa.String)
    return sa.func.substr(text, 1, sa.literal_column(str(characters)))


def undelivered(ledger: Ledger, settings: Settings) -> list[dict[str, Any]]:
    """What has not arrived, the oldest first: cause, reason, count, oldest, and when or by whom it will be gone."""
    lately = datetime.now(timezone.utc) - timedelta(days=_FINAL_DAYS)
    since, how_many = sa.func.min(orders.c.received_at), sa.func.count()
    next_one = sa.func.min(orders.c.next_attempt)
    searched = sa.union_all(
        *(
            sa.select(orders.c.status, orders.c.reason, how_many, since, next_one)
            .where(orders.c.status == status, *when)
            .group_by(orders.c.status, orders.c.reason)
            for status, when in (
                (Status.PENDING.value, ()),
                (Status.UNMATCHED.value, (orders.c.next_attempt.is_(None), orders.c.received_at >= lately)),
                (Status.UNMATCHED.value, (orders.c.next_attempt.is_not(None),)),
            )
        )
    )
    where = (deliveries.c.destination, deliveries.c.status, deliveries.c.reason)
    on_the_way = (
        sa.select(*where, how_many, since, sa.func.min(deliveries.c.sending_at))
        .join(orders, orders.c.key == deliveries.c.key)
        .where(deliveries.c.status.in_(_NOT_SENT[:-1]), deliveries.c.is_latest)
        .where(_MATCHED)
        .group_by(*where)
    )
    refused = (
        sa.select(quarantine.c.reason, how_many, sa.func.min(quarantine.c.received_at))
        .where(quarantine.c.state == RecordState.QUARANTINED.value)
        .group_by(quarantine.c.reason)
    )
    late = sa.select(how_many, sa.func.min(contents.c.received_at))
    late = late.where(contents.c.state == ContentState.AFTER_SENDING.value)
    unread = (
        sa.select(extracts.c.state, how_many, sa.func.min(extracts.c.loaded_at))
        .where(extracts.c.state.in_([ExtractState.WAITING.value, ExtractState.LEFT.value]))
        .group_by(extracts.c.state)
    )
    found = []
    with ledger.read() as connection:
        by_rate = _gone_by_rate(connection)
        for status, reason, count, oldest, attempt in connection.execute(searched):
            gone = f"never: their customers are not searched any more; those of the last {_FINAL_DAYS} days"
            if status == Status.PENDING.value:
                gone = by_rate(count)
            elif attempt:
                last = oldest + timedelta(days=settings.lookups.unmatched_expiry_days)
                gone = f"searched again from {attempt:%Y-%m-%d %H:%M} on, the oldest until {last:%Y-%m-%d}"
            found.append((status, reason, count, oldest, gone))
        for destination, status, reason, count, oldest, left_at in connection.execute(on_the_way):
            gone = by_rate(count) if status == DeliveryStatus.READY.value else _by_a_person(status)
            if status == DeliveryStatus.CANCELLED.value:
                gone = "once their destination is on, by a backfill that names it"
            elif status == DeliveryStatus.SENDING.value and left_at:
                held = left_at + timedelta(hours=settings.sending.doubt_hours)
                gone = f"when a run finds out; held from {held:%Y-%m-%d %H:%M} on"
            found.append((status, ": ".join(filter(None, (destination, reason))), count, oldest, gone))
        for reason, count, oldest in connection.execute(refused):
            found.append(("quarantined", reason, count, oldest, _by_a_person(reason)))
        for state, count, oldest in connection.execute(unread):
            code = UNREAD_FILES if state == ExtractState.WAITING.value else LEFT_FILES
            found.append((f"{state} file", "", count, oldest, _by_a_person(code)))
        for count, oldest in connection.execute(late):
            code = CORRECTED_AFTER_SENT
            found += [(str(code), "", count, oldest, _by_a_person(code))] if count else []
    found.sort(key=lambda each: (each[3], each[0], each[1] or ""))
    return [dict(zip(("cause", "reason", "count", "oldest", "gone"), each, strict=True)) for each in found]


def _by_a_person(word: str) -> str:
    """What a person may do of it; a word of an older release may have no entry any more."""
    return f"a person: {CODES[word].remedy()}" if word in CODES else "a person"


def _remedies(cause: str) -> list[str]:
    """When, and the command that is then to be run; a cause of an older release may have none any more."""
    try:
        return [": ".join(filter(None, each)) for each in code_of(cause).remedies]
    except KeyError:
        return []


def _gone_by_rate(connection: sa.Connection) -> Callable[[int], str]:
    """When so many orders will be sent, at the speed of the fastest run of the last day."""
    recent = runs.c.started_at > datetime.now(timezone.utc) - timedelta(days=1)
    best = 0.0
    for run in connection.execute(sa.select(runs).where(recent, runs.c.ended_at.is_not(None))):
        counts = json.loads(run.counts or "{}")
        sent = counts.get("sent", 0) + counts.get("resent", 0)
        best = max(best, sent / max(1.0, (run.ended_at - run.started_at).total_seconds()))

    def gone(count: int) -> str:
        if not best:
            return "not known: no run of the last 24 hours sent anything"
        return f"after {max(1, round(count / best / 60))} min of sending, at {best:.1f} a second as the last day's best"

    return gone


def list_runs(
    ledger: Ledger, *, run: str = "", kind: str = "", before: datetime | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Runs, the last one first: what is listed of each, and its report as ``counts``, {} while it is under way.

    :param before: only those that began before this moment.
    """
    asked = ((runs.c.run_id, run), (runs.c.kind, kind))
    which = [column == value for column, value in asked if value] + ([runs.c.started_at < before] if before else [])
    wanted = sa.select(runs).where(*which)
    found = []
    with ledger.read() as connection:
        for row in connection.execute(wanted.order_by(runs.c.started_at.desc(), runs.c.run_id).limit(limit)):
            counts = json.loads(row.counts or "{}")
            state = ("red" if counts.get("red") else "green") if counts else "under way"
            window = f"{row.window_start:%Y-%m-%d %H:%M}/{row.window_end:%Y-%m-%d %H:%M}" if row.window_end else ""
            shown = {"run": row.run_id, "kind": row.kind, "state": state, "window": window, "started": row.started_at}
            shown |= {"ended": row.ended_at, **{name: counts.get(name, 0) for name in COUNTED}}
            found.append(shown | {"counts": counts})
    return found


def list_files(ledger: Ledger, limit: int = 100, *, path: str = "") -> list[dict[str, Any]]:
    """Extracts, the last one read first; ``usual`` is how many orders a file of the same feed has on average.

    :param path: only this one; empty: all.
    """
    names = ("path", "state", "loaded_at", "orders", "bad_rows", "detail", "run")
    loaded = sa.select(extracts.c.feed, sa.cast(sa.func.avg(extracts.c.orders), sa.Integer).label("usual"))
    usual = loaded.where(extracts.c.state == ExtractState.LOADED.value).group_by(extracts.c.feed).subquery()
    wanted = sa.select(*(extracts.c[name] for name in names), usual.c.usual)
    wanted = wanted.outerjoin(usual, usual.c.feed == extracts.c.feed)
    wanted = wanted.where(extracts.c.path == path) if path else wanted
    wanted = wanted.order_by(extracts.c.loaded_at.desc(), extracts.c.path)
    with ledger.read() as connection:
        return [dict(row) for row in connection.execute(wanted.limit(limit)).mappings()]


def volume(ledger: Ledger, now: datetime) -> list[dict[str, Any]]:
    """Orders of each source that came in the last 24 hours, and in as many on average in the four weeks before."""
    hour, days = int(now.timestamp() // 3600), 28
    last_day = sa.func.sum(sa.case((arrivals.c.hour > hour - 24, arrivals.c.orders), else_=0))
    oldest = sa.func.min(arrivals.c.hour)
    wanted = sa.select(arrivals.c.source, last_day, sa.func.sum(arrivals.c.orders), oldest).group_by(arrivals.c.source)
    with ledger.read() as connection:
        found = connection.execute(wanted.where(arrivals.c.hour > hour - 24 * (days + 1))).tuples().all()
    return [
        {"source": source, "last_24_hours": day, "usual": round((all_ - day) / max(1.0, (hour - first) / 24 - 1))}
        for source, day, all_, first in sorted(found)
    ]


def wrong_now(ledger: Ledger) -> list[dict[str, Any]]:
    """Alerts of what is not over, the newest first: cause, title, text, remedies, since when, and in how many runs."""
    by_cause: dict[str, dict[str, Any]] = {}
    opened = sa.select(alerts).where(alerts.c.ended_run.is_(None)).order_by(alerts.c.begun_at.desc())
    with ledger.read() as connection:
        for row in connection.execute(opened):
            told = {
                "cause": row.cause,
                "title": row.title,
                "text": row.text,
                "remedies": _remedies(row.cause),
                "runs": 0,
            }
            known = by_cause.setdefault(row.cause, told)
            known |= {"since": row.begun_at, "runs": known["runs"] + 1}
    return list(by_cause.values())
