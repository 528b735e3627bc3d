"""State, faults and ATOM entries over HTTP on the broker's port (service-bus.md, point 11)."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import HttpRequest, HttpResponse, RequestsTransport
from azure.servicebus.management import ServiceBusAdministrationClient

from sandbox.servicebus import ServiceBusStandIn, connection_string
from tests.sandbox.servicebus.conftest import Bench, DeadLetter

SECRET = "a body nobody may see"


class PlainHttp(RequestsTransport):  # type: ignore[misc]
    """The administration client always speaks https and ignores the emulator switch."""

    def send(self, request: HttpRequest, **options: Any) -> HttpResponse:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **options)


def url(bus: ServiceBusStandIn, path: str) -> str:
    return f"http://127.0.0.1:{bus.port}/{path}"


def test_the_state_tells_counts_per_entity_and_no_bodies(bench: Bench, dead_letter: DeadLetter) -> None:
    before = bench.counts
    for _ in range(5):
        bench.send(SECRET, subject=SECRET, application_properties={"secret": SECRET})
    complete, dead, defer, again = bench.receive(4)
    bench.receiver.complete_message(complete)
    bench.receiver.dead_letter_message(dead, reason=SECRET)
    bench.receiver.defer_message(defer)
    reply = requests.get(url(bench.bus, "sandbox/state"), timeout=5)
    assert reply.headers["Content-Type"] == "application/json"
    assert SECRET not in reply.text
    state = reply.json()
    assert set(state) == {"entities", "connections"}
    assert {"Work", "orders", "orders/Subscriptions/orderprocessing"} < set(state["entities"])
    work = state["entities"]["Work"]
    expected = {"active": 1, "locked": 1, "deferred": 1, "scheduled": 0, "dead_lettered": 1}
    assert {key: work[key] for key in expected} == expected
    assert work["delivered"] == before["delivered"] + 4
    assert work["max_delivery_count_seen"] >= before["max_delivery_count_seen"]
    for outcome in ("completed", "dead_lettered", "deferred"):
        assert work["settled"][outcome] == before["settled"][outcome] + 1
    assert work == bench.counts
    for message in (again, *bench.receive(1), *bench.receiver.receive_deferred_messages(defer.sequence_number)):
        bench.receiver.complete_message(message)
    dead_letter()


def test_faults_are_read_and_set_over_http(bus: ServiceBusStandIn) -> None:
    assert requests.get(url(bus, "sandbox/faults"), timeout=5).json()["refuse_next_settles"] == 0
    changed = requests.put(url(bus, "sandbox/faults"), json={"refuse_next_settles": 3, "drops": None}, timeout=5)
    assert changed.status_code == 200
    assert requests.get(url(bus, "sandbox/faults"), timeout=5).json() == changed.json()
    assert (changed.json()["refuse_next_settles"], changed.json()["drops"]) == (3, None)
    assert requests.put(url(bus, "sandbox/faults"), json={}, timeout=5).json()["refuse_next_settles"] == 0


@pytest.mark.parametrize("body", ["{", "[1]", '{"no_such_knob": 1}', '{"latency_seconds": "long"}'])
def test_faults_that_make_no_sense_are_answered_with_400(bus: ServiceBusStandIn, body: str) -> None:
    reply = requests.put(url(bus, "sandbox/faults"), data=body, timeout=5)
    assert reply.status_code == 400
    assert reply.json()["error"]


def test_a_request_may_come_in_pieces(bus: ServiceBusStandIn) -> None:
    with socket.create_connection(("127.0.0.1", bus.port), timeout=5) as client, client.makefile("rb") as replies:
        for piece in (b"GE", b"T /sandbox/fau", b"lts HTTP/1.1\r\nHost: x\r\n", b"\r\n"):
            client.sendall(piece)
        assert replies.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b"latency_seconds" in replies.read()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "sandbox/else", 404), ("POST", "sandbox/faults", 404), ("PUT", "orders", 405), ("GET", "orders", 401)],
)
def test_what_is_not_there_is_told(bus: ServiceBusStandIn, method: str, path: str, status: int) -> None:
    reply = requests.request(method, url(bus, path), timeout=5)
    assert reply.status_code == status
    assert reply.json()["error"]


def test_the_administration_client_reads_runtime_counts(bench: Bench, bus: ServiceBusStandIn) -> None:
    bench.send()
    bench.send()
    deferred, message = bench.receive(2)
    bench.receiver.defer_message(deferred)
    bench.send()
    with ServiceBusAdministrationClient.from_connection_string(bus.connection_string, transport=PlainHttp()) as admin:
        work = admin.get_queue_runtime_properties("work")
        # One waits and one is locked; the deferred one is no active message.
        assert (work.active_message_count, work.total_message_count, work.dead_letter_message_count) == (2, 3, 0)
        subscription = admin.get_subscription_runtime_properties("orders", "orderprocessing")
        assert subscription.name == "orderprocessing"
        assert (subscription.total_message_count, subscription.active_message_count) == (0, 0)
        assert subscription.dead_letter_message_count == subscription.transfer_message_count == 0
        described = admin.get_subscription("orders", "orderprocessing")
        assert (described.max_delivery_count, described.lock_duration.total_seconds()) == (10, 60)
        with pytest.raises(ResourceNotFoundError):
            admin.get_subscription_runtime_properties("orders", "nobody")
    string = connection_string(bus.port, key="wrong")
    with ServiceBusAdministrationClient.from_connection_string(string, transport=PlainHttp()) as admin:
        with pytest.raises(HttpResponseError) as refused:
            admin.get_subscription_runtime_properties("orders", "orderprocessing")
        assert refused.value.status_code == 401
    fetched = bench.receiver.receive_deferred_messages(deferred.sequence_number)
    for each in (message, *bench.receive(1), *fetched):
        bench.receiver.complete_message(each)


def test_no_body_and_no_property_is_ever_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="sandbox.servicebus")
    bench.send(SECRET, application_properties={"secret": SECRET})
    bench.receiver.abandon_message(bench.receive_one())
    bench.receiver.complete_message(bench.receive_one())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("include")]
    assert ours == []
