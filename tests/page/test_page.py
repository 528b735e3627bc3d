"""The page "In-store orders", in Airflow's real API server: who may see it, what it shows, and what it never does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from demo.processes import free_port
from include.instore.ledger import Ledger
from include.instore.ledger.alerts import remember
from include.instore.ledger.extract_files import note_waiting
from include.instore.ledger.tables import orders
from include.instore.runs.report import Failure, report_run
from include.instore_airflow.page import app
from tests.instore import given

ROOT = Path(__file__).parents[2]
MARKUP = "<img src=//evil.example/x onerror=alert(1)>\"'{{7*7}}"
EMAIL = f"{given.CANARY}@example.com"
PASSWORDS = {"viewer": "viewer-password", "nobody": "nobody-password"}
_START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """Airflow's API server, and what a person who has signed in sends along."""

    url: str
    tokens: dict[str, str]

    def call(self, path: str, user: str | None = "viewer", method: str = "GET", **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return requests.request(method, f"{self.url}/instore{path}", headers=headers, timeout=60, **more)

    def page(self, path: str, **form: str) -> str:
        answer = self.call(path, method="POST", data=form) if form else self.call(path)
        assert answer.status_code == 200, answer.text[:2000]
        return answer.text


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Orders of all states, whose texts are markup where the ERP chooses them."""
    opened = Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db", hash_key="the-hash-key-of-the-tests")
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
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path, ledger: Ledger) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("api-server")
    shutil.copy(airflow_database, home / "airflow.db")
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
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "viewer:viewer,nobody:",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": "the jwt secret of the tests " * 3,
    }  # fmt: skip
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
        yield Server(url, {name: _token(url, name) for name in PASSWORDS})
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


ROUTES = [(method, route.path) for route in app().routes for method in sorted(route.methods)]  # type: ignore[attr-defined]


def _filled(path: str) -> str:
    return path.replace("{event_id}", "0" * 36)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_is_for_somebody_who_may_not_see_the_dag(server: Server, method: str, path: str) -> None:
    form = {"kind": "number", "text": "S1"} if method == "POST" else None
    anonymous = server.call(_filled(path), None, method, data=form)
    assert anonymous.status_code in (401, 403)
    assert server.call(_filled(path), "nobody", method, data=form).status_code == 403
    forged = requests.request(
        method, f"{server.url}/instore{_filled(path)}", cookies={"_token": "e30.e30.e30"}, data=form, timeout=30
    )
    assert forged.status_code in (401, 403)
    assert server.call(_filled(path), "viewer", method, data=form).status_code in (200, 404, 422)


def test_the_routes_are_those_that_were_walked(server: Server) -> None:
    assert len(ROUTES) >= 8
    for path in ("/docs", "/redoc", "/openapi.json", "/style.css", "/base.html"):
        assert server.call(path).status_code == 404


def test_it_has_its_place_in_the_menu(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.tokens['viewer']}"}
    plugins = requests.get(f"{server.url}/api/v2/plugins", headers=headers, timeout=30).json()["plugins"]
    (mine,) = (each for each in plugins if each["name"] == "instore_page")
    (view,) = mine["external_views"]
    assert (view["href"], view["url_route"], view["destination"]) == ("/instore/", "instore", "nav")


class _Seen(HTMLParser):
    """The elements of a page, and where its attributes lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.leads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.leads += [value or "" for name, value in attrs if name in ("href", "src", "action")]


def _every_page(server: Server, ledger: Ledger) -> dict[str, str]:
    events = {number: given.row(ledger, number)["event_id"] for number in ("S1", MARKUP[:64])}
    found = {path: server.page(path) for path in ("/", "/orders", "/runs", "/run?id=run-1", "/files", "/quarantine")}
    found |= {f"order {number}": server.page(f"/orders/{event}") for number, event in events.items()}
    for kind, text in (("number", MARKUP[:64]), ("number", MARKUP), ("card", given.CARD), ("email", EMAIL)):
        found[f"{kind} {text[:9]}"] = server.page("/orders", kind=kind, text=text)
    found["file"] = server.page("/orders", kind="origin", text=f"{MARKUP}.csv")
    return found


def test_no_text_of_the_erp_becomes_markup_and_nothing_leads_to_another_host(server: Server, ledger: Ledger) -> None:
    shown = 0
    for name, text in _every_page(server, ledger).items():
        seen = _Seen(text)
        assert not seen.tags & {"img", "script", "iframe", "object", "link", "base"}, name
        assert not [each for each in seen.attributes if each.startswith("on") or each == "style"], name
        assert [each for each in seen.leads if not re.match(r"/(instore|dags)/", each)] == [], name
        assert "49" not in re.findall(r"\{\{.*?\}\}", text)
        shown += "&lt;img src=" in text
    assert shown >= 7


def test_no_personal_data_is_on_any_page(server: Server, ledger: Ledger) -> None:
    for name, text in _every_page(server, ledger).items():
        assert given.CANARY not in text, name
        assert given.CARD not in text, name
    assert "…5744" in server.page("/orders", kind="email", text=EMAIL)


def test_the_browser_is_told_to_load_and_run_nothing(server: Server) -> None:
    for answer in (server.call("/"), server.call("/orders", method="POST", data={"kind": "card", "text": "0"})):
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'self'" in policy
        assert answer.headers["Cache-Control"] == "no-store"
    assert answer.status_code == 400
    assert "Nobody has this card" in answer.text


def test_the_style_is_the_one_that_the_browser_is_told_to_take(server: Server) -> None:
    answer = server.call("/")
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["Content-Security-Policy"]


def test_the_overview_says_what_came_and_what_is_wrong(server: Server) -> None:
    text = server.page("/")
    assert "Task drain_topic failed (task_failed:drain_topic)" in text
    assert "No customer, by reason: no_customer_key: 1." in text
    assert text.count("<rect") == 14 * 4
    assert "a person: deliveries settle --sent ID or " in text


def test_orders_are_found_by_whatever_is_known_of_them(server: Server, ledger: Ledger) -> None:
    event = given.row(ledger, "S1")["event_id"]
    for kind, text in (
        ("number", " s1 "),
        ("card", given.CARD),
        ("email", EMAIL),
        ("event_id", event),
        ("origin", "ref-0"),
    ):
        assert f'<a href="/instore/orders/{event}">S1</a>' in server.page("/orders", kind=kind, text=text), kind
    assert "bad_value" in server.page("/orders", kind="number", text=MARKUP)
    assert server.call("/orders", method="POST", data={"kind": "ledger", "text": "x"}).status_code == 422
    assert server.call("/orders/" + "0" * 36).status_code == 404


def test_an_order_has_its_timeline_and_what_happens_next(server: Server, ledger: Ledger) -> None:
    text = server.page(f"/orders/{given.row(ledger, 'S1')['event_id']}")
    assert "Nothing: profile_store has it." in text
    assert re.findall(r"</time> <strong>(.*?)</strong>", text) == ["received", "left", "sent"]


def test_runs_lead_to_their_counts_and_to_their_tasks(server: Server) -> None:
    assert f'<a href="/instore/run?id={quote("run-1")}">run-1</a>' in server.page("/runs")
    assert "None." not in server.page("/runs?kind=scheduled")
    assert ">run-1<" not in server.page("/runs?kind=backfill")
    text = server.page("/run?id=run-1")
    assert '<a href="/dags/instore_orders/runs/run-1">' in text
    assert "task drain_topic failed" in text
    assert server.call("/run?id=run-9").status_code == 404
