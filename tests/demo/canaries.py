"""What nobody may find in logs and in Airflow's database."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import sqlalchemy as sa

WEEK = Path(__file__).parents[2] / "sandbox/week"


@cache
def canaries() -> list[str]:
    """Emails, cards and descriptions of the sample week, which no log may hold."""
    with (WEEK / "members.csv").open() as file:
        members = list(csv.DictReader(file))
    cards = [row["loyaltyCardNumber"] for row in members]
    emails = [row["email"].lower() for row in members if row["email"]]
    with gzip.open(WEEK / "messages.jsonl.gz", "rt") as file:
        orders = [json.loads(line) for line in file]
    own = [order["emailAddress"].lower() for order in orders if order["emailAddress"]]
    cards += [order["loyaltyCardNumber"] for order in orders if order["loyaltyCardNumber"]]
    descriptions = ["cheese dnrs", "fluid milk white only", "paper towels & holders"]
    return sorted({*cards, *emails, *own, *descriptions})


def found(text: str, words: list[str]) -> list[str]:
    return [word for word in words if word in text]


def check_logs(folder: Path) -> None:
    """No log below the folder holds one."""
    logs = [path for path in folder.rglob("*.log") if path.is_file()]
    assert len(logs) > 15  # every component and every task instance
    for path in logs:
        assert found(path.read_text(errors="replace").lower(), canaries()) == [], path
    assert found("x 6035770741165744 y", canaries()) == ["6035770741165744"]  # the search itself finds


def check_database(url: str) -> None:
    """Airflow's database holds none, nor does it lack what it must hold."""
    dump = "".join(rows_of(url)).lower()
    assert "report_run" in dump
    assert found(dump, canaries()) == []


def rows_of(url: str) -> Iterator[str]:
    """Every row of every table, as text."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            yield from connection.scalars(sa.text(f'SELECT t::text FROM "{table}" t'))
