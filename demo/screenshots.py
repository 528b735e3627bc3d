"""``python -m demo.screenshots``: the pictures in docs/images, taken from the running product.

A demo of its own is started, used as a person uses it, and stopped: the forms are not only shown but sent, and the
command fails where what comes of them is not what must. The browser is Debian's Chromium, headless; what it needs on
top of requirements.txt is in demo/requirements-browser.txt, because a person makes the pictures and CI does not. No
picture is kept of a page that shows a key or the password.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from instore_provider.links import EventsPageLink

from demo.backfill import wait_for_backfill
from demo.local_airflow import ROOT, AirflowFailed, LocalAirflow
from demo.run_checks import check_backfill, check_dry_run, check_nothing_arrived
from demo.runs import DAG, follow, scheduled_run
from demo.stage import connect_by_form, console, give_up, held_by_profile_store, sole_use, start
from sandbox.processes import Processes

try:
    from PIL import Image  # type: ignore[import-not-found,unused-ignore]
    from playwright.sync_api import Error as BrowserFailed  # type: ignore[import-not-found,unused-ignore]
    from playwright.sync_api import Locator, Page, expect  # type: ignore[import-not-found,unused-ignore]

    from demo import browser
except ImportError as missing:
    raise SystemExit(
        f"{str(missing.name).partition('.')[0]} is missing; install what demo/requirements-browser.txt names."
    ) from None

_WIDTH, _HEIGHT = 1440, 900
_MARGIN = 64
_VALUE_HEIGHT = 760
_WIDER = 60
_MOST_BYTES = 300_000
_MESSAGE_HEIGHT = 420
# The hours of a day that has orders in each; what the form is told, and what Airflow must then have.
_BACKFILLED = ("2017/06/05 18:00", "2017/06/05 21:00")
_RUNS, _RUNS_AT_ONCE = 4, 2
_ASKED = {
    "from_date": "2017-06-05T18:00:00Z",
    "to_date": "2017-06-05T21:00:00Z",
    "reprocess_behavior": "completed",
    "max_active_runs": _RUNS_AT_ONCE,
}
_BAD_DATE = "2017/02/30"
_WEEK = ("2017/06/05 00:00", "2017/06/12 00:00")
_WINDOW = "2017-06-05T00:00:00+00:00/2017-06-12T00:00:00+00:00"
_FORMS = {
    "Profile Store": "connection-form-extra",
    "Loyalty": "connection-form-loyalty",
    "Service Bus": "connection-form-service-bus",
    "Alert channels": "connection-form-alerts",
}
_LAST_DAY = "2017-06-11"
_UNFINISHED = ".chakra-skeleton, .chakra-spinner, [data-part=skeleton], [role=progressbar]"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Camera:
    """One browser page, and where its pictures go.

    :param page: signed in to the UI.
    :param images: folder of the pictures.
    :param secrets: texts that no picture may show.
    """

    page: Page
    images: Path
    secrets: Sequence[str]

    def visit(self, url: str) -> None:
        """Open an address with the ordinary size of the window."""
        self.page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
        self.page.goto(url)

    def make_room_for(self, part: Locator) -> None:
        """Make the window as high as this part of the page, so that nothing of it is cut off."""
        box = part.bounding_box()
        if box is not None:
            height = max(_HEIGHT, round(box["y"] + box["height"]) + _MARGIN)
            self.page.set_viewport_size({"width": _WIDTH, "height": height})

    def take(self, name: str, pointer: Locator | None = None) -> None:
        """Keep a picture of what is shown once it is complete.

        :param pointer: where to leave it; what it is on shows a tooltip, so by default on nothing.
        :raises AirflowFailed: the picture must not be kept.
        """
        if pointer is None:
            self.page.mouse.move(0, 0)
        else:
            pointer.hover()
        self.page.evaluate("() => document.activeElement?.blur()")
        expect(self.page.locator(_UNFINISHED).locator("visible=true")).to_have_count(0)
        self.page.wait_for_timeout(1000)  # charts and the graph are drawn after their data has come
        self._refuse_secrets(name)
        picture = self.page.screenshot(animations="disabled", caret="hide")
        small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        path = self.images / f"{name}.png"
        small.save(path, optimize=True)
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise AirflowFailed(f"{path.name} has {size} bytes, more than {_MOST_BYTES}; make its window smaller.")
        console.print(f"{path.name}: {size // 1000} kB", highlight=False)

    def _refuse_secrets(self, name: str) -> None:
        shown: str = self.page.evaluate(
            "() => [document.body.innerText, ...[...document.querySelectorAll('input, textarea')].map(e => e.value)]"
            ".join('\\n')"
        )
        if any(secret in shown for secret in self.secrets):
            raise AirflowFailed(f"The page for {name}.png shows a key or the password; no picture was kept.")


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Folder for everything the demo writes.", file_okay=False)] = Path(
        ".cache/screenshots"
    ),
    images: Annotated[Path, typer.Option(help="Folder of the pictures.", file_okay=False)] = ROOT / "docs" / "images",
) -> None:
    """Start the demo, take the pictures of its UI, and stop everything."""
    chromium = browser.installed_chromium()
    if chromium is None:
        give_up("Chromium is not installed; install it (Debian: apt install chromium) or name one in CHROMIUM.")
    with sole_use(folder) as processes:
        try:
            _photograph(chromium, folder, images, processes)
        except (AirflowFailed, BrowserFailed, AssertionError) as error:
            give_up(str(error).partition("\nAria snapshot")[0])
        finally:
            processes.stop()


def _photograph(chromium: str, folder: Path, images: Path, processes: Processes) -> None:
    sandbox, airflow = start(folder, processes)
    run_id = _finished_run(airflow)
    images.mkdir(parents=True, exist_ok=True)
    with browser.signed_in(chromium, airflow) as page:
        camera = Camera(page, images, [*_keys(sandbox), airflow.password])
        _take_all(camera, airflow, run_id, sandbox)


def _take_all(camera: Camera, airflow: LocalAirflow, run_id: str, sandbox: dict[str, Any]) -> None:
    dag = f"{airflow.url}/dags/{DAG}"
    run = f"{dag}/runs/{quote(run_id)}"
    store = sandbox["profile_store"]["page"]
    _run_in_grid(camera, run)
    _returned_counts(camera, run)
    _link_button(camera, run, store)
    _connection_forms(camera, f"{airflow.url}/connections")
    _connection_tests(camera, airflow, sandbox)
    _profile_store(camera, store)
    held = held_by_profile_store(sandbox)
    _dry_run(camera, airflow, dag)
    check_nothing_arrived(sandbox, held, "dry run")
    _backfill(camera, airflow, dag)
    check_nothing_arrived(sandbox, held, "backfill")
    take_page(camera, airflow.url)
    _grid_with_backfill(camera, f"{dag}/backfills")
    _run_as_graph(camera, run)  # the last one: the UI keeps to the graph once it was chosen


def _run_in_grid(camera: Camera, run: str) -> None:
    """The finished run: its tasks in the grid, the mapped ones with their labels in the list."""
    camera.visit(run)
    camera.page.get_by_role("button", name="Expand all task groups").click()
    expect(camera.page.get_by_role("link", name=re.compile("batch 0, .* orders")).first).to_be_visible()
    camera.page.get_by_role("button", name="Filter table columns").click()
    for column in ("Try Number", "Duration"):  # Airflow 3.3.2 writes some durations with fifteen decimals
        camera.page.get_by_role("menuitem", name=column, exact=True).click()
    camera.page.keyboard.press("Escape")
    camera.make_room_for(camera.page.get_by_role("table").last)
    camera.take("run")


def _run_as_graph(camera: Camera, run: str) -> None:
    """The same run as a graph, with the task group open."""
    camera.visit(run)
    camera.page.get_by_role("button", name="Show Graph").click()
    expect(camera.page.locator(".react-flow__node").filter(has_text="send_events").first).to_be_visible()
    camera.take("run-graph")


def _returned_counts(camera: Camera, run: str) -> None:
    """What report_run returned: the run's counts."""
    camera.visit(f"{run}/tasks/report_run/xcom?key_pattern=return_value")
    # At first the UI draws the filter before its own words are loaded, and keeps to "columns.key": go and come back.
    camera.page.get_by_role("link", name="Logs").click()
    expect(camera.page.get_by_placeholder("Search logs")).to_be_visible()
    camera.page.go_back()
    camera.page.get_by_role("button", name="Expand all extra JSON").click()
    value = camera.page.locator("section").filter(has=camera.page.locator(".monaco-editor"))
    expect(value).to_contain_text("orders")
    # The UI shows fifteen lines and lets one scroll, which a picture cannot.
    value.evaluate(f"section => section.style.height = '{_VALUE_HEIGHT}px'")
    expect(value).to_contain_text("tracking")
    camera.make_room_for(value)
    camera.take("report-run-counts")


def _link_button(camera: Camera, run: str, store: str) -> None:
    """The send task's button leads to the page with the events; no picture."""
    camera.visit(f"{run}/tasks/batch.send_events/mapped/0")
    browser.press_link_button(camera.page, EventsPageLink.name, store)
    console.print(f"The button “{EventsPageLink.name}” leads there.", highlight=False)


def _dry_run(camera: Camera, airflow: LocalAirflow, dag: str) -> None:
    """The Trigger form: the window with its date pickers, then what else a run can be told; and the run it makes.

    The week is to be sent again, or the dry run would have nothing not to send.
    """
    camera.visit(dag)
    form = browser.open_trigger_form(camera.page)
    browser.open_section_of(form, "Window start")
    browser.try_bad_date(form, _BAD_DATE)
    for moment in _WEEK:
        browser.pick(form, moment)
    camera.make_room_for(form)
    camera.take("trigger-form")
    browser.open_section_of(form, "Dry run")
    for param in ("resend", "dry_run"):
        browser.switch_on(form, param)
    camera.make_room_for(form)
    camera.take("trigger-form-what")
    finished = follow(airflow, browser.press_trigger(form), console, "dry run")
    check_dry_run(finished, _WINDOW)
    told = f"{finished.counts['would_send']} orders would be sent, {finished.counts['sent']} were"
    console.print(f"dry run by the Trigger form: {finished.state} in {finished.seconds} s, {told}", highlight=False)


def _backfill(camera: Camera, airflow: LocalAirflow, dag: str) -> None:
    """The backfill form, filled in, and the backfill it makes."""
    camera.visit(dag)
    form = browser.open_trigger_form(camera.page)
    browser.fill_in_backfill(form, *_BACKFILLED, "All Runs", _RUNS_AT_ONCE, _RUNS)
    camera.make_room_for(form)
    camera.take("backfill-form")
    browser.press_run_backfill(form)
    wait_for_backfill(airflow, "backfill")
    check_backfill(airflow, _ASKED, _RUNS)
    console.print(f"backfill by its form: {_RUNS} runs, nothing received, nothing sent twice", highlight=False)


def _connection_forms(camera: Camera, connections: str) -> None:
    """The Profile Store's connection with its key masked, and the form of a new one of each type."""
    dialog = camera.page.get_by_role("dialog")
    camera.visit(connections)
    row = camera.page.get_by_role("row", name="instore_profile_store")
    row.get_by_role("button", name="Edit Connection").click()
    expect(dialog.locator("input[name=password][type=password]")).to_have_value("***")
    camera.make_room_for(dialog)
    camera.take("connection-form")

    for kind, name in _FORMS.items():
        camera.visit(connections)
        browser.open_new_connection(camera.page, kind)
        further = dialog.get_by_role("button", name="Extra Fields", exact=True)
        if further.count():
            further.click()
            camera.page.wait_for_timeout(1000)  # the section opens slowly, and its height is wanted
        camera.make_room_for(dialog)
        camera.take(name)


def _connection_tests(camera: Camera, airflow: LocalAirflow, sandbox: dict[str, Any]) -> None:
    """The Test button of each connection, and of a copy of it with something wrong, and what each says."""
    connections = f"{airflow.url}/connections"
    with _channel() as (url, titles):
        camera.visit(connections)
        browser.create_by_form(camera.page, "instore_alerts", "Alert channels", password=url)
        _connect_wrongly(airflow, sandbox)
        for name in ("service_bus", "loyalty", "extracts", "ledger", "alerts", "profile_store"):
            for conn_id, works in ((f"wrong_{name}", False), (f"instore_{name}", True)):
                camera.visit(connections)
                camera.page.set_viewport_size({"width": _WIDTH, "height": _MESSAGE_HEIGHT})
                message = browser.press_test_button(camera.page, conn_id, works=works)
                console.print(f"{conn_id}: {' '.join(message.inner_text().split())}", highlight=False)
        camera.take("connection-test", pointer=message)
    if titles != ["Test alert"]:
        raise AirflowFailed(f"The channel of connection instore_alerts was sent {titles}, not one test alert.")


def _connect_wrongly(airflow: LocalAirflow, sandbox: dict[str, Any]) -> None:
    bus, store, loyalty = (sandbox[name] for name in ("service_bus", "profile_store", "loyalty"))
    key = bus["connection_string"].replace("SharedAccessKey=", "SharedAccessKey=x")
    connect_by_form(airflow, "wrong_service_bus", "service_bus", schema=key)
    connect_by_form(airflow, "wrong_loyalty", "loyalty", host=loyalty["url"], password="wrong")  # noqa: S106
    connect_by_form(airflow, "wrong_profile_store", "profile_store", host=store["url"], password="wrong")  # noqa: S106
    connect_by_form(airflow, "wrong_alerts", "alerts", password="nonsense://channel")  # noqa: S106
    airflow.connect("wrong_extracts", "fs", extra={"path": "/nowhere"})
    airflow.connect("wrong_ledger", "sqlite", host="/nowhere/ledger.db")


@contextmanager
def _channel() -> Iterator[tuple[str, list[str]]]:
    """The Apprise URL of a channel that takes what it is sent, and the titles of that."""
    titles: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            titles.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"json://127.0.0.1:{server.server_port}/", titles
        finally:
            server.shutdown()


def take_page(camera: Camera, url: str, until: str = _LAST_DAY) -> None:
    """The page: two weeks with their last day, what is not delivered, and an order's life; cards and emails masked."""
    camera.visit(f"{url}/instore/?until={until}")
    expect(camera.page.get_by_role("img", name=re.compile("Orders a day"))).to_be_visible()
    camera.take("page")
    camera.visit(f"{url}/instore/undelivered?status=unmatched&reason=not_found&day={until}")
    camera.page.get_by_role("checkbox").first.check()
    camera.page.get_by_role("button", name="Search the customer again").click()
    expect(camera.page.get_by_role("heading", name="To be confirmed")).to_be_visible()
    camera.page.set_viewport_size({"width": _WIDTH, "height": _MESSAGE_HEIGHT})
    camera.take("page-preview")
    camera.visit(f"{url}/instore/undelivered?status=sent&day={until}")
    camera.page.locator("tbody a").first.click()
    expect(camera.page.get_by_role("heading", name=re.compile("What happened"))).to_be_visible()
    camera.take("page-order")


def _profile_store(camera: Camera, store: str) -> None:
    """The sandbox's own page: the events that arrived."""
    camera.visit(store)
    expect(camera.page.get_by_role("cell", name="StorePurchase").first).to_be_visible()
    camera.take("profile-store")


def _grid_with_backfill(camera: Camera, backfills: str) -> None:
    """The grid with the runs of every kind that were made here, beside the list of backfills."""
    camera.visit(backfills)  # the UI remembers that the task groups are open
    expect(camera.page.get_by_role("cell", name=re.compile("2017-06-05")).first).to_be_visible()
    expect(camera.page.get_by_text("look_up_customers").first).to_be_visible()
    _widen_grid(camera.page)
    camera.take("backfill")


def _widen_grid(page: Page) -> None:
    """Move the bar between the grid and the details, so that the grid shows all runs."""
    bar = page.locator("[data-panel-resize-handle-id], [role=separator]").first.bounding_box()
    if bar is None:
        raise AirflowFailed("The bar beside the grid cannot be found.")
    x, y = bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 4
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + _WIDER, y, steps=5)
    page.mouse.up()


def _finished_run(airflow: LocalAirflow) -> str:
    finished = follow(airflow, scheduled_run(airflow), console, "first run")
    if finished.state != "success":
        raise AirflowFailed(f"The run to be shown is {finished.state}; look at it with: make up")
    return finished.run_id


def _keys(sandbox: dict[str, Any]) -> list[str]:
    bus = sandbox["service_bus"]["connection_string"]
    parts = dict(part.split("=", 1) for part in bus.split(";") if "=" in part)
    return [sandbox["profile_store"]["key"], sandbox["loyalty"]["api_key"], parts["SharedAccessKey"], bus]


if __name__ == "__main__":
    app()
