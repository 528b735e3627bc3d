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
from include.instore.model.codes import (
    BAD_SHARE,
    BROKEN_FILE,
    COLLISIONS,
    HELD_EVENTS,
    NUMBERS,
    TASK_FAILED,
    UNREAD_FILES,
)
from include.instore.model.settings import RunSettings, Settings
from include.instore.model.states import DeliveryStatus, ExtractState
from include.instore.model.windows import Run

_NAMED_FILES = 5
_INNER = ("touched", "planned", "planned_orders", "undelivered")


@dataclass(frozen=True)
class Failure:
    """A task of the run that finally failed, a mapped one once, whichever of its batches it was.

    :param why: its own last sentence; empty: it ended without one. :param tries: how often it was tried; 0: not known.
    :param link: to the task in Airflow.
    """

    task: str
    why: str = ""
    tries: int = 0
    link: str = ""

    def told(self) -> str:
        """What happened, as the end of a sentence."""
        tries = f", tried {'once' if self.tries == 1 else f'{self.tries} times'}" if self.tries else ""
        why = self.why.rstrip(".") or "it ended without a sentence, so it was killed; its log says how far it came"
        return f"task {self.task} failed{tries}: {why}"


@dataclass(frozen=True)
class Report:
    """What one run reports; ``red`` holds a sentence for each reason, none when the run is green.

    :param red_by_cause: those reasons that are no task's failure, by cause of alert.
    """

    document: dict[str, Any]
    red: tuple[str, ...]
    red_by_cause: Mapping[str, Sequence[str]] = field(default_factory=dict)


def report_run(ledger: Ledger, run: Run, failed: Sequence[Failure], settings: Settings) -> Report:
    """Count what became of the run's orders, give up its claims, and judge it.

    :param failed: the run's tasks that finally failed.
    """
    # Counted while the orders are still held: once they are given up another run may plan them as its own.
    counts = count_run(ledger, run.run_id, run.window)
    release(ledger, run.run_id)
    fault_points.reach("report.released")
    by_cause: dict[str, list[str]] = {
        NUMBERS: faults_in(counts),
        BAD_SHARE: _too_many_bad(counts, settings.runs),
        COLLISIONS: _collisions(counts),
        UNREAD_FILES: _unread(ledger, run.run_id, counts),
        HELD_EVENTS: _held(counts),
    }
    red = [
        *(f"{TASK_FAILED}: {each.told()}" for each in failed),
        *(f"{cause}: {reason}" for cause, reasons in by_cause.items() for reason in reasons),
    ]
    document = {
        "run_kind": run.kind,
        "window": str(run.window) if run.window else None,
        **{name: value for name, value in asdict(counts).items() if name not in _INNER},
        "tracking": settings.sending.enable_track_events,
        "red": red,
    }
    if run.dry_run:
        document |= {"dry_run": True, "would_send": counts.planned.get(DeliveryStatus.READY.value, 0)}
    close_run(ledger, run.run_id, document)
    fault_points.reach("report.closed")
    return Report(document, tuple(red), by_cause)


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
    found = waiting_files(ledger, states=[ExtractState.WAITING], run_id=run_id, limit=_NAMED_FILES)
    named = "; ".join(f"{file.path}, {file.detail}" for file in found)
    more = f"; and {counts.unread_files - len(found)} more" if counts.unread_files > len(found) else ""
    return [f"{counts.unread_files} extracts were not read to their end, and nothing of them was landed: {named}{more}"]


def _too_many_bad(counts: RunCounts, settings: RunSettings) -> list[str]:
    # What is behind the fault of a file that a person released is no record of any share.
    quarantined = counts.quarantined - counts.quarantined_by_reason.get(BROKEN_FILE, 0)
    bad, handled = quarantined + counts.rejected, quarantined + counts.touched
    if bad < settings.share_minimum or bad / handled <= settings.max_bad_share:
        return []
    return [
        f"{bad} of {handled} records were set aside ({quarantined} quarantined, {counts.rejected} rejected), "
        f"more than the {settings.max_bad_share:.0%} of INSTORE_MAX_BAD_SHARE"
    ]
