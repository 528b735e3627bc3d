"""The extracts on real storages, by the task's own code: Azure Blob Storage, SFTP, a folder, and fsspec's memory."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from fsspec.implementations.memory import MemoryFileSystem

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.model.settings import Settings, load_settings
from include.instore.sources.extracts import Storage, load_extracts
from include.instore.sources.extracts.discovery import find_extracts
from include.instore_airflow.connections import extracts
from tests.instore import given
from tests.instore.sources.extracts.rows import orders_text
from tests.storages.conftest import Connect, Place, azure_place, lay_week, run
from tests.storages.standing import Azurite, Sftp


def counts(loaded: dict[str, Any]) -> tuple[int, int, int]:
    return loaded["orders"], loaded["files"], loaded["quarantined"] + loaded["left_files"] + loaded["unread_files"]


def test_the_week_is_loaded_once(place: Place, connect: Connect) -> None:
    lay_week(place.lay)
    connect(**place.connection)
    assert counts(run()) == (1002, 7, 0)
    assert counts(run()) == (0, 0, 0)


def test_a_file_laid_into_an_old_folder_is_loaded(place: Place, connect: Connect) -> None:
    place.lay("2017/06/05/a.csv", orders_text("S1").encode())
    connect(**place.connection)
    assert counts(run()) == (1, 1, 0)
    place.lay("2017/03/05/late.csv", orders_text("S2").encode())
    assert counts(run()) == (1, 1, 0)
    place.lay("2017/06/05/a.csv", orders_text("S1", "S3").encode())
    assert counts(run()) == (1, 1, 0)
    assert counts(run()) == (0, 0, 0)


def test_a_late_file_with_an_old_date_of_its_own_is_loaded(sftp: Sftp, connect: Connect) -> None:
    folder = sftp.root / "old/2017/03/05"
    folder.mkdir(parents=True)
    connect(**sftp.connection("/old"))
    assert counts(run()) == (0, 0, 0)
    (folder / "late.csv").write_text(orders_text("S1"))
    for path in (folder / "late.csv", folder):
        os.utime(path, (time.time() - 90 * 86400,) * 2)
    assert counts(run()) == (1, 1, 0)


@pytest.mark.parametrize("name", ["shop #1.csv", "what?.csv", "a%20b.csv", "über.csv", "[1].csv"])
def test_a_file_is_read_whatever_its_name(place: Place, connect: Connect, name: str) -> None:
    place.lay(name, orders_text("S1").encode())
    connect(**place.connection)
    assert counts(run()) == (1, 1, 0)


def test_marker_blobs_of_folders_hide_nothing_and_are_no_files(azurite: Azurite, connect: Connect) -> None:
    with azure_place(azurite) as place:
        path = place.connection["extra"]["path"]
        with azurite.container(path.split("/")[2]) as container:
            container.upload_blob("orders", b"", metadata={"hdi_isfolder": "true"})
            container.upload_blob("orders/2017", b"", metadata={"Hdi_isfolder": "true"})
            container.upload_blob("orders/2018.csv", b"", metadata={"hdi_isfolder": "true"})
            container.upload_blob("orders/2017/06/", b"")
        place.lay("2017/06/a.csv", orders_text("S1").encode())
        connect(**place.connection)
        assert counts(run()) == (1, 1, 0)


def test_a_listing_of_several_pages_is_compared_with_the_ledger_a_page_at_a_time(
    azurite: Azurite, connect: Connect
) -> None:
    """Azure answers 5,000 blobs a page at most."""
    names = [f"{number:05}.csv" for number in range(5001)]
    asked: list[list[str]] = []

    def loaded(page: Sequence[str]) -> dict[str, str]:
        asked.append(list(page))
        return {}

    with azure_place(azurite) as place:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: place.lay(name, b"order_number\n"), names))
        connect(**place.connection)
        found = find_extracts(extracts(Settings()), given.run(), loaded, load_settings(extract_min_age=0))
    assert [file.name for file in found.due] == names
    assert [len(page) for page in asked] == [500] * 10 + [1]


def test_the_week_is_loaded_once_from_memory(tmp_path: Path) -> None:
    filesystem = MemoryFileSystem()
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger:
        ledger.migrate()
        open_run(ledger, given.run())
        lay_week(lambda path, content: filesystem.pipe_file(f"/extracts/{path}", content))
        storage = Storage(filesystem, "/extracts")
        assert load_extracts(storage, ledger, given.run(), load_settings(extract_min_age=0)).landed.orders == 1002
        assert load_extracts(storage, ledger, given.run(), load_settings(extract_min_age=0)).files == 0
        filesystem.pipe_file("/extracts/2017/03/05/late.csv", orders_text("late").encode())
        assert load_extracts(storage, ledger, given.run(), load_settings(extract_min_age=0)).landed.orders == 1
    filesystem.rm("/extracts", recursive=True)


def sentence(told: type[AirflowException]) -> str:
    """What the task ends with, as a person reads it."""
    with pytest.raises(AirflowException) as caught:
        run()
    assert type(caught.value).__name__ == told.__name__ or isinstance(caught.value, told)
    assert isinstance(caught.value, AirflowFailException) == (told is AirflowFailException)
    assert given.CANARY not in str(caught.value)
    assert "instore_extracts" in str(caught.value)
    return str(caught.value)


def test_a_missing_container_is_named(azurite: Azurite, connect: Connect) -> None:
    extra = {"connection_string": azurite.connection_string, "path": "abfs://nothing/orders"}
    connect("wasb", extra=extra)
    assert "does not exist" in sentence(AirflowFailException)


def test_a_missing_folder_is_named(sftp: Sftp, connect: Connect) -> None:
    connect(**sftp.connection("/nothing"))
    assert "does not exist" in sentence(AirflowFailException)


def test_a_wrong_account_key_is_named(azurite: Azurite, connect: Connect) -> None:
    wrong = azurite.connection_string.replace("AccountKey=Eby8", "AccountKey=AAAA")
    connect("wasb", extra={"connection_string": wrong, "path": "abfs://extracts/orders"})
    assert "refused the login" in sentence(AirflowFailException)


@pytest.mark.parametrize(
    "changes",
    [
        {"password": given.CANARY},
        {"extra": {"path": "sftp://erp/", "host_key": given.CANARY}},
        {"extra": {"path": "sftp://erp/", "private_key": given.CANARY}},
    ],
)
def test_a_wrong_sftp_key_is_named(sftp: Sftp, connect: Connect, changes: dict[str, Any]) -> None:
    connect(**sftp.connection("/", **changes))
    assert "refused the login" in sentence(AirflowFailException)


@pytest.mark.parametrize("no_host_key_check", ["true", "false"])
def test_a_server_whose_host_key_nobody_knows_is_refused(
    sftp: Sftp, connect: Connect, no_host_key_check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    connect(**sftp.connection("/", extra={"path": "sftp://erp/", "no_host_key_check": no_host_key_check}))
    assert "host_key" in sentence(AirflowFailException)


@pytest.mark.parametrize("url", ["memory://extracts", "abfs://extracts", "abfss://extracts"])
def test_a_connection_that_does_not_fit_its_url_is_named(connect: Connect, url: str) -> None:
    connect("fs", extra={"path": url})
    assert url.partition("://")[0] in sentence(AirflowFailException)


def test_an_sftp_server_that_is_away_is_tried_again(connect: Connect, tmp_path: Path) -> None:
    server = Sftp(tmp_path)
    connect(**server.connection("/"))
    run()
    server.stop()
    assert "could not be read" in sentence(AirflowException)


def test_the_login_of_an_sftp_server_is_not_in_the_log(
    sftp: Sftp, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("asyncssh").setLevel(logging.NOTSET)
    caplog.set_level(logging.INFO)
    (sftp.root / "logged").mkdir()
    connect(**sftp.connection("/logged"))
    run()
    assert f"user {sftp.user}" not in caplog.text
