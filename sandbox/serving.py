"""Runs an ASGI stand-in on a loopback port: as a process of its own, or in a thread of a test."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpProtocol
except ImportError:  # httptools has no wheel for every platform; h11 comes with uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol as HttpProtocol  # type: ignore[assignment]

LOOPBACK = "127.0.0.1"
EXIT_BAD_ENVIRONMENT = 2
_BACKLOG = 1024
_STOP_SECONDS = 10
_TICK_SECONDS = 0.02


class PortTakenError(OSError):
    """The asked port cannot be had; the message is one sentence for a person."""


class _ProtocolWithTransport(HttpProtocol):
    """Lets a request reach its own connection, which ASGI hides, so that a fault can break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        # As uvicorn's own, but five times as often: tests start and stop hundreds of stand-ins.
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            await asyncio.sleep(_TICK_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own version raises the signal once more after a clean stop, which turns the exit code red.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: self._ask_to_stop())
        yield

    def _ask_to_stop(self) -> None:
        self.should_exit = True


def listen(port: int, host: str = LOOPBACK) -> socket.socket:
    """Return a bound socket.

    port: 0 picks a free one.
    Raises PortTakenError when the port is in use or may not be used.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    # A stand-in that was killed must come back on its port while old connections still linger.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"Port {port} on {host} is already in use; choose another, or 0 for a free one."
            ) from None
        raise PortTakenError(f"Port {port} on {host} cannot be opened: {error.strerror}.") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the base URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(app: ASGIApp, on_ready: Callable[[], None]) -> _Server:
    config = uvicorn.Config(
        app,
        http=_ProtocolWithTransport,
        ws="none",
        lifespan="off",
        access_log=False,  # paths carry cards
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        backlog=_BACKLOG,
    )
    return _Server(config, on_ready)


def write_ready_line(line: dict[str, Any]) -> None:
    """Print the one line of JSON that says a stand-in can be used."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def serve(app: ASGIApp, listener: socket.socket, ready: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread of a process.

    ready: what the ready line on stdout says beside "ready", "url", "port" and "pid".
    """
    line = {**ready, "ready": True, "url": url_of(listener), "port": listener.getsockname()[1], "pid": os.getpid()}
    _server(app, lambda: write_ready_line(line)).run(sockets=[listener])


class StandIn:
    """A stand-in served from a thread of this process, for tests. Use it as a context manager or call stop().

    url: its base URL. port: its port. app: what it serves.
    """

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        self.app = app
        listener = listen(port)
        self.url = url_of(listener)
        self.port: int = listener.getsockname()[1]
        ready = threading.Event()
        self._server = _server(app, ready.set)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name=f"stand-in-{self.port}", daemon=True
        )
        self._thread.start()
        if not ready.wait(_STOP_SECONDS):
            raise RuntimeError("The stand-in did not start.")

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
