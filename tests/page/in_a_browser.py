"""The page in Debian's Chromium: each view, each action to its effect, and what a stranger's page can do to it.

Not one of ``make test``, since it takes a browser: ``make test-browser``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright  # type: ignore[import-not-found,unused-ignore]

from demo import browser as people
from include.instore.ledger import Ledger
from include.instore.ledger.alerts import remember
from include.instore.ledger.audit import done
from include.instore.ledger.quarantined import Wanted, find
from include.instore.ledger.tables import orders
from sandbox.servicebus import ServiceBusStandIn
from tests.instore import given
from tests.page.serving import EMAIL, MARKUP, PASSWORDS, Server

AXE = Path(__file__).parents[2] / ".cache/axe/node_modules/axe-core/axe.min.js"
VIEWS = (
    "/", "/orders", "/undelivered", "/undelivered?status=held", "/quarantine", "/dead-letters", "/runs",
    "/run?id=run-1", "/files", "/done",
)  # fmt: skip
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=people.installed_chromium(), args=list(people.FLAGS))
        yield found
        found.close()


@pytest.fixture
def opened(chromium: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """A page of a person who has signed in; nothing else is asked for than Airflow, no script runs, none is wanted."""
    contexts = []

    def sign_in(user: str = "editor", **how: Any) -> Page:
        context = chromium.new_context(timezone_id="UTC", **how)
        context.set_default_timeout(30_000)
        context.add_cookies([{"name": "_token", "value": server.tokens[user], "url": server.url}])
        contexts.append(context)
        page = context.new_page()
        page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}"))
        page.on("console", lambda said: asked.append(said.text) if "Content Security Policy" in said.text else None)
        return page

    asked: list[str] = []
    strangers: list[str] = []

    def note(request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(server.url).netloc:
            strangers.append(request.url)

    def watched(*args: Any, **how: Any) -> Page:
        page = sign_in(*args, **how)
        page.context.on("request", note)
        return page

    yield watched
    for context in contexts:
        context.close()
    assert strangers == []
    assert asked == []


def _paths(ledger: Ledger) -> list[str]:
    (record,) = find(ledger, Wanted(reason="bad_value"))
    events = [given.row(ledger, number)["event_id"] for number in ("S1", MARKUP[:64])]
    return [*VIEWS, f"/quarantine/{record.id}", *(f"/orders/{event}" for event in events)]


def _serious(page: Page) -> list[str]:
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['html'][:120]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("how", ["light", "dark", "narrow"])
def test_every_view_can_be_read_by_everybody(
    server: Server, ledger: Ledger, opened: Callable[..., Page], how: str
) -> None:
    looks = {"color_scheme": "dark" if how == "dark" else "light"}
    page = opened("keeper", **looks, viewport={"width": 360 if how == "narrow" else 1280, "height": 800})
    for path in _paths(ledger):
        page.goto(f"{server.url}/instore{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert _serious(page) == [], path
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
    event = given.row(ledger, MARKUP[:64])["event_id"]
    page.goto(f"{server.url}/instore/undelivered?status=held")
    page.locator(f"input[name=ids][value='{event}']").check()
    page.get_by_role("button", name="It is there").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("To be confirmed")
    assert _serious(page) == []


def test_no_text_of_the_erp_becomes_a_picture_or_a_script(
    server: Server, ledger: Ledger, opened: Callable[..., Page]
) -> None:
    page = opened("keeper")
    shown = 0
    for path in _paths(ledger):
        page.goto(f"{server.url}/instore{path}")
        assert page.locator("img, script, iframe").count() == 0, path
        shown += page.get_by_text("<img src=").count()
    for kind, text in (("order number", MARKUP[:64]), ("message id or file", f"{MARKUP}.csv")):
        page.goto(f"{server.url}/instore/orders")
        page.get_by_label("Search by").select_option(kind)
        page.get_by_label("for", exact=True).fill(text)
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_role("link", name=MARKUP[:64])).to_be_visible()
    assert shown >= 8


def test_nobody_s_data_is_in_a_page_unless_a_keeper_asks_for_it(
    server: Server, ledger: Ledger, opened: Callable[..., Page]
) -> None:
    page = opened("keeper")
    for path in _paths(ledger):
        page.goto(f"{server.url}/instore{path}")
        assert given.CANARY not in page.content(), path
        assert given.CARD not in page.content(), path
    page.get_by_role("button", name="Show card and email").click()
    expect(page.get_by_text(EMAIL)).to_be_visible()
    (last,) = done(ledger, 1)
    assert (last.who, last.what) == ("keeper", "orders show --unmask")
    page = opened("editor")
    page.goto(f"{server.url}/instore/orders/{given.row(ledger, 'S1')['event_id']}")
    assert page.get_by_role("button").count() == 0


def _wait(ledger: Ledger, *numbers: str, **changes: Any) -> list[str]:
    given.landed(ledger, *(given.document(number, emailAddress=EMAIL) for number in numbers))
    given.set_orders(ledger, orders.c.order_number.in_(numbers), attempts=1, outcome_run="run-1", **changes)
    return [str(given.row(ledger, number)["event_id"]) for number in numbers]


OF_ORDERS = {
    "Deliver again": ("rejected", "ready"), "Discard": ("rejected", "cancelled"), "It is there": ("held", "sent"),
    "Let the next run": ("held", "sending"), "Search the customer": ("unmatched", "pending"),
}  # fmt: skip


@pytest.mark.parametrize("button", OF_ORDERS)
def test_what_is_chosen_and_confirmed_is_done(
    server: Server, ledger: Ledger, opened: Callable[..., Page], button: str
) -> None:
    before, after = OF_ORDERS[button]
    mine, other = (f"{button.split()[0]}-{n}" for n in (1, 2))
    _wait(ledger, mine, other, status=before, **({"reason": "not_found"} if before == "unmatched" else {}))
    page = opened()
    page.goto(f"{server.url}/instore/undelivered?status={before}&day=2017-06-05")
    page.get_by_role("checkbox", name=f"Select {mine}").check()
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("status")).to_contain_text("1 records")
    assert page.get_by_role("cell", name=other).count() == 0
    assert given.statuses(ledger)[mine] == before
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Done")
    assert (given.statuses(ledger)[mine], given.statuses(ledger)[other]) == (after, before)
    (last,) = done(ledger, 1)
    assert (last.who, last.records) == ("editor", 1)


def test_many_are_listed_for_approval(server: Server, ledger: Ledger, opened: Callable[..., Page]) -> None:
    _wait(ledger, "M1", "M2", status="sent")
    page = opened()
    page.goto(f"{server.url}/instore/undelivered?status=sent&day=2017-06-05")
    for number in ("M1", "M2"):
        page.get_by_role("checkbox", name=f"Select {number}").check()
    page.get_by_role("button", name="Send once more").click()
    expect(page.get_by_role("status")).to_contain_text("2 events to be sent: more than 1 need approval")
    page.get_by_role("button", name="Confirm").click()
    link = page.get_by_role("link", name="Approve it in Airflow")
    expect(link).to_have_attribute("href", re.compile("/dags/instore_resend/runs/manual__"))
    assert {given.row(ledger, number)["edition"] for number in ("M1", "M2")} == {1}


@pytest.mark.parametrize(("button", "state"), [("Redrive", "redriven"), ("Discard", "discarded")])
def test_a_record_is_looked_at_and_redriven_or_discarded(
    server: Server, ledger: Ledger, opened: Callable[..., Page], button: str, state: str
) -> None:
    given.landed(ledger, refusals=[given.refused(given.body(f"R-{state}"), f"{state}#1", "too_large")])
    page = opened()
    page.goto(f"{server.url}/instore/quarantine?reason=too_large")
    page.get_by_role("row", name=f"R-{state}").get_by_role("link").first.click()
    expect(page.get_by_label("The record")).to_contain_text('"storeId": "9999"')
    page.get_by_role("button", name=button).click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Done")
    (row,) = (each for each in find(ledger, Wanted(state=None)) if each.reference == f"{state}#1")
    assert row.state == state


def test_dead_letters_are_redriven(
    server: Server, ledger: Ledger, bus: ServiceBusStandIn, opened: Callable[..., Page]
) -> None:
    from azure.servicebus import ServiceBusClient, ServiceBusMessage

    with ServiceBusClient.from_connection_string(bus.connection_string) as client:
        with client.get_topic_sender("orders") as sender:
            sender.send_messages(ServiceBusMessage(given.body("L9"), message_id="letter-9", subject="0404"))
        with client.get_subscription_receiver("orders", "orderprocessing") as receiver:
            (message,) = receiver.receive_messages(1, max_wait_time=20)
            receiver.dead_letter_message(message, reason="bad_value")
    page = opened()
    page.goto(f"{server.url}/instore/dead-letters")
    expect(page.get_by_role("cell", name="letter-9")).to_be_visible()
    page.get_by_role("button", name="Redrive the oldest").click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status")).to_contain_text("1 landed")
    assert "L9" in given.statuses(ledger)


def test_a_viewer_is_offered_nothing_to_do(server: Server, ledger: Ledger, opened: Callable[..., Page]) -> None:
    _wait(ledger, "V9", status="held")
    for user, may in (("viewer", False), ("editor", True)):
        page = opened(user)
        page.goto(f"{server.url}/instore/undelivered?status=held")
        expect(page.get_by_role("link", name="V9")).to_be_visible()
        assert (page.get_by_role("button", name="It is there").count() > 0) == may
        assert (page.get_by_role("checkbox").count() > 0) == may


def test_the_keyboard_is_enough(server: Server, ledger: Ledger, opened: Callable[..., Page]) -> None:
    _wait(ledger, "Y1", status="rejected")
    page = opened()
    page.goto(f"{server.url}/instore/undelivered?status=rejected")
    wanted = ["Select Y1", "Discard", "Confirm: Discard"]
    for _ in range(200):
        page.keyboard.press("Tab")
        now = page.evaluate("() => document.activeElement.ariaLabel || document.activeElement.textContent")
        if now == wanted[0]:
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            wanted.pop(0)
            if len(wanted) == 2:
                page.keyboard.press("Space")
                continue
            with page.expect_navigation():
                page.keyboard.press("Enter")
        if not wanted:
            break
    expect(page.get_by_role("heading", level=1)).to_have_text("Done")
    assert given.statuses(ledger)["Y1"] == "cancelled"


@contextmanager
def _evil_page(form: str) -> Iterator[str]:
    """A page of somebody else, on the same machine: of the same site, so that a cookie that is Lax goes along."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # its name is the library's
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(form.encode())

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_form_on_somebody_else_s_page_changes_nothing(chromium: Browser, server: Server, ledger: Ledger) -> None:
    (event,) = _wait(ledger, "X1", status="held")
    fields = {"action": "sent", "ids": event}
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    form = f'<form method="post" action="{server.url}/instore/confirm">{inputs}<button>go</button></form>'
    context = chromium.new_context()
    context.add_cookies([{"name": "_token", "value": server.tokens["keeper"], "url": server.url, "sameSite": "Lax"}])
    with _evil_page(form) as url:
        page = context.new_page()
        page.goto(url)
        with page.expect_response(re.compile("/instore/confirm")) as answered:
            page.get_by_role("button").click()
        sent = answered.value.request.all_headers()
        assert ("_token=" in sent["cookie"], sent["origin"]) == (True, url.rstrip("/"))
        assert answered.value.status == 403
    context.close()
    assert given.statuses(ledger)["X1"] == "held"


def test_it_is_at_its_place_in_airflow_s_ui_and_works_there(chromium: Browser, server: Server, ledger: Ledger) -> None:
    _wait(ledger, "I1", status="held")
    context = chromium.new_context(locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(server.url)
    page.fill("input[name=username]", "editor")
    page.fill("input[name=password]", PASSWORDS["editor"])
    page.click("button[type=submit]")
    page.get_by_role("link", name="Dags").first.wait_for()
    page.goto(f"{server.url}/plugin/instore")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", level=1)).to_have_text("Overview", timeout=60_000)
    frame.get_by_role("link", name="Undelivered").click()
    frame.get_by_role("link", name="held").first.click()
    frame.get_by_role("checkbox", name="Select I1").check()
    frame.get_by_role("button", name="It is there").click()
    frame.get_by_role("button", name="Confirm").click()
    expect(frame.get_by_role("heading", level=1)).to_have_text("Done")
    assert given.statuses(ledger)["I1"] == "sent"
    context.close()


STEP = re.compile(r"^\d+\. (Open|Press|Select|You see) \*\*(.+?)\*\*", re.MULTILINE)
WALKS = Path(__file__).parents[2] / "docs/walks"


@pytest.mark.parametrize("walk", sorted(each.stem for each in WALKS.glob("*.md")))
def test_a_walk_can_be_walked(server: Server, ledger: Ledger, opened: Callable[..., Page], walk: str) -> None:
    _wait(ledger, "HELD-1", status="held", reason="no witness")
    alert = ("Events are held for a person to decide", "What happened: 1 event is held.")
    remember(ledger, given.run("run-2"), red={"held_events": alert})
    text = (WALKS / f"{walk}.md").read_text()
    steps = STEP.findall(text)
    assert len(steps) == len(re.findall(r"^\d+\. ", text, re.MULTILINE)) >= 10
    page = opened()
    page.goto(f"{server.url}/instore/orders")
    for how, what in steps:
        if how == "Open":
            page.get_by_role("link", name=what, exact=True).first.click()
        elif how == "Press":
            page.locator("summary, button").filter(has_text=what).first.click()
        elif how == "Select":
            page.get_by_role("checkbox", name=f"Select {what}").check()
        else:
            expect(page.get_by_text(what).first).to_be_visible()
    if walk == "three-in-the-morning":
        assert given.statuses(ledger)["HELD-1"] == "sent"
        expect(page.get_by_role("row", name="deliveries settle").first).to_contain_text("editor")
