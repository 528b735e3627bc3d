"""A service in trouble, and a service with a limit: what all tasks of a run do about it together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from instore_provider.hooks.profile_store import ProfileStoreHook

from include.instore.ledger import Ledger
from include.instore.ledger.intake import land
from include.instore.ledger.records import Arrival
from include.instore.model.settings import Settings
from include.instore_airflow import connections, tasks
from include.instore_airflow.retry_policy import RetryByKind, TryAgain
from sandbox.faults import FaultSettings
from sandbox.loyalty import LoyaltyKeys, LoyaltyStandIn, Member
from sandbox.profile_store import ProfileStoreFaults, ProfileStoreStandIn
from tests.glue.orders import pending_order, through

ROOT = Path(__file__).parents[2]
RUN = SimpleNamespace(
    dag_id="instore_orders",
    run_id="manual__1",
    run_type="manual",
    logical_date=None,
    data_interval_start=None,
    data_interval_end=None,
    clear_number=0,
    conf=None,
)
MEMBERS = [
    Member(str(number), f"60350000{number:08}", f"m{number}@example.com", "A", "B", "active") for number in range(40)
]
_LOOK_UP = """
import sys
from types import SimpleNamespace
from include.instore_airflow import tasks
run = SimpleNamespace(dag_id="instore_orders", run_id="manual__1", run_type="manual", logical_date=None,
                      data_interval_start=None, data_interval_end=None, clear_number=0, conf=None)
print(tasks.look_up_customers(run, {}, {"batch": int(sys.argv[1]), "orders": 6})["looked_up"])
"""


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Set a connection as Airflow reads it from the environment."""

    def setter(conn_id: str, conn_type: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, **fields}))

    setter("instore_ledger", "sqlite", host=str(tmp_path / "ledger.db"))
    return setter


@pytest.fixture
def ledger(connect: Callable[..., None], tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as opened:
        yield opened


@pytest.fixture
def loyalty(connect: Callable[..., None]) -> Iterator[LoyaltyStandIn]:
    with LoyaltyStandIn(MEMBERS, LoyaltyKeys("k", "i", "s")) as running:
        connect("instore_loyalty", "loyalty", host=running.url, password="k")
        yield running


@pytest.fixture
def profile_store(connect: Callable[..., None]) -> Iterator[ProfileStoreStandIn]:
    with ProfileStoreStandIn("p") as running:
        extra = {"read_host": running.url, "read_api_key": "p"}
        connect("instore_profile_store", "profile_store", host=running.url, password="p", extra=extra)
        yield running


def plan(ledger: Ledger, orders: int, monkeypatch: pytest.MonkeyPatch, *, batch_orders: int = 6, **fields: Any) -> Any:
    """Orders of one card each, in batches."""
    monkeypatch.setenv("INSTORE_BATCH_ORDERS", str(batch_orders))
    tasks.drain_topic(RUN, {"drain_topic": False})
    rows = [
        pending_order(f"S{number:03}", **{"loyaltyCardNumber": MEMBERS[number].card, "emailAddress": None, **fields})
        for number in range(orders)
    ]
    land(ledger, RUN.run_id, [Arrival(row, b"") for row in rows], [])
    return tasks.plan_batches(RUN, {})


def statuses(ledger: Ledger) -> dict[str, int]:
    from include.instore.ledger.runs import count_run

    return dict(count_run(ledger, RUN.run_id).ledger)


def calls(stand_in: Any) -> int:
    return len(stand_in.app.calls.arrivals())


def most_in_a_second(moments: list[float], second: float = 1.0) -> int:
    return max(sum(begin <= each < begin + second for each in moments) for begin in moments)


def test_a_limit_of_calls_a_second_holds_across_tasks_in_several_processes(
    ledger: Ledger, loyalty: LoyaltyStandIn, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 5
    connect("instore_loyalty", "loyalty", host=loyalty.url, password="k", extra={"rate_limit": limit})
    batches = plan(ledger, 18, monkeypatch)
    assert len(batches) == 3
    loyalty.app.faults.replace(FaultSettings(share=0.2, answers=(503,)))  # retries count as well
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LOOK_UP, str(each["batch"])],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for each in batches
    ]  # fmt: skip
    results = [process.communicate(timeout=100) for process in processes]
    assert [out.strip().splitlines()[-1:] for out, _ in results] == [["6"]] * 3, results
    moments = loyalty.app.calls.arrivals()
    assert len(moments) > 18
    # The stand-in's own record. Tolerance: one call may come late and the next in time, on a busy machine by 100 ms.
    assert most_in_a_second(moments, 0.9) <= limit
    assert most_in_a_second(moments) <= limit + 1
    assert moments[-1] - moments[0] >= (len(moments) - 1) / limit
    assert statuses(ledger) == {"ready": 18}


def test_a_loyalty_api_that_is_down_ends_all_look_ups_after_a_few_calls_and_loses_nothing(
    ledger: Ledger, loyalty: LoyaltyStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_BREAKER_SECONDS", "1")
    batches = plan(ledger, 36, monkeypatch)
    loyalty.app.faults.replace(FaultSettings(share=1, answers=(503,)))
    sentences, waits = set(), []
    for batch in batches:
        with pytest.raises(TryAgain) as error:
            tasks.look_up_customers(RUN, {}, batch)
        sentences.add(str(error.value))
        waits.append(error.value.retry_after)
    assert len(batches) == 6
    # So many failing calls open it; up to seven more were under way, one for each other thread. Each task waits for
    # twice as long as it stays open, in which a call is tried once or twice.
    failures = Settings().services.breaker_failures
    assert failures <= calls(loyalty) <= failures + 7 + 3 * len(batches)
    assert sentences == {
        f"Connection 'instore_loyalty': the loyalty API was not called: circuit open after {failures} failures in a "
        "row (the last one answered 503), so try again later or check its field 'host'."
    }
    assert all(wait is None or 0 < wait <= 1 for wait in waits)
    assert statuses(ledger) == {"pending": 36}


def test_when_the_loyalty_api_is_well_again_the_same_batch_is_looked_up(
    ledger: Ledger, loyalty: LoyaltyStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_BREAKER_SECONDS", "0.5")
    (batch,) = plan(ledger, 12, monkeypatch, batch_orders=50)
    loyalty.app.faults.replace(FaultSettings(share=1, answers=(503,)))
    with pytest.raises(TryAgain):
        tasks.look_up_customers(RUN, {}, batch)
    loyalty.app.faults.replace(FaultSettings())
    assert tasks.look_up_customers(RUN, {}, batch)["looked_up"] == 12
    assert statuses(ledger) == {"ready": 12}


def test_a_tracking_api_that_is_down_ends_the_sending_after_a_few_calls_and_the_orders_stay_ready(
    ledger: Ledger,
    loyalty: LoyaltyStandIn,
    profile_store: ProfileStoreStandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSTORE_BREAKER_FAILURES", "3")
    batches = plan(ledger, 24, monkeypatch)
    for batch in batches:
        tasks.look_up_customers(RUN, {}, batch)
    profile_store.app.faults.replace(ProfileStoreFaults(share=1, answers=(429,)))
    for batch in batches:
        with closing(ProfileStoreHook(connections.PROFILE_STORE)) as hook, pytest.raises(TryAgain) as error:
            tasks.send_events(RUN, {}, batch, "profile_store", through(hook))
        assert str(error.value) == (
            "The destination did not accept 6 of 6 events (the Tracking API was not called: circuit open after 3 "
            "failures in a row (the last one answered 429)); they stay ready, the next try sends them."
        )
        assert error.value.retry_after is not None
    assert calls(profile_store) == 3
    assert statuses(ledger) == {"ready": 24}


def test_a_profile_store_that_is_down_does_not_hold_up_the_loyalty_api(
    ledger: Ledger, loyalty: LoyaltyStandIn, profile_store: ProfileStoreStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_BREAKER_FAILURES", "1")
    first, second = plan(ledger, 12, monkeypatch)
    tasks.look_up_customers(RUN, {}, first)
    profile_store.app.faults.replace(ProfileStoreFaults(share=1, answers=(503,)))
    with closing(ProfileStoreHook(connections.PROFILE_STORE)) as hook, pytest.raises(TryAgain):
        tasks.send_events(RUN, {}, first, "profile_store", through(hook))
    assert tasks.look_up_customers(RUN, {}, second)["looked_up"] == 6


def test_an_outage_that_ends_while_the_breaker_is_open_costs_no_try_of_the_task(
    ledger: Ledger, loyalty: LoyaltyStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_BREAKER_SECONDS", "4")
    (batch,) = plan(ledger, 40, monkeypatch, batch_orders=50)
    loyalty.app.faults.replace(FaultSettings(share=1, answers=(503,)))
    well_again = threading.Timer(2.5, lambda: loyalty.app.faults.replace(FaultSettings()))
    well_again.start()
    assert tasks.look_up_customers(RUN, {}, batch)["looked_up"] == 40
    well_again.join()
    assert statuses(ledger) == {"ready": 40}


def test_what_a_service_asked_for_reaches_the_retry_policy(
    ledger: Ledger, loyalty: LoyaltyStandIn, profile_store: ProfileStoreStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_BREAKER_FAILURES", "1")
    monkeypatch.setenv("INSTORE_BREAKER_SECONDS", "777")
    (batch,) = plan(ledger, 3, monkeypatch, batch_orders=50)
    tasks.look_up_customers(RUN, {}, batch)
    profile_store.app.faults.replace(ProfileStoreFaults(share=1, answers=(429,), retry_after=5))
    with closing(ProfileStoreHook(connections.PROFILE_STORE)) as hook, pytest.raises(TryAgain) as error:
        tasks.send_events(RUN, {}, batch, "profile_store", through(hook))
    decision = RetryByKind().evaluate(error.value, 1, 2)
    assert decision.retry_delay is not None
    assert 700 < decision.retry_delay.total_seconds() <= 777 + 30


def test_a_rate_limit_that_is_no_number_is_a_configuration_error(
    ledger: Ledger, loyalty: LoyaltyStandIn, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = plan(ledger, 3, monkeypatch)
    connect("instore_loyalty", "loyalty", host=loyalty.url, password="k", extra={"rate_limit": "three"})
    with pytest.raises(AirflowFailException, match="rate_limit"):
        tasks.look_up_customers(RUN, {}, batch)


def test_of_500_cards_one_that_is_refused_is_set_aside_and_499_orders_are_sent_in_the_same_run(
    ledger: Ledger, connect: Callable[..., None], profile_store: ProfileStoreStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [Member(str(n), f"2{n:07}", f"m{n}@example.com", "A", "B", "active") for n in range(500)]
    monkeypatch.setenv("INSTORE_BATCH_ORDERS", "500")
    tasks.drain_topic(RUN, {"drain_topic": False})
    rows = [pending_order(f"S{n}", loyaltyCardNumber=member.card) for n, member in enumerate(members)]
    land(ledger, RUN.run_id, [Arrival(row, b"") for row in rows], [])
    (batch,) = tasks.plan_batches(RUN, {})
    with LoyaltyStandIn(members, LoyaltyKeys("k", "i", "s")) as loyalty:
        loyalty.app.faults.replace(FaultSettings(refuse=frozenset({members[10].card})))
        connect("instore_loyalty", "loyalty", host=loyalty.url, password="k")
        counts = tasks.look_up_customers(RUN, {}, batch)
    assert (counts["looked_up"], counts["look_up_failed"]) == (499, 1)
    with closing(ProfileStoreHook(connections.PROFILE_STORE)) as hook:
        assert tasks.send_events(RUN, {}, batch, "profile_store", through(hook))["sent"] == 499
    report = tasks.report_run(RUN, {}, SimpleNamespace(dag_id="d", run_id=RUN.run_id, get_task_states=lambda **_: {}))
    assert (report["sent"], report["look_up_failed"], report["look_ups_failing"]) == (499, 1, 1)
    assert (report["red"], report["unmatched_by_outcome"]) == ([], {"look_up_failed": 1})


def test_the_report_says_how_many_cards_the_mapping_file_has(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = plan(ledger, 3, monkeypatch, batch_orders=50)
    mapping = tmp_path / "cards.csv"
    mapping.write_text("card,email\n" + "".join(f"{each.card},{each.email}\n" for each in MEMBERS[:3]))
    monkeypatch.setenv("INSTORE_MAPPING_FILE", str(mapping))
    monkeypatch.setenv("INSTORE_USE_LOYALTY_API", "false")
    tasks.look_up_customers(RUN, {}, batch)
    report = tasks.report_run(RUN, {}, SimpleNamespace(dag_id="d", run_id=RUN.run_id, get_task_states=lambda **_: {}))
    assert report["mapping_cards"] == 3


def test_a_card_on_which_the_service_fails_every_time_is_set_aside_alone(
    ledger: Ledger, loyalty: LoyaltyStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch,) = plan(ledger, 40, monkeypatch, batch_orders=50)
    always = {MEMBERS[3].card: (500,) * 99, MEMBERS[4].card: (301,), MEMBERS[5].card: (422,)}
    loyalty.app.faults.replace(FaultSettings(script=always))
    counts = tasks.look_up_customers(RUN, {}, batch)
    assert (counts["looked_up"], counts["look_up_failed"]) == (37, 3)
    assert statuses(ledger) == {"ready": 37, "unmatched": 3}


def test_pages_instead_of_answers_mark_no_card(
    ledger: Ledger, loyalty: LoyaltyStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_BREAKER_SECONDS", "0.5")
    (batch,) = plan(ledger, 40, monkeypatch, batch_orders=50)
    loyalty.app.faults.replace(FaultSettings(share=1, answers=("html_404",)))
    with pytest.raises(TryAgain, match=r"20 of 20 cards were not answered \(answered_404_not_json 20\)"):
        tasks.look_up_customers(RUN, {}, batch)
    assert statuses(ledger) == {"pending": 40}
    loyalty.app.faults.replace(FaultSettings(share=1, answers=("html",)))
    with pytest.raises(TryAgain, match="the loyalty API was not called"):
        tasks.look_up_customers(RUN, {}, batch)
    assert statuses(ledger) == {"pending": 40}
