"""The page in Airflow's real API server, over a ledger and a bus of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.instore.ledger import Ledger
from sandbox.servicebus import ServiceBusStandIn
from tests.page.serving import Server, filled, serving


@pytest.fixture(scope="module")
def bus() -> Iterator[ServiceBusStandIn]:
    with ServiceBusStandIn() as broker:
        yield broker


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db"
    opened = filled(Ledger(url, hash_key="the-hash-key-of-the-tests"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, airflow_database: Path, ledger: Ledger, bus: ServiceBusStandIn
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("api-server")
    shutil.copy(airflow_database, home / "airflow.db")
    connection = json.dumps({"conn_type": "azure_service_bus", "schema": bus.connection_string})
    more = {"AIRFLOW_CONN_INSTORE_SERVICE_BUS": connection, "INSTORE_RESEND_APPROVAL": "1"}
    with serving(home, ledger, **more) as served:
        yield served
