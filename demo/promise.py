"""``python -m demo.promise``: the promise of ``make up``, kept before the eyes of a real browser.

A day of the sample week is backfilled by the form of the UI, everything is stopped and started again, and the browser
is shown the same runs once more. The browser is Debian's Chromium, headless; what it needs on top of requirements.txt
is in requirements-browser.txt.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import typer

from demo.backfill import newest_backfill, wait_for_backfill
from demo.local_airflow import ROOT, AirflowFailed, LocalAirflow
from demo.runs import DAG
from demo.stage import console, give_up, held_by_profile_store
from sandbox.processes import Processes

try:
    from playwright.sync_api import Error as BrowserFailed  # type: ignore[import-not-found,unused-ignore]
    from playwright.sync_api import Page, expect  # type: ignore[import-not-found,unused-ignore]

    from demo import browser
except ImportError:
    raise SystemExit("playwright is missing; install what demo/requirements-browser.txt names.") from None

_DAY = ("2017/06/05 00:00", "2017/06/05 23:00")
_RUNS, _RUNS_AT_ONCE = 24, 4
_SHOWN_MS = 120_000
_BY_STATUS = (
    "SELECT coalesce(d.status, o.status), count(*) FROM orders o"
    " LEFT JOIN deliveries d ON d.key = o.key AND d.is_latest GROUP BY 1"
)


def main(folder: Path = Path(".cache/browser")) -> None:
    """Up, a backfill in the browser, down, up, the same runs in the browser, reset."""
    chromium = browser.installed_chromium()
    if chromium is None:
        give_up("Chromium is not installed; install it (Debian: apt install chromium) or name one in CHROMIUM.")
    try:
        _demo("reset", folder)
        _demo("up", folder)
        _backfill_a_day(chromium, folder)
        before = _held(folder)
        _demo("down", folder)
        _demo("up", folder)
        _look_again(chromium, folder)
        if (after := _held(folder)) != before:
            raise AirflowFailed(f"Before the stop it held {before}, afterwards {after}.")
        console.print("After down and up the same:", json.dumps(after), soft_wrap=True, highlight=False)
    except (AirflowFailed, BrowserFailed, AssertionError) as error:
        _demo("down", folder)
        give_up(str(error).partition("\nAria snapshot")[0])
    _demo("reset", folder)


def _backfill_a_day(chromium: str, folder: Path) -> None:
    """Fill in the form and press its button, and wait until the UI shows that its runs have succeeded."""
    airflow = LocalAirflow.running(folder)
    with browser.signed_in(chromium, airflow) as page:
        page.goto(f"{airflow.url}/dags/{DAG}")
        form = browser.open_trigger_form(page)
        browser.fill_in_backfill(form, *_DAY, "Missing Runs", _RUNS_AT_ONCE, _RUNS)
        browser.press_run_backfill(form)
        wait_for_backfill(airflow, "backfill")
        _expect_runs(page, airflow)
    if Processes(folder).ended() or " had died " in Processes(folder).log_tail("airflow"):
        raise AirflowFailed("A component of Airflow did not survive the backfill.")


def _look_again(chromium: str, folder: Path) -> None:
    airflow = LocalAirflow.running(folder)
    with browser.signed_in(chromium, airflow) as page:
        _expect_runs(page, airflow)


def _expect_runs(page: Page, airflow: LocalAirflow) -> None:
    """The UI lists every run of the backfill, each a success."""
    page.goto(f"{airflow.url}/dags/{DAG}/runs?run_type=backfill&limit=100")
    rows = page.locator("tbody tr")
    with browser.must(f"The UI does not list {_RUNS} backfill runs that succeeded."):
        expect(rows.filter(has_text=re.compile("success", re.I))).to_have_count(_RUNS, timeout=_SHOWN_MS)
        expect(rows).to_have_count(_RUNS)
    console.print(f"The UI lists {_RUNS} backfill runs, each a success.", highlight=False)


def _held(folder: Path) -> dict[str, Any]:
    """What must be the same after a stop: counts as the command line and the files of the folder have them."""
    sandbox = json.loads((folder / "sandbox.json").read_text())
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        orders = dict(ledger.execute(_BY_STATUS))
    return {
        "runs": _rows(folder, f"airflow dags list-runs {DAG}"),
        "backfill": newest_backfill(LocalAirflow.running(folder))["id"],
        "connections": _rows(folder, "airflow connections list"),
        "ledger": orders,
        "profile_store": held_by_profile_store(sandbox),
    }


def _demo(command: str, folder: Path) -> None:
    done = subprocess.run(  # noqa: S603  our own command line
        [sys.executable, "-m", "demo", command, "--folder", str(folder)], cwd=ROOT, check=False
    )
    if done.returncode:
        raise AirflowFailed(f"demo {command} failed.")


def _rows(folder: Path, command: str) -> int:
    """How many rows a command of Airflow's prints in a shell that has read env.sh."""
    done = subprocess.run(  # noqa: S603  our own command line
        ["/bin/sh", "-c", f". {folder.resolve()}/env.sh && {command} --output json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise AirflowFailed(f"{command} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return len(json.loads(done.stdout.splitlines()[-1]))  # Airflow's warnings come before it


if __name__ == "__main__":
    typer.run(main)
