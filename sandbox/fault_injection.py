"""ASGI middleware around a stand-in: counts its calls, and lets the faults happen on the wire."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .calls import CallCounts
from .faults import UNPROCESSED, Faults, FaultSettings, GivenAnswer

log = logging.getLogger(__name__)

Subjects = Callable[[Scope, bytes], Sequence[str]]

_HTML = b"<!doctype html><html><head><title>Maintenance</title></head><body><h1>Back soon</h1></body></html>"
_SLOW_PIECES = 10


@dataclass
class _Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class FaultInjection:
    """The outermost layer of a stand-in.

    subjects: tells the order numbers or cards a request concerns, from its scope and body. The body is only collected
        (and otherwise empty) while a setting needs it, so that undisturbed calls cost nothing extra.
    """

    app: ASGIApp
    faults: Faults[Any]
    calls: CallCounts
    subjects: Subjects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Faults apply to service paths only: the page and /sandbox/* always work."""
        if scope["path"] == "/" or scope["path"].startswith("/sandbox/"):
            await self._serve(scope, receive, send, "the sandbox's own page")
            return
        settings: FaultSettings = self.faults.settings
        operation = self.calls.operation(scope["method"], scope["path"])
        self.calls.arrive()
        if settings.latency:
            await asyncio.sleep(settings.latency)
        body = b""
        if settings.script or settings.given or settings.largest_body is not None:
            body = await _read_body(receive)
            receive = _replay(body, receive)
        subjects = self.subjects(scope, body)
        fault = self.faults.next_answer(operation, subjects)
        if settings.largest_body is not None and len(body) > settings.largest_body:
            fault = "reset"
        given = self.faults.given_answer(operation, subjects) if fault is None else None

        if given is not None:
            self.calls.add(operation, given.status)
            await _send(send, _given(given))
        elif fault is None:
            await self._pass_on(scope, receive, send, operation)
        elif isinstance(fault, int):
            await _read_body(receive)
            self.calls.add(operation, fault)
            await _send(send, self._fault_answer(fault))
        else:
            self.calls.add(operation, fault)
            await self._accident(fault, scope, receive, send, operation)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, operation: str) -> None:
        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Counted before it leaves, so that a caller who has its answer finds it counted.
                self.calls.add(operation, message["status"])
            await send(message)

        await self._serve(scope, receive, counting_send, operation)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, operation: str) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:  # the framework has answered 500 before it lets the exception out
            # The exception's message may quote the request, so only its type and place are told.
            place = "".join(traceback.format_tb(error.__traceback__, limit=-3))
            log.error("%s while answering %s\n%s", type(error).__name__, operation, place)

    async def _processed(self, scope: Scope, receive: Receive, operation: str) -> _Answer:
        answer = _Answer(500, [], b"")

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], list(message["headers"])
            else:
                answer.body += message.get("body", b"")

        await self._serve(scope, receive, keep, operation)
        return answer

    def _fault_answer(self, status: int) -> _Answer:
        answer = _json_answer(status, "sandbox_fault", "The sandbox was told to answer like this.")
        retry_after = self.faults.retry_after(status)
        if retry_after is not None:
            answer.headers.append((b"retry-after", retry_after.encode("latin-1", "replace")))
        if status in (204, 304):
            answer.body = b""
        return answer

    async def _accident(self, accident: str, scope: Scope, receive: Receive, send: Send, operation: str) -> None:
        settings: FaultSettings = self.faults.settings
        if accident in UNPROCESSED:
            # The whole request is taken in first: a caller who is still sending would see a different error each time.
            await _read_body(receive)
            if accident == "reset":
                await _hang_up(scope, receive, reset=True)
            else:
                await _send(send, _html_answer(404 if accident == "html_404" else 200))
            return
        answer = await self._processed(scope, receive, operation)
        if accident == "lost":
            await _hang_up(scope, receive, reset=False)
        elif accident == "accepted_html":
            await _send(send, _html_answer())
        elif accident == "truncated":
            answer.body = answer.body[: len(answer.body) // 2]
            await _send(send, answer)
        elif accident == "cut":
            half = answer.body[: len(answer.body) // 2]
            await send({"type": "http.response.start", "status": answer.status, "headers": _with_length(answer)})
            await send({"type": "http.response.body", "body": half, "more_body": True})
            await _hang_up(scope, receive, reset=False, flush=True)
        else:
            await _send_slowly(send, answer, settings.slow_seconds)


async def _read_body(receive: Receive) -> bytes:
    pieces = []
    more = True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(pieces)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _json_answer(status: int, code: str, message: str) -> _Answer:
    body = json.dumps({"code": code, "message": message}).encode()
    return _Answer(status, [(b"content-type", b"application/json")], body)


def _given(given: GivenAnswer) -> _Answer:
    text = given.body if isinstance(given.body, str) else json.dumps(given.body)
    kind = "application/json" if not isinstance(given.body, str) else "text/html" if "<" in text[:20] else "text/plain"
    headers = {"content-type": kind} | {name.lower(): value for name, value in given.headers.items()}
    pairs = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return _Answer(given.status, pairs, b"" if given.status in (204, 304) else text.encode())


def _html_answer(status: int = 200) -> _Answer:
    return _Answer(status, [(b"content-type", b"text/html; charset=utf-8")], _HTML)


def _with_length(answer: _Answer) -> list[tuple[bytes, bytes]]:
    headers = [(name, value) for name, value in answer.headers if name.lower() != b"content-length"]
    if answer.status not in (204, 304):
        headers.append((b"content-length", str(len(answer.body)).encode()))
    return headers


async def _send(send: Send, answer: _Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _with_length(answer)})
    await send({"type": "http.response.body", "body": answer.body})


async def _send_slowly(send: Send, answer: _Answer, seconds: float) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _with_length(answer)})
    size = max(1, -(-len(answer.body) // _SLOW_PIECES))
    pieces = [answer.body[at : at + size] for at in range(0, len(answer.body), size)]
    for piece in pieces:
        await asyncio.sleep(seconds / len(pieces))
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _hang_up(scope: Scope, receive: Receive, *, reset: bool, flush: bool = False) -> None:
    # ASGI has no word for hanging up; `serving` puts the connection's transport within reach.
    transport: asyncio.Transport = scope["state"]["transport"]
    if reset:
        # Linger of zero turns the close into a TCP reset, as a crashed peer or a firewall sends it.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if flush:
        transport.close()
    else:
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
