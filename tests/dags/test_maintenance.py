"""The DAGs beside the hourly one: what the house asks of each, and a run of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk.exceptions import AirflowFailException

from include.instore.ledger import Ledger
from include.instore.ledger.tables import orders, quarantine
from include.instore_airflow import maintenance
from include.instore_airflow.alerting import maintenance_failed
from tests.alerts.channels import Webhook
from tests.dags.test_instore_orders import ROOT, run_python
from tests.instore import given

BESIDE = ("instore_check_connections", "instore_erase", "instore_maintenance", "instore_resend")


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"), collect_dags=True)
    assert bag.import_errors == {}
    return dict(bag.dags)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("INSTORE_USE_TOPIC", "off")
    with closing(Ledger(f"sqlite:///{path}", hash_key="the-hash-key-of-the-tests")) as opened:
        opened.migrate()
        yield opened


def test_each_has_its_manual_and_runs_one_at_a_time_or_by_hand(dags: dict[str, Any]) -> None:
    assert sorted(dags) == sorted([*BESIDE, "instore_orders"])
    for name in BESIDE:
        dag = dags[name]
        assert dag.doc_md
        assert not dag.catchup
        assert all(task.doc_md or task.python_callable.__doc__ for task in dag.tasks)
        assert dag.max_active_runs == 1 or name == "instore_check_connections"
    assert [name for name in BESIDE if dags[name].timetable.can_be_scheduled] == ["instore_maintenance"]


@pytest.mark.parametrize("name", BESIDE)
def test_reading_the_file_imports_neither_azure_nor_the_ledger(name: str) -> None:
    script = (
        f"import sys; sys.path.insert(0, 'dags'); import {name};"
        "print([each for each in ('azure.servicebus', 'include.instore.ledger.tables') if each in sys.modules])"
    )
    assert run_python(script).splitlines()[-1] == "[]"


def test_nothing_of_a_person_is_typed_into_the_form(dags: dict[str, Any]) -> None:
    """Airflow keeps the conf of a run for ever."""
    assert set(dags["instore_erase"].params) == {"variable", "dry_run"}


def test_pruning_is_red_when_somebody_should_have_settled_what_it_gave_up(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.landed(ledger, given.document("S1", loyaltyCardNumber=None), refusals=[given.refused()])
    monkeypatch.setenv("INSTORE_RETENTION_DAYS_QUARANTINE", "1")
    assert maintenance.prune()["quarantine"] == 0
    with ledger.engine.begin() as connection:
        for table in (orders, quarantine):
            connection.execute(sa.update(table).values(received_at=given.hours_ago(25)))
    with pytest.raises(AirflowFailException, match=r"1 quarantined records .* quarantine list"):
        maintenance.prune()
    assert maintenance.prune()["quarantine"] == 0


def test_a_failed_run_is_told_once_and_says_where_to_look(
    dags: dict[str, Any], connect: Callable[..., None], webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    maintenance_failed({"dag": dags["instore_maintenance"], "run_id": "scheduled__x"})
    assert [each["title"] for each in webhook.told] == ["In-store orders: instore_maintenance failed"]
    assert "/dags/instore_maintenance/runs/scheduled__x" in webhook.told[0]["message"]


ERASE = (
    "import json\n"
    "from airflow.models.variable import Variable\n"
    "from airflow.dag_processing.dagbag import DagBag\n"
    "Variable.set('instore_erase_secret', '{words}')\n"
    "dag = DagBag('dags').dags['instore_erase']\n"
    "run = dag.test(run_conf={{'dry_run': False}})\n"
    "print(json.dumps([str(run.state.value), Variable.get('instore_erase_secret', default_var=None)]))"
)


@pytest.mark.timeout(400)
def test_the_erasing_dag_reads_the_variable_and_removes_it(
    ledger: Ledger, airflow_database: Path, tmp_path: Path
) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2", loyaltyCardNumber="1234567"))
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(airflow_database, home / "airflow.db")
    done = run_python(
        ERASE.format(words=f"{given.CARD} {given.CANARY}@example.com"),
        home,
        {"INSTORE_ERASURE_RECEIPTS": str(tmp_path), "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"},
    )
    assert json.loads(done.splitlines()[-1]) == ["success", None]
    assert not [text for text in (given.CARD, given.CANARY) if text in done]
    assert [each["pruned_at"] is None for each in given.rows(ledger, "orders")] == [False, True]
    assert len(list(tmp_path.glob("erased-*.json"))) == 1
