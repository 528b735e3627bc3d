"""A source of the list: which runs ask it, and when it is told that its records are in the ledger."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.tables import orders, quarantine
from include.instore.model.settings import Settings
from include.instore.sources.landing import Block, LandedBlock, Record, order_or_refusal
from include.instore_airflow import tasks

GOOD = b'{"orderNumber": "T1", "date": "2017-06-05T08:00:00Z", "storeId": "1", "currency": "USD", "total": "1.10"}'


class Tills:
    """Two records, one of which is no order."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.told: list[LandedBlock] = []

    def blocks(self) -> Iterator[Block]:
        yield Block(
            [Record("tills", f"{n}", raw, order_or_refusal(raw, self.settings)) for n, raw in ((1, GOOD), (2, b"{"))]
        )

    def settle(self, block: Block, outcome: LandedBlock) -> None:
        self.told.append(outcome)


@pytest.fixture
def tills(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tills:
    """The source in a file of its name, and a ledger."""
    source = Tills(Settings())
    module: Any = ModuleType("tills")
    module.opened = lambda *_: contextlib.nullcontext(source)
    monkeypatch.setitem(sys.modules, "include.instore_airflow.sources.tills", module)
    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps(ledger))
    return source


def run_of(kind: str) -> Any:
    start, end = (datetime(2017, 6, 5, hour, tzinfo=timezone.utc) for hour in (8, 9))
    dates: dict[str, datetime | None] = {"logical_date": start, "data_interval_start": start, "data_interval_end": end}
    if kind == "manual":
        dates = dict.fromkeys(dates)
    return SimpleNamespace(dag_id="instore_orders", run_id=f"{kind}__1", run_type=kind, clear_number=0, **dates)


def in_ledger(path: Path) -> tuple[int, int]:
    with closing(Ledger(f"sqlite:///{path}")) as ledger, ledger.read() as connection:
        one, other = (connection.scalar(sa.select(sa.func.count()).select_from(each)) for each in (orders, quarantine))
        return one or 0, other or 0


@pytest.mark.parametrize("kind", ["scheduled", "manual"])
def test_its_records_land_and_it_is_told(tills: Tills, tmp_path: Path, kind: str) -> None:
    counts = tasks.take_orders(run_of(kind), {}, "tills")
    assert counts == {"received": 2, "orders": 1, "duplicates": 0, "corrections": 0, "quarantined": 1}
    assert in_ledger(tmp_path / "ledger.db") == (1, 1)
    (told,) = tills.told
    assert {index: error.reason for index, error in told.refused.items()} == {1: "not_json"}


def test_a_dry_run_lands_in_the_copy_and_tells_it_nothing(tills: Tills, tmp_path: Path) -> None:
    counts = tasks.take_orders(run_of("manual"), {"dry_run": True}, "tills")
    assert (counts["received"], counts["orders"]) == (2, 1)
    assert tills.told == []
    assert in_ledger(tmp_path / "ledger.db") == (0, 0)


def test_a_backfill_and_a_run_that_leaves_the_topic_never_ask_it(tills: Tills, tmp_path: Path) -> None:
    for run, params in ((run_of("backfill"), {}), (run_of("manual"), {"drain_topic": False})):
        assert tasks.take_orders(run, params, "tills")["received"] == 0
    assert (tills.told, in_ledger(tmp_path / "ledger.db")) == ([], (0, 0))
