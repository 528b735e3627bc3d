"""The servers, started once for all tests here, and a task run on a connection as Airflow reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from sshfs import SSHFileSystem

from include.instore_airflow import tasks
from sandbox import week
from tests.storages.standing import Azurite, Sftp

_numbers = count()
Connect = Callable[..., None]


class Place(NamedTuple):
    """A folder of extracts on a storage: the connection that leads to it, and how a file is laid into it."""

    connection: dict[str, Any]
    lay: Callable[[str, bytes], None]


@pytest.fixture(autouse=True)
def nothing_opened_before() -> None:
    """In this one process fsspec would hand out what another test has opened, with that one's known hosts."""
    SSHFileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sftp]:
    server = Sftp(tmp_path_factory.mktemp("sftp"))
    yield server
    server.stop()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Connect:
    """Set connection instore_extracts; the ledger is a new one."""

    def setter(conn_type: str, **fields: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_INSTORE_EXTRACTS", json.dumps({"conn_type": conn_type, **fields}))

    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("INSTORE_EXTRACT_MIN_AGE", "0")
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps(ledger))
    return setter


def run() -> dict[str, Any]:
    """The counts of task load_extracts in a run of its own."""
    dates = dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "conf"))
    dates |= {"dag_id": "instore_orders", "run_id": f"manual__{next(_numbers)}"}
    dag_run = SimpleNamespace(run_type="manual", clear_number=0, **dates)
    return tasks.load_extracts(dag_run, {})


@contextmanager
def azure_place(azurite: Azurite) -> Iterator[Place]:
    name = f"extracts{next(_numbers)}"
    with azurite.container(name) as container:
        extra = {"connection_string": azurite.connection_string, "path": f"abfs://{name}/orders"}
        yield Place(
            {"conn_type": "wasb", "extra": extra},
            lambda path, content: container.upload_blob(f"orders/{path}", content, overwrite=True),
        )


@contextmanager
def folder_place(root: Path, **connection: Any) -> Iterator[Place]:
    def lay(path: str, content: bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    root.mkdir()
    yield Place(connection, lay)
    shutil.rmtree(root)


@pytest.fixture(params=["azure", "sftp", "fs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty folder on each storage that a connection leads to."""
    if request.param == "azure":
        opened = azure_place(request.getfixturevalue("azurite"))
    elif request.param == "sftp":
        sftp: Sftp = request.getfixturevalue("sftp")
        name = f"extracts{next(_numbers)}"
        opened = folder_place(sftp.root / name, **sftp.connection(f"/{name}"))
    else:
        opened = folder_place(tmp_path / "extracts", conn_type="fs", extra={"path": str(tmp_path / "extracts")})
    with opened as made:
        yield made


def lay_week(lay: Callable[[str, bytes], Any]) -> None:
    for file in week.extracts():
        lay(str(file.relative_to(week.WEEK / "extracts")), file.read_bytes())
