"""The product as it runs: an Airflow and the sandbox it is connected to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from rich.console import Console

from demo import stage
from demo.local_airflow import LocalAirflow
from demo.runs import DAG, FinishedRun, follow, manual_run, scheduled_run
from sandbox import week
from sandbox.processes import Processes
from sandbox.seed import send
from sandbox.week import SampleMessage

ROOT = Path(__file__).parents[2]
DAY = "2017-06-07"
_SECONDS = 400
_LONGEST_TEST_SECONDS = 120
"""How long after it has published orders a test may look for them."""


@dataclass(frozen=True)
class Product:
    """An Airflow and the sandbox it is connected to.

    :param told: what a person saw of its start. :param first: its first run, the scheduled one.
    """

    folder: Path
    told: str
    airflow: LocalAirflow
    sandbox: dict[str, Any]
    first: FinishedRun

    def publish(self, *numbers: str, card: str | None = None, email: str | None = None) -> None:
        """Put orders on the topic, dated on the backfilled day; of a known customer where nobody is named."""
        self._wait_until_no_hourly_run_takes_them()
        orders = [order_of(number, f"{DAY}T05:30:00Z", card=card, email=email) for number in numbers]
        messages = [SampleMessage(json.dumps(order), order["orderNumber"], "1") for order in orders]
        send(messages, self.sandbox["service_bus"]["connection_string"])

    def _wait_until_no_hourly_run_takes_them(self) -> None:
        """The scheduler makes its hourly run also while tests run; what they publish must be theirs."""
        under_way = {"run_type": "scheduled", "state": ["queued", "running"]}
        while True:
            due = self.airflow.call("GET", f"/dags/{DAG}")["next_dagrun_data_interval_end"].replace("Z", "+00:00")
            soon = datetime.fromisoformat(due) - datetime.now(timezone.utc) < timedelta(seconds=_LONGEST_TEST_SECONDS)
            runs = self.airflow.call("GET", f"/dags/{DAG}/dagRuns", params=under_way)["total_entries"]
            if not soon and not runs:
                return
            time.sleep(1)

    def on_the_bus(self) -> int:
        url = f"{self.sandbox['service_bus']['url']}/sandbox/state"
        state = requests.get(url, timeout=10).json()["entities"]["orders/Subscriptions/orderprocessing"]
        return int(state["active"]) + int(state["locked"])

    def events(self) -> int:
        return int(requests.get(f"{self.sandbox['profile_store']['url']}/sandbox/state", timeout=10).json()["events"])

    def run(self, **conf: Any) -> FinishedRun:
        return follow(self.airflow, manual_run(self.airflow, **conf), Console(quiet=True), "run")

    @contextmanager
    def on_a_bad_day(self) -> Iterator[Product]:
        """The same Airflow, connected to a hostile sandbox and an empty ledger meanwhile."""
        folder = self.folder / "bad-day"
        folder.mkdir()
        processes = Processes(folder)
        try:
            stage.begin_sandbox(folder, processes, {}, hostile=True)
            sandbox = stage.wait_for_sandbox(folder, processes)
            self._connect(folder, sandbox)
            yield replace(self, sandbox=sandbox)
        finally:
            self._connect(self.folder, self.sandbox)
            processes.stop()

    def _connect(self, folder: Path, sandbox: dict[str, Any]) -> None:
        for each in self.airflow.call("GET", "/connections")["connections"]:
            self.airflow.call("DELETE", f"/connections/{each['connection_id']}")
        stage.connect(self.airflow, sandbox, folder, Path(sandbox["extracts"]))


@contextmanager
def running_product(folder: Path) -> Iterator[Product]:
    """Start it as ``make up`` does, with short waits, and have it make its first run."""
    settings = {
        "INSTORE_RETRY_FIRST_WAIT": "1",
        "INSTORE_BREAKER_SECONDS": "2",
        "INSTORE_DRAIN_WAIT": "0.2",
        # The DAG file does not change, and reading it again would schedule the next hour again.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "86400",
    }
    try:
        told = demo("up", folder, *(f"--set={name}={value}" for name, value in settings.items()))
        airflow = LocalAirflow.running(folder)
        first = scheduled_run(airflow)
        _schedule_no_more(airflow.database)
        sandbox = json.loads((folder / "sandbox.json").read_text())
        yield Product(folder, told, airflow, sandbox, follow(airflow, first, Console(quiet=True), "run"))
    finally:
        Processes(folder).stop()
        stage.forget(folder)


def demo(command: str, folder: Path, *arguments: str) -> str:
    """What a person sees of ``python -m demo``, with the settings of no test."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    words = [sys.executable, "-m", "demo", command, "--folder", str(folder), *arguments]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _schedule_no_more(database: str) -> None:
    """At the full hour the scheduler's own run would take what a test has just published."""
    with sa.create_engine(database, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("UPDATE dag SET next_dagrun_create_after = now() + interval '1 day'"))


@cache
def _known_card() -> str:
    return min(week.matched_cards())


def order_of(number: str, moment: str, card: str | None = None, email: str | None = None) -> dict[str, Any]:
    """An order of a known customer where nobody is named."""
    return {
        "orderNumber": number,
        "date": moment,
        "storeId": "1",
        "loyaltyCardNumber": card or (None if email else _known_card()),
        "emailAddress": email,
        "currency": "USD",
        "total": "1.10",
    }
