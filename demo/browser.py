"""What a person does in a real browser: signs in, fills in Airflow's forms, presses their buttons.

The words and parts of the pages are those of Airflow 3.3.2. Where a page does not answer as it must, the person's
sentence about it is the error; what became of the runs is looked up in :mod:`demo.run_checks`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from playwright.sync_api import Error as BrowserFailed  # type: ignore[import-not-found,unused-ignore]
from playwright.sync_api import (  # type: ignore[import-not-found,unused-ignore]
    Locator,
    Page,
    Response,
    expect,
    sync_playwright,
)

from demo.local_airflow import USER, AirflowFailed, LocalAirflow

_PATIENCE_MS = 60_000
# The connections to Google that Chromium makes at start are refused on a closed network, many at a time.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_EMPTY = "Select date and time"


@contextmanager
def signed_in(chromium: str, airflow: LocalAirflow) -> Iterator[Page]:
    """A page of a fresh browser, past the UI's own sign-in form."""
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(FLAGS))
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


def installed_chromium() -> str | None:
    """The path of the browser: Debian's Chromium, or the one that CHROMIUM names."""
    return shutil.which(os.environ.get("CHROMIUM") or "chromium")


@contextmanager
def must(sentence: str) -> Iterator[None]:
    """:raises AirflowFailed: with this sentence, where the page does not show what is expected in the block."""
    try:
        yield
    except (AssertionError, BrowserFailed) as failed:
        raise AirflowFailed(sentence) from failed


def open_trigger_form(page: Page) -> Locator:
    """Open the Trigger form of the DAG whose page is shown."""
    page.get_by_role("button", name="Trigger Dag").click()
    form: Locator = page.get_by_role("dialog").filter(has_text="Single Run")
    expect(form).to_be_visible()
    return form


def open_section_of(form: Locator, param: str) -> None:
    """Open the section that has this param; only one section of the form is open at a time."""
    label = form.page.locator("label").filter(has_text=param)
    section = form.locator("[data-scope=accordion][data-part=item]").filter(has=label)
    heading = section.locator("[data-part=item-trigger]")
    expect(heading).to_be_visible()
    if heading.get_attribute("aria-expanded") != "true":
        heading.click()
    expect(label).to_be_visible()
    form.page.wait_for_timeout(1000)  # the section opens slowly, and its height is wanted


def pick(form: Locator, moment: str) -> None:
    """Put a moment (``2017/06/05 08:00``) into the first date picker that has none yet."""
    day, time = moment.split()
    fields = _open_picker(form)
    fields.nth(0).fill(day)
    fields.nth(1).fill(time)
    form.page.keyboard.press("Enter")
    _leave_picker(form)


def try_bad_date(form: Locator, day: str) -> None:
    """Type a day that there is not into the first empty date picker.

    Airflow's picker says so while it is open and keeps what it had, here nothing. It does not stop anybody from
    pressing Trigger: that the picker still is empty is all a person sees of it afterwards.

    :raises AirflowFailed: the picker takes it.
    """
    empty = form.get_by_text(_EMPTY).locator("visible=true")
    before = empty.count()
    _open_picker(form).nth(0).fill(day)
    with must(f"The date picker does not say that {day} is no date."):
        expect(_picker(form.page).get_by_text("Invalid date format.")).to_be_visible()
    form.page.keyboard.press("Enter")
    _leave_picker(form)
    with must(f"The date picker was given {day}, which is no date, and took it."):
        expect(empty).to_have_count(before)


def switch_on(form: Locator, param: str) -> None:
    """Switch on a param of the open section, by its name in the DAG."""
    box = form.page.locator(f"input[type=checkbox][name=element_{param}]")
    expect(box).not_to_be_checked()
    form.locator("[data-scope=switch][data-part=root]").filter(has=box).click()
    expect(box).to_be_checked()


def press_trigger(form: Locator) -> str:
    """Press Trigger; the id of the run, to whose page the UI goes. :raises AirflowFailed: it does not."""
    form.get_by_role("button", name="Trigger", exact=True).click()
    with must("Trigger was pressed, and the UI does not show a new run."):
        form.page.wait_for_url(re.compile("/runs/"))
    return unquote(form.page.url.rpartition("/runs/")[2].partition("?")[0])


def fill_in_backfill(form: Locator, first: str, last: str, reprocess: str, at_once: int, runs: int) -> None:
    """Turn the Trigger form to Backfill and fill it in.

    :param first: and ``last``: start of the first and of the last interval, ``2017/06/05 08:00``.
    :param reprocess: which runs are made, in the form's words.
    :param at_once: runs at the same time. The form's arrows end at the DAG's own ``max_active_runs``, though the
        backfill's is separate from it; typing more is taken.
    :param runs: how many runs the form must announce.
    :raises AirflowFailed: it announces another number, or does not offer to run them.
    """
    form.get_by_text("Backfill", exact=True).click()
    expect(form.get_by_text("Date Range")).to_be_visible()
    pick(form, first)
    pick(form, last)
    form.get_by_text(reprocess, exact=True).click()
    expect(form.get_by_role("radio", name=reprocess, exact=True)).to_be_checked()
    form.locator("input[type=number]").fill(str(at_once))
    with must(f"The backfill form does not announce {runs} runs."):
        expect(form.get_by_text(f"{runs} runs will be triggered.")).to_be_visible()
        expect(form.get_by_role("button", name="Run Backfill")).to_be_enabled()


def press_run_backfill(form: Locator) -> None:
    """Press Run Backfill. :raises AirflowFailed: Airflow does not answer that it was made.

    Its answer is waited for, not the message "Backfill generated", which is gone again after a few seconds.
    """
    sentence = "Run Backfill was pressed, and Airflow does not say that the backfill was made"
    with must(f"{sentence}."), form.page.expect_response(_makes_a_backfill) as answered:
        form.get_by_role("button", name="Run Backfill").click()
    if not answered.value.ok:
        raise AirflowFailed(f"{sentence} (HTTP {answered.value.status}).")


def _makes_a_backfill(response: Response) -> bool:
    return bool(response.request.method == "POST" and response.url.partition("?")[0].endswith("/backfills"))


def press_test_button(page: Page, conn_id: str, *, works: bool = True) -> Locator:
    """Find a connection in the list that is shown and press its Test button; the message.

    The message goes after two seconds unless the pointer is on it, so the pointer is put there.

    :param works: whether it must be one of success, or of failure.
    :raises AirflowFailed: the message is another one.
    """
    page.get_by_placeholder("Search Connections").fill(conn_id)  # it finds by the beginning of the id
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("row", name=conn_id).get_by_role("button", name="Test Connection").click()
    message: Locator = page.locator("[data-scope=toast][data-part=root]").filter(has_text="Test Connection")
    with must(f"The Test button of {conn_id} was pressed, and no message came."):
        message.hover()
    title, _, said = message.inner_text().partition("\n")
    if (title == "Test Connection Successful") != works:
        raise AirflowFailed(f"The Test button of {conn_id} says {title}: {said}")
    return message


def open_new_connection(page: Page, kind: str) -> Locator:
    """Open the form of a new connection of a type, by the type's name."""
    page.get_by_role("button", name="Add Connection").click()
    form: Locator = page.get_by_role("dialog")
    form.get_by_role("combobox").first.fill(kind)
    page.get_by_role("option", name=kind, exact=True).click()
    return form


def create_by_form(page: Page, conn_id: str, kind: str, **filled: str) -> None:
    """Create a connection by the form of the list that is shown. :param filled: standard fields by their names."""
    form = open_new_connection(page, kind)
    form.locator("input[name=connection_id]").fill(conn_id)
    for name, text in filled.items():
        form.locator(f"input[name={name}]").fill(text)
    form.get_by_role("button", name="Save").click()
    with must(f"Connection {conn_id} was filled in and saved, and the form is still there."):
        expect(form).to_have_count(0)


def press_link_button(page: Page, name: str, address: str) -> None:
    """Press a link button of the task instance that is shown, on its Details.

    :raises AirflowFailed: there is none, or it leads elsewhere than to this address, or nothing answers there.
    """
    page.get_by_role("link", name="Details", exact=True).click()
    with must(f"The task instance has no button “{name}” that opens a page."), page.expect_popup() as opened:
        page.get_by_role("link", name=name, exact=True).click()
    with must(f"The button “{name}” leads to {opened.value.url}, not to {address} with the events."):
        expect(opened.value).to_have_url(address)
        expect(opened.value.get_by_role("cell", name="StorePurchase").first).to_be_visible()
    opened.value.close()


def _open_picker(form: Locator) -> Locator:
    """Open the first date picker that is empty; its fields for the date and for the time."""
    form.get_by_text(_EMPTY).locator("visible=true").first.click()
    fields: Locator = _picker(form.page).locator("input")
    expect(fields).to_have_count(2)
    return fields


def _leave_picker(form: Locator) -> None:
    form.page.keyboard.press("Escape")
    expect(_picker(form.page)).to_have_count(0)


def _picker(page: Page) -> Locator:
    return page.locator("[data-scope=popover][data-part=content]").locator("visible=true")
