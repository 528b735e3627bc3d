"""The README's first command, as a person types it: a real Airflow, the sandbox, a week of orders."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from demo import metadata_database
from demo.processes import Processes
from demo.stage import forget

ROOT = Path(__file__).parents[2]
WEEK = ROOT / "sandbox/week"

pytestmark = pytest.mark.timeout(420)


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo", "run", "--folder", str(folder), *arguments]


def run_demo(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    # As a person's shell has it: without the settings that the tests make for themselves.
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        command(folder, *arguments), cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], str]]:
    folder = tmp_path_factory.mktemp("ordinary") / "demo"
    yield folder, *run_demo(folder)
    forget(folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], str]]:
    folder = tmp_path_factory.mktemp("hostile") / "demo"
    yield folder, *run_demo(folder, "--hostile")
    forget(folder)


def test_the_week_arrives_once_and_the_second_run_sends_nothing(ordinary: Any) -> None:
    _, result, _ = ordinary
    counts = result["first_run"]["counts"]
    expected = {
        "received": 3115,
        "orders": 3041,
        "duplicates": 74,
        "sent": 2727,
        "unmatched": 314,
        "unmatched_by_outcome": {"no_customer_key": 115, "not_found": 136, "inactive": 20, "no_email": 43},
        "rejected": 0,
        "quarantined": 0,
        "carried_over": 0,
        "changed_duplicates": 0,
    }
    assert {name: counts[name] for name in expected} == expected
    assert counts["run_kind"] == "scheduled"
    assert result["first_run"]["state"] == "success"
    second = result["second_run"]["counts"]
    assert (second["received"], second["sent"], second["duplicates"]) == (0, 0, 0)
    assert result["profile_store"] == {"events": 2727, "track_ids": 2727, "emails": 1206}


def test_the_demo_prints_a_table_the_counts_and_where_to_look(ordinary: Any) -> None:
    folder, result, printed = ordinary
    for word in ("drain_topic", "look_up_customers", "send_events", "Airflow UI:", "Profile Store:", '"sent": 2727'):
        assert word in printed
    assert result["first_run"]["tasks"][0]["task"] == "drain_topic"
    assert str(folder / "result.json") in printed.replace("\n", "")


def test_a_bad_day_ends_with_every_order_accounted_for(hostile: Any) -> None:
    _, result, _ = hostile
    counts = result["first_run"]["counts"]
    assert counts["quarantined_by_reason"] == {
        "not_json": 1,
        "not_an_object": 1,
        "missing_field": 1,
        "bad_value": 1,
        "unsupported_type": 1,
        "broken_file": 1,
    }
    assert counts["rejected"] == 3
    # The cut extract has 19 whole orders before its break.
    assert counts["orders"] == 3041 + 19
    assert counts["received"] == counts["orders"] + counts["duplicates"] + counts["quarantined"]
    assert counts["sent"] == 2727 + 19 - 3
    assert result["profile_store"]["events"] == result["profile_store"]["track_ids"] == 2727 + 19 - 3
    assert result["faults"] == []


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


@pytest.mark.parametrize("day", ["ordinary", "hostile"])
def test_no_email_card_or_payload_is_in_any_log(day: str, request: pytest.FixtureRequest) -> None:
    folder, _, printed = request.getfixturevalue(day)
    words = canaries()
    logs = [path for path in folder.rglob("*.log") if path.is_file()]
    assert len(logs) > 15  # every component and every task instance
    for path in logs:
        assert found(path.read_text(errors="replace").lower(), words) == [], path
    assert found(printed.lower(), words) == []
    assert found("x 6035770741165744 y", words) == ["6035770741165744"]  # the search itself finds


@pytest.mark.parametrize("day", ["ordinary", "hostile"])
def test_airflows_database_holds_no_order(day: str, request: pytest.FixtureRequest) -> None:
    """XCom, rendered templates and labels are what strangers see."""
    folder, _, _ = request.getfixturevalue(day)
    processes = Processes(folder)
    url = sa.make_url(metadata_database.start(folder / "airflow/postgresql", processes))
    try:
        dump = "".join(rows_of(url)).lower()
    finally:
        processes.stop()
    assert "report_run" in dump
    assert found(dump, canaries()) == []


def rows_of(url: sa.URL) -> Iterator[str]:
    """Every row of every table, as text."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            yield from connection.scalars(sa.text(f'SELECT t::text FROM "{table}" t'))


def test_the_demo_is_quick_enough_to_be_looked_at(ordinary: Any) -> None:
    """The figures are in the result file; how fast they must be is not a test's business."""
    _, result, _ = ordinary
    assert result["first_run"]["seconds"] > 0
    assert result["second_run"]["seconds"] > 0


def wait_for_output(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} never came:\n{seen}")


def test_ctrl_c_stops_everything_and_two_demos_do_not_disturb_each_other(tmp_path: Path) -> None:
    """One is interrupted while another beside it runs; nothing of either listens beyond loopback."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    demos = [
        subprocess.Popen(
            command(tmp_path / name), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name in ("one", "two")
    ]
    try:
        told = [wait_for_output(demo, "Airflow UI:") for demo in demos]
        assert told[0] != told[1]
        families = [psutil.Process(demo.pid).children(recursive=True) for demo in demos]
        assert all(len(family) >= 8 for family in families)
        addresses = {
            connection.laddr.ip
            for family in families
            for process in family
            for connection in connections_of(process)
            if connection.status == psutil.CONN_LISTEN
        }
        assert addresses == {"127.0.0.1"}
        demos[0].send_signal(signal.SIGINT)
        assert demos[0].wait(timeout=90) == 130
        assert all(not alive(process) for process in families[0])
        assert any(alive(process) for process in families[1])
        again = subprocess.run(
            command(tmp_path / "two"), cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        assert again.returncode == 1
        assert "running in" in again.stdout.replace("\n", " ")
    finally:
        for demo in demos:
            if demo.poll() is None:
                demo.send_signal(signal.SIGTERM)
            demo.wait(timeout=90)
            assert demo.stdout is not None
            demo.stdout.close()
    deadline = time.monotonic() + 20
    while any(alive(process) for process in families[1]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert all(not alive(process) for process in families[1])


def connections_of(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections(kind="inet")
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
