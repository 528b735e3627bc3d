"""A scripted HTTP server on a real loopback socket: it answers, stalls, hangs up or resets, path by path."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. `path` is still percent-encoded, `query` is decoded."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    client: tuple[str, int]
    raw: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


HANG_UP = "closes the connection without an answer"
RESET = "resets the connection"
STALL = "takes the request and answers nothing"
STALLED_BODY = "answers 200 and stalls in the middle of the body"
BROKEN_BODY = "answers 200 and hangs up in the middle of the body, which is JSON by chance"
REFUSAL_WITH_BROKEN_BODY = "answers 400 and hangs up in the middle of the body"

Step = Reply | str | Callable[[Seen], "Reply | str"]


class Wire:
    """The server. A path without a script answers 599; a script's last step repeats."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self._scripts: dict[str, list[Step]] = defaultdict(list)
        self._lock = Lock()
        self._over = Event()
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                url = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                seen = Seen(
                    self.command,
                    url.path,
                    parse_qs(url.query, keep_blank_values=True),
                    dict(self.headers),
                    self.rfile.read(length),
                    self.client_address,
                    self.path,
                )
                wire._play(self, wire._next(seen))

            do_GET = do_POST = answer  # noqa: N815 - names of http.server

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args: Any) -> None:
                pass  # a client that hangs up is part of many tests

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def on(self, path: str, *steps: Step) -> Wire:
        """Answer requests of a path (percent-encoded, without query) with these steps, one after the other."""
        self._scripts[path] = list(steps)
        return self

    def to(self, path: str) -> list[Seen]:
        return [each for each in self.seen if each.path == path]

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, seen: Seen) -> Reply | str:
        with self._lock:
            self.seen.append(seen)
            steps = self._scripts.get(seen.path) or [Reply(599, {"message": "no script"})]
            step = steps.pop(0) if len(steps) > 1 else steps[0]
        return step if isinstance(step, (Reply, str)) else step(seen)

    def _play(self, handler: BaseHTTPRequestHandler, step: Reply | str) -> None:
        if isinstance(step, Reply):
            body = step.bytes()
            handler.send_response(step.status)
            for name, value in step.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return
        handler.close_connection = True
        if step == RESET:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif step == STALL:
            self._over.wait()
        elif step in (STALLED_BODY, BROKEN_BODY, REFUSAL_WITH_BROKEN_BODY):
            handler.send_response(400 if step == REFUSAL_WITH_BROKEN_BODY else 200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"items":[]' if step == STALLED_BODY else b'{"items":[]}')
            handler.wfile.flush()
            if step == STALLED_BODY:
                self._over.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(4):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
            waiting.append(each)
        try:
            yield port
        finally:
            for each in waiting:
                each.close()
