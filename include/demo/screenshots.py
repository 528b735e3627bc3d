"""``python -m include.demo.screenshots``: the pictures in docs/images, taken from the running product.

A demo of its own is started, used and stopped. The browser is Debian's Chromium, headless; what it needs on top of
requirements.txt is in requirements-screenshots.txt, because a person makes the pictures and CI does not. No picture is
kept of a page that shows a key or the password.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from include.demo.local_airflow import ROOT, USER, AirflowFailed, LocalAirflow
from include.demo.metadata_database import postgresql
from include.demo.processes import Processes
from include.demo.runs import DAG, follow, scheduled_run
from include.demo.stage import console, give_up, sole_use, start

try:
    from PIL import Image  # type: ignore[import-not-found,unused-ignore]
    from playwright.sync_api import Error as BrowserFailed  # type: ignore[import-not-found,unused-ignore]
    from playwright.sync_api import (  # type: ignore[import-not-found,unused-ignore]
        Locator,
        Page,
        expect,
        sync_playwright,
    )
except ImportError as missing:
    raise SystemExit(
        f"{str(missing.name).partition('.')[0]} is missing; install what requirements-screenshots.txt names."
    ) from None

_WIDTH, _HEIGHT = 1440, 900
_MARGIN = 64
_VALUE_HEIGHT = 760
_WIDER = 60
_MOST_BYTES = 300_000
_PATIENCE_MS = 60_000
_BACKFILL_SECONDS = 600
_BACKFILLED = ("2017-06-05T08:00:00+00:00", "2017-06-05T11:00:00+00:00")
# The connections to Google that Chromium makes at start are refused on a closed network, many at a time.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
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

    def take(self, name: str) -> None:
        """Keep a picture of what is shown once it is complete. :raises AirflowFailed: it must not be kept."""
        self.page.mouse.move(0, 0)  # what the pointer is on shows a tooltip
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
    chromium = _chromium()
    with sole_use(folder) as processes, postgresql() as database:
        try:
            _photograph(chromium, folder, images, processes, database)
        except (AirflowFailed, BrowserFailed, AssertionError) as error:
            give_up(str(error).partition("\nAria snapshot")[0])
        finally:
            processes.stop()


def _photograph(chromium: str, folder: Path, images: Path, processes: Processes, database: str) -> None:
    sandbox, airflow = start(folder, processes, database=database)
    run_id = _finished_run(airflow)
    images.mkdir(parents=True, exist_ok=True)
    with _signed_in(chromium, airflow) as page:
        camera = Camera(page, images, [*_keys(sandbox), airflow.password])
        _take_all(camera, airflow, run_id, sandbox["profile_store"]["page"])


def _take_all(camera: Camera, airflow: LocalAirflow, run_id: str, store: str) -> None:
    run = f"{airflow.url}/dags/{DAG}/runs/{quote(run_id)}"
    _run_in_grid(camera, run)
    _returned_counts(camera, run)
    _trigger_form(camera, f"{airflow.url}/dags/{DAG}")
    _connection_forms(camera, f"{airflow.url}/connections")
    _profile_store(camera, store)
    _backfill(airflow)
    _grid_with_backfill(camera, f"{airflow.url}/dags/{DAG}/backfills")
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
    expect(value).to_contain_text("received")
    # The UI shows fifteen lines and lets one scroll, which a picture cannot.
    value.evaluate(f"section => section.style.height = '{_VALUE_HEIGHT}px'")
    expect(value).to_contain_text("tracking")
    camera.make_room_for(value)
    camera.take("report-run-counts")


def _trigger_form(camera: Camera, dag: str) -> None:
    """The Trigger form: the window with its date pickers, then what else a run can be told."""
    camera.visit(dag)
    camera.page.get_by_role("button", name="Trigger Dag").click()
    dialog = camera.page.get_by_role("dialog").filter(has_text="Trigger Dag")
    for name, param in (("trigger-form", "Window start"), ("trigger-form-what", "Dry run")):
        _open_section_of(dialog, param)
        if param == "Window start":
            for day in ("2017/06/05", "2017/06/12"):
                _pick(camera.page, dialog, day)
        camera.make_room_for(dialog)
        camera.take(name)


def _open_section_of(dialog: Locator, param: str) -> None:
    """Only one section of the Trigger form is open at a time."""
    label = dialog.page.locator("label").filter(has_text=param)
    section = dialog.locator("[data-scope=accordion][data-part=item]").filter(has=label)
    heading = section.locator("[data-part=item-trigger]")
    expect(heading).to_be_visible()
    if heading.get_attribute("aria-expanded") != "true":
        heading.click()
    expect(label).to_be_visible()
    dialog.page.wait_for_timeout(1000)  # the section opens slowly, and its height is wanted


def _pick(page: Page, dialog: Locator, day: str) -> None:
    """Put a day into the first date picker that has none yet."""
    dialog.get_by_text("Select date and time").locator("visible=true").first.click()
    picker = page.locator("[data-scope=popover] input").locator("visible=true")
    picker.nth(0).fill(day)
    picker.nth(1).fill("00:00")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(picker).to_have_count(0)


def _connection_forms(camera: Camera, connections: str) -> None:
    """The Profile Store's connection with its key masked, and the further fields of a new one with their help."""
    dialog = camera.page.get_by_role("dialog")
    camera.visit(connections)
    row = camera.page.get_by_role("row", name="instore_profile_store")
    row.get_by_role("button", name="Edit Connection").click()
    expect(dialog.locator("input[name=password][type=password]")).to_have_value("***")
    camera.make_room_for(dialog)
    camera.take("connection-form")

    camera.visit(connections)
    camera.page.get_by_role("button", name="Add Connection").click()
    dialog.get_by_role("combobox").first.fill("Profile Store")
    camera.page.get_by_role("option", name="Profile Store", exact=True).click()
    dialog.get_by_role("button", name="Extra Fields", exact=True).click()
    expect(dialog.get_by_text("CA bundle", exact=True)).to_be_visible()
    camera.page.wait_for_timeout(1000)  # the section opens slowly, and its height is wanted
    camera.make_room_for(dialog)
    camera.take("connection-form-extra")


def _profile_store(camera: Camera, store: str) -> None:
    """The sandbox's own page: the events that arrived."""
    camera.visit(store)
    expect(camera.page.get_by_role("cell", name="StorePurchase").first).to_be_visible()
    camera.take("profile-store")


def _grid_with_backfill(camera: Camera, backfills: str) -> None:
    """The grid with the hourly run and the backfill's, beside the list of backfills."""
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


def _backfill(airflow: LocalAirflow) -> None:
    """Backfill some hours of a past day by the command line, and wait for the end."""
    first, last = _BACKFILLED
    airflow.run("backfill", "create", "--dag-id", DAG, "--from-date", first, "--to-date", last)
    until = time.monotonic() + _BACKFILL_SECONDS
    while time.monotonic() < until:
        backfills = airflow.call("GET", "/backfills", params={"dag_id": DAG})["backfills"]
        if backfills and all(each["completed_at"] for each in backfills):
            return
        airflow.check()
        time.sleep(1)
    raise AirflowFailed(f"The backfill did not end within {_BACKFILL_SECONDS} s.")


@contextmanager
def _signed_in(chromium: str, airflow: LocalAirflow) -> Iterator[Page]:
    """A page of a fresh browser, past the UI's own sign-in form."""
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(_FLAGS))
        try:
            context = browser.new_context(locale="en-GB", timezone_id="UTC", color_scheme="light")
            context.set_default_timeout(_PATIENCE_MS)
            page = context.new_page()
            page.goto(airflow.url)
            page.fill("input[name=username]", USER)
            page.fill("input[name=password]", airflow.password)
            page.click("button[type=submit]")
            page.get_by_role("link", name="Dags").first.wait_for()
            yield page
        finally:
            browser.close()


def _keys(sandbox: dict[str, Any]) -> list[str]:
    bus = sandbox["service_bus"]["connection_string"]
    parts = dict(part.split("=", 1) for part in bus.split(";") if "=" in part)
    return [sandbox["profile_store"]["key"], sandbox["loyalty"]["api_key"], parts["SharedAccessKey"], bus]


def _chromium() -> str:
    found = shutil.which(os.environ.get("CHROMIUM") or "chromium")
    if found is None:
        give_up("Chromium is not installed; install it (Debian: apt install chromium) or name one in CHROMIUM.")
    return found


if __name__ == "__main__":
    app()
