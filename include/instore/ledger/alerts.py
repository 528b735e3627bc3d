"""The alerts: one row per run and cause, written before the alert is delivered.

A row that could not be delivered stays ``waiting``: the run's own callback tries it again, and so do later runs for a
day. After a crash between delivering an alert and recording that, it is delivered twice; none is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from include.instore.ledger.arrivals import Silence
from include.instore.ledger.database import Ledger
from include.instore.ledger.tables import alerts, deliveries, orders
from include.instore.model.codes import DEADLINE, LOOK_UP_FAILED, RECOVERED, is_soft
from include.instore.model.states import UNDER_WAY, Status
from include.instore.model.windows import Run

WAITING, TOLD, NOBODY = "waiting", "told", "nobody"

_OTHERS_AFTER = timedelta(minutes=5)
"""A younger row of another run is being delivered by that run."""

_GIVEN_UP_AFTER = timedelta(days=1)

Text = tuple[str, str]
"""Title and text."""


@dataclass(frozen=True)
class Ages:
    """What is measured after the run's tasks; None is not known, and says nothing about a limit.

    :param new_orders: orders that arrived with this run; 0 where not all of their customers were asked for.
    :param new_unmatched: those of them without a customer; asked-again ones would make quiet hours look bad.
    :param oldest_unsent: seconds since the oldest order that still has somewhere to go arrived; 0 when there is none.
    :param oldest_message: seconds since the oldest message still on the bus was published; 0 when there is none.
    :param dead_letters: messages in the subscription's dead-letter queue, as far as was looked.
    :param expired: those of them that nobody had read in time.
    :param on_bus: what the bus itself counts, or why that is not known.
    :param silences: each feed and store that was judged: its silence, a number of silent stores, or None.
    :param shared: addresses and cards on more of the run's orders than one person has in an hour.
    :param left_files: paths, and why they are not read, of files that have not been for longer than the limit.
    """

    new_orders: int
    new_unmatched: int
    oldest_unsent: float
    oldest_message: float | None = None
    dead_letters: int | None = None
    expired: int | None = None
    on_bus: str | None = None
    silences: Mapping[str, Silence | int | None] = field(default_factory=dict)
    shared: int = 0
    left_files: Sequence[tuple[str, str]] | None = None


@dataclass(frozen=True)
class Waiting:
    """What is still to be told."""

    run: str
    cause: str
    title: str
    text: str


def remember(
    ledger: Ledger,
    run: Run,
    *,
    red: Mapping[str, Text],
    soft: Mapping[str, Text | None] | None = None,
    recovery: Callable[[Mapping[str, tuple[str, int]]], Text] | None = None,
    lasting: Collection[str] = (),
    more: Collection[str] = (),
    told_by_red: Collection[str] = (),
) -> None:
    """Write down which causes begin and which have ended with this run.

    A red cause is told once a run. A soft one is told when it begins, and again by a run that adds to it, or after it
    had ended. A run that is not red ends the red causes of its own earlier tries and, where it is one of the hourly
    stream, those of the stream.

    :param red: title and text by cause, of the run itself.
    :param soft: those that were judged: title and text, or None where the limit is kept.
    :param recovery: title and text for what has ended, from the causes with the moment and the number of runs; without
        it nothing ends by this run.
    :param lasting: red causes that are not over, though this run is not red for them.
    :param more: soft causes to which this run has added.
    :param told_by_red: soft causes that a red one of this run tells as well, with the same number.
    """
    run_id, now = run.tries[-1], datetime.now(timezone.utc)
    ordinary = run.claims == "due" and not run.dry_run
    with ledger.write() as connection:
        if connection.dialect.name == "postgresql":
            # Two runs that report together must not both find that a soft cause begins. SQLite has one writer.
            connection.execute(sa.text("LOCK TABLE alerts IN SHARE ROW EXCLUSIVE MODE"))
        still_open = connection.execute(sa.select(alerts).where(alerts.c.ended_run.is_(None))).mappings().all()
        book = _Book(ledger, connection, run_id, now, ordinary, told_by_red)
        for cause, text in red.items():
            book.begin(cause, text)
        for cause, judged in (soft or {}).items():
            if judged is not None:
                book.tell_soft(cause, judged, [row for row in still_open if row["cause"] == cause], cause in more)
        if recovery is None:
            return
        over = {cause for cause, judged in (soft or {}).items() if judged is None}
        ended = [row for row in still_open if row["cause"] in over]
        if not red:
            ended += [row for row in still_open if row["cause"] not in lasting and _is_of_stream(row, run, ordinary)]
        for row in ended:
            book.end(row)
        if told := _by_cause(row for row in ended if row["state"] != NOBODY):
            book.begin(RECOVERED, recovery(told))


@dataclass(frozen=True)
class _Book:
    """The rows that one run writes."""

    ledger: Ledger
    connection: sa.Connection
    run_id: str
    now: datetime
    ordinary: bool
    told_by_red: Collection[str]

    def begin(self, cause: str, text: Text) -> None:
        row = {"run": self.run_id, "cause": cause, "begun_at": self.now, "ordinary": self.ordinary}
        row |= {"title": text[0], "text": text[1], "state": TOLD if cause in self.told_by_red else WAITING}
        row |= {"ended_run": self.run_id if cause == RECOVERED else None}
        statement = self.ledger.insert(alerts).values(row)
        self.connection.execute(statement.on_conflict_do_nothing(index_elements=["run", "cause"]))

    def tell_soft(self, cause: str, text: Text, known: Sequence[sa.RowMapping], adds: bool) -> None:
        untold = [row["run"] for row in known if row["state"] != TOLD]
        if untold:
            again = {"title": text[0], "text": text[1], "state": WAITING, "begun_at": self.now}
            self.connection.execute(sa.update(alerts).where(_is(untold[-1], cause)).values(again))
        elif not known or adds:
            self.begin(cause, text)

    def end(self, row: sa.RowMapping) -> None:
        # An alert about what is over would mislead; the recovery message names it.
        state = TOLD if row["state"] == WAITING else row["state"]
        ended = sa.update(alerts).where(_is(row["run"], row["cause"]))
        self.connection.execute(ended.values(ended_run=self.run_id, state=state))


def _is_of_stream(row: sa.RowMapping, run: Run, ordinary: bool) -> bool:
    """Whether this is a red cause of the run itself or, of an ordinary run, of those before it."""
    return not is_soft(row["cause"]) and (row["run"] in run.tries or (row["ordinary"] and ordinary))


def knows_why(ledger: Ledger, run_id: str) -> bool:
    """Whether it is written down why this run is red: its report got that far, or somebody told instead of it."""
    with ledger.read() as connection:
        causes = connection.scalars(sa.select(alerts.c.cause).where(alerts.c.run == run_id)).all()
    return any(not is_soft(cause) and cause not in (DEADLINE, RECOVERED) for cause in causes)


def waiting(ledger: Ledger, run_id: str) -> list[Waiting]:
    """What this run has to tell, oldest first: its own, and what earlier runs could not deliver."""
    now = datetime.now(timezone.utc)
    left_over = sa.and_(alerts.c.begun_at < now - _OTHERS_AFTER, alerts.c.begun_at > now - _GIVEN_UP_AFTER)
    columns = (alerts.c.run, alerts.c.cause, alerts.c.title, alerts.c.text)
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(*columns)
            .where(alerts.c.state == WAITING, sa.or_(alerts.c.run == run_id, left_over))
            .order_by(alerts.c.begun_at, alerts.c.cause)
        )
        return [Waiting(*row) for row in rows]


def mark(ledger: Ledger, told: Sequence[Waiting], state: str) -> None:
    """Write down that these were told, or that there was nobody to tell."""
    if not told:
        return
    with ledger.write() as connection:
        for each in told:
            connection.execute(sa.update(alerts).where(_is(each.run, each.cause)).values(state=state))


def measure(ledger: Ledger, run_id: str, most_shared: int = 0) -> Ages:
    """How many of the run's new orders have no customer, and how long the oldest unsent order has waited.

    :param most_shared: orders that one address or card may have within an hour; 0: any number.
    """
    with ledger.read() as connection:
        rows = connection.execute(
            sa.select(orders.c.status, sa.func.count())
            # A card without an answer says nothing about the customers, and is told of by itself.
            .where(orders.c.received_run == run_id, orders.c.reason.is_distinct_from(LOOK_UP_FAILED))
            .group_by(orders.c.status)
        )
        new: dict[str, int] = dict(rows.tuples().all())
        waiting = sa.union_all(
            sa.select(orders.c.key).where(orders.c.status == Status.PENDING.value),
            sa.select(deliveries.c.key).where(deliveries.c.status.in_(UNDER_WAY)),
        )
        oldest = connection.scalar(sa.select(sa.func.min(orders.c.received_at)).where(orders.c.key.in_(waiting)))
        shared = 0
        if most_shared:
            persons = (orders.c.email_hash, orders.c.card_hash)
            shared = sum(_shared(connection, run_id, person, most_shared) for person in persons)
    if new.get(Status.PENDING.value):
        new = {}  # those that could be told without asking say nothing about the others
    age = (datetime.now(timezone.utc) - oldest).total_seconds() if oldest else 0.0
    return Ages(sum(new.values()), new.get(Status.UNMATCHED.value, 0), max(0.0, age), shared=shared)


def _shared(connection: sa.Connection, run_id: str, person: sa.Column[str], most: int) -> int:
    """Addresses, or cards, that stand on more of the run's new orders within an hour than one person's can.

    More cards or stores than that are more orders as well.
    """
    received = (orders.c.received_run == run_id, person.is_not(None))
    many = sa.select(person).where(*received).group_by(person).having(sa.func.count() > most)
    rows = connection.execute(sa.select(person, orders.c.order_time).where(*received, person.in_(many)))
    hours = Counter((row[0], int(row.order_time.timestamp() // 3600)) for row in rows)
    return len({who for (who, _), count in hours.items() if count > most})


def _is(run: str, cause: str) -> sa.ColumnElement[bool]:
    return sa.and_(alerts.c.run == run, alerts.c.cause == cause)


def _by_cause(rows: Iterable[sa.RowMapping]) -> dict[str, tuple[str, int]]:
    causes: dict[str, list[datetime]] = {}
    for row in rows:
        causes.setdefault(row["cause"], []).append(row["begun_at"])
    return {cause: (f"{min(moments):%Y-%m-%d %H:%M} UTC", len(moments)) for cause, moments in causes.items()}
