"""Bad networks on loopback: an HTTP relay that fails request by request, and a TCP relay that delays and cuts."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HTML = b"<!doctype html><title>Gateway</title><h1>Please sign in to the network</h1>"


@dataclass(frozen=True)
class Trouble:
    """What happens to one request.

    :param kind: see ``KINDS``.
    :param seconds: of ``slow``, ``late`` and ``delay``.
    :param hook: called at the moment the kind names, such as to kill the caller.
    """

    kind: str = "pass"
    seconds: float = 0
    hook: Callable[[], object] | None = None


KINDS = {
    "pass": "relayed",
    "delay": "held back for some seconds, then relayed",
    "reset_before": "taken from the caller and reset; the service never sees it",
    "reset_after": "the service has taken it, then the connection is reset",
    "lost": "the service has taken it, then the connection closes without an answer",
    "late": "the connection is reset at once, the service gets the request seconds later",
    "slow": "the answer's body dribbles",
    "cut": "the answer breaks off in the middle of the promised body",
    "truncated": "the answer is whole HTTP around half of its JSON",
    "html": "200 with a page of HTML from something in between; the service never sees it",
    "accepted_html": "the service has taken it, the answer is 200 with a page of HTML",
    "before": "hook, then relayed: the request has left, the service has not seen it",
    "after": "the service has answered, hook, then the answer is relayed",
}
"""And any number: relayed, and the answer's status becomes this."""


class HttpRelay:
    """A relay to one service; the requests whose line begins with ``only`` use up the troubles, then all is well."""

    def __init__(self, service: str, troubles: Iterable[Trouble] = (), only: str = "POST ") -> None:
        self._service = service.removeprefix("http://")
        self._lock = threading.Lock()
        self._troubles = list(troubles)
        self._only = only
        self.met = 0
        """How many requests have met trouble."""
        self._pending: list[threading.Thread] = []
        relay = self

        class Handler(_Handler):
            service = relay._service
            next_trouble = staticmethod(relay._next)
            later = relay._pending

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def order(self, troubles: Iterable[Trouble]) -> None:
        """These are next."""
        with self._lock:
            self._troubles = list(troubles)

    def _next(self, line: str) -> Trouble:
        with self._lock:
            if not line.startswith(self._only) or not self._troubles:
                return Trouble()
            self.met += 1
            return self._troubles.pop(0)

    def __enter__(self) -> HttpRelay:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for thread in self._pending:
            thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a caller that was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: str
    next_trouble: Callable[[str], Trouble]
    later: list[threading.Thread]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._relay()

    def do_POST(self) -> None:
        self._relay()

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        trouble = self.next_trouble(self.requestline)
        kind = trouble.kind
        if kind == "delay":
            time.sleep(trouble.seconds)
        if kind == "reset_before":
            return self._reset()
        if kind == "html":
            return self._answer(200, [("Content-Type", "text/html")], _HTML)
        if kind == "late":
            ask = self._asker(body)
            thread = threading.Timer(trouble.seconds, ask)
            self.later.append(thread)
            thread.start()
            return self._reset()
        if kind == "before" and trouble.hook:
            trouble.hook()
        status, headers, answer = self._asker(body)()
        if kind == "after" and trouble.hook:
            trouble.hook()
        if kind == "reset_after":
            return self._reset()
        if kind == "lost":
            return self._hang_up()
        if kind == "accepted_html":
            return self._answer(200, [("Content-Type", "text/html")], _HTML)
        if kind.isdigit():  # a relay that says success in other words
            status, answer = int(kind), b"" if kind == "204" else answer
        if kind == "truncated":
            answer = answer[: len(answer) // 2]
        return self._answer(status, headers, answer, kind, trouble.seconds)

    def _asker(self, body: bytes) -> Callable[[], tuple[int, list[tuple[str, str]], bytes]]:
        service, method, path = self.service, self.command, self.path
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}

        def ask() -> tuple[int, list[tuple[str, str]], bytes]:
            with contextlib.closing(http.client.HTTPConnection(service, timeout=60)) as connection:
                connection.request(method, path, body or None, headers)
                response = connection.getresponse()
                return response.status, response.getheaders(), response.read()

        return ask

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, kind: str = "pass", seconds: float = 0
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(body[: len(body) // 2])
            return self._hang_up()
        pieces = [body[at : at + 1] for at in range(len(body))] if kind == "slow" else [body]
        for piece in pieces:
            if kind == "slow":
                time.sleep(seconds / len(pieces))
            self.wfile.write(piece)
            self.wfile.flush()
        return None

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._hang_up(gently=False)

    def _hang_up(self, *, gently: bool = True) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            if gently:
                self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


class TcpRelay:
    """A relay of bytes, for AMQP: each way delayed by ``latency`` and up to ``jitter`` seconds more, and cut at will.

    :param cut_after: the numbers of bytes from the service after which the connections, one after the other, are reset.
    """

    def __init__(
        self, port: int, *, latency: float = 0, jitter: float = 0, cut_after: Iterable[int] = (), seed: int = 0
    ) -> None:
        self._service = ("127.0.0.1", port)
        self._latency = latency
        self._jitter = jitter
        self._cut_after = list(cut_after)
        self._random = random.Random(seed)
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.cuts = 0
        self.silent = False
        """While true nothing comes through, and nobody is told: a firewall that forgot the connection."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> TcpRelay:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection there is."""
        with self._lock:
            sockets, self._open = self._open, []
        for each in sockets:
            _reset(each)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                service = socket.create_connection(self._service)
            except OSError:
                _reset(caller)
                continue
            with self._lock:
                self._open += [caller, service]
                cut_after = self._cut_after.pop(0) if self._cut_after else None
            threading.Thread(target=self._pump, args=(caller, service, None), daemon=True).start()
            threading.Thread(target=self._pump, args=(service, caller, cut_after), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, cut_after: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._latency or self._jitter:
                    time.sleep(self._latency + self._random.random() * self._jitter)
                while self.silent:
                    time.sleep(0.05)
                passed += len(data)
                if cut_after is not None and passed > cut_after:
                    self.cuts += 1
                    break
                sink.sendall(data)
        for each in (source, sink):
            _reset(each) if cut_after is not None else each.close()


def _reset(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        each.close()


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
