"""Many events are sent again: the DAG waits for a person's answer in Airflow, and claims nothing before."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.resends import resend, sent_ones
from include.instore.ledger.tables import orders
from sandbox.profile_store import ProfileStoreStandIn
from tests.instore import given
from tests.page.serving import ROOT, Server

pytestmark = pytest.mark.timeout(400)
RUN = (
    "import sys\n"
    "from airflow.dag_processing.dagbag import DagBag\n"
    "dag = DagBag('dags').dags['instore_resend']\n"
    "print(dag.test(run_conf={'resend_list': sys.argv[1]}).state.value)"
)


@pytest.mark.parametrize("answer", ["Approve", "Reject"])
def test_what_is_listed_is_sent_again_once_a_person_has_approved_it(
    server: Server, ledger: Ledger, answer: str
) -> None:
    numbers = [f"{answer}-{n}" for n in (1, 2)]
    given.landed(ledger, *(given.document(number, emailAddress=f"{number}@example.com") for number in numbers))
    given.set_orders(ledger, orders.c.order_number.in_(numbers), status="sent", attempts=1, outcome_run="run-1")
    ids = [given.row(ledger, number)["event_id"] for number in numbers]
    _, listed = resend(ledger, given.SETTINGS.having(resend_approval=1), sent_ones(events=ids), "ann", dry_run=False)
    assert listed
    with ProfileStoreStandIn("store-key") as store:
        connection = {"conn_type": "profile_store", "host": store.url, "password": "store-key"}
        nobody = {"conn_type": "loyalty", "host": "http://127.0.0.1:9", "password": "k"}  # who is not asked
        env = server.env | {
            "AIRFLOW_CONN_INSTORE_PROFILE_STORE": json.dumps(connection),
            "AIRFLOW_CONN_INSTORE_LOYALTY": json.dumps(nobody),
            "INSTORE_DEADLINE_MINUTES": "0",
        }
        words = [sys.executable, "-c", RUN, listed.id]
        process = subprocess.Popen(words, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            path = _waits(server, process)
            asked = server.airflow(f"{path}/-1/hitlDetails")
            assert asked["body"].startswith("2 events of 2 orders of 1 stores, from 2017-06-05 to 2017-06-05, ")
            assert listed.digest in asked["body"]
            assert {given.row(ledger, number)["claim_run"] for number in numbers} == {None}
            assert {given.row(ledger, number)["edition"] for number in numbers} == {1}
            said = {"chosen_options": [answer], "params_input": {}}
            server.airflow(f"{path}/-1/hitlDetails", "editor", "PATCH", **said)
            told, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        assert told.decode().splitlines()[-1] == "success", told.decode()[-3000:]
        again = answer == "Approve"
        assert {given.row(ledger, number)["edition"] for number in numbers} == {2 if again else 1}
        assert {given.statuses(ledger)[number] for number in numbers} == {"sent"}
        assert store.store.totals()["events"] == (2 if again else 0)


def _waits(server: Server, process: subprocess.Popen[bytes]) -> str:
    """The path of the task instance that waits for an answer."""

    def waiting() -> list[dict[str, Any]]:
        found = server.airflow("/dags/instore_resend/dagRuns/~/taskInstances?state=awaiting_input&limit=1")
        return list(found["task_instances"])

    (task,) = _eventually(waiting, process)
    return f"/dags/instore_resend/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"


def _eventually(found: Callable[[], list[dict[str, Any]]], process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    until = time.monotonic() + 200
    while not (there := found()):
        assert process.poll() is None, (process.stdout or sys.stdin).read()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.5)
    return there
