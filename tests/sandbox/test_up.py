"""`up` runs the whole sandbox, seeds it once, brings back what dies, and leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox import week

from .conftest import SandboxProcess, Service, alive, event, eventually

Start = Callable[..., SandboxProcess]
SERVICES = ("service_bus", "loyalty", "profile_store")


def _counts(sandbox: Start, state: Path) -> dict[str, Any]:
    code, out, err = sandbox("state", "--json", "--state", str(state)).finish()
    assert code == 0, err
    return json.loads(out)


def test_a_hostile_sandbox_from_start_to_end(sandbox: Start, tmp_path: Path) -> None:
    state = tmp_path / "state"
    up = sandbox("up", "--hostile", "--ports", "0,0,0", "--state", str(state), "--extracts", str(tmp_path / "erp"))
    ready = up.ready()
    refused = list(week.orders_to_refuse())
    assert ready["seeded"] == {
        "messages": 2113,
        "malformed": 5,
        "extracts": 7,
        "cut_extract": "2017/06/12/orders-2017-06-12.csv.gz",
        "cut_extract_whole_orders": 19,
        "hostile": True,
    }
    assert ready["refused_orders"] == refused
    assert ready["extracts"] == str(tmp_path / "erp")
    assert len(list((tmp_path / "erp").rglob("*.csv.gz"))) == 8
    assert json.loads((state / "sandbox.json").read_text()) == ready
    assert stat.S_IMODE((state / "sandbox.json").stat().st_mode) == 0o600
    assert {os.getpgid(ready[name]["pid"]) for name in SERVICES} == {os.getpgid(up.process.pid)}

    counts = _counts(sandbox, state)
    assert counts["service_bus"]["entities"]["orders/Subscriptions/orderprocessing"]["active"] == 2118
    assert (counts["loyalty"]["members"], counts["profile_store"]["events"]) == (2344, 0)

    loyalty = Service(ready["loyalty"]["url"], **{"X-Api-Key": ready["loyalty"]["api_key"]})
    answers = [loyalty.get("/customers/by-loyalty-card/none") for _ in range(20)]
    assert [answer.status_code for answer in answers] == [*[404] * 9, 500, *[404] * 9, 429]
    assert (answers[9].headers.get("Retry-After"), answers[19].headers["Retry-After"]) == (None, "1")
    loyalty.session.close()

    store = Service(ready["profile_store"]["url"], Authorization=f"epi-single {ready['profile_store']['key']}")
    assert store.track_bulk(event("S1"), event(refused[1])).status_code == 400
    assert [store.track_bulk(event("S1")).status_code for _ in range(9)] == [*[200] * 8, 503]
    store.session.close()

    assert up.terminate() == (0, "", "")
    # A write-ahead log that is left shows a child that had to die instead of being told to stop.
    assert list(state.glob("*-wal")) == []
    assert not any(alive(ready[name]["pid"]) for name in SERVICES)


def test_a_second_start_seeds_nothing_and_keeps_keys_and_messages(sandbox: Start, tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        up = sandbox("up", "--ports", "0,0,0", "--state", str(tmp_path))
        seen.append(up.ready())
        active = _counts(sandbox, tmp_path)["service_bus"]["entities"]["orders/Subscriptions/orderprocessing"]["active"]
        assert active == 2113
        assert up.terminate()[0] == 0
    first, second = seen
    assert first["seeded"] == second["seeded"]
    assert first["loyalty"]["api_key"] == second["loyalty"]["api_key"]
    assert first["refused_orders"] == []


def test_a_killed_child_comes_back_on_its_port_and_faults_can_be_set(sandbox: Start, tmp_path: Path) -> None:
    up = sandbox("up", "--no-seed", "--ports", "0,0,0", "--state", str(tmp_path))
    ready = up.ready()
    assert ready["seeded"] is None
    pid, url = ready["loyalty"]["pid"], ready["loyalty"]["url"]
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        return json.loads((tmp_path / "sandbox.json").read_text())["loyalty"]["pid"] != pid

    assert eventually(is_back)
    common = ("faults", "loyalty", "--state", str(tmp_path))
    code, out, _ = sandbox(*common, "--set", "share=1", "--set", "answers=[418]").finish()
    assert (code, json.loads(out)["answers"]) == (0, [418])
    assert requests.get(url + "/customers/x", timeout=5).status_code == 418
    code, out, _ = sandbox(*common, "--set", "latency=0.01").finish()
    assert (json.loads(out)["share"], json.loads(out)["latency"]) == (1, 0.01)
    code, out, _ = sandbox(*common, "--clear").finish()
    assert (json.loads(out)["share"], json.loads(out)["latency"]) == (0, 0)
    assert sandbox(*common, "--set", "nonsense=1").finish()[0] == 2
    code, out, _ = sandbox("faults", "service-bus", "--state", str(tmp_path), "--set", "latency_seconds=0.5").finish()
    assert (code, json.loads(out)["latency_seconds"]) == (0, 0.5)
    code, out, _ = sandbox("state", "--state", str(tmp_path)).finish()
    assert (code, "profile_store" in out, "418" in out) == (0, True, True)


def test_the_children_end_when_up_is_killed(sandbox: Start, tmp_path: Path) -> None:
    up = sandbox("up", "--no-seed", "--ports", "0,0,0", "--state", str(tmp_path))
    ready = up.ready()
    up.process.kill()
    up.process.wait()
    assert all(eventually(lambda pid=ready[name]["pid"]: not alive(pid)) for name in SERVICES)


def test_a_port_in_use_stops_everything_with_one_sentence(sandbox: Start, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = sandbox("up", "--no-seed", "--ports", f"0,0,{port}", "--state", str(tmp_path)).finish()
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert str(port) in err


@pytest.mark.parametrize("command", [("state",), ("faults", "loyalty"), ("seed",)])
def test_without_a_running_sandbox_the_others_say_so(sandbox: Start, tmp_path: Path, command: tuple[str, ...]) -> None:
    code, out, err = sandbox(*command, "--state", str(tmp_path)).finish()
    assert (code, out) == (2, "")
    assert err == f"No sandbox has been started with the state folder {tmp_path}.\n"


def test_seed_sends_to_a_running_sandbox_and_prints_what(sandbox: Start, tmp_path: Path) -> None:
    up = sandbox("up", "--no-seed", "--ports", "0,0,0", "--state", str(tmp_path))
    up.ready()
    code, out, err = sandbox("seed", "--hostile", "--cut", "gzip", "--state", str(tmp_path)).finish()
    assert code == 0, err
    seeded = json.loads(out)
    assert (seeded["messages"], seeded["malformed"], seeded["extracts"]) == (2113, 5, 7)
    assert 0 < seeded["cut_extract_whole_orders"] < 20
    counts = _counts(sandbox, tmp_path)
    assert counts["service_bus"]["entities"]["orders"]["received"] == 2118
