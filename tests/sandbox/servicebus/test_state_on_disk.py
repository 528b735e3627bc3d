"""What the broker has confirmed survives kill -9 of it (service-bus.md, point 10)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sqlite3
import threading
import uuid
from pathlib import Path

import pytest
import requests
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusError

from sandbox.servicebus import ServiceBusStandIn, StateRefused
from sandbox.servicebus.config import QueueSpec
from sandbox.servicebus.faults import Faults
from sandbox.servicebus.message import Content
from sandbox.servicebus.model import Environment
from sandbox.servicebus.queues import Queue
from sandbox.servicebus.store import Store
from tests.sandbox.servicebus.conftest import BrokerProcess, cuts_connections, eventually


def counts(process: BrokerProcess) -> dict[str, int]:
    state = requests.get(f"http://127.0.0.1:{process.port}/sandbox/state", timeout=5).json()
    queue: dict[str, int] = state["entities"]["work"]
    return queue


@cuts_connections
def test_every_confirmed_send_survives_kill_9_in_the_middle_of_sending(broker_process: BrokerProcess) -> None:
    broker_process.start()
    confirmed: set[str] = set()

    def send() -> None:
        client = ServiceBusClient.from_connection_string(broker_process.connection_string, retry_total=0)
        with client, client.get_queue_sender("work") as sender, contextlib.suppress(ServiceBusError):
            while True:
                ids = [uuid.uuid4().hex for _ in range(3)]
                sender.send_messages([ServiceBusMessage("x" * 1000, message_id=each) for each in ids])
                confirmed.update(ids)

    sending = threading.Thread(target=send)
    sending.start()
    eventually(lambda: len(confirmed) > 300)
    broker_process.kill()
    sending.join()
    broker_process.start()
    client = ServiceBusClient.from_connection_string(broker_process.connection_string)
    kept: list[str] = []
    with client, client.get_queue_receiver("work", receive_mode="receiveanddelete") as receiver:
        expected = counts(broker_process)["active"]
        while len(kept) < expected:
            kept += [each.message_id for each in receiver.receive_messages(expected, max_wait_time=2)]
    assert confirmed <= set(kept)
    assert len(kept) == len(set(kept)) <= len(confirmed) + 3


@cuts_connections
def test_every_confirmed_settlement_survives_kill_9_and_locks_do_not(broker_process: BrokerProcess) -> None:
    broker_process.start()
    client = ServiceBusClient.from_connection_string(broker_process.connection_string, retry_total=0)
    with client, client.get_queue_sender("work") as sender, client.get_queue_receiver("work") as receiver:
        names = ["complete", "abandon", "defer", "dead-letter", "locked", "active"]
        sender.send_messages([ServiceBusMessage(name, message_id=name) for name in names])
        sender.schedule_messages(
            ServiceBusMessage("scheduled"), datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        )
        complete, abandon, defer, dead, _ = receiver.receive_messages(5, max_wait_time=3)
        last_number = receiver.peek_messages(1, sequence_number=6)[0].sequence_number
        receiver.complete_message(complete)
        receiver.abandon_message(abandon)
        receiver.defer_message(defer)
        receiver.dead_letter_message(dead, reason="Why", error_description="Because")
        broker_process.kill()
    broker_process.start()
    after = counts(broker_process)
    expected = {"active": 3, "locked": 0, "deferred": 1, "scheduled": 1, "dead_lettered": 1}
    assert {key: after[key] for key in expected} == expected
    client = ServiceBusClient.from_connection_string(broker_process.connection_string)
    with client, client.get_queue_receiver("work") as receiver:
        again = receiver.receive_messages(3, max_wait_time=3)
        assert [(each.message_id, each.delivery_count) for each in again] == [
            ("abandon", 1),
            ("locked", 0),
            ("active", 0),
        ]
        [deferred] = receiver.receive_deferred_messages(defer.sequence_number)
        for message in (*again, deferred):
            receiver.complete_message(message)
        with client.get_queue_sender("work") as sender:
            sender.send_messages(ServiceBusMessage("new"))
        [new] = receiver.receive_messages(1, max_wait_time=3)
        assert new.sequence_number > last_number
        receiver.complete_message(new)
        with client.get_queue_receiver("work", sub_queue="deadletter") as dead_letters:
            [dead] = dead_letters.receive_messages(1, max_wait_time=3)
            assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("Why", "Because")
            dead_letters.complete_message(dead)
    code, printed = broker_process.terminate()
    assert (code, printed) == (0, "")


def test_a_message_scheduled_on_a_topic_waits_through_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    subscription = "orders/Subscriptions/orderprocessing"
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1.5)
    with ServiceBusStandIn(state=path) as bus:
        client = ServiceBusClient.from_connection_string(bus.connection_string)
        with client, client.get_topic_sender("orders") as sender:
            sender.schedule_messages(ServiceBusMessage("later"), at)
        assert bus.state()["entities"]["orders"]["scheduled"] == 1
    with ServiceBusStandIn(state=path) as bus:
        assert bus.state()["entities"]["orders"]["scheduled"] == 1
        eventually(lambda: bus.state()["entities"][subscription]["active"] == 1)
        assert datetime.datetime.now(datetime.timezone.utc) >= at
    with ServiceBusStandIn(state=path) as bus:
        assert bus.state()["entities"]["orders"]["scheduled"] == 0
        assert bus.state()["entities"][subscription]["active"] == 1


def test_sequence_numbers_go_on_after_a_restart_though_all_messages_are_gone(tmp_path: Path) -> None:
    async def send_and_cancel() -> int:
        loop = asyncio.get_running_loop()
        store = Store(tmp_path / "bus.db", loop, lambda: None)
        queue = Queue(QueueSpec("work", 60, 3, None, False), Environment(loop, store, Faults()))
        number = queue.schedule(Content(b""))
        queue.cancel([number])
        queue.close()
        store.close()
        return number

    assert asyncio.run(send_and_cancel()) < asyncio.run(send_and_cancel()) < asyncio.run(send_and_cancel())


def test_nothing_is_confirmed_that_cannot_be_written(tmp_path: Path) -> None:
    told: list[str] = []

    async def write() -> None:
        store = Store(tmp_path / "bus.db", asyncio.get_running_loop(), lambda: told.append("failed"))
        store.insert("work", 1, 0, 0, None, lambda: b"first")
        store.then(lambda: told.append("first confirmed"))
        await asyncio.sleep(0)
        assert told == ["first confirmed"]
        store._database.execute("PRAGMA query_only = 1")  # type: ignore[union-attr]
        store.insert("work", 2, 0, 0, None, lambda: b"second")
        store.then(lambda: told.append("second confirmed"))
        await asyncio.sleep(0)
        store.close()

    asyncio.run(write())
    assert told == ["first confirmed", "failed"]


@cuts_connections
def test_a_broker_that_cannot_write_cuts_its_clients_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ServiceBusStandIn(state=tmp_path / "bus.db") as bus:
        client = ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0)
        with client, client.get_topic_sender("orders") as sender:
            bus._ask(lambda: bus._broker._store._database.execute("PRAGMA query_only = 1"))  # type: ignore[union-attr]
            with pytest.raises(ServiceBusError):
                sender.send_messages(ServiceBusMessage("secret"))
    assert "The state file cannot be written" in caplog.text
    assert "secret" not in caplog.text


def test_a_state_file_belongs_to_one_broker_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "bus.db"
    with ServiceBusStandIn(state=path), pytest.raises(StateRefused, match="is held by another broker"):
        ServiceBusStandIn(state=path)
    with ServiceBusStandIn(state=path) as again:
        assert again.state()["entities"]["orders/Subscriptions/orderprocessing"]["active"] == 0


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "other.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(StateRefused, match="is not a state file"):
        ServiceBusStandIn(state=database)
    with pytest.raises(StateRefused, match="cannot be used"):
        ServiceBusStandIn(state=text)
