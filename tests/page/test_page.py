"""The page "In-store orders", in Airflow's real API server: who may see it, what it shows, and what it never does."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
import requests
from fastapi.routing import APIRoute

from include.instore.ledger import Ledger
from include.instore.ledger.quarantined import Wanted, find
from include.instore_airflow.page import app
from tests.instore import given
from tests.page.serving import EMAIL, MARKUP, Server

pytestmark = pytest.mark.timeout(300)  # a real server is started, which takes its time on a busy machine
ROUTES = [
    (method, route.path) for route in app().routes if isinstance(route, APIRoute) for method in sorted(route.methods)
]


def _filled(path: str) -> str:
    return path.replace("{event_id}", "0" * 36).replace("{id}", "0" * 64)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_is_for_somebody_who_may_not_see_the_dag(server: Server, method: str, path: str) -> None:
    form = {"kind": "number", "text": "S1", "action": "discard"} if method == "POST" else None
    anonymous = server.call(_filled(path), None, method, data=form)
    assert anonymous.status_code in (401, 403)
    assert server.call(_filled(path), "nobody", method, data=form).status_code == 403
    forged = requests.request(
        method, f"{server.url}/instore{_filled(path)}", cookies={"_token": "e30.e30.e30"}, data=form, timeout=30
    )
    assert forged.status_code in (401, 403)
    changes, unmasks = path in ("/preview", "/confirm"), method == "POST" and "{" in path
    for user, may in (("viewer", not changes and not unmasks), ("editor", not unmasks), ("keeper", True)):
        status = server.call(_filled(path), user, method, data=form).status_code
        assert status in ((200, 404, 422) if may else (403,)), user


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "POST"])
def test_a_form_is_taken_from_this_page_only(server: Server, path: str) -> None:
    form = {"kind": "number", "text": "S1", "action": "discard"}
    host = server.url.removeprefix("http://")
    basic = {"Authorization": "Basic YTpi", "Origin": "https://evil.example"}  # as a browser adds it for a proxy
    cookies = {"_token": server.tokens["keeper"]}
    answer = requests.post(
        f"{server.url}/instore{_filled(path)}", cookies=cookies, data=form, headers=basic, timeout=30
    )
    assert answer.status_code in (401, 403)
    for origin, may in (
        (None, False), ("https://evil.example", False), ("null", False), (f"http://{host}.evil.example", False),
        (f"http://{host}@evil.example", False), (server.url, True),
    ):  # fmt: skip
        answer = requests.post(
            f"{server.url}/instore{_filled(path)}", cookies=cookies, data=form,
            headers={"Origin": origin} if origin else {}, timeout=30,
        )  # fmt: skip
        assert answer.status_code in ((200, 404) if may else (403,)), origin


def test_the_routes_are_those_that_were_walked(server: Server) -> None:
    assert len(ROUTES) >= 16
    # Files that are mounted, or an app mounted in this one, would be there without its rules.
    assert [route for route in app().routes if not isinstance(route, APIRoute)] == []
    for path in ("/docs", "/redoc", "/openapi.json", "/style.css", "/base.html"):
        assert server.call(path).status_code == 404


def test_it_has_its_place_in_the_menu(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.tokens['viewer']}"}
    plugins = requests.get(f"{server.url}/api/v2/plugins", headers=headers, timeout=30).json()["plugins"]
    (mine,) = (each for each in plugins if each["name"] == "instore_page")
    assert [each["url_prefix"] for each in mine["fastapi_apps"]] == ["/instore"]  # another would have its own rules
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
    paths = ("/", "/orders", "/runs", "/run?id=run-1", "/files", "/quarantine", "/undelivered", "/done")
    found = {path: server.page(path, "keeper") for path in (*paths, "/undelivered?status=held", "/dead-letters")}
    (record,) = find(ledger, Wanted(reason="bad_value"))
    found["record"] = server.page(f"/quarantine/{record.id}", "keeper")
    held = given.row(ledger, MARKUP[:64])["event_id"]
    found["preview"] = server.page("/preview", "keeper", action="sent", ids=[held])
    found["preview of records"] = server.page("/preview", "keeper", action="discard", ids=[record.id])
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
    assert shown >= 10


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
    assert "This card is a placeholder" in answer.text


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


def test_one_file_can_be_looked_at_alone(server: Server) -> None:
    assert quote(f"{MARKUP}.csv") in server.page("/files") or "&lt;img" in server.page("/files")
    assert "&lt;img" in server.page(f"/files?path={quote(f'{MARKUP}.csv')}")
    assert "&lt;img" not in server.page("/files?path=another.csv")
