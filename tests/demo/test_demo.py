"""The README's first command, as a person types it: a real Airflow, the sandbox, a week of orders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import metadata_database
from demo.stage import forget
from sandbox.processes import Processes
from tests.demo.canaries import canaries, check_database, check_logs, found

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(420)


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo", "run", "--folder", str(folder), *arguments]


def environment() -> dict[str, str]:
    """As a person's shell has it: without the settings that the tests make for themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}


@contextmanager
def begun(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command(folder), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        try:
            yield demo
        finally:
            if demo.poll() is None:
                demo.send_signal(signal.SIGTERM)


@dataclass(frozen=True)
class Demo:
    """What is known of a demo that ran to its end.

    :param addresses: on which its processes listened. :param refused: what a second one in its folder said.
    :param interrupted: exit code of one in another folder. :param left_over: what that one left running.
    """

    folder: Path
    result: dict[str, Any]
    printed: str
    addresses: set[str]
    refused: subprocess.CompletedProcess[str]
    interrupted: int
    left_over: list[psutil.Process]
    family: list[psutil.Process]


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo as a person types it; while it runs, another in its folder, and one in another that is interrupted."""
    folder = tmp_path_factory.mktemp("week") / "demo"
    with begun(folder) as demo:
        printed, family = wait_for_output(demo, "Airflow UI:"), descendants(demo)
        addresses = listening(family)
        refused = subprocess.run(
            command(folder), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        with begun(folder.parent / "other") as other:
            wait_for_output(other, "Starting")
            others = wait_for_components(other)
            other.send_signal(signal.SIGINT)
            interrupted = other.wait(timeout=90)
        left_over = [process for process in others if alive(process)]
        assert demo.stdout is not None
        rest = demo.stdout.read()  # not `communicate`, which does not know what has been read ahead
        demo.wait(timeout=60)
    assert demo.returncode == 0, rest[-3000:]
    result = json.loads((folder / "result.json").read_text())
    yield Demo(folder, result, printed + rest, addresses, refused, interrupted, left_over, family)
    forget(folder)


def test_the_week_arrives_once_and_the_second_run_sends_nothing(week: Demo) -> None:
    result = week.result
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
        "corrections": 0,
        "corrected_after_sent": 0,
        "collisions": 0,
    }
    assert {name: counts[name] for name in expected} == expected
    assert counts["run_kind"] == "scheduled"
    assert result["first_run"]["state"] == "success"
    second = result["second_run"]["counts"]
    assert (second["received"], second["sent"], second["duplicates"]) == (0, 0, 0)
    assert result["profile_store"] == {"events": 2727, "track_ids": 2727, "emails": 1206}


def test_the_demo_prints_a_table_the_counts_and_where_to_look(week: Demo) -> None:
    result, printed = week.result, week.printed
    for word in ("drain_topic", "look_up_customers", "send_events", "Airflow UI:", "Profile Store:", '"sent": 2727'):
        assert word in printed
    assert result["first_run"]["tasks"][0]["task"] == "drain_topic"
    assert str(week.folder / "result.json") in printed.replace("\n", "")


def test_the_demo_is_quick_enough_to_be_looked_at(week: Demo) -> None:
    """The figures are in the result file; how fast they must be is not a test's business."""
    result = week.result
    assert result["first_run"]["seconds"] > 0
    assert result["second_run"]["seconds"] > 0


def test_no_email_card_or_payload_is_in_any_log(week: Demo) -> None:
    check_logs(week.folder)
    assert found(week.printed.lower(), canaries()) == []


def test_airflows_database_holds_no_order(week: Demo) -> None:
    """XCom, rendered templates and labels are what strangers see."""
    processes = Processes(week.folder)
    try:
        check_database(metadata_database.start(week.folder / "airflow/postgresql", processes))
    finally:
        processes.stop()


def wait_for_output(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} never came:\n{seen}")


def test_ctrl_c_stops_everything_it_started_and_nothing_else(week: Demo) -> None:
    assert week.interrupted == 130
    assert week.left_over == []
    assert week.result["first_run"]["state"] == "success", "the other demo went on"


def test_a_second_demo_in_its_folder_is_refused(week: Demo) -> None:
    assert week.refused.returncode == 1
    assert "running in" in week.refused.stdout.replace("\n", " ")


def test_nothing_listens_beyond_loopback(week: Demo) -> None:
    assert week.addresses == {"127.0.0.1"}


def test_a_demo_at_its_end_leaves_nothing_running(week: Demo) -> None:
    assert len(week.family) >= 8
    assert [process for process in week.family if alive(process)] == []


def descendants(demo: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(demo.pid).children(recursive=True)


def wait_for_components(demo: subprocess.Popen[str]) -> list[psutil.Process]:
    """The demo's processes, once Airflow's components are among them."""
    while True:
        assert demo.poll() is None
        family = descendants(demo)
        if any("scheduler" in arguments_of(process) for process in family):
            return family
        time.sleep(0.2)


def listening(family: list[psutil.Process]) -> set[str]:
    """The addresses on which these listen."""
    connections = [connection for process in family for connection in connections_of(process)]
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def arguments_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


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
