"""What became of a run's orders, counted from the ledger, and whether the numbers add up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.claims import in_window
from include.instore.ledger.database import Ledger
from include.instore.ledger.extract_files import note_feed
from include.instore.ledger.suppressions import by_source
from include.instore.ledger.tables import contents, deliveries, extracts, feeds, orders, quarantine, runs, stores
from include.instore.model.codes import (
    BROKEN_FILE,
    COLLISION,
    CORRECTED_AFTER_SENT,
    HELD,
    IN_DOUBT,
    LEFT_FILES,
    LOOK_UP_FAILED,
    REJECTED,
    SPLIT_ORDER,
    SUSPECTED_TWIN,
    UNDECODABLE,
    UNREAD_FILES,
)
from include.instore.model.states import UNDER_WAY, ContentState, DeliveryStatus, ExtractState, RecordState, Status
from include.instore.model.windows import Window


@dataclass(frozen=True)
class RunCounts:
    """One run in numbers of orders, but for ``looked_up`` and ``cache_hits`` (cards) and ``batches``.

    What concerns sending is counted once a destination; ``by_destination`` says where. ``set_aside`` is all that waits
    for a person, or for an answer, in the whole ledger, by code. ``drain`` says what ended its drain, None where it had
    none, and ``drained_before`` that of the run before it which had one; ``not_drained``, ``locked_elsewhere`` and
    ``deferred`` are messages, None where they are not known. ``in_doubt_by_reason`` has the words of
    model/destinations.py, of the events in doubt and of those held because of it. ``broken_files``
    are those released, and loaded up to the fault.
    """

    received: int
    orders: int
    duplicates: int
    corrections: int
    corrected_after_sent: int
    lines_do_not_add_up: int
    collisions: int
    quarantined: int
    quarantined_by_reason: Mapping[str, int]
    undecodable: int
    drain: str | None
    drained_before: str | None
    not_drained: int | None
    locked_elsewhere: int | None
    deferred: int | None
    unread_files: int
    unread_bytes: int
    broken_files: int
    waiting_files: int
    left_files: int
    changed_fields: int
    new_stores: int
    dates_without_offset: int
    cards_as_numbers: int
    mapping_cards: int | None
    claimed: int
    batches: int
    looked_up: int
    cache_hits: int
    matched: int
    unmatched: int
    unmatched_by_outcome: Mapping[str, int]
    look_up_failed: int
    look_ups_failing: int
    suppressed: int
    suppressed_by_reason: Mapping[str, int]
    sent: int
    resent: int
    rejected: int
    rejected_by_reason: Mapping[str, int]
    truncated: int
    in_doubt: int
    in_doubt_by_reason: Mapping[str, int]
    held: int
    cancelled: int
    by_destination: Mapping[str, Mapping[str, int]]
    carried_over: int
    touched: int
    planned_orders: int
    undelivered: int
    planned: Mapping[str, int]
    window_orders: Mapping[str, int]
    ledger: Mapping[str, int]
    set_aside: Mapping[str, int]


_TALLIED = (
    "received", "duplicates", "corrections", "corrected_after_sent", "lines_do_not_add_up", "dates_without_offset",
    "cards_as_numbers", "mapping_cards", "claimed", "batches", "looked_up", "cache_hits", "truncated", "drain",
    "not_drained", "locked_elsewhere", "deferred",
)  # fmt: skip
"""Counted where they happen, in the run's own row."""


_OUTCOMES = [each.value for each in DeliveryStatus if each.value not in UNDER_WAY]
_delivered = deliveries.join(orders, orders.c.key == deliveries.c.key)
_LEFT = [each.value for each in (DeliveryStatus.SENDING, DeliveryStatus.SENT, DeliveryStatus.HELD)]
_NOT_LEFT = [each.value for each in DeliveryStatus if each.value not in _LEFT]
_counts = sa.or_(orders.c.status == Status.MATCHED.value, deliveries.c.status.in_(_LEFT))
"""Of an order whose customer is searched anew, what has left counts, and what has not is not ready yet."""
_failing = (
    orders.c.status == Status.UNMATCHED.value,
    orders.c.next_attempt.is_not(None),
    orders.c.reason == LOOK_UP_FAILED,
)
_in_doubt = deliveries.c.status == DeliveryStatus.SENDING.value
_NOT_ASKED = "not_asked"
_KNOWN_AFTER = timedelta(days=7)
"""Until then a ledger meets its stores for the first time."""
_NOT_LOADED = [ExtractState.WAITING.value, ExtractState.LEFT.value]
_waiting = (extracts.c.state == ExtractState.WAITING.value,)


def count_run(ledger: Ledger, run_id: str, window: Window | None = None) -> RunCounts:
    """The run's counts, from one consistent look at the ledger.

    :param window: the run's own; ``window_orders`` are all orders of it, by status, whichever run brought them.
    """
    with ledger.read() as connection:
        tally = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).mappings().one()

        def by(column: sa.Column[Any], *where: sa.ColumnElement[bool], of: sa.FromClause = orders) -> dict[str, int]:
            rows = connection.execute(
                sa.select(column, sa.func.count()).select_from(of).where(*where).group_by(column).order_by(column)
            )
            return {str(value): count for value, count in rows}

        def on_the_way(*where: sa.ColumnElement[bool]) -> dict[str, int]:
            """Orders by how far they are: those whose customer is known by their latest editions, others by theirs."""
            counts = Counter(by(orders.c.status, *where, orders.c.status != Status.MATCHED.value))
            there = sa.and_(*where, deliveries.c.is_latest, _counts)
            counts.update(by(deliveries.c.status, there, of=_delivered))
            return dict(sorted(counts.items()))

        def whole_ledger() -> dict[str, int]:
            """The same of all orders, without reading each beside its deliveries."""
            counts = Counter(by(orders.c.status, orders.c.status != Status.MATCHED.value))
            counts.update(by(deliveries.c.status, deliveries.c.is_latest, of=deliveries))
            waits = (
                orders.c.status != Status.MATCHED.value,
                deliveries.c.is_latest,
                deliveries.c.status.in_(_NOT_LEFT),
            )
            counts.subtract(by(deliveries.c.status, *waits, of=_delivered))
            return dict(sorted((+counts).items()))

        resolved = by(orders.c.status, orders.c.resolved_run == run_id)
        unmatched = by(orders.c.reason, orders.c.resolved_run == run_id, orders.c.status == Status.UNMATCHED.value)
        outcome: dict[str, dict[str, int]] = {}
        for name, status, count in connection.execute(
            sa.select(deliveries.c.destination, deliveries.c.status, sa.func.count())
            .where(deliveries.c.outcome_run == run_id, deliveries.c.status.in_(_OUTCOMES))
            .group_by(deliveries.c.destination, deliveries.c.status)
            .order_by(deliveries.c.destination, deliveries.c.status)
        ):
            outcome.setdefault(name, {})[status] = count
        became: Counter[str] = sum(map(Counter, outcome.values()), Counter())
        of_this_run = deliveries.c.outcome_run == run_id
        sent_again = (of_this_run, deliveries.c.status == DeliveryStatus.SENT.value, deliveries.c.edition > 1)
        resent = sum(by(deliveries.c.status, *sent_again, of=deliveries).values())
        nobody = (orders.c.resolved_run == run_id, orders.c.status == Status.SUPPRESSED.value)
        kept_back = (of_this_run, deliveries.c.status == DeliveryStatus.SUPPRESSED.value)
        suppressed = by_source(connection, [orders.c.key], orders, *nobody)
        suppressed += by_source(connection, deliveries.primary_key.columns.values(), _delivered, *kept_back)
        rejected = (of_this_run, deliveries.c.status == DeliveryStatus.REJECTED.value)
        quarantined = by(quarantine.c.reason, quarantine.c.run == run_id, of=quarantine)
        mine = sa.or_(orders.c.planned_run == run_id, orders.c.received_run == run_id)
        now_mine = on_the_way(mine)
        planned = (orders.c.planned_run == run_id,)
        # Counted apart: of an OR over two tables PostgreSQL reads every order.
        others = connection.scalar(
            sa.select(sa.func.count(deliveries.c.key.distinct()))
            .select_from(_delivered)
            .where(
                of_this_run,
                orders.c.received_run != run_id,
                sa.or_(orders.c.planned_run.is_(None), orders.c.planned_run != run_id),
            )
        )
        whole = whole_ledger()
        late = (contents.c.state == ContentState.AFTER_SENDING.value,)
        not_loaded = by(extracts.c.state, extracts.c.state.in_(_NOT_LOADED), of=extracts)
        waiting, left = (not_loaded.get(state, 0) for state in _NOT_LOADED)
        unread = connection.scalars(sa.select(extracts.c.version).where(*_waiting, extracts.c.run == run_id)).all()
        failing = by(orders.c.reason, *_failing).get(LOOK_UP_FAILED, 0)
        set_aside = {
            **by(quarantine.c.reason, quarantine.c.state == RecordState.QUARANTINED.value, of=quarantine),
            UNREAD_FILES: waiting,
            LEFT_FILES: left,
            LOOK_UP_FAILED: failing,
            IN_DOUBT: whole.get(DeliveryStatus.SENDING.value, 0),
            HELD: whole.get(DeliveryStatus.HELD.value, 0),
            REJECTED: whole.get(DeliveryStatus.REJECTED.value, 0),
            CORRECTED_AFTER_SENT: sum(by(contents.c.state, *late, of=contents).values()),
        }
        nowhere = sa.not_(sa.exists().where(deliveries.c.key == orders.c.key))
        first_run = connection.execute(sa.select(sa.func.min(runs.c.started_at))).scalar_one()
        is_old = tally["started_at"] - first_run >= _KNOWN_AFTER
        return RunCounts(
            **{name: tally[name] for name in _TALLIED},
            orders=sum(by(orders.c.received_run, orders.c.received_run == run_id).values()),
            quarantined=sum(quarantined.values()),
            quarantined_by_reason=quarantined,
            undecodable=quarantined.get(UNDECODABLE, 0),
            drained_before=connection.scalar(
                sa.select(runs.c.drain)
                .where(runs.c.drain.is_not(None), runs.c.started_at < tally["started_at"])
                .order_by(runs.c.started_at.desc())
                .limit(1)
            ),
            unread_files=len(unread),
            unread_bytes=sum(int(size) for each in unread if (size := each.partition(":")[0]).isdecimal()),
            broken_files=quarantined.get(BROKEN_FILE, 0),
            waiting_files=waiting,
            left_files=left,
            changed_fields=sum(by(feeds.c.changed_run, feeds.c.changed_run == run_id, of=feeds).values()),
            new_stores=sum(by(stores.c.first_run, stores.c.first_run == run_id, of=stores).values()) if is_old else 0,
            collisions=sum(quarantined.get(reason, 0) for reason in (COLLISION, SUSPECTED_TWIN, SPLIT_ORDER)),
            matched=resolved.get(Status.MATCHED.value, 0),
            unmatched=sum(unmatched.values()),
            unmatched_by_outcome=unmatched,
            look_up_failed=unmatched.get(LOOK_UP_FAILED, 0),
            look_ups_failing=failing,
            suppressed=suppressed.total(),
            suppressed_by_reason=dict(sorted(suppressed.items())),
            sent=became[DeliveryStatus.SENT.value] - resent,
            resent=resent,
            rejected=became[DeliveryStatus.REJECTED.value],
            rejected_by_reason=by(deliveries.c.reason, *rejected, of=deliveries),
            in_doubt_by_reason=_by_word(
                by(deliveries.c.reason, mine, deliveries.c.is_latest, _in_doubt, of=_delivered),
                by(deliveries.c.reason, of_this_run, deliveries.c.status == DeliveryStatus.HELD.value, of=deliveries),
            ),
            in_doubt=now_mine.get(DeliveryStatus.SENDING.value, 0),
            held=became[DeliveryStatus.HELD.value],
            cancelled=became[DeliveryStatus.CANCELLED.value],
            by_destination=outcome,
            carried_over=sum(now_mine.get(status, 0) for status in (Status.PENDING.value, *UNDER_WAY)),
            touched=sum(by(orders.c.status, mine).values()) + (others or 0),
            planned_orders=sum(by(orders.c.status, *planned).values()),
            undelivered=sum(by(orders.c.status, *planned, orders.c.status == Status.MATCHED.value, nowhere).values()),
            planned=on_the_way(*planned),
            window_orders=on_the_way(in_window(window)) if window else {},
            ledger=whole,
            set_aside={str(code): count for code, count in set_aside.items() if count},
        )


def _by_word(*by_reason: Mapping[str, int]) -> dict[str, int]:
    """Counts by the word before a reason's sentence."""
    words: Counter[str] = Counter()
    for reason, count in (item for each in by_reason for item in each.items()):
        words[_NOT_ASKED if reason == "None" else reason.partition(":")[0]] += count
    return dict(sorted(words.items()))


def faults_in(counts: RunCounts) -> list[str]:
    """Where the numbers do not add up, a sentence each; empty when every record is in exactly one place."""
    faults = []
    handled = counts.orders + counts.duplicates + counts.corrections + counts.quarantined
    if counts.received != handled:
        faults.append(
            f"{counts.received} records were received, but {counts.orders} new orders, {counts.duplicates} duplicates, "
            f"{counts.corrections} corrections and {counts.quarantined} quarantined make {handled}"
        )
    if counts.planned_orders < counts.claimed:
        faults.append(f"{counts.claimed} orders were claimed, but only {counts.planned_orders} are in the ledger")
    if counts.undelivered:
        faults.append(f"of {counts.undelivered} orders the customer is known, and they go to no destination")
    strange = set(counts.ledger) - {each.value for each in (*Status, *DeliveryStatus)}
    if strange:
        faults.append(f"{sum(counts.ledger[name] for name in strange)} orders are in no known status")
    return faults


def note_drain(
    ledger: Ledger, run_id: str, looks: Mapping[str, str], changed: bool, **drained: str | int | None
) -> None:
    """Write down in the run's row how its drain ended: ``drain``, and the counts of what it left on the bus.

    :param looks: the row of the topic's feed. :param changed: its orders are other than before.
    """
    with ledger.write() as connection:
        note_feed(ledger, connection, run_id, looks, changed)
        connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(drained))


def note_run(ledger: Ledger, run_id: str, **noted: str | int | None) -> None:
    """Write into the run's row what it found: how its drain ended (``drain``), what that left, ``mapping_cards``."""
    with ledger.write() as connection:
        connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(noted))


def started_at(ledger: Ledger, run_id: str) -> datetime:
    """When the run began."""
    with ledger.read() as connection:
        moment: datetime = connection.execute(sa.select(runs.c.started_at).where(runs.c.run_id == run_id)).scalar_one()
    return moment


def close_run(ledger: Ledger, run_id: str, report: Mapping[str, Any]) -> None:
    """Keep the run's report beside it."""
    with ledger.write() as connection:
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id)
            .values(ended_at=datetime.now(timezone.utc), counts=json.dumps(report, sort_keys=True))
        )
