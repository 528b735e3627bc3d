"""``python -m benchmarks.far_side LOYALTY_MS STORE_MS``: a loyalty API and a Profile Store that cost next to nothing.

The stand-ins of the sandbox check and keep what they get, and would be what is measured. This one counts. Every card
is a customer's, every event is taken and shown. It prints a line of JSON when it is ready; its counts are
``/counts``, and since when each event is visible ``/visible``.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from urllib.parse import unquote

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_EVENT = re.compile(rb'"trackId"\s*:')
_CARD = "/customers/by-loyalty-card/"
_NUMBER = re.compile(rb'"orderNumber"\s*:\s*"([^"]+)"')
_FILTER = re.compile(r"TrackId eq ([^& ]+)")

COUNTS = {"look_ups": 0, "requests": 0, "events": 0, "connections": 0}
VISIBLE: dict[str, float] = {}
"""By the number of an order: when it was first answered that its event is taken."""


class _Answers(asyncio.Protocol):
    def __init__(self, loyalty: float, store: float) -> None:
        self._seconds = {"loyalty": loyalty, "store": store, "counts": 0.0}
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        COUNTS["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            service, answer = _answer(head, body)
            if service == "store":
                at = time.time() + self._seconds[service]
                for number in _NUMBER.findall(body):
                    VISIBLE.setdefault(number.decode(), at)
            text = json.dumps(answer).encode()
            reply = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text
            )
            asyncio.get_running_loop().call_later(self._seconds[service], self._write, reply)

    def _write(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)


def _answer(head: bytes, body: bytes) -> tuple[str, object]:
    path = unquote(head.split(b" ", 2)[1].decode())
    if path == "/counts":
        return "counts", COUNTS
    if path == "/visible":
        return "counts", VISIBLE
    if path.startswith(_CARD):
        COUNTS["look_ups"] += 1
        card = path.removeprefix(_CARD)
        return "loyalty", {"loyaltyCardNumber": card, "email": f"c{card}@example.com", "status": "active"}
    COUNTS["requests"] += 1
    if asked := _FILTER.search(path):
        return "store", {"items": [{"TrackId": asked[1]}], "total": 1}
    COUNTS["events"] += len(_EVENT.findall(body))
    return "store", {}


async def _serve(loyalty: float, store: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Answers(loyalty, store), "127.0.0.1", 0, backlog=1024
    )
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) / 1000, float(sys.argv[2]) / 1000))
