"""Which run is which, its window, and what it may do (design.md, "Kinds of run")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest

from include.instore.model.errors import ConfigurationError
from include.instore.model.windows import Run, RunParams, Window
from include.instore.model.windows import resolve_run as resolve
from tests.instore.given import moment, window

DAY = window("2017-06-05", "2017-06-06")
ASKED = {"window_start": "2017-06-01", "window_end": "2017-06-03T12:00:00Z"}
ASKED_WINDOW = Window(moment("2017-06-01"), moment("2017-06-03T12:00:00"))


class RunType(str, Enum):
    """As Airflow's own: its str() is not its value."""

    SCHEDULED = "scheduled"
    BACKFILL = "backfill"
    MANUAL = "manual"
    ASSET_TRIGGERED = "asset_triggered"


@dataclass
class DagRun:
    run_type: Any
    clear_number: Any = 0
    data_interval_start: datetime | None = DAY.start
    data_interval_end: datetime | None = DAY.end
    run_id: str = "r"
    dag_id: str = "instore_orders"
    logical_date: datetime | None = None
    run_after: datetime | None = None


def resolve_run(dag_run: DagRun, params: dict[str, Any]) -> Run:
    return resolve(dag_run, RunParams.of(params))


NOON = moment("2026-11-24T12:10:00")


def hours_before(hours: float, *, length: float = 1, logical: datetime = NOON) -> DagRun:
    """A manual run triggered at 12:10, with an interval of so many hours that ended so many hours before noon."""
    end = moment("2026-11-24T12:00:00") - timedelta(hours=hours)
    return DagRun("manual", 0, end - timedelta(hours=length), end, logical_date=logical, run_after=NOON)


@pytest.mark.parametrize("hours", [0, 1])
def test_the_hour_before_it_was_triggered_is_no_window_of_a_manual_run(hours: int) -> None:
    run = resolve_run(hours_before(hours, logical=NOON - timedelta(hours=hours)), {})
    assert run == Run("r", "manual", None, True, True, "due")


@pytest.mark.parametrize(("hours", "length"), [(2, 1), (3000, 1), (0, 2), (12, 24), (0, 0.5), (-1, 1)], ids=str)
def test_a_data_interval_of_its_own_is_a_manual_run_s_window(hours: float, length: float) -> None:
    dag_run = hours_before(hours, length=length)
    run = resolve_run(dag_run, {"drain_topic": False})
    assert run == Run(
        "r", "manual", Window(dag_run.data_interval_start, dag_run.data_interval_end), False, False, "in_window"
    )  # type: ignore[arg-type]
    assert resolve_run(dag_run, {"resend": True}).resend


@pytest.mark.parametrize("minutes", [0, 30, 59])
@pytest.mark.parametrize("hours", [2, 80_000, -1])
def test_a_logical_date_of_its_own_is_refused_in_one_sentence(hours: float, minutes: int) -> None:
    dag_run = hours_before(hours)
    assert dag_run.data_interval_end is not None
    dag_run.logical_date = dag_run.data_interval_end + timedelta(minutes=minutes)
    with pytest.raises(ConfigurationError, match=r"Logical Date .*window_start and window_end"):
        resolve_run(dag_run, {})
    assert resolve_run(dag_run, ASKED).window == ASKED_WINDOW


def test_a_run_of_another_dag_is_another_run_whatever_its_id() -> None:
    run = resolve_run(DagRun("scheduled", 2, dag_id="instore_maintenance"), {})
    assert run.tries == ("instore_maintenance/r", "instore_maintenance/r#1", "instore_maintenance/r#2")


def test_a_scheduled_run_drains_loads_everything_and_sends_what_is_due() -> None:
    assert resolve_run(DagRun(RunType.SCHEDULED), {}) == Run("r", "scheduled", DAY, True, True, "due")
    assert resolve_run(DagRun("scheduled"), {"drain_topic": False}).drains_topic


def test_a_woken_run_does_as_a_scheduled_one_by_its_own_name() -> None:
    """Airflow gives it neither a logical date nor an interval."""
    woken = DagRun(RunType.ASSET_TRIGGERED)
    woken.logical_date = woken.data_interval_start = woken.data_interval_end = None
    assert resolve_run(woken, {}) == Run("r", "woken", None, True, True, "due")
    woken.clear_number = 1
    assert resolve_run(woken, {}).kind == "cleared"


@pytest.mark.parametrize("cleared", [0, 1])
def test_a_backfill_never_drains_and_keeps_to_its_interval_also_when_cleared(cleared: int) -> None:
    run = resolve_run(DagRun(RunType.BACKFILL, cleared), {"drain_topic": True})
    assert run == Run("r", "backfill", DAY, False, False, "in_window", clear_number=cleared)


@pytest.mark.parametrize("run_type", [RunType.SCHEDULED, RunType.MANUAL])
def test_a_cleared_run_never_drains_and_sends_its_own(run_type: RunType) -> None:
    assert resolve_run(DagRun(run_type, 1), {}) == Run("r", "cleared", DAY, False, False, "own", clear_number=1)


def test_a_manual_run_does_as_a_scheduled_one() -> None:
    assert resolve_run(DagRun(RunType.MANUAL), {}) == Run("r", "manual", None, True, True, "due")


def test_a_manual_run_leaves_the_topic_alone_when_told() -> None:
    assert not resolve_run(DagRun(RunType.MANUAL), {"drain_topic": False}).drains_topic


@pytest.mark.parametrize("drains", [True, False])
def test_a_manual_run_with_a_window_keeps_to_it(drains: bool) -> None:
    run = resolve_run(DagRun(RunType.MANUAL), {**ASKED, "drain_topic": drains})
    assert run == Run("r", "manual", ASKED_WINDOW, drains, False, "in_window")


@pytest.mark.parametrize("run_type", [RunType.BACKFILL, RunType.MANUAL])
def test_a_window_asked_for_wins_over_the_interval(run_type: RunType) -> None:
    assert resolve_run(DagRun(run_type), ASKED).window == ASKED_WINDOW


@pytest.mark.parametrize(("start", "end"), [(None, None), (DAY.start, None), (DAY.start, DAY.start)])
def test_a_run_without_an_interval_has_no_window(start: datetime | None, end: datetime | None) -> None:
    assert resolve_run(DagRun("scheduled", None, start, end), {"window_start": None, "window_end": ""}).window is None


def test_windows_are_in_utc_whatever_they_are_given_in() -> None:
    stockholm = timezone(timedelta(hours=2))
    run = resolve_run(DagRun("scheduled", 0, DAY.start.astimezone(stockholm), DAY.end.astimezone(stockholm)), {})
    assert str(run.window) == "2017-06-05T00:00:00+00:00/2017-06-06T00:00:00+00:00"
    asked = {"window_start": "2017-06-05T02:00:00+02:00", "window_end": " 2017-06-06T00:00:00 "}
    assert str(resolve_run(DagRun("manual"), asked).window) == str(DAY)


@pytest.mark.parametrize(
    "params",
    [
        {"window_start": "2017-06-01"},
        {"window_end": "2017-06-01"},
        {"window_start": "yesterday", "window_end": "2017-06-01"},
        {"window_start": "2017-06-01", "window_end": "2017-06-01"},
        {"window_start": "2017-06-02", "window_end": "2017-06-01"},
        {"window_start": "2017-13-02", "window_end": "2018-06-01"},
        {"window_start": 7, "window_end": "2018-06-01"},
    ],
)
def test_a_wrong_window_is_a_configuration_error_that_names_the_param(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="window_"):
        resolve_run(DagRun("manual"), params)


@pytest.mark.parametrize(
    ("name", "told"), [("windw_start", "did you mean window_start"), ("customer", "there are window_start, window_end")]
)
@pytest.mark.parametrize("run_type", ["manual", "backfill", "scheduled"])
def test_an_unknown_param_is_refused_before_it_does_something_else(run_type: str, name: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        resolve_run(DagRun(run_type), {name: "2017-06-01"})


@pytest.mark.parametrize(
    ("name", "value"), [("resend", "perhaps"), ("drain_topic", 7), ("track_events", "yes"), ("destination", 3)]
)
def test_a_param_of_another_kind_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"Param {name} is wrong: .*; change it"):
        RunParams.of({name: value})


def test_a_switch_that_is_written_as_a_word_is_that_word() -> None:
    assert not RunParams.of({"resend": "false"}).resend
    assert RunParams.of({"resend": "true", "destination": None, "track_events": None}) == RunParams(resend=True)


@pytest.mark.parametrize(
    ("text", "inside"),
    [("2017-06-04T23:59:59", False), ("2017-06-05", True), ("2017-06-05T23:59:59", True), ("2017-06-06", False)],
)
def test_a_window_has_its_start_and_not_its_end(text: str, inside: bool) -> None:
    assert (moment(text) in DAY) == inside


@pytest.mark.parametrize(
    ("start", "end", "overlaps"),
    [
        ("2017-06-04", "2017-06-05", False),
        ("2017-06-04", "2017-06-05T00:00:01", True),
        ("2017-06-05T10:00:00", "2017-06-05T11:00:00", True),
        ("2017-06-05T23:59:59", "2017-06-07", True),
        ("2017-06-06", "2017-06-07", False),
    ],
)
def test_windows_overlap_when_they_share_a_moment(start: str, end: str, overlaps: bool) -> None:
    assert DAY.overlaps(moment(start), moment(end)) == overlaps


@pytest.mark.parametrize("resend", [True, False])
def test_only_a_run_of_a_window_may_resend(resend: bool) -> None:
    assert resolve_run(DagRun("backfill"), {"resend": resend}).resend == resend
    assert resolve_run(DagRun("manual"), {**ASKED, "resend": resend}).resend == resend


@pytest.mark.parametrize("run_type", ["scheduled", "manual"])
def test_resend_without_a_window_is_a_configuration_error(run_type: str) -> None:
    with pytest.raises(ConfigurationError, match="window_start"):
        resolve_run(DagRun(run_type), {"resend": True})


def test_a_run_begun_again_has_an_id_for_each_time() -> None:
    assert resolve_run(DagRun("scheduled", 0), {}).tries == ("r",)
    assert resolve_run(DagRun("scheduled", 2), {}).tries == ("r", "r#1", "r#2")
    assert Run("r#1", "cleared", None, False, False, "own", clear_number=2).tries == ("r", "r#1", "r#2")


def test_a_list_is_sent_again_only_by_the_dag_that_has_it_approved() -> None:
    with pytest.raises(ConfigurationError, match="resend_list is for DAG instore_resend"):
        resolve_run(DagRun("manual"), {"resend_list": "1"})
    run = resolve_run(DagRun("manual", dag_id="instore_resend"), {"resend_list": "1", "drain_topic": True})
    assert (run.kind, run.claims, run.resend_list, run.drains_topic) == ("resend", "listed", "1", False)
    assert resolve_run(DagRun("manual", dag_id="instore_resend"), {}).resend_list == ""
