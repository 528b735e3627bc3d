"""What is told really arrives: by mail and webhook through Apprise, or is visible where it does not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from include.instore.ledger import Ledger
from include.instore.ledger.alerts import waiting
from include.instore_airflow import alerting, tasks
from sandbox.servicebus import ServiceBusStandIn
from tests.alerts.channels import TOKEN, MailServer, Webhook
from tests.instore import given

Connect = Callable[..., None]
CARD = "6035000011112222"
EMAIL = "canary-77@example.com"


@pytest.fixture
def ledger_path(connect: Connect, tmp_path: Path) -> Path:
    connect("instore_ledger", "sqlite", host=str(tmp_path / "ledger.db"))
    return tmp_path / "ledger.db"


@pytest.fixture(scope="module")
def bus() -> Iterator[ServiceBusStandIn]:
    with ServiceBusStandIn() as standin:
        yield standin


def dag_run(run_id: str = "manual__1", **fields: Any) -> SimpleNamespace:
    """A run without a logical date, as Airflow hands it over."""
    whole = {"run_type": "manual", "logical_date": None, "data_interval_start": None, "data_interval_end": None}
    whole |= {"dag_id": "instore_orders"}
    return SimpleNamespace(**{"run_id": run_id, "clear_number": 0, "conf": None, **whole, **fields})


class Followers(dict[Any, Any]):
    """Airflow's way from a task to the DAGs that are scheduled on its asset: what they were told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def __getitem__(self, alias: Any) -> Followers:
        assert alias == tasks.REPORTED
        return self

    def add(self, asset: Any, extra: dict[str, Any]) -> None:
        assert asset == tasks.REPORT
        self.told.append(extra)


def report(
    run: Any, *failed: str, why: dict[str, Any] | None = None, followers: Followers | None = None, **params: Any
) -> dict[str, Any]:
    """The report task, whose run has these failed tasks; its counts also when it is red.

    :param why: by task, what it left for the report.
    """
    pushed: dict[str, Any] = {}
    states = {run.run_id: dict.fromkeys(failed, "failed")}
    ti = SimpleNamespace(
        dag_id="instore_orders",
        run_id=run.run_id,
        get_task_states=lambda **_: states,
        xcom_pull=lambda *, task_ids, key: [(why or {}).get(task_ids[0])] if key == "failure" else None,
        xcom_push=lambda **xcom: pushed.update(xcom["value"]),
    )
    if not failed:
        return tasks.report_run(run, {"drain_topic": False, **params}, ti, followers)
    with pytest.raises(AirflowFailException, match="This run is red: "):
        tasks.report_run(run, {"drain_topic": False, **params}, ti, followers)
    return pushed


def callback(run: Any, reason: str = "task_failure") -> None:
    """The DAG's failure callback, as the dag-processor calls it."""
    alerting.run_failed({"dag": SimpleNamespace(dag_id="instore_orders"), "dag_run": run, "reason": reason})


def deadline(
    run_id: str = "scheduled__1", state: str = "running", run_type: str = "scheduled", queued_minutes_ago: float = 91
) -> None:
    """The deadline's callback, as the triggerer calls it."""
    queued_at = datetime.now(timezone.utc) - timedelta(minutes=queued_minutes_ago)
    told = {
        "dag_run_id": run_id,
        "dag_id": "instore_orders",
        "run_type": run_type,
        "state": state,
        "conf": None,
        "queued_at": queued_at.isoformat(),
        "data_interval_start": "2026-11-23T10:00:00Z",
        "data_interval_end": "2026-11-23T11:00:00Z",
    }
    asyncio.run(alerting.deadline_missed({"dag_run": told, "deadline": {}}))


def test_an_alert_arrives_by_mail_and_by_webhook(
    connect: Connect, ledger_path: Path, mail_server: MailServer, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=f"{mail_server.url} {webhook.url}")
    counts = report(dag_run(), "drain_topic")
    assert counts["alerts"] == ["task_failed:drain_topic"]
    assert counts["alerts_failed"] == 0
    (mail,) = mail_server.mails
    (told,) = webhook.told
    assert mail["subject"] == told["title"] == "In-store orders: Task drain_topic failed"
    assert mail["to"] == "oncall@example.org"
    body = mail.get_body(("plain", "html"))
    assert body is not None
    for words in ("docs/runbook.md#a-task-failed", "dags/instore_orders/runs/manual__1", "received 0, orders 0"):
        assert words in body.get_content()
        assert words in told["message"]
    assert told["type"] == "failure"


def test_an_alert_has_the_task_s_own_sentence_how_often_it_was_tried_and_its_link(
    connect: Connect, ledger_path: Path, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    left = {"why": "The key was refused.", "tries": 1, "link": "http://airflow/tasks/drain_topic?try_number=1"}
    counts = report(dag_run(), "drain_topic", why={"drain_topic": left})
    assert counts["red"] == ["task_failed: task drain_topic failed, tried once: The key was refused"]
    (told,) = webhook.told
    assert "Task drain_topic failed, tried once: The key was refused." in told["message"]
    assert left["link"] in told["message"]


def test_the_urls_may_stand_in_the_extra(connect: Connect, ledger_path: Path, webhook: Webhook) -> None:
    connect("instore_alerts", "generic", extra={"urls": [webhook.url, webhook.url]})
    report(dag_run(), "drain_topic")
    assert webhook.titles == ["Task drain_topic failed"] * 2


def test_one_alert_a_run_and_cause_however_many_mapped_tasks_failed(
    connect: Connect, ledger_path: Path, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    run = dag_run()
    report(run, *(f"batch.send_events_{number}" for number in range(50)))
    callback(run)
    report(run, "batch.send_events_0")
    assert webhook.titles == ["Task batch.send_events failed"]


def test_the_recovery_is_told_once(connect: Connect, ledger_path: Path, webhook: Webhook) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    report(dag_run("manual__1"), "drain_topic")
    report(dag_run("manual__2"))
    report(dag_run("manual__3"))
    assert webhook.titles == ["Task drain_topic failed", "Recovered"]
    assert webhook.told[1]["type"] == "success"


def test_without_the_connection_nobody_is_told_which_is_logged_once_and_no_error(
    connect: Connect, ledger_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counts = report(dag_run(), "drain_topic", "load_extracts")
    assert counts["alerts"] == []
    assert counts["alerts_failed"] == 0
    lines = [record for record in caplog.records if "instore_alerts" in record.getMessage()]
    assert [record.levelname for record in lines] == ["INFO"]


def test_an_alert_that_cannot_be_delivered_is_an_error_in_the_log_counted_and_told_by_the_callback(
    connect: Connect, ledger_path: Path, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    webhook.answer = 500
    run = dag_run()
    counts = report(run, "drain_topic")
    assert len(counts["red"]) == 1
    assert counts["red"][0].startswith("task_failed: task drain_topic failed: it ended without a sentence")
    assert counts["alerts_failed"] == 1
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    title = "In-store orders: Task drain_topic failed"
    assert errors == [
        f"URL 1 of connection instore_alerts did not take the message {title!r}; check its host and token."
    ]
    webhook.answer = 200
    callback(run)
    assert webhook.titles == ["Task drain_topic failed"]


def test_one_dead_channel_does_not_keep_the_other_from_telling(
    connect: Connect, ledger_path: Path, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    dead = f"json://127.0.0.1:9/{TOKEN} nonsense://{TOKEN}"
    connect("instore_alerts", "generic", password=f"{dead} {webhook.url}")
    counts = report(dag_run(), "drain_topic")
    assert webhook.titles == ["Task drain_topic failed"]
    assert counts["alerts_failed"] == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "URL 1 of connection instore_alerts did not take the message 'In-store orders: Task drain_topic failed'; "
        "check its host and token.",
        "URL 2 of connection instore_alerts is not a URL that Apprise knows; correct it.",
    ]


def test_a_connection_without_a_url_is_an_error_in_the_log(
    connect: Connect, ledger_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connect("instore_alerts", "generic")
    assert report(dag_run(), "drain_topic")["alerts_failed"] == 1
    assert "Connection 'instore_alerts': its field 'password' has no URL" in caplog.text


def test_no_url_of_a_channel_and_nobody_s_data_is_in_a_log_a_report_or_an_alert(
    connect: Connect, ledger_path: Path, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    connect("instore_alerts", "generic", password=f"{webhook.url} json://127.0.0.1:9/{TOKEN} nonsense://{TOKEN}")
    run = dag_run()
    tasks.drain_topic(run, {"drain_topic": False})
    with closing(Ledger(f"sqlite:///{ledger_path}")) as ledger:
        document = given.document("S1", loyaltyCardNumber=CARD, emailAddress=EMAIL)
        given.landed(ledger, document, run=given.run(run.run_id), refusals=[given.refused(EMAIL.encode())])
    counts = report(run, "drain_topic")
    assert sorted(webhook.titles) == ["Records wait in quarantine", "Task drain_topic failed"]
    for text in (caplog.text, json.dumps(counts), json.dumps(webhook.told)):
        for secret in (TOKEN, CARD, EMAIL):
            assert secret not in text


def test_a_run_that_failed_without_its_report_is_told_by_the_callback_once(
    connect: Connect, ledger_path: Path, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    run = dag_run()
    callback(run, "timed_out")
    callback(run, "timed_out")
    assert webhook.titles == ["The run failed without a report"]
    assert "(timed_out)" in webhook.told[0]["message"]
    report(dag_run("manual__2"))
    assert webhook.titles[1:] == ["Recovered"]


def test_the_callback_tells_also_without_a_ledger_and_without_a_dag_run(connect: Connect, webhook: Webhook) -> None:
    connect("instore_ledger", "sqlite", host="/nowhere/ledger.db")
    connect("instore_alerts", "generic", password=webhook.url)
    alerting.run_failed({"dag": SimpleNamespace(dag_id="instore_orders"), "run_id": "manual__1"})
    assert webhook.titles == ["The run failed without a report"]
    assert "manual run manual__1" in webhook.told[0]["message"]


def test_the_callback_tells_also_where_a_param_or_a_setting_is_wrong(
    connect: Connect, ledger_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    monkeypatch.setenv("INSTORE_NO_SUCH_THING", "1")
    callback(dag_run(conf={"window_start": "no date"}))
    assert webhook.titles == ["The run failed without a report"]


def test_a_missed_deadline_is_told_once_and_its_run_s_good_end_as_well(
    connect: Connect, ledger_path: Path, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    deadline()
    deadline()
    report(dag_run("scheduled__1", run_type="scheduled"))
    assert webhook.titles == ["The run is not done in time", "Recovered"]
    assert "The run is running 90 minutes after it was queued" in webhook.told[0]["message"]


@pytest.mark.parametrize(
    ("state", "run_type"), [("success", "scheduled"), ("failed", "scheduled"), ("queued", "backfill")]
)
def test_a_run_that_has_ended_or_waits_its_turn_in_a_backfill_misses_no_deadline(
    state: str, run_type: str, connect: Connect, ledger_path: Path, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    deadline(state=state, run_type=run_type)
    assert webhook.titles == []


def test_a_run_that_was_cleared_meanwhile_misses_no_deadline(
    connect: Connect, ledger_path: Path, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    deadline(queued_minutes_ago=5)
    assert webhook.titles == []


def test_the_deadline_is_a_setting_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    found = alerting.deadline()
    assert found.interval.total_seconds() == 90 * 60
    assert found.callback.path == "include.instore_airflow.alerting.callbacks.deadline_missed"
    monkeypatch.setenv("INSTORE_DEADLINE_MINUTES", "0")
    assert alerting.deadline() is None


def test_messages_left_on_the_bus_and_dead_letters_are_told_when_they_begin_and_when_they_end(
    connect: Connect, ledger_path: Path, webhook: Webhook, bus: ServiceBusStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.servicebus import ServiceBusClient, ServiceBusMessage

    connect("instore_alerts", "generic", password=webhook.url)
    connect("instore_service_bus", "azure_service_bus", schema=bus.connection_string)
    monkeypatch.setenv("INSTORE_ALERT_OLDEST_MESSAGE_MINUTES", "0.0001")
    monkeypatch.setenv("INSTORE_ALERT_DEAD_LETTERS", "1")
    with ServiceBusClient.from_connection_string(bus.connection_string) as client:
        with client.get_topic_sender("orders") as sender:
            sender.send_messages([ServiceBusMessage(given.body("S1")), ServiceBusMessage(given.body("S2"))])
        with client.get_subscription_receiver("orders", "orderprocessing", max_wait_time=5) as receiver:
            receiver.dead_letter_message(next(receiver), reason="bad_value")
        first = report(dag_run("manual__1"), drain_topic=True)
        assert first["dead_letters_on_bus"] == 1
        assert sorted(webhook.titles) == ["Dead letters on the bus", "Messages wait on the bus"]
        assert {each["type"] for each in webhook.told} == {"warning"}
        report(dag_run("manual__2"), drain_topic=True)
        assert len(webhook.told) == 2
        for queue in (None, "deadletter"):
            with client.get_subscription_receiver("orders", "orderprocessing", sub_queue=queue) as receiver:
                for message in receiver.receive_messages(max_message_count=10, max_wait_time=2):
                    receiver.complete_message(message)
    last = report(dag_run("manual__3"), drain_topic=True)
    assert (last["oldest_message_seconds"], last["dead_letters_on_bus"]) == (0, 0)
    assert webhook.titles[2:] == ["Recovered"]


def test_a_bus_that_is_away_leaves_the_ages_unknown_and_the_run_green(
    connect: Connect,
    ledger_path: Path,
    bus: ServiceBusStandIn,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSTORE_TOPIC", "nowhere")
    connect("instore_service_bus", "azure_service_bus", schema=bus.connection_string)
    counts = report(dag_run(), drain_topic=True)
    assert counts["oldest_message_seconds"] is None
    assert counts["red"] == []
    assert "the age of the oldest message is not known: The namespace of connection instore_service_bus" in caplog.text


def test_a_dry_run_remembers_in_the_real_ledger_what_it_told(
    connect: Connect, ledger_path: Path, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    report(dag_run("dry__1"), "load_extracts", dry_run=True)
    assert webhook.titles == ["Task load_extracts failed"]
    assert "dry manual run dry__1" in webhook.told[0]["message"]
    with closing(Ledger(f"sqlite:///{ledger_path}")) as ledger:
        assert waiting(ledger, "dry__1") == []


def test_a_green_run_tells_the_dags_that_follow_and_a_red_or_dry_one_does_not(ledger_path: Path) -> None:
    followers = Followers()
    report(dag_run("red__1"), "load_extracts", followers=followers)
    report(dag_run("dry__1"), dry_run=True, followers=followers)
    assert followers.told == []
    counts = report(dag_run("green__1"), followers=followers)
    (told,) = followers.told
    assert told == {"run_id": told["run_id"]} | {name: counts[name] for name in told if name != "run_id"}
    assert {"run_kind", "received", "orders", "sent", "unmatched"} <= set(told)
    assert all(isinstance(value, int | str) for value in told.values())
