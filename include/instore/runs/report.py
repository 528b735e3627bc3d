"""The run's report: its counts, and the reasons for which it is red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.extract_files import waiting_files
from include.instore.ledger.runs import RunCounts, close_run, count_run, faults_in
from include.instore.ledger.tables import DeliveryStatus
from include.instore.model.alert_causes import BAD_SHARE, COLLISIONS, HELD_EVENTS, NUMBERS, UNREAD_FILES
from include.instore.model.settings import Settings
from include.instore.model.windows import Run

_NAMED_FILES = 5
_INNER = ("touched", "planned", "planned_orders", "undelivered")


@dataclass(frozen=True)
class Report:
    """What one run reports; ``red`` holds a sentence for each reason, none when the run is green.

    :param red_by_cause: those reasons that are no task's failure, by cause of alert.
    """

    document: dict[str, Any]
    red: tuple[str, ...]
    red_by_cause: Mapping[str, Sequence[str]] = field(default_factory=dict)


def report_run(ledger: Ledger, run: Run, failed_tasks: Sequence[str], settings: Settings) -> Report:
    """Count what became of the run's orders, give up its claims, and judge it.

    :param failed_tasks: ids of the run's tasks that finally failed.
    """
    # Counted while the orders are still held: once they are given up another run may plan them as its own.
    counts = count_run(ledger, run.run_id, run.window)
    release(ledger, run.run_id)
    fault_points.reach("report.released")
    by_cause = {
        NUMBERS: faults_in(counts),
        BAD_SHARE: _too_many_bad(counts, settings.max_bad_share),
        COLLISIONS: _collisions(counts),
        UNREAD_FILES: _unread(ledger, run.run_id, counts),
        HELD_EVENTS: _held(counts),
    }
    red = (*_failures(failed_tasks), *(reason for reasons in by_cause.values() for reason in reasons))
    document = {
        "run_kind": run.kind,
        "window": str(run.window) if run.window else None,
        **{name: value for name, value in asdict(counts).items() if name not in _INNER},
        "tracking": settings.enable_track_events,
        "red": list(red),
    }
    if run.dry_run:
        document |= {"dry_run": True, "would_send": counts.planned.get(DeliveryStatus.READY.value, 0)}
    close_run(ledger, run.run_id, document)
    fault_points.reach("report.closed")
    return Report(document, red, by_cause)


def _failures(failed_tasks: Sequence[str]) -> list[str]:
    return [f"task {task} failed; its log says why" for task in failed_tasks]


def _collisions(counts: RunCounts) -> list[str]:
    if not counts.collisions:
        return []
    return [
        f"{counts.collisions} orders seem to have another order's key, or number, and were quarantined; their details "
        "there say which, and what would tell them apart"
    ]


def _held(counts: RunCounts) -> list[str]:
    if not counts.held:
        return []
    return [f"of {counts.held} events nobody can tell whether they were taken; they are held for a person to decide"]


def _unread(ledger: Ledger, run_id: str, counts: RunCounts) -> list[str]:
    if not counts.unread_files:
        return []
    found = waiting_files(ledger, run_id=run_id, limit=_NAMED_FILES)
    named = "; ".join(f"{file.path}, {file.detail}" for file in found)
    more = f"; and {counts.unread_files - len(found)} more" if counts.unread_files > len(found) else ""
    return [f"{counts.unread_files} extracts were not read to their end, and nothing of them was landed: {named}{more}"]


def _too_many_bad(counts: RunCounts, max_bad_share: float) -> list[str]:
    bad = counts.quarantined + counts.rejected
    handled = counts.quarantined + counts.touched
    if not bad or bad / handled <= max_bad_share:
        return []
    return [
        f"{bad} of {handled} records were set aside ({counts.quarantined} quarantined, {counts.rejected} rejected), "
        f"more than the {max_bad_share:.0%} of INSTORE_MAX_BAD_SHARE"
    ]
