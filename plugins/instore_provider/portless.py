"""The Test button of connections without a port, which Airflow 3.3.2 answers with "Bad Request"."""

from __future__ import annotations

import json
from typing import Any


class PortlessTest:
    """
    An ASGI middleware of the API server: it takes a port of 0 out of the button's request.

    The button sends 0 where the connection has no port, and the server takes that for another service's.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("method") != "POST" or not scope["path"].endswith("/api/v2/connections/test"):
            await self._app(scope, receive, send)
            return
        from starlette.requests import Request

        body = await Request(scope, receive).body()
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None  # the server's own answer says so
        if isinstance(asked, dict) and asked.get("port") == 0:
            body = json.dumps({name: value for name, value in asked.items() if name != "port"}).encode()
        headers = [each for each in scope["headers"] if each[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        messages = iter([{"type": "http.request", "body": body}])

        async def once() -> Any:
            return next(messages, None) or await receive()

        await self._app({**scope, "headers": headers}, once, send)
