"""Which files are due: window, version, still being written, markers, formats."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFileSystem

from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.sources.extracts.discovery import ExtractFile, Found, find_extracts
from include.instore.sources.extracts.formats import is_read
from include.instore.sources.extracts.storage import Storage
from tests.instore import given

MakeSettings = Callable[..., Settings]


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("order_number\n")


def find(root: Any, run: Run, loaded: Mapping[str, str], settings: Settings) -> Found:
    """Find with a ledger that knows these versions; the root is a folder of this machine, or a file system."""
    storage = Storage.local(root) if isinstance(root, Path) else Storage(root, "/extracts")
    return find_extracts(storage, run, lambda _: loaded, settings)


def names(found: Found) -> list[str]:
    return [file.name for file in found.due]


def backfill(start: str, end: str) -> Run:
    return given.run("b", "backfill", window=given.window(start, end), loads_any_extract=False, claims="in_window")


def test_every_file_of_a_known_format_is_due_in_name_order(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, "b.csv", "a.csv.gz", "sub/c.JSONL", "sub/d.ndjson.gz", "e.tsv", "f.pdf", "g", "h.gz")
    found = find(tmp_path, given.run(), {}, settings())
    assert names(found) == ["a.csv.gz", "b.csv", "e.tsv", "sub/c.JSONL", "sub/d.ndjson.gz"]
    assert (len(found.left), [file.name for file in found.unread]) == (0, ["f.pdf", "g", "h.gz"])


@pytest.mark.parametrize(
    "name", ["a.csv", "A.CSV.GZ", "a.tsv", "a.jsonl", "a.ndjson.gz", "a.json", "a.csv.zip", "a.parquet"]
)
def test_formats_are_known_by_name(name: str, settings: MakeSettings) -> None:
    assert is_read(name, settings())


@pytest.mark.parametrize("name", ["a", "a.gz", "csv", "a.xlsx", "a.xml"])
def test_other_endings_name_no_format(name: str, settings: MakeSettings) -> None:
    assert not is_read(name, settings())


def test_an_adapter_reads_files_of_any_ending(tmp_path: Path, settings: MakeSettings) -> None:
    declared = tmp_path / "till.yaml"
    declared.write_text("format: json\n")
    chosen = settings(extract_adapters={"till/*": str(declared)})
    assert is_read("till/orders.dat", chosen)
    assert not is_read("other/orders.dat", chosen)


def test_a_file_is_due_once_per_version(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, "a.csv")
    (first,) = find(tmp_path, given.run(), {}, settings()).due
    loaded = {"a.csv": first.version}
    assert find(tmp_path, given.run(), loaded, settings()).due == ()
    os.utime(tmp_path / "a.csv", (1, 1))
    (touched,) = find(tmp_path, given.run(), loaded, settings()).due
    with (tmp_path / "a.csv").open("a") as file:
        file.write("more")
    os.utime(tmp_path / "a.csv", (1, 1))
    (grown,) = find(tmp_path, given.run(), loaded, settings()).due
    assert len({first.version, touched.version, grown.version}) == 3


@pytest.mark.parametrize("name", ["a.csv.tmp", "a.csv.partial", "a.csv.gz.filepart", "A.CSV.TMP", "a.csv.crdownload"])
def test_a_file_with_the_name_of_one_still_being_written_is_left(
    tmp_path: Path, settings: MakeSettings, name: str
) -> None:
    put(tmp_path, name)
    found = find(tmp_path, given.run(), {}, settings())
    assert (names(found), len(found.left), found.unread) == ([], 1, ())


@pytest.mark.parametrize("name", [".a.csv", "_orders.csv", "sub/.orders.jsonl.gz"])
def test_hidden_files_are_not_read_and_told_of(tmp_path: Path, settings: MakeSettings, name: str) -> None:
    put(tmp_path, name)
    found = find(tmp_path, given.run(), {}, settings())
    assert (found.due, len(found.left), [file.name for file in found.unread]) == ((), 0, [name])
    (file,) = found.unread
    assert find(tmp_path, given.run(), {name: file.version}, settings()).unread == ()


@pytest.mark.parametrize("name", ["_SUCCESS", ".DS_Store", "_temporary/a.csv", "sub/.hidden/a.csv"])
def test_what_a_folder_has_for_itself_is_no_extract(tmp_path: Path, settings: MakeSettings, name: str) -> None:
    put(tmp_path, name)
    assert find(tmp_path, given.run(), {}, settings()) == Found((), {}, ())


@pytest.mark.parametrize("glob", ["**/*", "**/*.csv"])
@pytest.mark.parametrize(
    ("marker", "beside"),
    [("_SUCCESS", "05/_SUCCESS"), (".done", "05/a.csv.done")],
)
def test_a_file_waits_for_its_marker(
    tmp_path: Path, settings: MakeSettings, marker: str, beside: str, glob: str
) -> None:
    asked = settings(extract_marker=marker, extract_glob=glob)
    put(tmp_path, "05/a.csv", "06/a.csv", f"06/other.csv{marker}")
    found = find(tmp_path, given.run(), {}, asked)
    assert (names(found), len(found.left)) == ([], 2)
    put(tmp_path, beside)
    found = find(tmp_path, given.run(), {}, asked)
    assert (names(found), len(found.left), found.unread) == (["05/a.csv"], 1, ())


def test_a_young_file_waits(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, "young.csv", "old.csv")
    os.utime(tmp_path / "old.csv", (time.time() - 120, time.time() - 120))
    found = find(tmp_path, given.run(), {}, settings(extract_min_age=60))
    assert (names(found), len(found.left)) == (["old.csv"], 1)
    (why,) = found.left.values()
    assert why == "it was changed less than 60 s before it was looked at"


@pytest.mark.parametrize(
    "name", ["orders-2017-06-05.csv", "2017/06/05/orders.csv", "orders_20170605.csv", "2016-12-31/orders-20170605.csv"]
)
def test_a_backfill_finds_the_files_of_its_days_by_the_date_in_their_path(
    tmp_path: Path, settings: MakeSettings, name: str
) -> None:
    put(tmp_path, name, "orders-2017-06-06.csv", "orders-2017-06-04.csv")
    assert names(find(tmp_path, backfill("2017-06-05", "2017-06-06"), {}, settings())) == [name]
    assert name in names(find(tmp_path, backfill("2017-06-05T10:00:00", "2017-06-05T11:00:00"), {}, settings()))
    assert len(names(find(tmp_path, backfill("2017-06-04", "2017-06-07"), {}, settings()))) == 3


@pytest.mark.parametrize("name", ["orders.csv", "orders-2017-13-45.csv", "store-1234567890.csv"])
def test_a_file_without_a_date_in_its_path_belongs_to_the_moment_it_was_changed(
    tmp_path: Path, settings: MakeSettings, name: str
) -> None:
    put(tmp_path, name)
    at = given.moment("2017-06-05T10:00:00").timestamp()
    os.utime(tmp_path / name, (at, at))
    assert names(find(tmp_path, backfill("2017-06-05", "2017-06-06"), {}, settings())) == [name]
    assert names(find(tmp_path, backfill("2017-06-06", "2017-06-07"), {}, settings())) == []


def test_a_backfill_loads_a_file_again_only_when_it_changed(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, "orders-2017-06-05.csv")
    run = backfill("2017-06-05", "2017-06-06")
    (file,) = find(tmp_path, run, {}, settings()).due
    assert names(find(tmp_path, run, {file.name: file.version}, settings())) == []
    assert names(find(tmp_path, run, {file.name: "7:old"}, settings())) == [file.name]


def test_a_run_without_a_window_that_loads_no_other_file_finds_none(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, "a.csv")
    run = given.run("b", "backfill", loads_any_extract=False)
    assert find(tmp_path, run, {}, settings()).due == ()


def test_a_glob_chooses_the_extracts(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, "orders/a.csv", "stock/b.csv")
    assert names(find(tmp_path, given.run(), {}, settings(extract_glob="orders/*.csv"))) == ["orders/a.csv"]


@pytest.mark.parametrize("make", ["nothing", "file"])
def test_a_missing_folder_is_a_configuration_error_that_names_the_connection(
    tmp_path: Path, settings: MakeSettings, make: str
) -> None:
    root = tmp_path / given.CANARY
    if make == "file":
        root.write_text("")
    with pytest.raises(ConfigurationError, match="instore_extracts") as caught:
        find(root, given.run(), {}, settings())
    assert given.CANARY not in str(caught.value)


class Failing(MemoryFileSystem):
    """Storage that fails at its first call."""

    def __init__(self, error: Exception) -> None:
        super().__init__(skip_instance_cache=True)
        self.error = error

    def info(self, path: str, **kwargs: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError, TimeoutError, asyncio.TimeoutError, FSTimeoutError, ServiceRequestError, asyncssh.ConnectionLost]
)
def test_a_storage_that_does_not_answer_is_an_error_to_try_again(
    settings: MakeSettings, error: type[Exception]
) -> None:
    with pytest.raises(RetriableError, match="instore_extracts") as caught:
        find(Failing(error(f"https://account/?sig={given.CANARY}")), given.run(), {}, settings())
    assert given.CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [PermissionError, asyncssh.SFTPPermissionDenied])
def test_a_missing_permission_is_named_and_tried_again(settings: MakeSettings, error: type[Exception]) -> None:
    with pytest.raises(RetriableError, match="instore_extracts may not read the extracts"):
        find(Failing(error(given.CANARY)), given.run(), {}, settings())


@pytest.mark.parametrize("error", [ClientAuthenticationError, asyncssh.PermissionDenied, asyncssh.HostKeyNotVerifiable])
def test_a_key_that_is_refused_is_for_a_person_to_correct(settings: MakeSettings, error: type[Exception]) -> None:
    with pytest.raises(ConfigurationError, match="instore_extracts refused the login") as caught:
        find(Failing(error(given.CANARY)), given.run(), {}, settings())
    assert given.CANARY not in str(caught.value)


@pytest.mark.parametrize("bug", [NotImplementedError, TypeError, KeyError, AttributeError])
def test_a_bug_of_ours_is_not_taken_for_trouble_of_the_storage(settings: MakeSettings, bug: type[Exception]) -> None:
    with pytest.raises(bug):
        find(Failing(bug()), given.run(), {}, settings())


def test_a_folder_that_is_gone_between_two_looks_is_an_error_to_try_again(settings: MakeSettings) -> None:
    class Gone(MemoryFileSystem):
        def info(self, path: str, **kwargs: Any) -> Any:
            return {"type": "directory"}

    with pytest.raises(RetriableError, match="instore_extracts"):
        find(Gone(skip_instance_cache=True), given.run(), {}, settings())


def test_a_glob_that_cannot_be_read_names_its_setting(tmp_path: Path, settings: MakeSettings) -> None:
    with pytest.raises(ConfigurationError, match="INSTORE_EXTRACT_GLOB"):
        find(tmp_path, given.run(), {}, settings(extract_glob="**.csv"))


def test_the_ledger_is_asked_for_a_page_of_names_at_a_time(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, *(f"{number:05}.csv" for number in range(1200)))
    asked: list[list[str]] = []

    def loaded(names: Sequence[str]) -> dict[str, str]:
        asked.append(list(names))
        return {}

    found = find_extracts(Storage.local(tmp_path), given.run(), loaded, settings())
    assert [len(page) for page in asked] == [500, 500, 200]
    assert [file.name for file in found.due] == [name for page in asked for name in page]


def test_names_and_versions_of_files_of_this_machine_stay_what_the_ledger_holds(
    tmp_path: Path, settings: MakeSettings
) -> None:
    put(tmp_path, "2017/06/orders.csv", "a.csv", "real.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    os.utime(tmp_path / "a.csv", (0, 0))
    found = find(tmp_path, given.run(), {}, settings())
    paths = [tmp_path / name for name in ("2017/06/orders.csv", "a.csv", "link.csv", "real.csv")]
    assert found.due == tuple(
        ExtractFile(
            str(path),
            str(path.relative_to(tmp_path)),
            f"{path.stat().st_size}:{path.stat().st_mtime}",
            path.stat().st_mtime,
        )
        for path in paths
    )


def test_a_file_that_a_link_leads_to_outside_is_no_extract(
    tmp_path: Path, settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "outside/b.csv", "extracts/a.csv")
    (tmp_path / "extracts/b.csv").symlink_to(tmp_path / "outside/b.csv")
    (tmp_path / "extracts/nowhere.csv").symlink_to(tmp_path / "nothing")
    (tmp_path / "extracts/sub").symlink_to(tmp_path / "outside")
    assert names(find(tmp_path / "extracts", given.run(), {}, settings())) == ["a.csv"]
    assert "1 files lead out" in caplog.text


def test_the_order_is_that_of_whole_names(tmp_path: Path, settings: MakeSettings) -> None:
    put(tmp_path, "a/x.csv", "a.csv", "a-b/x.csv", "a0.csv", "b/c/x.csv", "b/c.csv")
    found = names(find(tmp_path, given.run(), {}, settings()))
    assert found == sorted(found)
    assert len(found) == 6
