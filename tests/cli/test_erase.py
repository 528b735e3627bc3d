"""`erase`, as it is typed: the ledger, and the dead letters on a bus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue
from typer.testing import CliRunner, Result

from include.instore.ledger import Ledger
from include.instore_airflow.cli import app
from sandbox.servicebus import ServiceBusStandIn
from tests.instore import given

HERS = (f"{given.CANARY}@example.com", "6035770741165744")
NAMES = ("orders", "orderprocessing")


@pytest.fixture
def bus() -> Iterator[ServiceBusStandIn]:
    with ServiceBusStandIn() as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path, bus: ServiceBusStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    path = tmp_path / "ledger.db"
    connections = {
        "LEDGER": {"conn_type": "sqlite", "host": str(path)},
        "SERVICE_BUS": {"conn_type": "azure_service_bus", "schema": bus.connection_string},
    }
    for name, value in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_INSTORE_{name}", json.dumps(value))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    monkeypatch.setenv("INSTORE_ERASURE_RECEIPTS", str(tmp_path))
    with closing(Ledger(f"sqlite:///{path}", hash_key="the-hash-key-of-the-tests")) as opened:
        opened.migrate()
        yield opened


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["erase", *arguments])


def dead_letters(client: ServiceBusClient) -> list[bytes]:
    with client.get_subscription_receiver(*NAMES, sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        return sorted(b"".join(message.body) for message in receiver.peek_messages(max_message_count=50))


def test_her_dead_letters_are_taken_off_the_bus_and_the_others_stay(
    ledger: Ledger, bus: ServiceBusStandIn, tmp_path: Path
) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2", loyaltyCardNumber="1234567"))
    bodies = [
        b'{"emailAddress":"%s",' % HERS[0].upper().encode(),
        b'{"card":"6035 7707-4116 5744"}',
        b"\xff",
        b'{"card":"60357707411657440"}',
    ]
    with ServiceBusClient.from_connection_string(bus.connection_string) as client:
        with client.get_topic_sender("orders") as sender:
            sender.send_messages([ServiceBusMessage(body) for body in bodies])
        with client.get_subscription_receiver(*NAMES) as receiver:
            for message in receiver.receive_messages(max_message_count=10, max_wait_time=5):
                receiver.dead_letter_message(message, reason="not_json")
        assert len(dead_letters(client)) == 4
        named = ("--email", HERS[0], "--card", HERS[1])
        assert json.loads(run(*named, "--dry-run", "--json").stdout)["dead_letters"] == 0
        assert len(dead_letters(client)) == 4
        done = run(*named, "--json")
        assert done.exit_code == 0, done.output
        counts = json.loads(done.stdout)
        assert (counts["orders"], counts["dead_letters"]) == (1, 2)
        assert dead_letters(client) == sorted(bodies[2:])
        assert not [text for text in HERS if text in done.output + (tmp_path / counts["receipt"]).read_text()]
        # A message that no run has drained yet: nothing of it is kept when one does.
        again = run("--email", HERS[0])
    assert (again.exit_code, "orders: 0, customers: 0, quarantine: 0, dead_letters: 0" in again.output) == (0, True)
    assert [each["pruned_at"] is None for each in given.rows(ledger, "orders")] == [False, True]


def test_of_a_dead_letter_of_several_people_the_others_orders_are_landed_or_kept(
    ledger: Ledger, bus: ServiceBusStandIn
) -> None:
    hers, his = (given.document(number, loyaltyCardNumber=card) for number, card in (("S1", HERS[1]), ("S2", "999888")))
    whole = json.dumps([hers, his]).encode()
    with ServiceBusClient.from_connection_string(bus.connection_string) as client:
        with client.get_topic_sender("orders") as sender:
            sender.send_messages([ServiceBusMessage(body) for body in (whole, whole[:-1].replace(b"S2", b"S3"))])
        with client.get_subscription_receiver(*NAMES) as receiver:
            for message in receiver.receive_messages(max_message_count=10, max_wait_time=5):
                receiver.dead_letter_message(message, reason="TTLExpiredException")
        done = run("--card", HERS[1], "--json")
        assert (done.exit_code, json.loads(done.stdout)["dead_letters"]) == (0, 2), done.output
        assert dead_letters(client) == []
    orders = {row["order_number"]: (row["status"], row["loyalty_card"]) for row in given.rows(ledger, "orders")}
    assert orders == {"S1": ("suppressed", None), "S2": ("pending", "999888")}
    (cut,) = given.rows(ledger, "quarantine")
    assert (cut["state"], b"S3" in cut["raw"], HERS[1].encode() in cut["raw"]) == ("quarantined", True, False)
    given.assert_every_record_is_in_one_place(ledger)


def test_nobody_is_erased_without_a_name(ledger: Ledger) -> None:
    done = run()
    assert (done.exit_code, "give at least one --email or --card" in done.output) == (2, True)
    bad = run("--email", f"{given.CANARY} at example.com")
    assert (bad.exit_code, given.CANARY in bad.output) == (2, False)


def test_a_bus_that_refuses_leaves_the_ledger_and_says_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    given.landed(ledger, given.document("S1"))
    monkeypatch.setenv("INSTORE_SUBSCRIPTION", "nowhere")
    monkeypatch.setenv("INSTORE_PIPELINE", "instore_orders")
    done = run("--card", HERS[1])
    assert done.exit_code == 2
    assert "INSTORE_SUBSCRIPTION" in done.output or "adopt" in done.output
