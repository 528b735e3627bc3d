"""What the bus itself counts is in the report and on its alerts; where it may not be asked it is not known, never 0."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus.management import ServiceBusAdministrationClient

from include.instore.model.settings import load_settings
from include.instore.sources.bus import counted
from include.instore_airflow.connections import service_bus_admin
from sandbox.servicebus import ServiceBusStandIn
from tests.alerts.test_telling import dag_run, report
from tests.sandbox.servicebus.test_http import PlainHttp

KEY = "Endpoint=sb://127.0.0.1:{};SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0"
OF_SUBSCRIPTION = (
    '<CountDetails xmlns:d="http://schemas.microsoft.com/netservices/2011/06/servicebus">'
    "<d:ActiveMessageCount>12</d:ActiveMessageCount><d:DeadLetterMessageCount>3</d:DeadLetterMessageCount>"
    "</CountDetails>"
)
OF_TOPIC = "<MaxSizeInMegabytes>1024</MaxSizeInMegabytes><SizeInBytes>4096</SizeInBytes>"


@contextmanager
def namespace(status: int, of_topic: str) -> Iterator[int]:
    """The port of what answers as a namespace does whose administration is asked."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, inner = ("Subscription", OF_SUBSCRIPTION) if "ubscriptions" in self.path else ("Topic", of_topic)
            described = (
                f'<entry xmlns="http://www.w3.org/2005/Atom"><title>orders</title><content type="application/xml">'
                f'<{kind}Description xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect">'
                f"{inner}</{kind}Description></content></entry>"
            ).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/atom+xml;type=entry;charset=utf-8")
            self.send_header("Content-Length", str(len(described)))
            self.end_headers()
            self.wfile.write(described)

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "of_topic", "answer"),
    [
        pytest.param(200, OF_TOPIC, "4,096 bytes of 1,024 MB", id="a key that may"),
        pytest.param(401, OF_TOPIC, "", id="a key that may not"),
        pytest.param(200, "", "not known bytes of not known MB", id="an answer without a size"),
    ],
)
def test_what_the_bus_counts_is_told_or_not_known(status: int, of_topic: str, answer: str) -> None:
    with namespace(status, of_topic) as port:
        client = ServiceBusAdministrationClient.from_connection_string(KEY.format(port), transport=PlainHttp())
        found = counted(client, load_settings().bus)
    told = found == f"12 active, 3 dead-lettered; the topic has {answer}"
    assert told if answer else found.startswith("not known: the bus tells it to a key with the Manage right only")


def test_the_report_and_the_alerts_say_what_the_bus_counts_or_why_that_is_not_known(
    connect: Any, tmp_path: Path, webhook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.servicebus import ServiceBusClient, ServiceBusMessage

    connect("instore_ledger", "sqlite", host=str(tmp_path / "ledger.db"))
    connect("instore_alerts", "generic", password=webhook.url)
    monkeypatch.setenv("INSTORE_ALERT_OLDEST_MESSAGE_MINUTES", "0.0001")
    with ServiceBusStandIn() as bus:
        connect("instore_service_bus", "azure_service_bus", schema=bus.connection_string)
        client = ServiceBusClient.from_connection_string(bus.connection_string)
        with client, client.get_topic_sender("orders") as sender:
            sender.send_messages(ServiceBusMessage(b"{}"))
        counts = report(dag_run(), drain_topic=True)
    assert counts["on_bus"] == "not known: an emulator is not asked"
    assert "By the bus's own count: not known: an emulator is not asked." in webhook.told[0]["message"]


def test_a_key_that_is_no_emulator_s_is_asked_with(connect: Any) -> None:
    connect("instore_service_bus", "azure_service_bus", schema=KEY.format(1))
    admin = service_bus_admin()
    assert admin is not None
    assert counted(admin, load_settings().bus).startswith("not known")  # nobody answers there
