"""Airflow's real API server with the page, what people send to it, and the ledger behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from include.instore.ledger import Ledger
from include.instore.ledger.alerts import remember
from include.instore.ledger.extract_files import note_waiting
from include.instore.ledger.tables import orders
from include.instore.runs.report import Failure, report_run
from sandbox.processes import free_port
from tests.instore import given

ROOT = Path(__file__).parents[2]
MARKUP = "<img src=//evil.example/x onerror=alert(1)>\"'{{7*7}}"
EMAIL = f"{given.CANARY}@example.com"
ROLES = {"viewer": "viewer", "editor": "user", "keeper": "op", "nobody": ""}
PASSWORDS = {name: f"{name}-password" for name in ROLES}
_START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """Airflow's API server, and what a person who has signed in sends along."""

    url: str
    tokens: dict[str, str]
    env: dict[str, str]

    def call(self, path: str, user: str | None = "viewer", method: str = "GET", **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return requests.request(method, f"{self.url}/instore{path}", headers=headers, timeout=60, **more)

    def page(self, path: str, user: str = "viewer", **form: Any) -> str:
        answer = self.call(path, user, method="POST", data=form) if form else self.call(path, user)
        assert answer.status_code == 200, answer.text[:2000]
        return answer.text

    def airflow(self, path: str, user: str = "viewer", method: str = "GET", **body: Any) -> Any:
        """What Airflow's own API says."""
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        answer = requests.request(method, f"{self.url}/api/v2{path}", headers=headers, json=body or None, timeout=60)
        assert answer.ok, answer.text
        return answer.json()


def filled(opened: Ledger) -> Ledger:
    """A ledger with orders of all states, whose texts are markup where the ERP chooses them."""
    opened.migrate()
    whose = [given.document(number, emailAddress=EMAIL, storeId=MARKUP[:64]) for number in ("S1", MARKUP[:64])]
    today = f"{given.hours_ago(0):%Y-%m-%dT00:00:00Z}"
    nobody = given.document("S3", loyaltyCardNumber=None, date=today)
    refused = given.refused(given.body(MARKUP, emailAddress=EMAIL), f"{MARKUP}#7", "bad_value")
    given.landed(opened, *whose, nobody, refusals=[refused])
    now = given.hours_ago(0)
    sent = {"attempts": 1, "sending_at": now, "outcome_run": "run-1"}
    given.set_orders(opened, orders.c.order_number == "S1", status="sent", sent_at=now, **sent)
    held = orders.c.order_number == MARKUP[:64]
    given.set_orders(
        opened, held, status="held", reason=MARKUP, reference=f"{MARKUP}.csv:2", origin=f"{MARKUP}.csv", **sent
    )
    note_waiting(opened, "run-1", f"{MARKUP}.csv", "1", 3, MARKUP)
    report_run(opened, given.run(), [Failure("drain_topic")], given.SETTINGS)
    remember(opened, given.run(), red={"task_failed:drain_topic": ("Task drain_topic failed", MARKUP)})
    return opened


@contextmanager
def serving(home: Path, ledger: Ledger, **more: str) -> Iterator[Server]:
    """The API server, with Airflow's database in its home. :param more: of the environment."""
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "_AIRFLOW"))} | {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_INSTORE_LEDGER": json.dumps({"conn_type": "sqlite", "host": str(ledger.engine.url.database)}),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in ROLES.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": "the jwt secret of the tests " * 3,
    } | more  # fmt: skip
    airflow = str(Path(sys.executable).with_name("airflow"))
    words = [airflow, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--apps", "core"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(words, env=env, stdout=log, stderr=log)
    try:
        until = time.monotonic() + _START_SECONDS
        while not _answers(url):
            died = process.poll() is not None or time.monotonic() > until
            assert not died, (home / "log").read_text()[-3000:]
            time.sleep(0.3)
        yield Server(url, {name: _token(url, name) for name in PASSWORDS}, env)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/v2/version", timeout=5).ok
    except requests.RequestException:
        return False


def _token(url: str, name: str) -> str:
    body = {"username": name, "password": PASSWORDS[name]}
    answer = requests.post(f"{url}/auth/token", json=body, timeout=30)
    assert answer.ok, answer.text
    token: str = answer.json()["access_token"]
    return token
