"""What kind of run this is and which window it is for (design.md, "Kinds of run").

Airflow leaves keys out of the context where they have no value (airflow-quirks.md, "A run without a logical date"), so
everything here is read from the plain ``dag_run`` and its params, never from the template context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from include.instore.model.errors import ConfigurationError
from include.instore.model.identifiers import did_you_mean

OWN_DAG = "instore_orders"
"""The DAG whose runs the ledger knows by their run id alone, which Airflow makes unique within one DAG only."""

RESEND_DAG = "instore_resend"
"""The DAG that sends what is on a list again, once a person has approved it."""

EVERY = timedelta(hours=1)
"""The DAG's schedule: the length of the interval that Airflow itself gives a run, in whole hours."""

Kind = Literal["scheduled", "woken", "manual", "backfill", "cleared", "redrive", "reconcile", "resend"]


class DagRun(Protocol):
    """What is read of Airflow's dag run; every one of them may be None but dag_id, run_id and run_type."""

    dag_id: str
    run_id: str
    run_type: Any
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    logical_date: datetime | None
    run_after: datetime | None
    clear_number: int


@dataclass(frozen=True)
class Window:
    """``start <= moment < end``, both aware and in UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def __str__(self) -> str:
        return f"{self.start.isoformat()}/{self.end.isoformat()}"

    def overlaps(self, start: datetime, end: datetime) -> bool:
        """Whether any moment of ``start <= moment < end`` is in the window."""
        return self.start < end and start < self.end


class RunParams(BaseModel):
    """What a run can be told in its conf, as the DAG's form says; read once, by :meth:`of`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_start: datetime | None = None
    window_end: datetime | None = None
    drain_topic: bool = True
    track_events: Literal["on", "off"] | None = None  # None: as the settings say
    resend: bool = False
    destination: str | None = None
    dry_run: bool = False
    resend_list: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunParams:
        """The params of a run; what is empty has its default.

        :raises ConfigurationError: a name is unknown, a value is not of its kind, or the window is none.
        """
        names = tuple(cls.model_fields)
        for name in given:
            if name not in names:
                raise ConfigurationError(f"Param {name} is unknown{did_you_mean(name, names)}")
        try:
            return cls.model_validate({name: value for name, value in given.items() if value not in (None, "")})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise ConfigurationError(
                f"Param {first['loc'][0]} is wrong: {first['msg'].removeprefix('Value error, ')}; change it."
            ) from None

    @field_validator("window_start", "window_end", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
        except ValueError:
            raise ValueError("it is not a date and time such as 2017-06-05T00:00:00+00:00 or 2017-06-05") from None
        # The form's picker gives an offset; a bare date is taken as UTC, as Airflow itself takes dates.
        return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)

    @property
    def window(self) -> Window | None:
        """The window asked for. :raises ConfigurationError: it has one end, or ends before it starts."""
        start, end = self.window_start, self.window_end
        if start is None and end is None:
            return None
        if start is None or end is None:
            raise ConfigurationError(
                "A window needs both params: window_start and window_end; give the other one as well."
            )
        if start >= end:
            raise ConfigurationError("Param window_end must be later than window_start; change one of them.")
        return Window(start, end)


@dataclass(frozen=True)
class Run:
    """One run, as the pipeline sees it: plain, JSON-ready through :meth:`document`.

    :param window: the run's own interval; None for a manual run without one.
    :param drains_topic: whether it may take messages off the live subscription.
    :param loads_any_extract: whether it also reads files outside its window that were never loaded.
    :param claims: which orders it may send: everything ``due``, those ``in_window``, its ``own``, or those ``listed``.
    :param resend: whether it sends orders again that were sent before, by another run.
    :param destination: where orders go that were never there; with ``resend`` only there again. None: none, and all.
    :param dry_run: whether it does everything but settle and send, on a ledger of its own.
    :param resend_list: id of the list of events that it sends again; empty: it has none.
    :param clear_number: how often it, or a task of it, was cleared.
    """

    run_id: str
    kind: Kind
    window: Window | None
    drains_topic: bool
    loads_any_extract: bool
    claims: Literal["due", "in_window", "own", "listed"]
    resend: bool = False
    dry_run: bool = False
    clear_number: int = 0
    destination: str | None = None
    resend_list: str = ""

    @property
    def tries(self) -> tuple[str, ...]:
        """The ids under which the ledger knows this run: its own, and one more for each time it was begun again."""
        first = self.run_id.partition("#")[0]
        return (first, *(f"{first}#{number}" for number in range(1, self.clear_number + 1)))


def resolve_run(dag_run: DagRun, params: RunParams) -> Run:
    """The run behind a ``dag_run``.

    :raises ConfigurationError: a window with one end, or that ends before it starts; resend without a window; a list
        for another DAG than the one that asks for approval; a manual run with a Logical Date of its own.
    """
    # str() of Airflow's enum prints DagRunType.BACKFILL; the run id of a reprocessed run keeps its old prefix.
    run_type = getattr(dag_run.run_type, "value", dag_run.run_type)
    asked = params.window
    interval = _interval(dag_run)
    resend, dry_run, destination = params.resend, params.dry_run, params.destination

    def run(kind: Kind, window: Window | None, drains: bool, loads: bool, claims: Any) -> Run:
        if claims == "due" and (resend or destination):
            raise ConfigurationError(
                f"Param {'resend' if resend else 'destination'} is about a window's orders; give window_start and "
                "window_end as well, or backfill."
            )
        run_id = dag_run.run_id if dag_run.dag_id == OWN_DAG else f"{dag_run.dag_id}/{dag_run.run_id}"
        clears = dag_run.clear_number or 0
        return Run(
            run_id, kind, window, drains, loads, claims, resend, dry_run, clears, destination, params.resend_list
        )

    if dag_run.dag_id == RESEND_DAG:
        resend, dry_run, destination = True, False, None
        return run("resend", None, False, False, "listed")
    if params.resend_list:
        raise ConfigurationError(f"Param resend_list is for DAG {RESEND_DAG}, which has the list approved first.")
    # A cleared backfill is a backfill still; its own orders are those of its interval.
    if run_type == "backfill":
        return run("backfill", asked or interval, False, False, "in_window")
    if (dag_run.clear_number or 0) > 0:
        return run("cleared", asked or interval, False, False, "own")
    if run_type == "scheduled":
        return run("scheduled", interval, True, True, "due")
    if run_type == "asset_triggered":
        return run("woken", None, True, True, "due")
    asked = asked or _own_interval(dag_run, interval)
    if asked is not None:
        return run("manual", asked, params.drain_topic, False, "in_window")
    return run("manual", None, params.drain_topic, True, "due")


def _interval(dag_run: DagRun) -> Window | None:
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    if start is None or end is None or start >= end:
        return None
    return Window(start.astimezone(timezone.utc), end.astimezone(timezone.utc))


def _own_interval(dag_run: DagRun, interval: Window | None) -> Window | None:
    """The Data Interval that a person gave a manual run; None where it has the one that Airflow gives every one.

    That is the last full hour before its Logical Date, the moment of triggering unless a person changed it; a form may
    have been open since the hour before.

    :raises ConfigurationError: there is a Logical Date of a person's own, without an interval.
    """
    if interval is None or dag_run.logical_date is None or dag_run.run_after is None:
        return None
    if interval.end - interval.start == EVERY:
        if timedelta(0) <= dag_run.run_after - interval.end < 2 * EVERY:
            return None
        if timedelta(0) <= dag_run.logical_date - interval.end < EVERY:
            raise ConfigurationError(
                f"This run was given the Logical Date {dag_run.logical_date:%Y-%m-%dT%H:%M}, of which Airflow makes "
                "the hour before it; leave it as it is, and give params window_start and window_end, or a backfill."
            )
    return interval
