"""The product as it runs: an Airflow and the sandbox it is connected to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from rich.console import Console

from demo import stage
from demo.local_airflow import LocalAirflow
from demo.processes import Processes
from demo.runs import FinishedRun, follow, manual_run, scheduled_run
from sandbox import week
from sandbox.seed import send
from sandbox.week import SampleMessage

DAY = "2017-06-07"


@dataclass(frozen=True)
class Product:
    """An Airflow and the sandbox it is connected to; ``first`` is its first run, the scheduled one."""

    folder: Path
    airflow: LocalAirflow
    sandbox: dict[str, Any]
    first: FinishedRun

    def publish(self, *numbers: str, card: str | None = None, email: str | None = None) -> None:
        """Put orders on the topic, dated on the backfilled day; of a known customer where nobody is named."""
        orders = [order_of(number, f"{DAY}T05:30:00Z", card=card, email=email) for number in numbers]
        messages = [SampleMessage(json.dumps(order), order["orderNumber"], "1") for order in orders]
        send(messages, self.sandbox["service_bus"]["connection_string"])

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
    """Start it, with short waits between retries, and have it make its first run."""
    processes = Processes(folder)
    settings = {
        "INSTORE_RETRY_FIRST_WAIT": "1",
        "INSTORE_BREAKER_SECONDS": "2",
        # The DAG file does not change, and reading it again would schedule the next hour again.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "86400",
    }
    try:
        sandbox, airflow = stage.start(folder, processes, settings=settings)
        first = scheduled_run(airflow)
        _schedule_no_more(airflow.database)
        yield Product(folder, airflow, sandbox, follow(airflow, first, Console(quiet=True), "run"))
    finally:
        processes.stop()
        stage.forget(folder)


def _schedule_no_more(database: str) -> None:
    """At the full hour the scheduler's own run would take what a test has just published."""
    with sa.create_engine(database, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("UPDATE dag SET next_dagrun_create_after = now() + interval '1 day'"))


def order_of(number: str, moment: str, card: str | None = None, email: str | None = None) -> dict[str, Any]:
    """An order of a known customer where nobody is named."""
    return {
        "orderNumber": number,
        "date": moment,
        "storeId": "1",
        "loyaltyCardNumber": card or (None if email else sorted(week.matched_cards())[0]),
        "emailAddress": email,
        "currency": "USD",
        "total": "1.10",
    }
