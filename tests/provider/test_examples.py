"""The example DAGs of the provider, run as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import instore_provider
import pytest
from instore_provider import errors, events
from instore_provider.hooks import loyalty, profile_store
from instore_provider.operators import profile_store as operator

from tests.provider.conftest import LOYALTY_KEY, READ_KEY, ROOT, TRACKING_KEY
from tests.provider.wire import Reply, Wire

EXAMPLES = ROOT / "plugins/examples"
SCRIPT = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
name = sys.argv[1]
run = DagBag(sys.argv[2]).dags[name].test()
with create_session() as session:
    stored = session.query(XComModel).filter_by(run_id=run.run_id, dag_id=name, key="return_value")
    values = [XComModel.deserialize_value(each) for each in stored]
print("@@@", json.dumps([str(run.state.value), values]))
"""


def run(environment: dict[str, str], name: str, conn_id: str, **fields: Any) -> tuple[str, list[Any], str]:
    """An example's state, what its tasks returned, and its log."""
    given = {**environment, f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(fields)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(EXAMPLES)],
        env=given | {"AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    log, _, result = done.stdout.partition("@@@")
    state, values = json.loads(result)
    return state, values, log


def test_a_plain_list_is_sent(airflow_environment: dict[str, str], wire: Wire) -> None:
    wire.on("/api/v1.0/TrackBulk", Reply(202))
    extra = {"read_host": wire.url, "read_api_key": READ_KEY}
    fields = {"conn_type": "profile_store", "host": wire.url, "password": TRACKING_KEY, "extra": extra}
    state, returned, log = run(airflow_environment, "send_a_list", "profile_store_default", **fields)
    assert state == "success"
    assert {"events": 2, "accepted": 2, "refused": 0, "unsent": 0, "ambiguous": 0} in returned
    (seen,) = wire.seen
    assert [each["user"]["email"] for each in seen.json] == ["jane@example.com", "john@example.com"]
    assert [each["payload"] for each in seen.json] == [{"issue": "2026-48", "clicks": 3}] * 2
    assert "jane@example.com" not in log


def test_a_card_is_looked_up(airflow_environment: dict[str, str], wire: Wire) -> None:
    member = {"loyaltyCardNumber": "6035770741165744", "email": "jane@example.com", "status": "active"}
    wire.on("/customers/by-loyalty-card/6035770741165744", Reply(200, member))
    fields = {"conn_type": "loyalty", "host": wire.url, "password": LOYALTY_KEY, "extra": {}}
    state, returned, log = run(airflow_environment, "look_a_card_up", "loyalty_default", **fields)
    assert (state, returned) == ("success", ["matched"])
    assert "jane@example.com" not in log


@pytest.mark.parametrize(
    "module",
    [instore_provider, errors, events, loyalty, profile_store, operator],
    ids=lambda module: module.__name__.removeprefix("instore_provider"),
)
def test_what_a_module_offers_is_there_and_says_what_it_is(module: Any) -> None:
    assert module.__all__ == sorted(module.__all__, key=lambda name: (name[0] == "_", name))
    for name in module.__all__:
        assert hasattr(module, name)
