"""What Airflow knows of a run as the pipeline's run, ledger and settings; the pipeline's errors as Airflow's."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from include.instore.model.errors import FatalError, RetriableError
from include.instore.model.windows import Run, RunParams, resolve_run
from include.instore_airflow.connections import open_ledger
from include.instore_airflow.destinations import DESTINATIONS
from include.instore_airflow.retry_policy import TryAgain

if TYPE_CHECKING:
    from include.instore.ledger import Ledger
    from include.instore.model.settings import Settings
    from include.instore.runs.report import Failure

_FAILURE = "failure"
"""Key of the XCom in which a failing task leaves its sentence for the report."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def pipeline(
    dag_run: Any, params: Mapping[str, Any], *, begins: bool = False
) -> Iterator[tuple[Run, Ledger, Settings]]:
    """The run, the ledger and the settings; and every error of ours as the one sentence a person reads in the log.

    :param begins: whether this is one of the tasks that a run begins with.
    """
    with told_to_airflow():
        from include.instore.customers.erasing import look_after
        from include.instore.ledger.claims import open_run
        from include.instore.ledger.destinations import switch_destinations
        from include.instore.ledger.dry_runs import scratch
        from include.instore.model.settings import load_settings

        settings = load_settings()
        asked = RunParams.of(params)
        if asked.track_events is not None:
            settings = settings.having(enable_track_events=asked.track_events == "on")
        run = resolve_run(dag_run, asked)
        with contextlib.closing(open_ledger()) as ledger, contextlib.ExitStack() as opened:
            if begins:
                look_after(ledger, settings)
            if run.dry_run:
                settings = settings.having(enable_track_events=False)
                ledger = opened.enter_context(contextlib.closing(scratch(ledger, run)))
            if begins:  # once a run: in the middle of a release workers may have different lists
                switch_destinations(ledger, DESTINATIONS)
            yield open_run(ledger, run, begins=begins), ledger, settings


@contextlib.contextmanager
def told_to_airflow() -> Iterator[None]:
    """Every error of ours as Airflow's: not to be tried again, or by the retry policy."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    # At DEBUG the SDK would write whole frames, bodies and tokens included, into the task log.
    for chatty in ("azure", "alembic", "asyncssh"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        yield
    except FatalError as error:
        _leave(str(error))
        raise AirflowFailException(str(error)) from None
    except RetriableError as error:
        _leave(str(error))
        raise TryAgain(str(error), error.retry_after) from None
    except AirflowException:
        raise
    except Exception as error:
        _leave(f"{type(error).__name__}, which is a fault of the pipeline or of its machine; its log has the traceback")
        raise


def _leave(why: str) -> None:
    """Tell the report why this task fails: its XCom is gone when it is tried again, and comes with each try."""
    from airflow.sdk import get_current_context

    try:
        ti: Any = get_current_context()["ti"]
    except RuntimeError:
        return  # not in a task
    try:
        ti.xcom_push(key=_FAILURE, value={"why": why, "tries": ti.try_number, "link": ti.log_url})
    except Exception as error:  # it must not hide why the task fails
        log.warning("the report will not say why this task failed (%s)", type(error).__name__)


def failed_tasks(ti: Any) -> list[Failure]:
    """The run's tasks that finally failed, a mapped one once, each with what it said last."""
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
    failed = {name for name, state in states.items() if state == "failed"}
    return [_failure(ti, task) for task in sorted({re.sub(r"_\d+$", "", name) for name in failed})]


def _failure(ti: Any, task: str) -> Failure:
    from include.instore.runs.report import Failure

    told = [each for each in ti.xcom_pull(task_ids=[task], key=_FAILURE) or () if each]
    if not told:
        return Failure(task)
    others = sum(each["why"] != told[0]["why"] for each in told)
    why = f"{told[0]['why']} ({others} of its batches failed otherwise)" if others else told[0]["why"]
    return Failure(task, why, max(each["tries"] for each in told), told[0]["link"])
