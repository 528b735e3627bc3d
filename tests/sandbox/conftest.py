"""Stand-ins for these tests: in a thread where the contract is tested, as processes where their death is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.loyalty import LoyaltyKeys, LoyaltyStandIn, Member
from sandbox.profile_store import ProfileStoreStandIn

ROOT = Path(__file__).parents[2]
LOYALTY_KEYS = LoyaltyKeys("loyalty-key", "client", "client-secret")
STORE_KEY = "store-key"
MEMBERS = [
    Member("C1", "0012", "ann@example.com", "Ann", "Example", "active"),
    Member("C2", "77", "", "Bo", "Example", "inactive"),
    Member("C3", "88", "c1@example.com", "Cy", "Example", "active"),
    Member("C4", "88", "c2@example.com", "Di", "Example", "active"),
    Member("C5", "9/9 a", "ed@example.com", "Ed", "Example", "active"),
]


class Service:
    """A stand-in and a session that is allowed in."""

    def __init__(self, url: str, **headers: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.update(headers)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=20, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=20, **options)

    def put(self, path: str, **options: Any) -> requests.Response:
        return self.session.put(self.url + path, timeout=20, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        return self.session.delete(self.url + path, timeout=20, **options)

    def set_faults(self, **settings: Any) -> None:
        assert self.put("/sandbox/faults", json=settings).status_code == 200

    def state(self) -> dict[str, Any]:
        return self.get("/sandbox/state").json()

    def track_bulk(self, *events: dict[str, Any]) -> requests.Response:
        return self.post("/api/v1.0/TrackBulk", json=list(events))

    def events(self, filter: str = "", **query: Any) -> dict[str, Any]:
        answer = self.get("/api/v1.0/trackevents/", params={"$filter": filter, **query})
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def serve_loyalty() -> Iterator[Service]:
    """A loyalty API over MEMBERS."""
    with LoyaltyStandIn(MEMBERS, LOYALTY_KEYS) as stand_in:
        service = Service(stand_in.url, **{"X-Api-Key": LOYALTY_KEYS.api_key})
        yield service
        service.session.close()


@contextmanager
def serve_store() -> Iterator[Service]:
    """A Profile Store that has seen nothing yet."""
    with ProfileStoreStandIn(STORE_KEY) as stand_in:
        service = Service(stand_in.url, **{"Ocp-Apim-Subscription-Key": STORE_KEY})
        yield service
        service.session.close()


@pytest.fixture
def loyalty() -> Iterator[Service]:
    with serve_loyalty() as service:
        yield service


@pytest.fixture
def store() -> Iterator[Service]:
    with serve_store() as service:
        yield service


@pytest.fixture(scope="module")
def untouched_store() -> Iterator[Service]:
    """For tests that leave nothing behind in it: starting one for each case would take longer than the cases."""
    with serve_store() as service:
        yield service


def event(number: str = "S1", **changes: Any) -> dict[str, Any]:
    """A tracking event with this order number, with changed or (None) missing fields."""
    whole = {
        "deviceId": "InStoreDevice",
        "eventType": "StorePurchase",
        "value": "StorePurchase",
        "scope": "Default",
        "eventTime": "2017-06-05T08:24:19.996Z",
        "trackId": f"track-{number}",
        "user": {"name": "Ann", "email": "ann@example.com"},
        "payload": {"orderNumber": number, "storeId": "0404", "total": 3.5},
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


class SandboxProcess:
    """`python -m sandbox …`, and what it said."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "sandbox", *arguments],
            cwd=ROOT,
            env={**os.environ, "SANDBOX_PROFILE_STORE_KEY": STORE_KEY, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.finish()
        return json.loads(line)

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, the rest of stdout, stderr."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def terminate(self) -> tuple[int, str, str]:
        self.process.terminate()
        return self.finish()

    def kill(self) -> None:
        self.process.kill()
        self.finish()


@pytest.fixture
def sandbox() -> Iterator[Callable[..., SandboxProcess]]:
    """Starts commands of the sandbox, and leaves none behind."""
    started: list[SandboxProcess] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> SandboxProcess:
        started.append(SandboxProcess(*arguments, env=env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.terminate()
        for pipe in (one.process.stdout, one.process.stderr):
            if pipe is not None:
                pipe.close()


def eventually(holds: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether something comes true within the time, asked again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        os.kill(pid, 0)
        # A zombie whose new parent does not reap it answers too.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()
