"""What became of a run's orders, counted from the ledger, and whether the numbers add up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from include.instore.ledger.claims import in_window
from include.instore.ledger.database import Ledger
from include.instore.ledger.known_again import COLLISION, SUSPECTED_TWIN
from include.instore.ledger.tables import UNDER_WAY, ExtractState, Status, extracts, orders, quarantine, runs
from include.instore.model.windows import Window


@dataclass(frozen=True)
class RunCounts:
    """One run in numbers of orders, but for ``looked_up`` and ``cache_hits`` (cards) and ``batches``."""

    received: int
    orders: int
    duplicates: int
    corrections: int
    corrected_after_sent: int
    collisions: int
    quarantined: int
    quarantined_by_reason: Mapping[str, int]
    unread_files: int
    waiting_files: int
    dates_without_offset: int
    claimed: int
    batches: int
    looked_up: int
    cache_hits: int
    matched: int
    unmatched: int
    unmatched_by_outcome: Mapping[str, int]
    suppressed: int
    sent: int
    resent: int
    rejected: int
    rejected_by_reason: Mapping[str, int]
    truncated: int
    in_doubt: int
    held: int
    carried_over: int
    touched: int
    planned: Mapping[str, int]
    window_orders: Mapping[str, int]
    ledger: Mapping[str, int]


_TALLIED = (
    "received", "duplicates", "corrections", "corrected_after_sent", "dates_without_offset", "claimed", "batches",
    "looked_up", "cache_hits", "truncated",
)  # fmt: skip
"""Counted where they happen, in the run's own row."""


_waiting = (extracts.c.state == ExtractState.WAITING.value,)


def count_run(ledger: Ledger, run_id: str, window: Window | None = None) -> RunCounts:
    """The run's counts, from one consistent look at the ledger.

    :param window: the run's own; ``window_orders`` are all orders of it, by status, whichever run brought them.
    """
    with ledger.read() as connection:
        tally = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).mappings().one()

        def by(column: sa.Column[Any], *where: sa.ColumnElement[bool], of: sa.Table = orders) -> dict[str, int]:
            rows = connection.execute(
                sa.select(column, sa.func.count()).select_from(of).where(*where).group_by(column).order_by(column)
            )
            return {str(value): count for value, count in rows}

        resolved = by(orders.c.status, orders.c.resolved_run == run_id)
        unmatched = by(orders.c.reason, orders.c.resolved_run == run_id, orders.c.status == Status.UNMATCHED.value)
        outcome = by(orders.c.status, orders.c.outcome_run == run_id)
        again = (orders.c.outcome_run == run_id, orders.c.status == Status.SENT.value, orders.c.edition > 1)
        resent = sum(by(orders.c.status, *again).values())
        quarantined = by(quarantine.c.reason, quarantine.c.run == run_id, of=quarantine)
        mine = sa.or_(orders.c.planned_run == run_id, orders.c.received_run == run_id)
        carried = sa.and_(mine, orders.c.status.in_([status.value for status in UNDER_WAY]))
        return RunCounts(
            **{name: tally[name] for name in _TALLIED},
            orders=sum(by(orders.c.received_run, orders.c.received_run == run_id).values()),
            quarantined=sum(quarantined.values()),
            quarantined_by_reason=quarantined,
            unread_files=sum(by(extracts.c.state, *_waiting, extracts.c.run == run_id, of=extracts).values()),
            waiting_files=sum(by(extracts.c.state, *_waiting, of=extracts).values()),
            collisions=quarantined.get(COLLISION, 0) + quarantined.get(SUSPECTED_TWIN, 0),
            matched=sum(
                count for status, count in resolved.items() if status not in ("pending", "unmatched", "suppressed")
            ),
            unmatched=sum(unmatched.values()),
            unmatched_by_outcome=unmatched,
            suppressed=resolved.get(Status.SUPPRESSED.value, 0),
            sent=outcome.get(Status.SENT.value, 0) - resent,
            resent=resent,
            rejected=outcome.get(Status.REJECTED.value, 0),
            rejected_by_reason=by(
                orders.c.reason, orders.c.outcome_run == run_id, orders.c.status == Status.REJECTED.value
            ),
            in_doubt=sum(by(orders.c.status, mine, orders.c.status == Status.SENDING.value).values()),
            held=outcome.get(Status.HELD.value, 0),
            carried_over=sum(by(orders.c.status, carried).values()),
            touched=sum(by(orders.c.status, sa.or_(mine, orders.c.outcome_run == run_id)).values()),
            planned=by(orders.c.status, orders.c.planned_run == run_id),
            window_orders=by(orders.c.status, in_window(window)) if window else {},
            ledger=by(orders.c.status),
        )


def faults_in(counts: RunCounts) -> list[str]:
    """Where the numbers do not add up, a sentence each; empty when every record is in exactly one place."""
    faults = []
    handled = counts.orders + counts.duplicates + counts.corrections + counts.quarantined
    if counts.received != handled:
        faults.append(
            f"{counts.received} records were received, but {counts.orders} new orders, {counts.duplicates} duplicates, "
            f"{counts.corrections} corrections and {counts.quarantined} quarantined make {handled}"
        )
    if sum(counts.planned.values()) < counts.claimed:
        faults.append(
            f"{counts.claimed} orders were claimed, but only {sum(counts.planned.values())} are in the ledger"
        )
    strange = set(counts.ledger) - {status.value for status in Status}
    if strange:
        faults.append(f"{sum(counts.ledger[name] for name in strange)} orders are in no known status")
    return faults


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
