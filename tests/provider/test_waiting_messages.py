"""Waking by messages that wait: the real SDK on a socket; nothing is taken, and nothing of a message is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from instore_provider.triggers.service_bus import ServiceBusWaitingMessagesTrigger

from sandbox.servicebus import ServiceBusStandIn, connection_string
from tests.instore import given

TOPIC, SUBSCRIPTION = "orders", "orderprocessing"


@pytest.fixture
def bus() -> Iterator[ServiceBusStandIn]:
    with ServiceBusStandIn() as broker:
        yield broker


@pytest.fixture
def trigger(bus: ServiceBusStandIn, monkeypatch: pytest.MonkeyPatch) -> ServiceBusWaitingMessagesTrigger:
    connection = {"conn_type": "azure_service_bus", "schema": bus.connection_string}
    monkeypatch.setenv("AIRFLOW_CONN_A_BUS", json.dumps(connection))
    return ServiceBusWaitingMessagesTrigger(
        topic=TOPIC, subscription=SUBSCRIPTION, service_bus_conn_id="a_bus", poll_interval=0.1, debounce=0.3
    )


def send(bus: ServiceBusStandIn, *numbers: str) -> None:
    with ServiceBusClient.from_connection_string(bus.connection_string) as client, client.get_topic_sender(TOPIC) as to:
        to.send_messages([ServiceBusMessage(given.body(number, storeName=given.CANARY)) for number in numbers])


def counts(bus: ServiceBusStandIn) -> dict[str, Any]:
    found: dict[str, Any] = bus.state()["entities"][f"{TOPIC}/Subscriptions/{SUBSCRIPTION}"]
    return found


async def _next(events: Any, seconds: float = 20) -> dict[str, Any]:
    event = await asyncio.wait_for(anext(events), seconds)
    payload: dict[str, Any] = event.payload
    return payload


async def _quiet(events: Any, seconds: float) -> None:
    """Nothing fires; the generator lives on, as its next value is waited for by a task that is not cancelled."""
    waiting = asyncio.ensure_future(anext(events))
    done, _ = await asyncio.wait([waiting], timeout=seconds)
    assert not done
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


def test_it_fires_once_for_messages_that_come_together_and_takes_none(
    bus: ServiceBusStandIn, trigger: ServiceBusWaitingMessagesTrigger
) -> None:
    async def watch() -> None:
        events = trigger.run()
        await asyncio.to_thread(send, bus, "S1", "S2", "S3")
        assert await _next(events) == {"new": 3}
        later = asyncio.ensure_future(anext(events))
        done, _ = await asyncio.wait([later], timeout=1.5)
        assert not done  # those are still there, and are not told again
        await asyncio.to_thread(send, bus, "S4")
        assert (await asyncio.wait_for(later, 20)).payload == {"new": 1}

    asyncio.run(watch())
    assert (counts(bus)["active"], counts(bus)["locked"], counts(bus)["delivered"]) == (4, 0, 0)


def test_one_that_starts_anew_fires_for_what_waits_and_not_for_an_empty_subscription(
    bus: ServiceBusStandIn, trigger: ServiceBusWaitingMessagesTrigger
) -> None:
    async def watch() -> None:
        await _quiet(trigger.run(), 1.0)
        await asyncio.to_thread(send, bus, "S1")
        for _ in range(2):
            path, arguments = trigger.serialize()
            assert path == "instore_provider.triggers.service_bus.ServiceBusWaitingMessagesTrigger"
            assert await _next(ServiceBusWaitingMessagesTrigger(**arguments).run()) == {"new": 1}

    asyncio.run(watch())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the SDK forgets sockets of connections that break
def test_a_bus_that_is_away_is_looked_at_again_until_it_is_back_and_no_secret_is_logged(
    trigger: ServiceBusWaitingMessagesTrigger,
    bus: ServiceBusStandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    port = bus.port
    bus.stop()

    async def watch() -> None:
        fired = asyncio.ensure_future(anext(trigger.run()))
        while "it is tried again" not in caplog.text:
            assert not fired.done()
            await asyncio.sleep(0.1)
        with await asyncio.to_thread(ServiceBusStandIn, port=port) as again:
            await asyncio.to_thread(send, again, "S1")
            assert (await asyncio.wait_for(fired, 60)).payload == {"new": 1}

    asyncio.run(asyncio.wait_for(watch(), 150))
    assert given.CANARY not in caplog.text
    assert "SharedAccessKey=" not in caplog.text
    assert connection_string(port) not in caplog.text
