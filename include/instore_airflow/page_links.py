"""Where on the page "In-store orders" a person finds a run, or what a code was said of."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from airflow.sdk import BaseOperatorLink

from include.instore.model.codes import BAD_SHARE, CODES, LEFT_FILES, UNMATCHED_SHARE, Code, Kind
from include.instore.model.windows import OWN_DAG

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from include.instore.ledger import Ledger

PREFIX = "/instore"
"""Where Airflow's API server has the page."""

_LISTS = {
    Kind.REFUSED: "/quarantine?reason={}", Kind.FILE: "/files", Kind.EVENT: "/undelivered?status={}",
    Kind.ORDER: "/undelivered?status=unmatched&reason={}",
}  # fmt: skip
_OTHERS = {
    "dead_letters": "/dead-letters", "oldest_unsent": "/undelivered", "in_doubt": "/undelivered?status=sending",
    UNMATCHED_SHARE: "/undelivered?status=unmatched", BAD_SHARE: "/quarantine",
}  # fmt: skip


def base_url() -> str:
    """Where people reach Airflow."""
    from airflow.sdk.configuration import conf

    return str(conf.get("api", "base_url", fallback="") or "http://localhost:8080").rstrip("/")


def base_path() -> str:
    """The path that Airflow has there."""
    return urlsplit(base_url()).path.rstrip("/")


def page_in_airflow() -> str:
    """The path of the page within Airflow's UI."""
    return f"{base_path()}/plugin{PREFIX}"


def run_page(dag_id: str, run_id: str) -> str:
    """The path of a run's counts."""
    return f"/run?id={quote(run_id if dag_id == OWN_DAG else f'{dag_id}/{run_id}', safe='')}"


def list_of(cause: str) -> str:
    """The path of the list of what an alert's cause, or a code, is said of; empty: there is no list."""
    word = cause.partition(":")[0]
    told_by = [code for code in CODES.values() if word in (code, code.alert) and code.kind in _LISTS]
    if word in _OTHERS or not told_by:
        return _OTHERS.get(word, "")
    one: Code = next((code for code in told_by if code == word), told_by[0])
    several = len(told_by) > 1 and one != word and one.kind is Kind.REFUSED
    return "/quarantine" if several else _LISTS[one.kind].format(one)


def place_of(cause: str, ledger: Ledger | None, run_id: str = "") -> str:
    """The path of the only order, file or record that a cause is said of; of several, or without a ledger, their list.

    :param run_id: of whose records alone a share is said.
    """
    listed = list_of(cause)
    if run_id and cause in (UNMATCHED_SHARE, BAD_SHARE):
        listed += f"{'&' if '?' in listed else '?'}run={quote(run_id, safe='')}"
    there = urlsplit(listed)
    found = _first_two(ledger, there.path, dict(parse_qsl(there.query)), cause) if ledger else []
    return found[0] if len(found) == 1 else listed


def _first_two(ledger: Ledger, path: str, asked: dict[str, str], cause: str) -> list[str]:
    """The paths of the first two that a list has; none where nobody could tell without reading all orders."""
    from include.instore.ledger.extract_files import waiting_files
    from include.instore.ledger.quarantined import Wanted, find
    from include.instore.ledger.read_orders import FEW, list_orders
    from include.instore.model.states import ExtractState

    if path == "/files":
        state = ExtractState.LEFT if cause == LEFT_FILES else ExtractState.WAITING
        return [f"/files?path={quote(each.path, safe='')}" for each in waiting_files(ledger, states=[state], limit=2)]
    if path == "/quarantine":
        return [f"/quarantine/{each.id}" for each in find(ledger, Wanted(**asked, limit=2))]  # type: ignore[arg-type]
    if path == "/undelivered" and ("run" in asked or asked.get("status") in FEW):
        return [f"/orders/{each.row['event_id']}" for each in list_orders(ledger, **asked, limit=2)]
    return []


class RunPageLink(BaseOperatorLink):
    """Leads from the report's task to the run's counts on the page."""

    name = "The run's counts"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's words
        """Return the address; called by the worker at the end of every try."""
        return f"{base_url()}{PREFIX}{run_page(ti_key.dag_id, ti_key.run_id)}"
