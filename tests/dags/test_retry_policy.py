"""The retry policy by kind of error, through Airflow's serialization and its task runner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction, RetryDecision
from airflow.sdk.exceptions import AirflowFailException
from instore_provider.errors import ServiceUnavailable

from include.instore.model.errors import ConfigurationError, FatalError, RetriableError
from include.instore_airflow.retry_policy import RetryByKind, TryAgain

ROOT = Path(__file__).parents[2]
_DAG = """
import sys
from airflow.sdk import dag, task
from include.instore.model.errors import ConfigurationError
from include.instore_airflow.retry_policy import RetryByKind, TryAgain

TRIES = {}

@dag(schedule=None, default_args={"retries": 2, "retry_policy": RetryByKind()})
def kinds():
    def count(name):
        TRIES[name] = TRIES.get(name, 0) + 1

    @task
    def fatal():
        count("fatal")
        raise ConfigurationError("a person has to change something")

    @task
    def retriable():
        count("retriable")
        if TRIES["retriable"] < 3:
            raise TryAgain("later", retry_after=0.1)

    @task
    def bug():
        count("bug")
        raise KeyError("bug")

    fatal(), retriable(), bug()

made = kinds()
if __name__ == "__main__":
    import json
    run = made.test()
    print("RESULT", json.dumps([TRIES, {ti.task_id: ti.state for ti in run.get_task_instances()}]))
"""


def decided(error: BaseException, try_number: int = 1) -> RetryDecision:
    return RetryByKind().evaluate(error, try_number, 2)


def seconds(error: BaseException, try_number: int = 1) -> list[float]:
    delays = [decided(error, try_number).retry_delay for _ in range(100)]
    return sorted(delay.total_seconds() for delay in delays if delay is not None)


@pytest.mark.parametrize("error", [FatalError("x"), ConfigurationError("x"), AirflowFailException("x")])
def test_what_a_person_has_to_change_fails_at_once(error: Exception) -> None:
    assert decided(error).action is RetryAction.FAIL


@pytest.mark.parametrize(
    "error", [RetriableError("x", 120), TryAgain("x", 120), ServiceUnavailable("x", retry_after=120)]
)
def test_what_the_service_asked_for_is_waited_for_and_a_little_more(error: Exception) -> None:
    waits = seconds(error)
    assert len(waits) == 100
    assert 120 <= waits[0] < waits[-1] <= 150
    assert waits[-1] - waits[0] > 15


def test_an_absurd_retry_after_is_waited_for_no_longer_than_the_cap() -> None:
    assert seconds(TryAgain("x", 80_000))[0] >= 900
    assert seconds(TryAgain("x", 80_000))[-1] <= 930


@pytest.mark.parametrize(("try_number", "widest"), [(1, 30), (2, 60), (3, 120), (6, 600), (1000, 600)])
@pytest.mark.parametrize("error", [TryAgain("x"), KeyError("bug")])
def test_without_one_the_wait_is_random_up_to_twice_as_long_each_try(
    error: Exception, try_number: int, widest: float
) -> None:
    waits = seconds(error, try_number)
    assert waits[-1] <= widest
    # Full jitter: the whole window, not the end of it.
    assert waits[0] < widest * 0.2
    assert waits[-1] > widest * 0.8


def test_the_waits_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_RETRY_FIRST_WAIT", "2")
    monkeypatch.setenv("INSTORE_RETRY_LONGEST_WAIT", "3")
    monkeypatch.setenv("INSTORE_RETRY_AFTER_MAX", "5")
    assert seconds(TryAgain("x"), 9)[-1] <= 3
    assert seconds(TryAgain("x", 60))[-1] <= 7


def test_a_reason_for_the_log_holds_no_word_of_the_error() -> None:
    for error in (TryAgain("canary"), TryAgain("canary", 3), FatalError("canary")):
        assert "canary" not in str(decided(error).reason)


def test_every_task_of_the_serialized_dag_has_the_policy() -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DagBag(str(ROOT / "dags"), collect_dags=True).dags["instore_orders"]
    written = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    read = DagSerialization.from_dict(written)
    assert {task.task_id: task.has_retry_policy for task in read.tasks} == {task.task_id: True for task in dag.tasks}
    assert all(
        isinstance(getattr(task, "retry_policy", None) or task.partial_kwargs["retry_policy"], RetryByKind)
        for task in dag.tasks
    )


def test_the_policy_survives_its_own_serialization() -> None:
    written = json.loads(json.dumps(RetryByKind().serialize()))
    assert isinstance(RetryByKind.deserialize(written), RetryByKind)


def test_a_task_is_tried_as_often_as_its_kind_of_error_says_and_never_more_than_its_retries(
    tmp_path: Path, airflow_database: Path
) -> None:
    shutil.copy(airflow_database, tmp_path / "airflow.db")
    (tmp_path / "dags").mkdir()
    file = tmp_path / "dags" / "kinds.py"
    file.write_text(_DAG)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = {
        **kept,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
        "INSTORE_RETRY_FIRST_WAIT": "0.1",
    }
    done = subprocess.run(
        [sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    tries, states = json.loads(line.removeprefix("RESULT "))
    assert tries == {"fatal": 1, "retriable": 3, "bug": 3}
    assert states == {"fatal": "failed", "retriable": "success", "bug": "failed"}
