"""Claims: two runs never hold the same order, batches follow cards, and each kind of run takes only what is its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import claim, keep_alive, open_run, release
from include.instore.model.windows import RunParams, resolve_run
from tests.instore import given

ROOT = Path(__file__).parents[3]
_CLAIM = """
import sys
from include.instore.ledger import Ledger
from include.instore.ledger.claims import claim, open_run
from include.instore.model.windows import Run
ledger, run = Ledger(sys.argv[1]), Run(sys.argv[2], "scheduled", None, True, True, "due")
open_run(ledger, run)
print("ready", flush=True)
sys.stdin.readline()
print(sum(batch.orders for batch in claim(ledger, run, batch_orders=500, claim_minutes=120)))
ledger.close()
"""


def holders(ledger: Ledger) -> dict[str, str | None]:
    return {row["order_number"]: row["claim_run"] for row in given.on_the_way(ledger)}


def test_what_one_run_holds_another_cannot_claim(ledger: Ledger, another_process: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"))
    assert sum(batch.orders for batch in given.planned(ledger)) == 2
    given.landed(ledger, given.document("S3"))
    assert sum(batch.orders for batch in given.planned(another_process, given.run("run-2"))) == 1
    assert holders(ledger) == {"S1": "run-1", "S2": "run-1", "S3": "run-2"}


def test_threads_that_claim_at_the_same_time_share_the_orders_out_without_overlap(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(f"S{number}") for number in range(60)))
    runs = [given.run(f"run-{number}") for number in range(4)]
    for run in runs:
        open_run(ledger, run)
    begin = threading.Barrier(len(runs))
    held: dict[str, int] = {}

    def take(number: int) -> None:
        begin.wait()
        batches = claim(ledger, runs[number], batch_orders=500, claim_minutes=120)
        held[runs[number].run_id] = sum(batch.orders for batch in batches)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(held.values()) == 60
    assert Counter(holders(ledger).values()) == Counter({run: count for run, count in held.items() if count})


def test_processes_that_claim_at_the_same_time_share_the_orders_out_without_overlap(
    ledger: Ledger, ledger_url: sa.URL
) -> None:
    given.landed(ledger, *(given.document(f"S{number}") for number in range(60)))
    url = ledger_url.render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _CLAIM, url, f"run-{number}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ended = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert err == ""
        ended.append(int(out))
    assert sum(ended) == 60
    held = Counter(holders(ledger).values())
    assert {f"run-{number}": count for number, count in enumerate(ended) if count} == dict(held)


def test_the_orders_of_a_run_without_a_sign_of_life_are_taken_over(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", loyaltyCardNumber="1"), given.document("S2", loyaltyCardNumber="2"))
    given.planned(ledger, batch_orders=1)
    given.alive_hours_ago(ledger, 2.1, batch=0)
    given.alive_hours_ago(ledger, 1.9, batch=1)
    given.planned(ledger, given.run("run-2"), claim_minutes=120)
    assert holders(ledger) == {"S1": "run-2", "S2": "run-1"}


def test_a_sign_of_life_keeps_the_claim_of_its_batch_only(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", loyaltyCardNumber="1"), given.document("S2", loyaltyCardNumber="2"))
    given.planned(ledger, batch_orders=1)
    given.alive_hours_ago(ledger, 3)
    with ledger.write() as connection:
        keep_alive(connection, given.batch())
    given.planned(ledger, given.run("run-2"))
    assert holders(ledger) == {"S1": "run-1", "S2": "run-2"}


def test_planning_again_finds_its_own_claims(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(f"S{number}", loyaltyCardNumber=str(number)) for number in range(1, 6)))
    first = given.planned(ledger, batch_orders=2)
    before = given.on_the_way(ledger)
    assert given.planned(ledger, batch_orders=2) == first
    after = given.on_the_way(ledger)
    assert [row["claim_batch"] for row in after] == [row["claim_batch"] for row in before]
    assert (given.tally(ledger)["claimed"], given.tally(ledger)["batches"]) == (5, 3)


def test_released_orders_stay_where_they_are_on_their_way_and_are_free(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"))
    given.planned(ledger)
    given.set_orders(ledger, sa.text("order_number = 'S1'"), status="ready")
    release(ledger, "run-1")
    assert given.statuses(ledger) == {"S1": "ready", "S2": "pending"}
    assert (given.row(ledger, "S1")["claim_run"], given.rows(ledger, "claims")) == (None, [])
    assert given.planned(ledger, given.run("run-2"))[0].orders == 2


def test_releasing_gives_up_only_what_the_run_holds(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.planned(ledger, given.run("run-2"))
    release(ledger, "run-1")
    assert holders(ledger) == {"S1": "run-2"}


@pytest.mark.parametrize(("count", "batch_orders", "most"), [(7, 3, 3), (120, 1, 3), (49, 1, 1), (3, 500, 3)])
def test_there_are_at_most_fifty_batches(ledger: Ledger, count: int, batch_orders: int, most: int) -> None:
    given.landed(
        ledger, *(given.document(f"S{number}", loyaltyCardNumber=str(number)) for number in range(1, count + 1))
    )
    batches = given.planned(ledger, batch_orders=batch_orders)
    assert len(batches) <= 50
    assert [batch.batch for batch in batches] == list(range(len(batches)))
    assert sum(batch.orders for batch in batches) == count
    assert max(batch.orders for batch in batches) <= most
    in_ledger = Counter(row["claim_batch"] for row in given.on_the_way(ledger))
    assert in_ledger == {batch.batch: batch.orders for batch in batches}


def test_a_card_is_never_in_two_batches(ledger: Ledger) -> None:
    documents = [given.document(f"S{number}", loyaltyCardNumber=str(number % 7 + 1)) for number in range(70)]
    documents += [given.document(f"E{number}", loyaltyCardNumber=None, emailAddress="e@x.org") for number in range(9)]
    given.landed(ledger, *documents)
    batches = given.planned(ledger, batch_orders=4)
    assert len(batches) >= 8
    batches_of: dict[str, set[int]] = {}
    for row in given.on_the_way(ledger):
        batches_of.setdefault(row["loyalty_card"] or row["order_number"], set()).add(row["claim_batch"])
    assert {len(each) for each in batches_of.values()} == {1}


def test_nothing_to_do_is_no_batch(ledger: Ledger) -> None:
    assert given.planned(ledger) == []
    assert (given.tally(ledger)["claimed"], given.tally(ledger)["batches"]) == (0, 0)


def test_orders_at_their_end_are_never_claimed(ledger: Ledger) -> None:
    ends = ("sent", "rejected", "suppressed", "unmatched")
    given.landed(ledger, *(given.document(status) for status in ends))
    for status in ends:
        given.set_orders(ledger, sa.text(f"order_number = '{status}'"), status=status)
    assert given.planned(ledger) == []
    assert set(holders(ledger).values()) == {None}


@pytest.mark.parametrize("kind", ["backfill", "cleared"])
def test_rejected_orders_go_out_again_only_where_a_run_is_asked_for_them(ledger: Ledger, kind: str) -> None:
    given.landed(ledger, given.document("S1"), run=given.run("run-1"))
    given.planned(ledger, given.run("run-1"))
    release(ledger, "run-1")
    given.set_orders(ledger, status="rejected", outcome_run="run-1")
    assert given.planned(ledger, given.run("hourly")) == []
    window = given.window("2017-06-05", "2017-06-06")
    asked = {
        "backfill": given.run("b", "backfill", window=window, claims="in_window"),
        "cleared": given.run("run-1#1", "cleared", claims="own", clear_number=1),
    }[kind]
    open_run(ledger, asked)
    off = claim(ledger, asked, batch_orders=500, claim_minutes=120, tracking=False)
    assert sum(batch.orders for batch in off) == 0
    assert sum(batch.orders for batch in given.planned(ledger, asked)) == 1
    assert given.statuses(ledger) == {"S1": "ready"}


def test_what_a_run_saw_rejected_itself_is_not_claimed_when_its_planning_is_tried_again(ledger: Ledger) -> None:
    backfill = given.run("b", "backfill", window=given.window("2017-06-05", "2017-06-06"), claims="in_window")
    given.landed(ledger, given.document("S1"), run=backfill)
    given.set_orders(ledger, status="rejected", outcome_run="b")
    assert given.planned(ledger, backfill) == []


def test_orders_that_another_run_plans_are_no_longer_counted_as_claimed_by_the_one_before(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(number) for number in ("S1", "S2", "S3")))
    given.planned(ledger)
    given.set_orders(ledger, sa.text("order_number = 'S1'"), status="sent")
    release(ledger, "run-1")
    given.planned(ledger, given.run("run-2"))
    assert (given.tally(ledger, "run-1")["claimed"], given.tally(ledger, "run-2")["claimed"]) == (1, 2)
    given.planned(ledger, given.run("run-2"))
    assert (given.tally(ledger, "run-1")["claimed"], given.tally(ledger, "run-2")["claimed"]) == (1, 2)


def test_unmatched_orders_are_claimed_again_when_they_are_due(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(number) for number in ("due", "later", "never")))
    given.set_orders(ledger, status="unmatched", reason="not_found")
    given.set_orders(ledger, sa.text("order_number = 'due'"), next_attempt=given.hours_ago(0.01))
    given.set_orders(ledger, sa.text("order_number = 'later'"), next_attempt=given.hours_ago(-1))
    assert sum(batch.orders for batch in given.planned(ledger)) == 1
    assert given.statuses(ledger) == {"due": "pending", "later": "unmatched", "never": "unmatched"}


def test_a_backfill_claims_the_orders_of_its_window_and_no_other(ledger: Ledger) -> None:
    days = {"before": "2017-06-04T23:59:59Z", "first": "2017-06-05T00:00:00Z", "after": "2017-06-06T00:00:00Z"}
    given.landed(ledger, *(given.document(number, date=date) for number, date in days.items()), run=given.run("other"))
    backfill = given.run("b", "backfill", window=given.window("2017-06-05", "2017-06-06"), claims="in_window")
    assert sum(batch.orders for batch in given.planned(ledger, backfill)) == 1
    assert holders(ledger) == {"before": None, "first": "b", "after": None}


def test_a_window_run_without_a_window_claims_nothing(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    assert given.planned(ledger, given.run("b", "backfill", claims="in_window")) == []


def test_a_cleared_run_claims_what_it_received_or_planned_and_no_other(ledger: Ledger) -> None:
    given.landed(ledger, given.document("planned"), run=given.run("run-0"))
    given.planned(ledger, given.run("run-1"))
    given.landed(ledger, given.document("received"), run=given.run("run-1"))
    release(ledger, "run-1")
    given.landed(ledger, given.document("foreign"), run=given.run("run-2"))
    given.planned(ledger, given.run("run-1", "cleared", claims="own"))
    assert holders(ledger) == {"planned": "run-1", "received": "run-1", "foreign": None}
    assert given.tally(ledger, "run-1")["kind"] == "cleared"


def test_opening_a_run_again_keeps_its_counts(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    started = given.tally(ledger)["started_at"]
    open_run(ledger, given.run("run-1", "cleared", window=given.window("2017-06-05", "2017-06-06")))
    tally = given.tally(ledger)
    assert (tally["received"], tally["kind"], tally["started_at"]) == (1, "cleared", started)
    assert (tally["window_start"], tally["window_end"]) == (given.moment("2017-06-05"), given.moment("2017-06-06"))


def test_two_dags_that_run_at_the_same_hour_share_the_orders_out_without_overlap(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(f"S{number}") for number in range(20)), run=given.run("before"))
    planned = {}
    for dag_id in ("instore_orders", "instore_maintenance"):
        dates = dict.fromkeys(("data_interval_start", "data_interval_end"))
        run_id = "scheduled__2026-11-27T06:00:00+00:00"
        dag_run = SimpleNamespace(dag_id=dag_id, run_id=run_id, run_type="scheduled", clear_number=0, **dates)
        run = open_run(ledger, resolve_run(dag_run, RunParams()))
        planned[dag_id] = sum(batch.orders for batch in given.planned(ledger, run))
    assert planned == {"instore_orders": 20, "instore_maintenance": 0}
    assert len(given.rows(ledger, "runs")) == 3


def test_a_run_that_is_begun_again_has_an_id_of_its_own_and_its_single_tasks_go_on_under_it(ledger: Ledger) -> None:
    first, again = given.run("run-1"), given.run("run-1", clear_number=1)
    assert open_run(ledger, first).run_id == "run-1"
    assert open_run(ledger, again, begins=False).run_id == "run-1"
    assert open_run(ledger, again).run_id == "run-1#1"
    assert open_run(ledger, again, begins=False).run_id == "run-1#1"


def test_a_run_that_plans_again_has_as_many_batches_as_before(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(f"S{number}", loyaltyCardNumber=str(number)) for number in range(1, 4)))
    assert [batch.orders for batch in given.planned(ledger, batch_orders=1)] == [1, 1, 1]
    given.set_orders(ledger, status="sent", claim_run=None)
    again = open_run(ledger, given.run("run-1", clear_number=1))
    assert [batch.orders for batch in claim(ledger, again, batch_orders=1, claim_minutes=120)] == [0, 0, 0]
