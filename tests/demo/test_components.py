"""Airflow's components are watched; the command ``airflow`` is a stand-in, for the real one takes a minute."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sandbox.processes import Processes

ROOT = Path(__file__).parents[2]
_AIRFLOW = """#!/bin/sh
test "$1" = "$DYING" && { echo "$1 has no luck"; exit 3; }
sleep 600 & sleep 600
"""


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Callable[..., Processes]]:
    """Starts the components with a command ``airflow`` of which one component always dies, and notes them."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    command = python.with_name("airflow")
    command.write_text(_AIRFLOW)
    command.chmod(0o755)
    processes = Processes(tmp_path)

    def start(dying: str = "") -> Processes:
        env = os.environ | {"DYING": dying, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        processes.start("airflow", [str(python), "-m", "demo.components", str(processes.logs), "1"], env)
        return processes

    yield start
    processes.stop()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def components(processes: Processes) -> list[psutil.Process]:
    return processes.running()["airflow"].children()


def test_a_component_that_dies_is_started_again_without_what_it_left_behind(airflow: Callable[..., Processes]) -> None:
    processes = airflow()
    until(lambda: len(components(processes)) == 4 and all(each.children() for each in components(processes)))
    scheduler = next(each for each in components(processes) if "scheduler" in each.cmdline())
    worker = scheduler.children()[0]
    scheduler.kill()
    until(lambda: "scheduler had died and was started again" in processes.log_tail("airflow"))
    assert len(components(processes)) == 4
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_a_component_that_dies_again_and_again_ends_the_others_with_its_last_words(
    airflow: Callable[..., Processes],
) -> None:
    processes = airflow("triggerer")
    until(processes.dead)
    said = processes.log_tail("airflow")
    assert "triggerer dies again and again; its last words:" in said
    assert said.endswith("triggerer has no luck")
    assert processes.stop() == [], "nothing is left of it"


def test_what_a_killed_process_left_behind_is_stopped_with_the_others(airflow: Callable[..., Processes]) -> None:
    processes = airflow()
    until(lambda: len(components(processes)) == 4)
    left = components(processes)
    processes.running()["airflow"].kill()
    until(lambda: not processes.running())
    assert processes.stop() == ["airflow"]
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in left)


def test_a_number_that_is_another_process_by_now_is_not_stopped(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        processes = Processes(tmp_path)
        processes.adopt("airflow", stranger.pid)
        noted = tmp_path / "processes.json"
        created = psutil.Process(stranger.pid).create_time()
        noted.write_text(noted.read_text().replace(str(created), str(created - 60)))
        assert processes.stop() == []
        assert stranger.poll() is None
        stranger.kill()
