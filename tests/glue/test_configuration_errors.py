"""Bad configuration ends in one clear sentence that names the connection or setting and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.instore.ledger import Ledger
from include.instore.ledger.intake import land
from include.instore.ledger.records import Arrival
from include.instore_airflow import tasks
from include.instore_airflow.destinations import opener_of
from sandbox.loyalty import LoyaltyKeys, LoyaltyStandIn, Member
from sandbox.profile_store import ProfileStoreStandIn
from sandbox.servicebus import ServiceBusStandIn
from tests.glue.orders import pending_order

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
SECRET = "key-canary-5f1c"
CARD = "6035000011112222"
MEMBER = Member("1", CARD, "canary-77@example.com", "A", "B", "active")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Set a connection as Airflow reads it from the environment."""

    def setter(conn_id: str, conn_type: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, **fields}))

    setter("instore_ledger", "sqlite", host=str(tmp_path / "ledger.db"))
    return setter


@pytest.fixture
def batch(connect: Callable[..., None], tmp_path: Path) -> dict[str, int]:
    """A planned batch of one order."""
    tasks.drain_topic(RUN, {"drain_topic": False})
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger:
        card = {"loyaltyCardNumber": CARD, "emailAddress": None}
        land(ledger, RUN.run_id, [Arrival(pending_order("S1", **card), b"")], [])
    (planned,) = tasks.plan_batches(RUN, {})
    return planned


def sentence_of(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert SECRET not in text
    assert CARD not in text
    assert error.value.__cause__ is None
    return text


@pytest.mark.parametrize(
    ("conn_id", "task"),
    [
        ("instore_service_bus", lambda: tasks.drain_topic(RUN, {})),
        ("instore_extracts", lambda: tasks.load_extracts(RUN, {})),
        ("instore_loyalty", lambda: tasks.look_up_customers(RUN, {}, {"batch": 0, "orders": 1})),
    ],
)
def test_a_missing_connection_is_named(conn_id: str, task: Callable[[], object], connect: Callable[..., None]) -> None:
    with pytest.raises(AirflowFailException) as error:
        task()
    assert f"Connection {conn_id} is missing; create it" in sentence_of(error)


def test_a_missing_ledger_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_INSTORE_LEDGER", raising=False)
    with pytest.raises(AirflowFailException) as error:
        tasks.plan_batches(RUN, {})
    assert "Connection instore_ledger is missing; create it" in sentence_of(error)


def test_a_missing_profile_store_is_named(batch: dict[str, int]) -> None:

    with pytest.raises(AirflowFailException) as error:
        tasks.send_events(RUN, {}, batch, "profile_store", opener_of("profile_store"))
    assert "Connection instore_profile_store is missing; create it" in sentence_of(error)


def test_a_wrong_service_bus_key_is_named(connect: Callable[..., None]) -> None:
    with ServiceBusStandIn() as bus:
        wrong = bus.connection_string.replace("SharedAccessKey=", f"SharedAccessKey={SECRET}")
        connect("instore_service_bus", "azure_service_bus", schema=wrong)
        with pytest.raises(AirflowFailException) as error:
            tasks.drain_topic(RUN, {})
    assert "refused the key of connection instore_service_bus" in sentence_of(error)


def test_an_unreadable_connection_string_is_named(connect: Callable[..., None]) -> None:
    connect("instore_service_bus", "azure_service_bus", schema=f"SharedAccessKey={SECRET}")
    with pytest.raises(AirflowFailException) as error:
        tasks.drain_topic(RUN, {})
    assert "field 'schema' is not a connection string" in sentence_of(error)


def test_an_unknown_subscription_is_named(connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_SUBSCRIPTION", "nobody")
    with ServiceBusStandIn() as bus:
        connect("instore_service_bus", "azure_service_bus", schema=bus.connection_string)
        with pytest.raises(AirflowFailException) as error:
            tasks.drain_topic(RUN, {})
    assert "INSTORE_SUBSCRIPTION" in sentence_of(error)


def test_a_wrong_loyalty_key_is_named_and_the_order_stays_pending(
    connect: Callable[..., None], batch: dict[str, int]
) -> None:
    with LoyaltyStandIn([], LoyaltyKeys("right", "id", "secret")) as loyalty:
        connect("instore_loyalty", "loyalty", host=loyalty.url, password=SECRET)
        with pytest.raises(AirflowFailException) as error:
            tasks.look_up_customers(RUN, {}, batch)
    text = sentence_of(error)
    assert "instore_loyalty" in text
    assert "password" in text


def test_an_unreachable_loyalty_host_is_named_and_tried_again_later(
    connect: Callable[..., None], batch: dict[str, int]
) -> None:
    connect("instore_loyalty", "loyalty", host="http://127.0.0.1:9", password=SECRET)
    with pytest.raises(AirflowException) as error:
        tasks.look_up_customers(RUN, {}, batch)
    assert not isinstance(error.value, AirflowFailException)
    assert "instore_loyalty" in sentence_of(error)


def test_a_wrong_profile_store_key_is_named_and_the_order_stays_ready(
    connect: Callable[..., None], batch: dict[str, int], tmp_path: Path
) -> None:

    with ProfileStoreStandIn("right") as store, LoyaltyStandIn([MEMBER], LoyaltyKeys("k", "i", "s")) as loyalty:
        connect("instore_loyalty", "loyalty", host=loyalty.url, password="k")
        connect("instore_profile_store", "profile_store", host=store.url, password=SECRET)
        tasks.look_up_customers(RUN, {}, batch)
        with pytest.raises(AirflowFailException) as error:
            tasks.send_events(RUN, {}, batch, "profile_store", opener_of("profile_store"))
    text = sentence_of(error)
    assert "instore_profile_store" in text
    assert "password" in text
    report = tasks.report_run(RUN, {}, SimpleNamespace(dag_id="d", run_id=RUN.run_id, get_task_states=lambda **_: {}))
    assert report["carried_over"] == 1
    assert report["ledger"] == {"ready": 1}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("INSTORE_SCOPE", "x" * 65, "Setting INSTORE_SCOPE is wrong"),
        ("INSTORE_SUBSCRIPTON", "x", "did you mean INSTORE_SUBSCRIPTION?"),
        ("INSTORE_STORE_TIMEZONE", "Mars/Olympus", "Setting INSTORE_STORE_TIMEZONE is wrong"),
        ("INSTORE_BULK_EVENTS", "101", "Setting INSTORE_BULK_EVENTS is wrong"),
    ],
)
def test_a_wrong_or_unknown_setting_is_named(
    name: str, value: str, told: str, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(AirflowFailException) as error:
        tasks.plan_batches(RUN, {})
    assert told in sentence_of(error)


@pytest.mark.parametrize("ports", ["5432,5432,5432", "postgres,postgres"])
def test_a_ledger_whose_hosts_and_ports_do_not_fit_is_named(connect: Callable[..., None], ports: str) -> None:
    connect("instore_ledger", "postgres", password=SECRET, extra={"host": "db1,db2", "port": ports})
    with pytest.raises(AirflowFailException) as error:
        tasks.plan_batches(RUN, {})
    assert "The hosts and ports of connection instore_ledger cannot be read" in sentence_of(error)


def test_a_ledger_of_another_kind_is_named(connect: Callable[..., None]) -> None:
    connect("instore_ledger", "mysql", host="db", password=SECRET)
    with pytest.raises(AirflowFailException) as error:
        tasks.plan_batches(RUN, {})
    assert "Connection instore_ledger has type 'mysql'" in sentence_of(error)
