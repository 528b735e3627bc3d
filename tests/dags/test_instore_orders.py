"""The DAG file: what the house asks of it, and one run of it by dag.test()."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk import CronDataIntervalTimetable
from alembic import command
from alembic.config import Config

from include.instore.model.errors import ConfigurationError
from include.instore_airflow import tasks
from include.instore_airflow.connections import open_ledger
from include.instore_airflow.destinations import DESTINATIONS, PROFILE_STORE
from include.instore_airflow.sources import SOURCES
from sandbox import week
from sandbox.loyalty import LoyaltyKeys, LoyaltyStandIn
from sandbox.profile_store import ProfileStoreStandIn
from sandbox.seed import send
from sandbox.servicebus import ServiceBusStandIn

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"), collect_dags=True)
    assert bag.import_errors == {}
    return bag.dags["instore_orders"]


def test_the_dag_is_hourly_in_utc_and_never_overlaps_itself(dag: Any) -> None:
    assert dag.timetable == CronDataIntervalTimetable("0 * * * *", timezone="UTC")
    assert dag.max_active_runs == 1
    assert dag.catchup is False


def test_the_tasks_follow_one_another_as_the_design_says(dag: Any) -> None:
    downstream = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    sources = ["drain_topic", "load_extracts", *(f"take_{name}" for name in SOURCES)]
    sends = ["batch.send_events", *(f"batch.send_events_to_{name}" for name in DESTINATIONS if name != PROFILE_STORE)]
    assert downstream == {
        **{name: ["plan_batches"] for name in sources},
        "plan_batches": sorted(["batch.look_up_customers", *sends, "report_run"]),
        "batch.look_up_customers": sorted([*sends, "report_run"]),
        **{name: ["report_run"] for name in sends},
        "report_run": [],
    }


def test_every_task_retries_but_the_report(dag: Any) -> None:
    retries = {task.task_id: task.retries for task in dag.tasks}
    assert retries.pop("report_run") == 0
    assert all(count >= 2 for count in retries.values())
    assert all(task.retry_delay >= timedelta(seconds=10) for task in dag.tasks)


def test_the_manual_is_the_file_s_docstring_and_every_task_says_what_it_does(dag: Any) -> None:
    assert "When it is red" in dag.doc_md
    for task in dag.tasks:
        assert task.doc_md or (task.python_callable.__doc__ if hasattr(task, "python_callable") else task.__doc__)


def test_the_send_task_has_the_button_to_the_events_of_its_own_destination(dag: Any) -> None:
    assert [link.name for link in dag.get_task("batch.send_events").operator_extra_links] == [
        "Events in the Profile Store"
    ]
    for destination, conn_id in (("profile_store", "instore_profile_store"), ("archive", "")):
        send = tasks.SendEventsOperator(task_id="send", batch={}, destination=destination)
        assert send.profile_store_conn_id == conn_id


def test_reading_the_dag_file_imports_neither_azure_nor_the_ledger_nor_what_it_does_not_use() -> None:
    """Triggers are for `INSTORE_WAKE_UP`. The file is imported again in every task process."""
    script = (
        "import sys; sys.path.insert(0, 'dags'); import instore_orders;"
        "print([name for name in ('azure.servicebus', 'sqlalchemy.dialects', 'requests', "
        "'include.instore.model.orders', 'instore_provider.triggers')"
        " if name in sys.modules])"
    )
    baseline = "import airflow.sdk, sys; print([n for n in ('requests', 'sqlalchemy.dialects') if n in sys.modules])"
    assert run_python(script).splitlines()[-1] == run_python(baseline).splitlines()[-1]


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> Path:
    home: Path = tmp_path_factory.mktemp("airflow")
    shutil.copy(airflow_database, home / "airflow.db")
    return home


def test_set_up_makes_every_pool_the_dag_names_in_the_settings_size(
    airflow_home: Path, dag: Any, tmp_path: Path
) -> None:
    wanted = {task.pool for task in dag.tasks} - {"default_pool"}
    assert len(wanted) == 2 + len(DESTINATIONS)
    arguments = (
        "import sys; sys.argv = ['instore', 'set-up', '--json', *{}]\n"
        "from include.instore_airflow.cli import app; app()"
    )

    def set_up(*flags: str, **env: str) -> dict[tuple[str, str], tuple[str, str]]:
        found = json.loads(run_python(arguments.format(list(flags)), airflow_home, env))["found"]
        return {(each["what"], each["name"]): (each["state"], each["detail"]) for each in found}

    would = set_up("--dry-run")
    assert {would["pool", name] for name in wanted} == {("created", "slots: 1"), ("created", "slots: 4")}
    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    first = set_up(AIRFLOW_CONN_INSTORE_LEDGER=json.dumps(ledger))
    assert first["ledger", "instore_ledger"] == ("created", "revision: 0004")
    assert {first["pool", name][0] for name in wanted} == {"created"}, "the dry run made them"
    assert first["connection", "instore_ledger"][0] == "there"
    assert first["connection", "instore_loyalty"] == ("missing", "Loyalty, with the provider's URL and key")
    assert ("subscription", "orders/orderprocessing") not in first
    with ServiceBusStandIn() as bus:
        connection = json.dumps({"conn_type": "azure_service_bus", "schema": bus.connection_string})
        again = set_up(INSTORE_POOL_LOYALTY="7", AIRFLOW_CONN_INSTORE_SERVICE_BUS=connection)
    assert again["subscription", "orders/orderprocessing"][0] == "not known"  # its administration has no TLS
    assert ("read-back", "instore_profile_store") not in first
    store = {"conn_type": "profile_store", "host": "http://127.0.0.1:9", "password": "k"}
    off = set_up("--dry-run", AIRFLOW_CONN_INSTORE_PROFILE_STORE=json.dumps(store))
    assert off["read-back", "instore_profile_store"][0] == "missing"
    assert off["read-back", "instore_profile_store"][1].startswith("off: read_host is empty")
    store["extra"] = {"read_host": "http://127.0.0.1:9", "read_api_key": "k"}
    on = set_up("--dry-run", AIRFLOW_CONN_INSTORE_PROFILE_STORE=json.dumps(store))
    assert on["read-back", "instore_profile_store"] == ("there", "")
    del store["password"]
    wrong = set_up("--dry-run", AIRFLOW_CONN_INSTORE_PROFILE_STORE=json.dumps(store))
    assert wrong["read-back", "instore_profile_store"][0] == "missing"
    assert again["pool", "instore_loyalty"] == ("changed", "slots: 7, before: 4")
    assert again["pool", "instore_bus"] == ("as it was", "slots: 1")
    assert set_up(INSTORE_POOL_LOYALTY="7")["pool", "instore_loyalty"] == ("as it was", "slots: 7")


RUN = (
    "import json\n"
    "from airflow.dag_processing.dagbag import DagBag\n"
    "run = DagBag('dags').dags['instore_orders'].test()\n"
    "from airflow.models.xcom import XComModel\n"
    "from airflow.utils.session import create_session\n"
    "with create_session() as session:\n"
    "    query = XComModel.get_many(key='return_value', task_ids='report_run', run_id=run.run_id)\n"
    "    value = session.execute(query).scalars().one().value\n"
    "mapped = [ti for ti in run.get_task_instances() if ti.map_index >= 0]\n"
    "labels = sorted([ti.task_id, ti.rendered_map_index] for ti in mapped)\n"
    "print(json.dumps([str(run.state.value), value, labels]))"
)


def run_of_sixty(
    home: Path, folder: Path, root: Path = ROOT, **others: dict[str, Any]
) -> tuple[str, dict[str, Any], list[list[str]], dict[str, int]]:
    """One run of the DAG by dag.test(): its state, counts and labels, and what the Profile Store holds after it.

    :param root: where the product is. :param others: more connections.
    """
    keys = LoyaltyKeys("loyalty-key", "id", "secret")
    (folder / "extracts").mkdir()
    with (
        ServiceBusStandIn() as bus,
        LoyaltyStandIn(week.MEMBERS, keys) as loyalty,
        ProfileStoreStandIn("store-key") as store,
    ):
        send(list(week.messages())[:60], bus.connection_string, "orders")
        connections = {
            "instore_service_bus": {"conn_type": "azure_service_bus", "schema": bus.connection_string},
            "instore_loyalty": {"conn_type": "loyalty", "host": loyalty.url, "password": "loyalty-key"},
            "instore_profile_store": {"conn_type": "profile_store", "host": store.url, "password": "store-key"},
            "instore_extracts": {"conn_type": "fs", "extra": {"path": str(folder / "extracts")}},
            "instore_ledger": {"conn_type": "sqlite", "host": str(folder / "ledger.db")},
            **others,
        }
        env = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}
        env["INSTORE_DEADLINE_MINUTES"] = "0"  # dag.test() of 3.3.2 breaks on any deadline: it never gave it an id
        state, counts, labels = json.loads(run_python(RUN, home, env, root).splitlines()[-1])
        return state, counts, labels, store.store.totals()


def test_one_run_by_dag_test_sends_what_was_published(airflow_home: Path, tmp_path: Path) -> None:
    state, counts, labels, held = run_of_sixty(airflow_home, tmp_path)
    assert state == "success"
    # One has no card.
    assert labels == [[f"batch.{task}", "batch 0, 59 orders"] for task in ("look_up_customers", "send_events")]
    assert counts["received"] == counts["orders"] == 60
    assert counts["sent"] + counts["unmatched"] == 60
    assert counts["sent"] > 40
    assert held["events"] == held["track_ids"] == counts["sent"]
    # What other DAGs can be scheduled on, and read.
    with contextlib.closing(sqlite3.connect(airflow_home / "airflow.db")) as database:
        name, extra = database.execute(
            "SELECT a.name, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id"
        ).fetchall()[-1]
    wanted = ("run_kind", "received", "orders", "sent", "unmatched", "quarantined")
    assert name == "instore_orders"
    assert {each: json.loads(extra)[each] for each in wanted} == {each: counts[each] for each in wanted}


def recipes() -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """What CONTRIBUTING.md says: new files with their text, and of each list what its one line comes behind."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    files = dict(re.findall(r"```python\n# (include/\S+)\n(.*?)```", page, re.DOTALL))
    lines = {
        name: (after, added) for name, after, added in re.findall(r"In `(\S+)`:\n\n```diff\n (.*?)\n\+(.*?)\n", page)
    }
    return files, lines


@pytest.fixture(scope="module")
def as_contributing_says(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product with another source and another destination: one new file each, and one line each."""
    root: Path = tmp_path_factory.mktemp("product")
    for name in ("dags", "include", "plugins"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    files, lines = recipes()
    assert len(files) == len(lines) == 2
    for name, text in files.items():
        assert not (root / name).exists()
        (root / name).write_text(text)
    for name, (after, added) in lines.items():
        listed = (root / name).read_text()
        assert listed.count(f"{after}\n") == 1
        (root / name).write_text(listed.replace(f"{after}\n", f"{after}\n{added}\n"))
    return root


def test_another_source_and_destination_are_one_new_file_and_one_line_each(
    as_contributing_says: Path, airflow_home: Path, tmp_path: Path
) -> None:
    home, tills, archive = (tmp_path / name for name in ("home", "tills", "archive"))
    for folder in (home, tills, archive):
        folder.mkdir()
    shutil.copy(airflow_home / "airflow.db", home / "airflow.db")
    pools = "import sys; sys.argv = ['instore', 'set-up', '--json']\nfrom include.instore_airflow.cli import app; app()"
    made = json.loads(run_python(pools, home, root=as_contributing_says))["found"]
    assert "instore_archive" in {each["name"] for each in made if each["what"] == "pool"}
    order = {"date": "2017-06-05T08:00:00Z", "storeId": "1", "currency": "USD", "total": "1.10"}
    card = min(week.matched_cards())
    (tills / "1.json").write_text(json.dumps(order | {"orderNumber": "T1", "loyaltyCardNumber": card}))
    (tills / "2.json").write_text("{}")
    connections = {
        name: {"conn_type": "generic", "extra": {"path": str(folder)}}
        for name, folder in {"tills": tills, "archive": archive}.items()
    }
    state, counts, labels, held = run_of_sixty(home, tmp_path, as_contributing_says, **connections)
    assert state == "success"
    assert [task for task, _ in labels] == [
        "batch.look_up_customers", "batch.send_events", "batch.send_events_to_archive",
    ]  # fmt: skip
    assert (counts["received"], counts["quarantined_by_reason"]) == (62, {"missing_field": 1})
    sent = counts["by_destination"]["profile_store"]["sent"]
    assert counts["by_destination"] == {"archive": {"sent": sent}, "profile_store": {"sent": sent}}
    assert sent > 40
    assert held["events"] == sent
    kept = [json.loads(path.read_text()) for path in archive.iterdir()]
    assert len(kept) == sent
    assert "T1" in {each["order"]["orderNumber"] for each in kept}
    assert list(tills.iterdir()) == [], "a source is told what was landed"


def run_python(script: str, home: Path | None = None, env: dict[str, str] | None = None, root: Path = ROOT) -> str:
    path = os.pathsep.join([str(root), str(root / "plugins")])
    environ = os.environ | {"PYTHONPATH": path, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"} | (env or {})
    if home is not None:
        environ |= {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_a_ledger_of_an_older_release_is_refused_until_set_up_migrates_it(
    airflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    ledger = {"conn_type": "sqlite", "host": str(path)}
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps(ledger))
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "include/instore/ledger/migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    with pytest.raises(ConfigurationError, match=r"older release \(revision 0003, this one needs 0004\); back it up"):
        open_ledger()

    set_up = (
        "import sys; sys.argv = ['instore', 'set-up', '--json', {}]\nfrom include.instore_airflow.cli import app; app()"
    )
    states = []
    for flag in ("'--dry-run'", "", ""):
        script = set_up.format(flag).replace(", ]", "]")
        found = json.loads(run_python(script, airflow_home, {"AIRFLOW_CONN_INSTORE_LEDGER": json.dumps(ledger)}))[
            "found"
        ]
        states += [(each["state"], each["detail"]) for each in found if each["what"] == "ledger"]
    changed = ("changed", "revision: 0004, before: 0003")
    assert states == [changed, changed, ("as it was", "revision: 0004")]
    open_ledger().close()

    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"newer release than this one \(revision 9999, newest known 0004\)"):
        open_ledger()


def test_a_resend_waits_for_approval_before_its_plan() -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DagBag(str(ROOT / "dags"), collect_dags=True).dags["instore_resend"]
    assert dag.get_task("plan_batches").upstream_task_ids == {"approve", "describe_list"}
    assert dag.get_task("approve").response_timeout == timedelta(days=1)
    assert {task.task_id for task in dag.tasks} == {
        "describe_list", "approve", "plan_batches", "batch.look_up_customers", "report_run",
        *(task.task_id for task in dag.tasks if task.task_id.startswith("batch.send_events")),
    }  # fmt: skip
    kept = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert [link.name for link in kept.get_task("report_run").operator_extra_links] == ["The run's counts"]
