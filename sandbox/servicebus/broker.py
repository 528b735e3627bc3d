"""The broker on its port: one listener for AMQP and HTTP, told apart by the first bytes."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.servicebus.auth import DEFAULT_KEY, DEFAULT_KEY_NAME, SharedKey
from sandbox.servicebus.config import read_config
from sandbox.servicebus.connection import AmqpConnection
from sandbox.servicebus.errors import PortInUse, StandInError
from sandbox.servicebus.faults import Faults
from sandbox.servicebus.model import Environment
from sandbox.servicebus.namespace import Namespace
from sandbox.servicebus.store import Store
from sandbox.servicebus.web import Desk, HttpConnection

DEFAULT_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """How a broker is started.

    Attributes:
        config: a Config.json of Microsoft's emulator, read.
        state: the state file, or None to forget everything at the end.
        port: 0 for any free one.
        faults: the fault knobs at the start.
        host: a loopback address; nothing else is bound.
        key_name: name of the one shared access key.
        key: the key itself.
    """

    config: Mapping[str, Any]
    state: Path | None
    port: int = 0
    faults: Faults = field(default_factory=Faults)
    host: str = DEFAULT_HOST
    key_name: str = DEFAULT_KEY_NAME
    key: str = DEFAULT_KEY


class Broker:
    """A running broker; everything in it happens on the loop it was started on.

    Raises:
        ConfigRefused, StateRefused: from the constructor; nothing is left open.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.failed = loop.create_future()
        self.port = 0
        self._settings = settings
        self._loop = loop
        self._key = SharedKey(settings.key_name, settings.key)
        spec = read_config(settings.config)
        self._store = Store(settings.state, loop, self._fail)
        self._env = Environment(loop, self._store, Faults.of(settings.faults))
        try:
            self.namespace = Namespace(spec, self._env)
        except BaseException:
            self._store.close()
            raise
        self.desk = Desk(self.namespace, self._key, self.change_faults, lambda: len(self._connections))
        self._connections: set[AmqpConnection] = set()
        self._doors: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Bind the port.

        Raises:
            PortInUse: if somebody else has it.
            StandInError: if the host is no loopback address.
        """
        host = DEFAULT_HOST if self._settings.host == "localhost" else self._settings.host
        try:
            # In a container its network is the border.
            if not (_is_loopback(host) or os.environ.get("SANDBOX_ANY_HOST") == "1"):
                raise StandInError(f"{host} is no loopback address: the stand-in listens on this machine only.")
            self._server = await self._loop.create_server(lambda: _FrontDoor(self), host, self._settings.port)
        except OSError as problem:
            await self.close()
            if problem.errno == errno.EADDRINUSE:
                text = f"Port {self._settings.port} on {host} is in use: stop what listens there or take another port."
                raise PortInUse(text) from None
            raise StandInError(f"Port {self._settings.port} on {host} cannot be bound: {problem.strerror}.") from None
        except StandInError:
            await self.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, say goodbye to all connections, and put everything on disk."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        # One turn for what close has queued.
        await asyncio.sleep(0)
        for transport in list(self._doors):
            transport.abort()
        self.namespace.close()
        self._store.close()
        # And one for the transports to close their sockets.
        await asyncio.sleep(0)

    def faults(self) -> dict[str, Any]:
        """The fault knobs as they stand, countdowns counted down."""
        return self._env.faults.as_dict()

    def change_faults(self, knobs: Mapping[str, Any]) -> None:
        """Set all fault knobs; those not named are off, and all counting starts anew. Raises FaultRefused."""
        self._env.faults = Faults.of(knobs)

    def drop_connections(self) -> None:
        """Cut every AMQP connection now."""
        for connection in list(self._connections):
            connection.drop()

    def entered(self, transport: asyncio.Transport) -> None:
        self._doors.add(transport)

    def left(self, transport: asyncio.Transport | None, protocol: asyncio.Protocol | None) -> None:
        if transport is not None:
            self._doors.discard(transport)
        if isinstance(protocol, AmqpConnection):
            self._connections.discard(protocol)

    def protocol(self, first: bytes) -> asyncio.Protocol:
        """Who speaks to a client that starts with these bytes."""
        if first != b"AMQP":
            return HttpConnection(self.desk)
        connection = AmqpConnection(self.namespace, self._key)
        self._connections.add(connection)
        return connection

    def _fail(self) -> None:
        if not self.failed.done():
            self.failed.set_exception(StandInError("The state file cannot be written: the broker stopped."))
        self.drop_connections()
        if self._server is not None:
            self._server.close()


class _FrontDoor(asyncio.Protocol):
    """Waits for four bytes, then passes everything to whom they ask for."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._received = b""
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker; a server makes no other
        self._transport = transport
        self._broker.entered(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)
            return
        self._received += data
        if len(self._received) >= 4 and self._transport is not None:
            self._inner = self._broker.protocol(self._received[:4])
            self._inner.connection_made(self._transport)
            self._inner.data_received(self._received)

    def connection_lost(self, exc: Exception | None) -> None:
        self._broker.left(self._transport, self._inner)
        if self._inner is not None:
            self._inner.connection_lost(exc)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
