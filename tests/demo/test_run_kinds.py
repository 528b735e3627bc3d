"""Each row of the run-kind table (design.md, "Kinds of run"), through the real scheduler of one Airflow."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from rich.console import Console

from demo.local_airflow import AirflowFailed
from demo.runs import DAG, follow, manual_run, report_of
from sandbox import remote
from tests.demo.product import DAY, Product, order_of

pytestmark = pytest.mark.timeout(420)


def test_a_scheduled_run_drains_loads_everything_and_sends_everything_due(product: Product) -> None:
    counts = product.first.counts
    assert product.first.state == "success"
    assert (counts["run_kind"], counts["received"], counts["sent"]) == ("scheduled", 3115, 2727)
    assert counts["window"] is not None
    assert product.on_the_bus() == 0


def test_a_dry_run_says_what_would_be_sent_and_changes_nothing(product: Product) -> None:
    product.publish("K-DRY-1", "K-DRY-2")
    events = product.events()
    dry = product.run(dry_run=True)
    assert dry.state == "success"
    assert dry.counts["dry_run"] is True
    assert (dry.counts["received"], dry.counts["would_send"], dry.counts["sent"]) == (2, 2, 0)
    assert product.on_the_bus() == 2
    assert product.events() == events
    real = product.run()
    assert (real.counts["received"], real.counts["orders"], real.counts["sent"]) == (2, 2, 2)
    assert product.events() == events + 2


def test_a_manual_run_without_a_logical_date_drains_as_a_scheduled_one(product: Product) -> None:
    product.publish("K-MANUAL-1")
    run = product.run()
    assert run.counts["run_kind"] == "manual"
    assert run.counts["window"] is None
    assert (run.counts["received"], run.counts["sent"]) == (1, 1)


@pytest.mark.parametrize("year", ["2017", "1985"])
def test_a_manual_run_with_a_logical_date_of_its_own_is_refused(product: Product, year: str) -> None:
    """Of a run dated before the DAG's start date Airflow makes a success without a task."""
    run = product.airflow.call("POST", f"/dags/{DAG}/dagRuns", json={"logical_date": f"{year}-06-09T08:30:00Z"})
    finished = follow(product.airflow, run["dag_run_id"], Console(quiet=True), "run")
    assert finished.state == "failed"


def test_a_manual_run_of_now_is_an_ordinary_one(product: Product) -> None:
    product.publish("K-NOW")
    now = datetime.now(timezone.utc).isoformat()
    run = product.airflow.call("POST", f"/dags/{DAG}/dagRuns", json={"logical_date": now})
    finished = follow(product.airflow, run["dag_run_id"], Console(quiet=True), "run")
    assert (finished.counts["run_kind"], finished.counts["window"]) == ("manual", None)
    assert (finished.counts["received"], finished.counts["sent"]) == (1, 1)


def test_a_data_interval_of_a_manual_run_is_its_window(product: Product) -> None:
    dates = {"logical_date": "2017-06-08T00:00:00Z", "data_interval_start": "2017-06-06T00:00:00Z"}
    dates |= {"data_interval_end": "2017-06-07T00:00:00Z"}
    run = product.airflow.call("POST", f"/dags/{DAG}/dagRuns", json=dates)
    finished = follow(product.airflow, run["dag_run_id"], Console(quiet=True), "run")
    assert finished.counts["window"] == "2017-06-06T00:00:00+00:00/2017-06-07T00:00:00+00:00"


def test_a_manual_run_of_a_window_may_leave_the_topic_alone(product: Product) -> None:
    product.publish("K-WINDOW-1")
    window = {"window_start": f"{DAY}T00:00:00Z", "window_end": "2017-06-08T00:00:00Z"}
    kept = product.run(**window, drain_topic=False)
    assert (kept.counts["received"], kept.counts["sent"]) == (0, 0)
    assert product.on_the_bus() == 1
    sent = product.run(**window)
    assert (sent.counts["received"], sent.counts["sent"]) == (1, 1)
    assert sum(sent.counts["window_orders"].values()) > 400


def test_a_year_of_extracts_is_one_run_of_a_window(product: Product) -> None:
    first = date(2015, 1, 1)
    for day in (first + timedelta(days=n) for n in range(365)):
        order = order_of(f"K-YEAR-{day}", f"{day}T12:00:00Z")
        Path(product.sandbox["extracts"], f"late-{day}.jsonl").write_text(json.dumps(order))
    run = product.run(window_start="2015-01-01T00:00:00Z", window_end="2016-01-01T00:00:00Z", drain_topic=False)
    assert (run.state, run.counts["received"], run.counts["sent"]) == ("success", 365, 365)
    assert run.counts["window_orders"] == {"sent": 365}


def test_late_files_and_messages_of_past_days_go_out_with_the_next_ordinary_run(product: Product) -> None:
    late = order_of("K-LATE-1", "2016-02-29T12:00:00Z")
    Path(product.sandbox["extracts"], "late-2016-02-29.jsonl").write_text(json.dumps(late))
    product.publish("K-LATE-2")
    run = product.run()
    assert (run.counts["received"], run.counts["orders"], run.counts["sent"]) == (2, 2, 2)


def test_tracking_is_switched_off_for_a_single_run(product: Product) -> None:
    product.publish("K-OFF-1")
    off = product.run(track_events="off")
    assert (off.counts["received"], off.counts["sent"], off.counts["tracking"]) == (1, 0, False)
    assert product.run().counts["sent"] == 1
    with pytest.raises(AirflowFailed, match="answered 4"):
        product.run(track_events="maybe")


def test_the_pools_are_there_and_the_tasks_are_in_them(product: Product) -> None:
    pools = {each["name"]: each["slots"] for each in product.airflow.call("GET", "/pools")["pools"]}
    assert {name: pools[name] for name in pools if name.startswith("instore_")} == {
        "instore_bus": 1,
        "instore_loyalty": 4,
        "instore_profile_store": 4,
    }
    run = f"/dags/{DAG}/dagRuns/{product.first.run_id}"
    tasks = product.airflow.call("GET", f"{run}/taskInstances", params={"limit": 100})["task_instances"]
    assert {(each["task_id"], each["pool"]) for each in tasks} == {
        ("drain_topic", "instore_bus"),
        ("load_extracts", "default_pool"),
        ("plan_batches", "default_pool"),
        ("batch.look_up_customers", "instore_loyalty"),
        ("batch.send_events", "instore_profile_store"),
        ("report_run", "default_pool"),
    }


def test_the_send_task_leads_to_the_page_of_the_events(product: Product) -> None:
    task = f"/dags/{DAG}/dagRuns/{product.first.run_id}/taskInstances/batch.send_events"
    links = product.airflow.call("GET", f"{task}/links", params={"map_index": 0})["extra_links"]
    assert links == {"Events in the Profile Store": product.sandbox["profile_store"]["page"]}
    page = requests.get(links["Events in the Profile Store"], timeout=10)
    assert (page.status_code, "StorePurchase" in page.text) == (200, True)


@pytest.mark.parametrize("conf", [{"window_start": f"{DAY}T00:00:00Z"}, {"windw_end": f"{DAY}T00:00:00Z"}])
def test_a_bad_window_is_refused_in_one_sentence(product: Product, conf: dict[str, str]) -> None:
    run = product.run(**conf)
    assert run.state == "failed"
    states = {row["task"]: row["state"] for row in run.tasks}
    assert states["drain_topic"] == states["load_extracts"] == states["plan_batches"] == "failed"
    assert states["look_up_customers"] == states["send_events"] == "upstream_failed"


def test_a_loyalty_api_that_is_down_holds_up_only_whom_it_must_be_asked_for(product: Product) -> None:
    product.publish("K-ASKED-1", card="30000000000000001")
    product.publish("K-KNOWN-1", email="known@example.com")
    remote.change_faults(product.sandbox["loyalty"]["url"], {"share": 1, "answers": [503]}, clear=True)
    try:
        run = product.run()
    finally:
        remote.change_faults(product.sandbox["loyalty"]["url"], {}, clear=True)
    assert run.state == "failed"
    states = {row["task"]: row["state"] for row in run.tasks}
    assert (states["look_up_customers"], states["send_events"], states["report_run"]) == ("failed", "success", "failed")
    assert (run.counts["received"], run.counts["sent"], run.counts["carried_over"]) == (2, 1, 1)
    # The runbook's remedy. Airflow's own deadlines made it an internal server error until they had passed.
    clear(product, run.run_id, only_failed=True)
    cleared = follow(product.airflow, run.run_id, Console(quiet=True), "run")
    assert (cleared.state, cleared.counts["unmatched"], cleared.counts["sent"]) == ("success", 1, 1)


def test_a_backfill_never_drains_sends_nothing_twice_and_again_only_with_resend(product: Product) -> None:
    product.publish("K-BACKFILL-1")
    events = product.events()
    first = backfill(product, {})
    assert {report["run_kind"] for report in first} == {"backfill"}
    assert [report["sent"] for report in first] == [0, 0]
    assert product.on_the_bus() == 1
    assert product.events() == events
    assert backfill(product, {}) == first, "without reprocessing there is nothing to do"
    again = backfill(product, {"resend": True}, reprocess="completed")
    resent = sum(report["resent"] for report in again)
    assert resent == sum(report["window_orders"].get("sent", 0) for report in again) > 10
    assert [report["sent"] for report in again] == [0, 0]
    assert product.events() == events + resent
    assert product.run().counts["received"] == 1


def test_a_cleared_run_leaves_the_topic_alone_and_sends_nothing_again(product: Product) -> None:
    product.publish("K-CLEARED-1")
    events, waiting = product.events(), product.on_the_bus()
    clear(product, product.first.run_id)
    cleared = follow(product.airflow, product.first.run_id, Console(quiet=True), "run")
    assert cleared.state == "success"
    assert cleared.counts["run_kind"] == "cleared"
    assert (cleared.counts["received"], cleared.counts["sent"], cleared.counts["resent"]) == (0, 0, 0)
    assert product.on_the_bus() == waiting >= 1
    assert product.events() == events
    assert product.run().counts["received"] == waiting


def test_a_backfill_of_failed_runs_begins_only_those_again(product: Product) -> None:
    """Made as the UI's form does; backwards, one run at a time, and at the end two at once beside an ordinary run."""
    day = "2017-06-09"
    kept = [order_of(f"K-FAILED-{hour}", f"{day}T{hour:02d}:30:00Z") for hour in (4, 5)]
    Path(product.sandbox["extracts"], f"late-{day}.jsonl").write_text("\n".join(map(json.dumps, kept)))
    assert product.run(track_events="off").counts["received"] == 2
    store = product.sandbox["profile_store"]["url"]
    remote.change_faults(store, {"script": {"K-FAILED-5": [503] * 60}, "only": ["POST "]}, clear=True)
    try:
        runs = backfill_by_form(product, f"{day}T04:00:00Z", f"{day}T06:00:00Z", run_backwards=True)
    finally:
        remote.change_faults(store, {}, clear=True)
    assert {hour: run["state"] for hour, run in runs.items()} == {"04": "success", "05": "failed", "06": "success"}
    assert runs["06"]["start_date"] < runs["05"]["start_date"] < runs["04"]["start_date"]
    assert report_of(product.airflow, runs["04"]["dag_run_id"])["sent"] == 1

    again = {"from_date": f"{day}T04:00:00Z", "to_date": f"{day}T06:00:00Z", "max_active_runs": 2}
    product.publish("K-BESIDE-1")
    events, beside = product.events(), manual_run(product.airflow)
    runs = backfill_by_form(product, **again, reprocess_behavior="failed")
    assert follow(product.airflow, beside, Console(quiet=True), "run").counts["sent"] >= 1
    assert [run["state"] for run in runs.values()] == ["success"] * 3
    reports = {hour: report_of(product.airflow, run["dag_run_id"]) for hour, run in runs.items()}
    # The ordinary run may have been the first to take up what was left.
    assert product.events() == events + 2
    assert reports["04"]["sent"] == 1, "that run was not begun again, its report is the first one"
    assert sum(report["resent"] for report in reports.values()) == 0


def clear(product: Product, run_id: str, *, only_failed: bool = False) -> None:
    """Clear a run as the UI does."""
    product.airflow.call(
        "POST",
        f"/dags/{DAG}/clearTaskInstances",
        json={
            "dag_run_id": run_id,
            "dry_run": False,
            "reset_dag_runs": True,
            "only_failed": only_failed,
            "include_downstream": only_failed,
        },
    )


def backfill_by_form(product: Product, from_date: str, to_date: str, **options: Any) -> dict[str, dict[str, Any]]:
    """Backfill some hours of a day by the API that the UI's form uses; its runs by the hour."""
    body = {"dag_id": DAG, "from_date": from_date, "to_date": to_date, "dag_run_conf": {}, "max_active_runs": 1}
    product.airflow.call("POST", "/backfills", json=body | {"reprocess_behavior": "none"} | options)
    wait_for_the_backfill(product)
    runs = backfilled(product, from_date, to_date)
    return {run["logical_date"][11:13]: run for run in sorted(runs, key=lambda run: str(run["logical_date"]))}


def backfill(product: Product, conf: dict[str, Any], reprocess: str = "none") -> list[dict[str, Any]]:
    """Backfill two hours of the day by the command line; the reports of its two runs."""
    first, last = f"{DAY}T18:00:00+00:00", f"{DAY}T19:00:00+00:00"
    product.airflow.run(
        "backfill", "create", "--dag-id", DAG, "--from-date", first, "--to-date", last,
        "--reprocess-behavior", reprocess, "--dag-run-conf", json.dumps(conf),
    )  # fmt: skip
    wait_for_the_backfill(product)
    runs = backfilled(product, first, last)
    assert [run["state"] for run in runs] == ["success", "success"]
    return [report_of(product.airflow, run["dag_run_id"]) for run in runs]


def backfilled(product: Product, first: str, last: str) -> list[dict[str, Any]]:
    """The backfill runs of these hours."""
    interval = {"run_type": "backfill", "logical_date_gte": first, "logical_date_lte": last}
    return list(product.airflow.call("GET", f"/dags/{DAG}/dagRuns", params=interval)["dag_runs"])


def wait_for_the_backfill(product: Product) -> None:
    """Until the runs of the newest backfill have ended, and Airflow has registered it.

    By itself it looks every 30 s. A backfill that is cancelled has no further runs, and this one has none left.
    """
    newest = max(product.airflow.call("GET", "/backfills", params={"dag_id": DAG})["backfills"], key=by_id)
    until = time.monotonic() + 240
    while unfinished(product):
        assert time.monotonic() < until, "the backfill did not end within 240 s"
        time.sleep(0.5)
    with contextlib.suppress(AirflowFailed):  # it has looked just now
        product.airflow.call("PUT", f"/backfills/{newest['id']}/cancel")


def unfinished(product: Product) -> int:
    """How many backfill runs are waiting or under way."""
    params = {"run_type": "backfill", "state": ["queued", "running"]}
    return int(product.airflow.call("GET", f"/dags/{DAG}/dagRuns", params=params)["total_entries"])


def by_id(row: dict[str, Any]) -> int:
    return int(row["id"])
