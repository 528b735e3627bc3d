"""What must have become of runs: of the week's two, and of those that a person made in the browser.

Those in the browser are looked up through the API. Everything was sent by the hourly run before, so neither of them may
send anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demo.backfill import newest_backfill
from demo.local_airflow import AirflowFailed, LocalAirflow
from demo.runs import DAG, FinishedRun, report_of, set_aside
from demo.stage import held_by_profile_store
from include.instore.model.codes import REJECTED, UNREAD_FILES
from sandbox.seed import CUT_EXTRACT_ORDERS, MALFORMED_REASONS


def faults_in(first: FinishedRun, second: FinishedRun, held: dict[str, int], *, hostile: bool = False) -> list[str]:
    """Where the runs and the Profile Store's own records do not agree that every order is accounted for.

    :param hostile: a bad day, whose extract is cut off: its first run is red, for that reason and no other, and the
        second finds it delivered again.
    """
    states = {first.run_id: (first, "failed" if hostile else "success"), second.run_id: (second, "success")}
    faults = [f"{run_id} is {run.state}" for run_id, (run, wanted) in states.items() if run.state != wanted]
    if not (first.counts and second.counts):
        return [*faults, "a run reported no counts"]
    counts, again = first.counts, CUT_EXTRACT_ORDERS if hostile else 0
    unread = [reason for reason in counts["red"] if "not read to their end" in reason]
    bad = {*MALFORMED_REASONS, UNREAD_FILES, REJECTED} if hostile else set()
    if (found := set(set_aside(counts))) != bad:
        faults.append(f"what is set aside is {sorted(found)}, not {sorted(bad)}")
    if len(unread) != int(hostile) or unread != counts["red"]:
        faults.append(f"the first run is red for {counts['red']}")
    known_again = counts["duplicates"] + counts["corrections"]
    if counts["received"] != counts["orders"] + known_again + counts["quarantined"]:
        faults.append("what was received is not orders, duplicates, corrections and quarantined together")
    settled = sum(counts[name] for name in ("sent", "unmatched", "rejected", "suppressed", "carried_over"))
    if counts["orders"] != settled:
        faults.append(f"of {counts['orders']} orders {settled} are accounted for")
    sent = counts["sent"] + second.counts["sent"]
    if not sent == held["events"] == held["track_ids"]:
        faults.append(f"{sent} orders were sent, the Profile Store holds {held['events']} events")
    if counts["waiting_files"] != int(hostile) or second.counts["waiting_files"]:
        faults.append("an extract waits that should not, or none does that should")
    if not second.counts["received"] == second.counts["orders"] == again:
        faults.append(f"the second run received {second.counts['received']}, not the {again} delivered again")
    return faults


def check_backfill(airflow: LocalAirflow, asked: Mapping[str, Any], runs: int) -> None:
    """The newest backfill is the one that was asked for, and its runs found all sent.

    :param asked: what was filled in, in the API's words; with ``from_date`` and ``to_date``.
    :param runs: how many runs it must have.
    :raises AirflowFailed: one sentence that says what is different.
    """
    backfill = newest_backfill(airflow)
    _agree("The backfill is not what its form was told", backfill, asked)
    interval = {"logical_date_gte": backfill["from_date"], "logical_date_lte": backfill["to_date"], "limit": 100}
    made = airflow.call("GET", f"/dags/{DAG}/dagRuns", params=interval)["dag_runs"]
    _agree("The backfill did not make the runs its form announced", {"runs": len(made)}, {"runs": runs})
    sent_before = 0
    for run in made:
        run_id, report = run["dag_run_id"], report_of(airflow, run["dag_run_id"])
        _agree(f"Run {run_id} is not a backfill that succeeded", run, {"run_type": "backfill", "state": "success"})
        _agree(
            f"Run {run_id} reports what a backfill of sent orders must not",
            report,
            {"run_kind": "backfill", "received": 0, "sent": 0, "resent": 0},
        )
        sent_before += report["window_orders"].get("sent", 0)
    if not sent_before:
        raise AirflowFailed("No order of the backfill's hours was sent before, so it shows nothing.")


def check_dry_run(finished: FinishedRun, window: str) -> None:
    """The dry run would have sent the window's orders again, and sent none.

    :param window: as the report has it, ``start/end``.
    :raises AirflowFailed: one sentence that says what is different.
    """
    _agree(f"Run {finished.run_id} did not succeed", {"state": finished.state}, {"state": "success"})
    _agree(
        f"Run {finished.run_id} is not the dry run that was asked for",
        finished.counts,
        {"run_kind": "manual", "dry_run": True, "window": window, "sent": 0, "resent": 0},
    )
    if not finished.counts["would_send"]:
        raise AirflowFailed(f"Run {finished.run_id} would have sent nothing, so its sending nothing shows nothing.")


def check_nothing_arrived(sandbox: Mapping[str, Any], before: Mapping[str, int], what: str) -> None:
    """:raises AirflowFailed: the Profile Store was sent something since ``before``."""
    _agree(f"The Profile Store holds something else after the {what}", held_by_profile_store(sandbox), before)


def _agree(otherwise: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [
        f"{name} is {found.get(name)!r}, not {value!r}" for name, value in wanted.items() if found.get(name) != value
    ]
    if different:
        raise AirflowFailed(f"{otherwise}: {', '.join(different)}.")
