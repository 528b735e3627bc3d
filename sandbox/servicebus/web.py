"""Plain HTTP on the same port: `/sandbox/state`, `/sandbox/faults`, and ATOM entries (service-bus.md, point 11 and the
note on ServiceBusAdministrationClient). No message body is in any of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from sandbox.servicebus.atom import queue_entry, subscription_entry
from sandbox.servicebus.auth import SharedKey
from sandbox.servicebus.errors import AmqpError, FaultRefused
from sandbox.servicebus.namespace import Namespace
from sandbox.servicebus.topics import Topic

_MAX_REQUEST = 65536
_JSON = "application/json"
_ATOM = "application/atom+xml;type=entry;charset=utf-8"


class HttpConnection(asyncio.Protocol):
    """One request, one reply, and the connection is closed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker; a server makes no other
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if len(self._received) > _MAX_REQUEST:
            self._reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _JSON, _problem("The request is too large."))
        elif found:
            request, *lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            length = headers.get("content-length", "0")
            if len(body) >= (int(length) if length.isdigit() else 0):
                self._reply(*self._desk.answer(request, headers, body))

    def _reply(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        if self._transport is not None:
            self._transport.write(head.encode("latin-1") + body)
            self._transport.close()


class Desk:
    """Answers requests.

    Args:
        namespace: whose counts are told.
        key: what ATOM requests must be signed with.
        change_faults: sets all fault knobs; raises FaultRefused.
        connections: how many AMQP connections there are.
    """

    def __init__(
        self,
        namespace: Namespace,
        key: SharedKey,
        change_faults: Callable[[Mapping[str, Any]], None],
        connections: Callable[[], int],
    ) -> None:
        self._namespace = namespace
        self._key = key
        self._change_faults = change_faults
        self._connections = connections

    def answer(self, request: str, headers: Mapping[str, str], body: bytes) -> tuple[HTTPStatus, str, bytes]:
        """Status, content type and body for a request line, its headers (lower case names) and its body."""
        method, _, rest = request.partition(" ")
        path = unquote(urlsplit(rest.rpartition(" ")[0]).path).strip("/")
        if path == "sandbox/state" and method == "GET":
            return HTTPStatus.OK, _JSON, _encode(self.state())
        if path == "sandbox/faults" and method in ("GET", "PUT"):
            return self._faults(method, body)
        if path.startswith("sandbox/"):
            return HTTPStatus.NOT_FOUND, _JSON, _problem("There is GET /sandbox/state and GET or PUT /sandbox/faults.")
        if method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, _JSON, _problem("Entities are made by the Config.json only.")
        return self._entity(path, headers)

    def state(self) -> dict[str, Any]:
        return {"entities": self._namespace.snapshot(), "connections": self._connections()}

    def _faults(self, method: str, body: bytes) -> tuple[HTTPStatus, str, bytes]:
        if method == "PUT":
            try:
                self._change_faults(json.loads(body))
            except FaultRefused as refused:
                return HTTPStatus.BAD_REQUEST, _JSON, _problem(str(refused))
            except ValueError:
                return HTTPStatus.BAD_REQUEST, _JSON, _problem("The faults are no JSON.")
        return HTTPStatus.OK, _JSON, _encode(self._namespace.environment.faults.as_dict())

    def _entity(self, path: str, headers: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
        if self._key.check(headers.get("authorization", "")) is None:
            return HTTPStatus.UNAUTHORIZED, _JSON, _problem("The token is not a valid shared access signature.")
        try:
            node = self._namespace.node(path)
        except AmqpError as refused:
            return HTTPStatus.NOT_FOUND, _JSON, _problem(refused.description)
        if isinstance(node, Topic) or node.dead_letter_queue is None:
            return HTTPStatus.NOT_IMPLEMENTED, _JSON, _problem("There are entries of queues and subscriptions only.")
        entry = subscription_entry if "/Subscriptions/" in node.path else queue_entry
        return HTTPStatus.OK, _ATOM, entry(node)


def _encode(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _problem(text: str) -> bytes:
    return _encode({"error": text})
