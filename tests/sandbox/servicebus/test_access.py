"""Who gets in, and where to (service-bus.md, points 1, 3, 4 and 5)."""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from azure.servicebus import ServiceBusClient
from azure.servicebus.exceptions import (
    ServiceBusAuthenticationError,
    ServiceBusError,
)

from sandbox.servicebus import PortInUse, ServiceBusStandIn, StandInError, connection_string, run
from sandbox.servicebus.auth import Permits, SharedKey

Opener = Callable[[ServiceBusClient], Any]


def open_and_close(client: ServiceBusClient, opener: Opener) -> None:
    link = opener(client)
    try:
        link._open_with_retry()
    finally:
        link.close()


def test_a_wrong_key_is_refused_with_401(bus: ServiceBusStandIn) -> None:
    client = ServiceBusClient.from_connection_string(connection_string(bus.port, key="wrong"), retry_total=0)
    with client, pytest.raises(ServiceBusAuthenticationError) as refused:
        open_and_close(client, lambda each: each.get_topic_sender("orders"))
    assert "Status code: 401" in str(refused.value.inner_exception or refused.value.__cause__ or refused.value)


@pytest.mark.parametrize("path", [("nowhere", "orderprocessing"), ("orders", "nobody")])
def test_an_entity_that_is_not_there_is_answered_with_404_where_the_token_is_put(
    bus: ServiceBusStandIn, path: tuple[str, str]
) -> None:
    client = ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0)
    with client, pytest.raises(ServiceBusAuthenticationError) as refused:
        open_and_close(client, lambda each: each.get_subscription_receiver(*path))
    assert "Status code: 404" in str(refused.value.inner_exception)


NOWHERE: dict[str, tuple[Opener, type[Exception]]] = {
    "no such queue": (lambda client: client.get_queue_receiver("nowhere"), ServiceBusAuthenticationError),
    "no such subscription": (
        lambda client: client.get_subscription_receiver("orders", "nobody"),
        ServiceBusAuthenticationError,
    ),
    "without a session": (lambda client: client.get_queue_receiver("sessions"), ServiceBusError),
    "to a subscription": (
        lambda client: client.get_queue_sender("orders/Subscriptions/orderprocessing"),
        ServiceBusError,
    ),
    "from a topic": (lambda client: client.get_queue_receiver("orders"), ServiceBusError),
    "a session": (lambda client: client.get_queue_receiver("work", session_id="s-1"), ServiceBusError),
}


def test_a_link_that_leads_nowhere_is_refused(bus: ServiceBusStandIn) -> None:
    def refusal(opener: Opener) -> Exception | None:
        with ServiceBusClient.from_connection_string(bus.connection_string, retry_total=0) as client:
            try:
                open_and_close(client, opener)
            except ServiceBusError as refused:
                return refused
        return None

    with ThreadPoolExecutor(len(NOWHERE)) as pool:
        refused = dict(zip(NOWHERE, pool.map(refusal, (opener for opener, _ in NOWHERE.values())), strict=True))
    for case, (_, error) in NOWHERE.items():
        assert type(refused[case]) is error, case


def token(audience: str, key: str, expires: int, name: str = "name") -> str:
    resource = quote_plus(audience)
    digest = hmac.new(key.encode(), f"{resource}\n{expires}".encode(), hashlib.sha256).digest()
    return f"SharedAccessSignature sr={resource}&sig={quote_plus(b64encode(digest))}&se={expires}&skn={name}"


def test_a_token_counts_if_its_key_name_and_time_are_right() -> None:
    key, later = SharedKey("name", "secret"), int(time.time()) + 60
    assert key.check(token("sb://host:1/Orders/Subscriptions/s", "secret", later)) == "orders/subscriptions/s"
    assert key.check(token("sb://host:1", "secret", later)) == ""
    assert key.check(token("sb://host:1/orders", "secret", later, name="other")) is None
    assert key.check(token("sb://host:1/orders", "other", later)) is None
    assert key.check(token("sb://host:1/orders", "secret", int(time.time()) - 1)) is None
    assert key.check("Bearer eyJhbGciOi") is None
    assert key.check("") is None


def test_a_token_opens_its_entity_and_what_is_below_it_only() -> None:
    permits = Permits()
    assert not permits.allows("orders")
    permits.grant("orders")
    assert permits.allows("Orders")
    assert permits.allows("orders/Subscriptions/s/$management")
    assert not permits.allows("orders2")
    assert not permits.allows("returns")


def test_a_port_in_use_is_told_in_one_sentence(bus: ServiceBusStandIn) -> None:
    with pytest.raises(PortInUse, match=rf"^Port {bus.port} on 127\.0\.0\.1 is in use: stop what listens there"):
        ServiceBusStandIn(port=bus.port)
    with pytest.raises(PortInUse):
        run(port=bus.port)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])
def test_nothing_but_loopback_is_bound(host: str) -> None:
    with pytest.raises(StandInError, match="is no loopback address"):
        ServiceBusStandIn(host=host)


def test_a_stopped_stand_in_listens_no_more() -> None:
    with ServiceBusStandIn(host="localhost") as stopped:
        port = stopped.port
    stopped.stop()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def test_a_config_that_is_no_json_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "Config.json"
    path.write_text("{")
    with pytest.raises(StandInError, match="cannot be read as JSON"):
        run(path)
