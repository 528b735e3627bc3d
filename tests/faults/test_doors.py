"""Family 10: keys stay where they belong, and nothing from outside is followed to where it points.

That no log holds a key, an email or a card is asked by the judge after every test of the suite.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.source import write_extract


class _Elsewhere:
    """Another host: takes down every request that comes, with its headers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        elsewhere = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _take(self) -> None:
                elsewhere.seen.append((self.path, dict(self.headers)))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = _take  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Redirects(_Elsewhere):
    """A service that sends every caller elsewhere."""

    def __init__(self, status: int, target: str) -> None:
        super().__init__()
        redirects = self

        def take(handler: BaseHTTPRequestHandler) -> None:
            redirects.seen.append((handler.path, dict(handler.headers)))
            handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
            handler.send_response(status)
            handler.send_header("Location", target + handler.path)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self._server.RequestHandlerClass.do_GET = take  # type: ignore[attr-defined]
        self._server.RequestHandlerClass.do_POST = take  # type: ignore[attr-defined]


@pytest.mark.parametrize("service", ["store", "loyalty"])
@pytest.mark.parametrize("status", in_smoke([301, 302, 303, 307, 308], 307))
def test_redirect_is_not_followed_with_the_key(make_world: MakeWorld, service: str, status: int) -> None:
    world, judge = make_world(1001, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(40, only="sent"))
    judge.fault_happened()
    elsewhere = _Elsewhere()
    redirects = _Redirects(status, elsewhere.url)
    try:
        world.through(**{service: redirects.url})
        world.inject(10, f"the {service} redirects with {status} to another host")
        done = world.run(tries=1)
        assert redirects.seen
        assert elsewhere.seen == []
        assert not done.green
    finally:
        redirects.close()
        elsewhere.close()
    world.connections.clear()
    world.recover()
    judge.check(at_least=40, recovered=True)


@pytest.mark.parametrize("service", ["instore_service_bus", "instore_profile_store", "instore_loyalty"])
def test_refused_key_is_never_told(make_world: MakeWorld, service: str) -> None:
    world, judge = make_world(1002)
    world.publish(world.source.take(30, only="sent"))
    world.extract("2017/06/05/orders.csv", world.source.take(30, only="sent"))
    judge.fault_happened()
    good = json.loads(world.environment()[f"AIRFLOW_CONN_{service.upper()}"])
    bad = json.loads(json.dumps(good).replace(_key(world, service), "d3adk3y-" + _key(world, service)[::-1]))
    world.connections[service] = bad
    world.inject(10, f"the key of {service} is refused")
    done = world.run(tries=1)
    assert not done.green
    told = json.dumps([each.error for _, each in done.tries])
    assert "d3adk3y" not in told
    assert not any(b"d3adk3y" in path.read_bytes() for path in world.logs.iterdir())
    world.connections.clear()
    world.recover()
    judge.check(at_least=60, recovered=True)


def _key(world: Any, service: str) -> str:
    keys = world.sandbox.keys
    return {
        "instore_service_bus": keys.service_bus_key,
        "instore_profile_store": keys.profile_store_key,
        "instore_loyalty": keys.loyalty_api_key,
    }[service]


@pytest.mark.parametrize(
    "how", in_smoke(["a link to a file", "a link to a folder", "a glob that climbs"], "a link to a file")
)
def test_extract_outside_the_folder_is_not_read(make_world: MakeWorld, how: str) -> None:
    """Found that a symlink in the drop folder led anywhere the worker may read."""
    world, judge = make_world(1003, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(30, only="sent"))
    outside = world.folder / "outside"
    foreign = write_extract(outside, "foreign.csv", make_world(1004)[0].source.take(20, only="sent"))
    judge.fault_happened()
    world.inject(10, how)
    if how == "a link to a file":
        (world.extracts / "2017/06/05/more.csv").symlink_to(foreign)
    elif how == "a link to a folder":
        (world.extracts / "linked").symlink_to(outside, target_is_directory=True)
    else:
        world.settings["extract_glob"] = "../outside/*.csv"
        world.run(tries=1)
        world.settings["extract_glob"] = "**/*"
    world.recover()
    judge.check(at_least=30, recovered=True)


def test_what_looks_like_code_stays_text(make_world: MakeWorld, tmp_path: Path) -> None:
    """Templates, YAML tags, formulas, format strings and shell words in every field that is kept or passed on."""
    world, judge = make_world(1005)
    trap = tmp_path / "executed"
    words = [
        "{{ 7*7 }} {% import os %}",
        f"!!python/object/apply:os.system ['touch {trap}']",
        f"$(touch {trap}) `touch {trap}` ; touch {trap}",
        f"=cmd|'/c touch {trap}'!A1",
        "%s %n {0.__class__} {settings}",
        "'; DROP TABLE orders; --",
        "../../../../etc/passwd\u202e",
    ]
    orders = world.source.take(len(words) * 3, only="sent")
    dressed = [order.with_description(words[n % len(words)]) for n, order in enumerate(orders)]
    for order in dressed:
        world.source.drawn[order.number] = order
    world.inject(10, "what looks like code, in messages and in an extract", times=len(dressed))
    world.publish(dressed[: len(words)])
    world.extract("2017/06/05/{{ 7*7 }} $(true).csv", dressed[len(words) :])
    judge.fault_happened()
    world.recover()
    judge.check(at_least=len(orders), recovered=True)
    assert not trap.exists()
