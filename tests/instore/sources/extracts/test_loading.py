"""Loading: each file is read to its end first; a cut or damaged one waits whole, a growing one is left alone."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from azure.core.exceptions import ServiceRequestError
from fsspec.implementations.local import LocalFileSystem

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.extract_files import move_waiting
from include.instore.ledger.intake import Landed
from include.instore.ledger.quarantined import Wanted
from include.instore.ledger.runs import count_run
from include.instore.model.errors import RetriableError
from include.instore.model.settings import Settings
from include.instore.model.states import ExtractState
from include.instore.model.windows import Run
from include.instore.runs.alerts import Ages, soft_alerts
from include.instore.runs.report import report_run
from include.instore.sources.extracts import Loaded, Storage, load_extracts
from include.instore.sources.extracts.csv_lines import read_csv
from include.instore.sources.quarantine import redrive
from tests.instore import given
from tests.instore.sources.extracts.rows import HEADER, csv_text, orders_text, row

MakeSettings = Callable[..., Settings]


def load(root: Any, ledger: Ledger, settings: Settings, run: Run | None = None) -> Loaded:
    run = run or given.run()
    open_run(ledger, run)
    if isinstance(root, Growing):
        storage = Storage(root, str(root._path.parent))
    else:
        storage = root if isinstance(root, Storage) else Storage.local(root)
    return load_extracts(storage, ledger, run, settings)


def extract(ledger: Ledger, path: str) -> dict[str, Any]:
    (found,) = (each for each in given.rows(ledger, "extracts") if each["path"] == path)
    return found


def test_orders_are_landed_with_the_place_they_came_from(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "05").mkdir()
    (tmp_path / "05" / "orders.csv").write_text(orders_text("S1", "S2"))
    (tmp_path / "05" / "orders.jsonl.gz").write_bytes(gzip.compress(given.body("S3") + b"\n" + given.body("S4")))
    loaded = load(tmp_path, ledger, settings(extract_block=1))
    assert (loaded.files, loaded.unread_files, loaded.left_files) == (2, 0, 0)
    assert (loaded.landed.received, loaded.landed.orders) == (4, 4)
    references = {number: given.row(ledger, number)["reference"] for number in ("S1", "S2", "S3", "S4")}
    assert references == {
        "S1": "05/orders.csv:2",
        "S2": "05/orders.csv:4",
        "S3": "05/orders.jsonl.gz:1",
        "S4": "05/orders.jsonl.gz:2",
    }
    assert {each["source"] for each in given.on_the_way(ledger)} == {"extract"}
    kept = extract(ledger, "05/orders.csv")
    assert (kept["orders"], kept["bad_rows"], kept["state"], kept["run"]) == (2, 0, "loaded", "run-1")
    given.assert_every_record_is_in_one_place(ledger)


def test_a_file_is_loaded_once(tmp_path: Path, ledger: Ledger, settings: MakeSettings) -> None:
    (tmp_path / "orders.csv").write_text(orders_text("S1"))
    load(tmp_path, ledger, settings())
    assert load(tmp_path, ledger, settings(), given.run("run-2")) == Loaded()
    assert extract(ledger, "orders.csv")["run"] == "run-1"


def test_a_changed_file_is_loaded_again_without_doubling_its_orders(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "orders.csv").write_text(orders_text("S1", "S2"))
    load(tmp_path, ledger, settings())
    (tmp_path / "orders.csv").write_text(
        csv_text(*(row("S1", line) for line in (1, 2, 3)), row("S2", 1), row("S2", 2), row("S3"))
    )
    loaded = load(tmp_path, ledger, settings(), given.run("run-2"))
    assert (loaded.landed.orders, loaded.landed.duplicates, loaded.landed.corrections) == (1, 1, 1)
    assert (extract(ledger, "orders.csv")["orders"], extract(ledger, "orders.csv")["run"]) == (3, "run-2")
    assert set(given.statuses(ledger)) == {"S1", "S2", "S3"}
    given.assert_every_record_is_in_one_place(ledger)


def test_bad_rows_are_kept_with_file_line_reason_and_their_own_bytes(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    text = csv_text(row("S1"), row("S2", order_total="ten"), row("S3"))
    (tmp_path / "orders.csv").write_text(text)
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.landed.orders, loaded.landed.quarantined, loaded.unread_files) == (2, 1, 0)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["source"], kept["reference"], kept["reason"]) == ("extract", "orders.csv:3", "bad_value")
    assert kept["raw"].decode() == text.splitlines(keepends=True)[2]
    assert kept["heading"].decode() == text.splitlines(keepends=True)[0]
    assert (extract(ledger, "orders.csv")["orders"], extract(ledger, "orders.csv")["bad_rows"]) == (2, 1)


def test_of_what_is_behind_a_fault_the_orders_are_estimated(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    data = orders_text(*(f"S{number}" for number in range(100, 140))).encode()
    place = data.index(b"S130") + 10
    (tmp_path / "orders.csv").write_bytes(data[:place] + b"\xff" * 40 + data[place + 40 :])
    load(tmp_path, ledger, settings())
    assert extract(ledger, "orders.csv")["detail"].endswith(", 30 orders before it, about 10 behind it")


@pytest.mark.parametrize("name", ["orders.csv", "orders.csv.gz"])
def test_a_file_cut_in_the_middle_lands_nothing_and_waits(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, name: str
) -> None:
    text = orders_text("S1", "S2", "S3")
    cut = text[: text.rindex("S3") + 30]
    (tmp_path / name).write_bytes(gzip.compress(cut.encode()) if name.endswith("gz") else cut.encode())
    loaded = load(tmp_path, ledger, settings(extract_block=1))
    assert (loaded.files, loaded.unread_files, loaded.landed) == (0, 1, Landed())
    kept = extract(ledger, name)
    assert (kept["state"], kept["orders"], kept["run"]) == ("waiting", 2, "run-1")
    size = (tmp_path / name).stat().st_size
    assert kept["detail"] == f"line 7: ends in the middle of a line; {size} bytes, 2 orders before it"
    assert given.on_the_way(ledger) == given.rows(ledger, "quarantine") == []
    assert load(tmp_path, ledger, settings(), given.run("run-2")) == Loaded()


def test_a_waiting_file_is_told_once_and_loaded_when_it_comes_whole(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    numbers = [f"S{number:04}" for number in range(1000)]
    raw = gzip.compress(orders_text(*numbers).encode(), 1)
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(raw[: len(raw) // 2])
    assert load(tmp_path, ledger, settings()).unread_files == 1
    red = report_run(ledger, given.run(), [], settings())
    assert (red.document["unread_files"], red.document["waiting_files"]) == (1, 1)
    assert (
        red.red[0]
        .removeprefix("unread_files: ")
        .startswith("1 extracts were not read to their end, and nothing of them was landed: orders.csv.gz, ")
    )
    assert load(tmp_path, ledger, settings(), given.run("run-2")) == Loaded()
    after = report_run(ledger, given.run("run-2"), [], settings())
    assert (after.document["unread_files"], after.document["waiting_files"], after.red) == (0, 1, ())

    path.write_bytes(raw)
    loaded = load(tmp_path, ledger, settings(), given.run("run-3"))
    assert (loaded.files, loaded.landed.orders) == (1, 1000)
    assert extract(ledger, path.name)["state"] == "loaded"
    assert report_run(ledger, given.run("run-3"), [], settings()).document["waiting_files"] == 0


def test_a_file_damaged_behind_its_last_order_lands_nothing(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    raw = bytearray(gzip.compress(orders_text("S1", "S2").encode()))
    raw[-6] ^= 1  # of the checksum
    (tmp_path / "orders.csv.gz").write_bytes(raw)
    loaded = load(tmp_path, ledger, settings(extract_block=1))
    assert (loaded.unread_files, loaded.landed) == (1, Landed())


@pytest.mark.parametrize("length", [10, 500_000], ids=["kept-by-the-first-reading", "too-large-to-keep"])
def test_a_file_that_is_released_lands_what_is_before_the_fault_and_sets_the_rest_aside(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, length: int
) -> None:
    text = csv_text(*(row(each, line, description="X" * length) for each in ("S1", "S2", "S3") for line in (1, 2)))
    cut = text[: text.rindex("S3") + 30]
    (tmp_path / "orders.csv").write_text(cut)
    load(tmp_path, ledger, settings())
    assert move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED) == 1
    loaded = load(tmp_path, ledger, settings(extract_block=1), given.run("run-2"))
    assert (loaded.files, loaded.landed.orders, loaded.landed.quarantined) == (1, 2, 1)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["reason"], kept["reference"]) == ("broken_file", "orders.csv:7")
    assert kept["raw"].decode() == cut[cut.index("S3") :]
    assert (extract(ledger, "orders.csv")["state"], extract(ledger, "orders.csv")["orders"]) == ("loaded", 2)
    assert load(tmp_path, ledger, settings(), given.run("run-3")) == Loaded()
    given.assert_every_record_is_in_one_place(ledger)


def test_a_file_that_is_forgotten_is_left_alone_until_it_changes(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "orders.csv").write_text(orders_text("S1")[:-30])
    load(tmp_path, ledger, settings())
    move_waiting(ledger, ["orders.csv"], ExtractState.FORGOTTEN)
    assert load(tmp_path, ledger, settings(), given.run("run-2")) == Loaded()
    assert report_run(ledger, given.run("run-2"), [], settings()).document["waiting_files"] == 0
    (tmp_path / "orders.csv").write_text(orders_text("S1"))
    assert load(tmp_path, ledger, settings(), given.run("run-3")).landed.orders == 1


def test_one_broken_file_does_not_stop_the_others(tmp_path: Path, ledger: Ledger, settings: MakeSettings) -> None:
    (tmp_path / "a.csv").write_bytes(b"no header at all\n1\n")
    (tmp_path / "b.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "c.csv").write_text(orders_text("S1"))
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.files, loaded.unread_files, loaded.landed.orders, loaded.landed.quarantined) == (1, 2, 1, 0)


def test_a_file_larger_than_it_may_be_waits(tmp_path: Path, ledger: Ledger, settings: MakeSettings) -> None:
    (tmp_path / "orders.csv").write_text(orders_text(*(f"S{number}" for number in range(50))))
    assert load(tmp_path, ledger, settings(max_extract_bytes=2000)).unread_files == 1
    assert "larger than 2000 bytes" in extract(ledger, "orders.csv")["detail"]
    # What was not copied cannot be set aside: released or not, it waits until it may be that large.
    move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED)
    again = load(tmp_path, ledger, settings(max_extract_bytes=2000), given.run("run-2"))
    assert (again.unread_files, again.landed) == (1, Landed())
    move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED)
    assert load(tmp_path, ledger, settings(), given.run("run-3")).landed.orders == 50


class Growing(LocalFileSystem):
    """A storage whose one file its writer appends to when it has been read to its end."""

    def __init__(self, path: Path, more: str) -> None:
        super().__init__(skip_instance_cache=True)
        self._path = path
        self._more = more
        self.grows = True

    def open(self, path: str, mode: str) -> BinaryIO:
        content = self._path.read_bytes()
        if self.grows:
            with self._path.open("a") as file:
                file.write(self._more)
        return io.BytesIO(content)


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_run_and_its_last_order_with_it(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    whole = orders_text("S1", "S2", "S3")
    half = whole.index("S3") + len(csv_text(row("S3"), header=[]).strip()) + 1
    path = tmp_path / "orders.csv"
    path.write_text(whole[:half])
    growing = Growing(path, whole[half:])
    loaded = load(growing, ledger, settings(extract_block=1))
    assert (loaded.files, loaded.left_files, loaded.unread_files) == (0, 1, 0)
    assert given.statuses(ledger) == {}
    assert given.rows(ledger, "quarantine") == []
    (left,) = given.rows(ledger, "extracts")
    assert (left["state"], left["detail"]) == ("left", "it changed while it was read")

    growing.grows = False
    loaded = load(growing, ledger, settings(), given.run("run-2"))
    assert (loaded.landed.orders, loaded.landed.duplicates, loaded.landed.corrections) == (3, 0, 0)
    assert given.row(ledger, "S3")["payload"].count("productCode") == 2
    given.assert_every_record_is_in_one_place(ledger)


def test_a_file_that_is_still_written_and_breaks_off_is_not_quarantined(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    whole = orders_text("S1", "S2")
    path = tmp_path / "orders.csv"
    path.write_text(whole[:-40])
    growing = Growing(path, whole[-40:])
    assert load(growing, ledger, settings()).left_files == 1
    assert given.rows(ledger, "quarantine") == []
    growing.grows = False
    load(growing, ledger, settings(), given.run("run-2"))
    assert set(given.statuses(ledger)) == {"S1", "S2"}


def test_a_file_that_cannot_be_opened_is_an_error_to_try_again(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    class Locked(Growing):
        def open(self, path: str, mode: str) -> BinaryIO:
            raise PermissionError(given.CANARY)

    path = tmp_path / "orders.csv"
    path.write_text(orders_text("S1"))
    with pytest.raises(RetriableError, match="instore_extracts") as caught:
        load(Locked(path, ""), ledger, settings())
    assert given.CANARY not in str(caught.value)


@pytest.mark.parametrize("error", [ConnectionResetError, ServiceRequestError])
def test_a_storage_that_fails_in_the_middle_of_a_file_has_not_broken_the_file(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, error: type[Exception]
) -> None:
    class CutOff(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise error(given.CANARY)
            return super().read(8192)

    class Failing(Growing):
        def open(self, path: str, mode: str) -> BinaryIO:
            return CutOff(self._path.read_bytes())

    path = tmp_path / "orders.csv.gz"
    path.write_bytes(gzip.compress(orders_text(*(f"S{number:04}" for number in range(200))).encode(), 0))
    with pytest.raises(RetriableError, match="instore_extracts"):
        load(Failing(path, ""), ledger, settings())
    assert given.rows(ledger, "extracts") == given.rows(ledger, "quarantine") == []
    assert load(tmp_path, ledger, settings()).unread_files == 0
    assert len(given.on_the_way(ledger)) == 200


def test_a_file_name_that_is_no_unicode_is_loaded_once(tmp_path: Path, ledger: Ledger, settings: MakeSettings) -> None:
    with open(os.fsencode(tmp_path) + b"/orders-\xff.csv", "w") as file:  # noqa: PTH123  pathlib takes no bytes
        file.write(orders_text("S1"))
    assert load(tmp_path, ledger, settings()).landed.orders == 1
    assert load(tmp_path, ledger, settings(), given.run("run-2")) == Loaded()


def test_a_run_that_dies_in_the_middle_of_a_file_leaves_the_file_to_be_loaded_again(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(orders_text(*(f"S{number:04}" for number in range(200))))
    blocks = iter(range(100))

    def die(point: str) -> None:
        if point == "extracts.after_block" and next(blocks) == 3:
            raise KeyboardInterrupt

    fault_points.watch(die)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path, ledger, settings(extract_block=10))
    finally:
        fault_points.watch(lambda _: None)
    landed = len(given.on_the_way(ledger))
    assert landed == 40
    assert given.rows(ledger, "extracts") == []
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.landed.orders, loaded.landed.duplicates) == (200 - landed, landed)


def test_extracts_are_read_through_airflows_object_storage(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    from airflow.sdk import ObjectStoragePath

    (tmp_path / "2017" / "06").mkdir(parents=True)
    (tmp_path / "2017" / "06" / "orders-2017-06-05.csv.gz").write_bytes(gzip.compress(orders_text("S1").encode()))
    (tmp_path / "orders-2017-06-06.jsonl").write_bytes(given.body("S2"))
    (tmp_path / "orders-2017-06-06.csv.tmp").write_bytes(b"")
    path = ObjectStoragePath(f"file://{tmp_path}")
    root = Storage(path.fs, path.path)
    window = given.window("2017-06-05", "2017-06-06")
    backfill = given.run("b", "backfill", window=window, loads_any_extract=False)
    loaded = load(root, ledger, settings(), backfill)
    assert (loaded.files, set(given.statuses(ledger))) == (1, {"S1"})
    loaded = load(root, ledger, settings())
    assert (loaded.files, loaded.left_files, set(given.statuses(ledger))) == (1, 1, {"S1", "S2"})
    assert given.row(ledger, "S1")["reference"] == "2017/06/orders-2017-06-05.csv.gz:2"
    # The same files, seen as plain ones.
    assert load(tmp_path, ledger, settings(), given.run("run-2")).landed.orders == 0


def test_a_file_whose_name_nobody_reads_makes_its_run_red_and_waits_until_it_is_forgotten(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "a.csv").write_text(orders_text("S1"))
    (tmp_path / "orders.xml").write_text("<orders/>")
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.files, loaded.unread_files, loaded.landed.orders) == (1, 1, 1)
    red = report_run(ledger, given.run(), [], settings())
    assert "orders.xml, its name is that of no extract; those end in .csv" in " ".join(red.red)
    assert load(tmp_path, ledger, settings(), given.run("run-2")).unread_files == 0
    assert move_waiting(ledger, ["orders.xml"], ExtractState.FORGOTTEN) == 1
    assert load(tmp_path, ledger, settings(), given.run("run-3")).unread_files == 0
    (tmp_path / "orders.xml").write_text("<orders>another</orders>")
    assert load(tmp_path, ledger, settings(), given.run("run-4")).unread_files == 1


def test_no_content_is_in_a_log_record(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="include.instore")
    text = csv_text(
        row("S1", loyalty_card=given.CANARY, email=f"{given.CANARY}@x.org"), row("S2", order_total=given.CANARY)
    )
    (tmp_path / "a.csv").write_text(text + csv_text(row("S3"), header=[]).lstrip() + given.CANARY)
    (tmp_path / "b.doc").write_text("")
    assert load(tmp_path, ledger, settings()).unread_files == 2
    messages = [record.getMessage() for record in caplog.records]
    assert any("extract a.csv waits: line" in message for message in messages)
    assert not [message for message in messages if given.CANARY in message]


class Generated(io.RawIOBase):
    """A CSV of any size that is never in memory as a whole."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._made = 0
        self._waiting = csv_text().encode()
        self._orders = self._bytes()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._waiting) < len(buffer) and (more := next(self._orders, b"")):
            self._waiting += more
        count = min(len(buffer), len(self._waiting))
        buffer[:count], self._waiting = self._waiting[:count], self._waiting[count:]
        return count

    def _bytes(self) -> Iterator[bytes]:
        number = 0
        # Wide lines: what is measured is what stays, not how fast Python makes orders.
        wide = "x" * 20_000
        while self._made < self._size:
            number += 1
            order = b"".join(",".join(row(f"S{number}", line, description=wide)).encode() + b"\n" for line in (1, 2))
            self._made += len(order)
            yield order


def _peak(size: int, settings: Settings) -> tuple[int, int]:
    """Orders read of a stream of this size, and the most memory that took."""
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_csv(io.BufferedReader(Generated(size)), settings))
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(settings: MakeSettings) -> None:
    small, small_peak = _peak(2_000_000, settings())
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large, large_peak = _peak(200_000_000, settings())
    assert large > 90 * small
    assert large_peak < small_peak + 500_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) * 1024 < 20_000_000


def test_memory_does_not_grow_with_an_order_that_never_ends(settings: MakeSettings) -> None:
    limited = settings(max_message_bytes=50_000)

    def endless(size: int) -> tuple[list[Any], int]:
        line = ",".join(row("", description="x" * 2000)).encode() + b"\n"
        tracemalloc.start()
        try:
            stream = io.BytesIO(csv_text().encode() + line * (size // len(line)))
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            found = list(read_csv(stream, limited))
            return found, tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    _, small = endless(200_000)
    (record,), large = endless(5_000_000)
    assert record.order.reason == "too_large"
    assert large < small + 500_000


def test_a_file_whose_last_order_alone_does_not_make_its_total_waits(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    bad = row("bad", order_total="ten")
    halves = [row(number, line, line_total="1.75") for number in ("S1", "S2") for line in (1, 2)]
    (tmp_path / "orders.csv").write_text(csv_text(bad, *halves[:3]))
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.unread_files, loaded.landed) == (1, Landed())
    assert "the file seems cut" in extract(ledger, "orders.csv")["detail"]
    (tmp_path / "orders.csv").write_text(csv_text(bad, *halves))
    loaded = load(tmp_path, ledger, settings(), given.run("run-2"))
    assert (loaded.landed.orders, loaded.landed.quarantined) == (2, 1)
    assert given.row(ledger, "S2")["payload"].count("productCode") == 2


def test_of_a_file_that_seems_cut_and_is_released_the_last_order_is_set_aside(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    halves = [row(number, line, line_total="1.75") for number in ("S1", "S2") for line in (1, 2)]
    (tmp_path / "orders.csv").write_text(csv_text(*halves[:3]))
    load(tmp_path, ledger, settings())
    move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED)
    loaded = load(tmp_path, ledger, settings(), given.run("run-2"))
    assert (loaded.landed.orders, loaded.landed.quarantined) == (1, 1)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["reason"], kept["reference"]) == ("cut_order", "orders.csv:4")


def test_in_a_file_whose_orders_do_not_add_up_the_last_one_is_no_exception(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "orders.csv").write_text(orders_text("S1", "S2"))
    assert load(tmp_path, ledger, settings()).landed.orders == 2
    # What no other order can be compared with, nobody can tell.
    (tmp_path / "alone.csv").write_text(csv_text(row("S3", line_total="1.00")))
    assert load(tmp_path, ledger, settings(), given.run("run-2")).landed.orders == 1


def half(number: str, line: int, **changes: str) -> list[str]:
    """A line of an order of two lines, which only both of them make."""
    return row(number, line, **{"line_total": "1.75", **changes})


@pytest.mark.parametrize("length", [10, 60_000], ids=["kept-by-the-first-reading", "too-large-to-keep"])
def test_rows_of_an_order_that_stand_apart_are_one_order(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, length: int
) -> None:
    by_product = [half(f"S{number}", line, description="X" * length) for line in (1, 2) for number in range(20)]
    (tmp_path / "orders.csv").write_text(csv_text(*by_product))
    loaded = load(tmp_path, ledger, settings(extract_block=3))
    assert (loaded.landed.received, loaded.landed.orders, loaded.landed.quarantined) == (20, 20, 0)
    for number in range(20):
        lines = json.loads(given.row(ledger, f"S{number}")["payload"])["lines"]
        assert [line["productCode"] for line in lines] == ["947861", "947862"]
    assert given.row(ledger, "S3")["reference"] == "orders.csv:5"
    given.assert_every_record_is_in_one_place(ledger)


def test_rows_apart_that_do_not_make_one_order_are_set_aside_with_all_of_them_named(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    rows = [half("S1", 1), half("S2", 1), half("S2", 2), half("S1", 3, line_total="9.00"), half("S3", 1), half("S3", 2)]
    (tmp_path / "orders.csv").write_text(csv_text(*rows))
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.landed.orders, loaded.landed.quarantined, loaded.unread_files) == (2, 1, 0)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["reason"], "at lines 2, 5, and together" in kept["detail"]) == ("split_order", True)
    assert kept["raw"].decode().count("S1,") == 2
    assert set(given.statuses(ledger)) == {"S2", "S3"}


def test_rows_apart_that_say_different_things_of_their_order_are_set_aside(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    rows = [half("S1", 1), half("S2", 1), half("S2", 2), half("S1", 2, store_name="Another name")]
    (tmp_path / "orders.csv").write_text(csv_text(*rows))
    assert load(tmp_path, ledger, settings()).landed.quarantined == 1
    (kept,) = given.rows(ledger, "quarantine")
    assert "their order fields differ" in kept["detail"]


def test_orders_apart_that_are_whole_each_are_a_duplicate_and_a_collision(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    whole = [half("S1", 1), half("S1", 2)]
    other_store = [half("S1", line, store_id="0505") for line in (1, 2)]
    (tmp_path / "orders.csv").write_text(
        csv_text(*whole, half("S2", 1), half("S2", 2), *whole, half("S3", 1), half("S3", 2), *other_store)
    )
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.landed.orders, loaded.landed.duplicates, loaded.landed.collisions) == (3, 1, 1)


def test_an_unsorted_file_that_lost_its_end_waits(tmp_path: Path, ledger: Ledger, settings: MakeSettings) -> None:
    by_product = [half(f"S{number}", line) for line in (1, 2) for number in range(20)]
    alone = row("whole")
    (tmp_path / "orders.csv").write_text(csv_text(alone, *by_product[:30]))
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.unread_files, loaded.landed) == (1, Landed())
    assert "not sorted by order, and of 11 orders 10" in extract(ledger, "orders.csv")["detail"]


HALVES = [row(number, line, line_total="1.75") for number in ("S1", "S2", "S3") for line in (1, 2)]
"""Orders that add up, each of two lines."""


@pytest.mark.parametrize("last", ["", "-", "1", "1.", "1.7", "1.75"])
def test_a_last_field_that_is_cut_keeps_its_file_waiting_and_a_whole_one_needs_no_line_break(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, last: str
) -> None:
    text = csv_text(*HALVES)
    (tmp_path / "orders.csv").write_text(text[: text.rindex("1.75")] + last)
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.unread_files, loaded.landed.orders) == ((0, 3) if last == "1.75" else (1, 0))


def test_a_released_file_whose_last_amount_is_cut_off_lands_all_but_its_last_order(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    text = csv_text(*HALVES)
    (tmp_path / "orders.csv").write_text(text[: text.rindex("1.75")])
    load(tmp_path, ledger, settings())
    move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED)
    loaded = load(tmp_path, ledger, settings(), given.run("run-2"))
    assert (loaded.landed.orders, loaded.landed.quarantined) == (2, 1)
    assert given.rows(ledger, "quarantine")[0]["reason"] == "cut_order"


@pytest.mark.parametrize("totals", [("3.50", "2.25", "1.50"), ("1.0", "2.25", "1.0")])
def test_a_trailing_zero_that_is_cut_off_keeps_its_file_waiting(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, totals: tuple[str, ...]
) -> None:
    rows = [row(f"S{n}", order_total=total, line_total=total) for n, total in enumerate(totals)]
    text = csv_text(*rows).rstrip("\n")
    (tmp_path / "whole.csv").write_text(text)
    (tmp_path / "cut.csv").write_text(text[:-1])
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.files, loaded.unread_files, loaded.landed.orders) == (1, 1, 3)


def test_where_nobody_writes_trailing_zeros_fewer_decimals_are_no_cut(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    rows = [row(f"S{n}", order_total=total, line_total=total) for n, total in enumerate(("1.75", "2.25", "3.5"))]
    (tmp_path / "orders.csv").write_text(csv_text(*rows).rstrip("\n"))
    assert load(tmp_path, ledger, settings()).landed.orders == 3


@pytest.mark.parametrize(("codes", "last", "waits"), [(25, "94", True), (25, "947860", False), (5, "94", False)])
def test_a_last_field_of_text_that_is_shorter_than_all_others_is_cut(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, codes: int, last: str, waits: bool
) -> None:
    rows = [row(f"S{n}", product_code="947860")[:9] for n in range(codes)] + [[*row("S99")[:8], last]]
    (tmp_path / "orders.csv").write_text(csv_text(*rows, header=HEADER[:9]).rstrip("\n"))
    assert load(tmp_path, ledger, settings()).unread_files == waits


def test_a_heading_that_is_cut_keeps_its_file_waiting(tmp_path: Path, ledger: Ledger, settings: MakeSettings) -> None:
    (tmp_path / "cut.csv").write_text(csv_text()[:-3])
    (tmp_path / "quiet.csv").write_text(csv_text().rstrip("\n"))
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.files, loaded.unread_files) == (1, 1)


@pytest.mark.parametrize("others_add_up", [True, False])
@pytest.mark.parametrize("lost", [3, 4], ids=["its first line", "its last line"])
def test_an_order_beside_a_refused_row_that_has_lost_one_is_set_aside(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, lost: int, others_add_up: bool
) -> None:
    rows = [row(f"S{n}", line, line_total="1.75") for n in (1, 2, 3) for line in (1, 2)]
    rows[lost - 1][0] = f"\\x{'0' * 70}"  # a number that is none
    rows[lost - 1][1] = "no date"
    if not others_add_up:
        rows[-1 if lost == 3 else 0][-1] = "1.00"
    (tmp_path / "orders.csv").write_text(csv_text(*rows))
    loaded = load(tmp_path, ledger, settings())
    reasons = sorted(each["reason"] for each in given.rows(ledger, "quarantine"))
    if others_add_up:
        assert (loaded.landed.orders, reasons) == (2, ["bad_value", "cut_order"])
        assert set(given.statuses(ledger)) == {"S1", "S3"}
    else:  # an ERP whose lines need not make the total
        assert (loaded.landed.orders, reasons) == (3, ["bad_value"])


SUMS = [half(number, line) for number in ("S1", "S2", "S3", "S4") for line in (1, 2)]
"""Orders of two lines each, all of which make their totals."""


def told_of_sums(ledger: Ledger, settings: Settings, run: Run | None = None) -> tuple[int, bool]:
    """How many orders the report counts whose lines do not add up, and whether somebody is alerted."""
    counts = report_run(ledger, run or given.run(), [], settings).document
    alert = soft_alerts(counts, Ages(0, 0, 0), settings, shares=True)["lines_do_not_add_up"]
    return counts["lines_do_not_add_up"], alert is not None


@pytest.mark.parametrize(
    ("sums", "landed", "told"), [("tell", 4, (1, True)), ("refuse", 3, (0, True)), ("off", 4, (0, False))]
)
def test_damage_in_mid_file_shows_by_the_sums(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, sums: str, landed: int, told: tuple[int, bool]
) -> None:
    (tmp_path / "orders.csv").write_text(csv_text(*SUMS[:3], *SUMS[4:]))  # S2 has lost a line
    chosen = settings(sums=sums)
    assert load(tmp_path, ledger, chosen).landed.orders == landed
    assert told_of_sums(ledger, chosen) == told
    assert [each["reason"] for each in given.rows(ledger, "quarantine")] == ["lines_do_not_add_up"] * (4 - landed)
    given.assert_every_record_is_in_one_place(ledger)


def test_lines_of_a_document_are_summed_as_well_and_a_tolerance_is_granted(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    short = [given.body("S1", total="3.55"), given.body("S2", total="4.00"), given.body("S3")]
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join(short))
    tolerant = settings(sums_tolerance="0.05")
    assert load(tmp_path, ledger, tolerant).landed.orders == 3
    assert told_of_sums(ledger, tolerant) == (1, True)
    again = settings()
    (tmp_path / "more.jsonl").write_bytes(b"\n".join(each.replace(b'"S', b'"T') for each in short))
    load(tmp_path, ledger, again, given.run("run-2"))
    assert told_of_sums(ledger, again, given.run("run-2")) == (2, True)
    # What comes again is not told again.
    (tmp_path / "more.jsonl").write_bytes(b"\n".join(each.replace(b'"S', b'"T') for each in short) + b"\n")
    load(tmp_path, ledger, again, given.run("run-3"))
    assert told_of_sums(ledger, again, given.run("run-3")) == (0, False)


def test_a_file_with_a_voucher_in_it_whose_last_order_is_short_lands_all_but_that(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    voucher = [half("V1", line, order_total="3.00") for line in (1, 2)]
    (tmp_path / "orders.csv").write_text(csv_text(*voucher, *SUMS[:-1]))
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.landed.orders, loaded.landed.quarantined, loaded.unread_files) == (4, 1, 0)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["reason"], kept["detail"].endswith("the last of its file")) == ("cut_order", True)
    assert told_of_sums(ledger, settings()) == (1, True)
    # The whole file brings the whole order.
    (tmp_path / "orders.csv").write_text(csv_text(*voucher, *SUMS))
    assert load(tmp_path, ledger, settings(), given.run("run-2")).landed.orders == 1


def test_rows_that_come_back_after_others_of_their_number_were_refused_are_no_order(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    by_product = [half(number, line) for line in (1, 2) for number in ("S1", "S2", "S3")]
    by_product[1][HEADER.index("quantity")] = "two"
    (tmp_path / "orders.csv").write_text(csv_text(*by_product))
    loaded = load(tmp_path, ledger, settings())
    assert set(given.statuses(ledger)) == {"S1", "S3"}
    assert sorted(each["reason"] for each in given.rows(ledger, "quarantine")) == ["bad_value", "cut_order"]
    assert loaded.landed.quarantined == 2


@pytest.mark.parametrize("kept", ["", "EOF;7\n", "EOF;x\n"])
def test_a_file_that_is_not_what_its_trailer_says_waits_whole(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, kept: str
) -> None:
    declared = settings(extract_trailer=r"EOF;(?P<count>\w+)")
    (tmp_path / "orders.csv").write_text(csv_text(*SUMS) + kept)
    loaded = load(tmp_path, ledger, declared)
    assert (loaded.unread_files, loaded.landed) == (1, Landed())
    assert "trailer" in extract(ledger, "orders.csv")["detail"]
    (tmp_path / "orders.csv").write_text(csv_text(*SUMS) + "EOF;8\n")
    assert load(tmp_path, ledger, declared, given.run("run-2")).landed.orders == 4


def test_a_file_without_its_trailer_that_is_released_is_landed_and_redriven_without_one(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    declared = settings(extract_trailer=r"EOF;(?P<count>\d+)", sums="refuse")
    (tmp_path / "orders.csv").write_text(csv_text(*SUMS[:3], *SUMS[4:]))
    load(tmp_path, ledger, declared)
    move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED)
    assert load(tmp_path, ledger, declared, given.run("run-2")).landed.orders == 3
    told = settings(extract_trailer=r"EOF;(?P<count>\d+)")
    (outcome,) = redrive(ledger, Wanted(reason="lines_do_not_add_up"), told)
    assert outcome.outcome == "landed"
    given.assert_every_record_is_in_one_place(ledger)


@pytest.mark.parametrize(
    ("marker", "content", "why"),
    [
        ("orders.csv.sha256", "{sum}  orders.csv\n", None),
        ("orders.csv.sha256", "{SUM}", None),
        ("orders.csv.sha256", f"{'0' * 64}  orders.csv\n", "its SHA-256 is not the one"),
        ("orders.csv.sha256", "", "holds no SHA-256"),
        ("SHA256SUMS", f"{'0' * 64} *other.csv\n{{sum}} *orders.csv\n", None),
        ("SHA256SUMS", f"{{sum}} *other.csv\n{'0' * 64} *orders.csv\n", "its SHA-256 is not the one"),
        ("SHA256SUMS", "{sum} *other.csv\n", "its SHA-256 is not the one"),
        ("orders.csv.ok", "", None),
    ],
)
def test_a_marker_with_a_checksum_is_compared_with_its_file(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, marker: str, content: str, why: str | None
) -> None:
    data = csv_text(*SUMS).encode()
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "orders.csv").write_bytes(data)
    marked = settings(extract_marker=marker.removeprefix("orders.csv"))
    loaded = load(tmp_path, ledger, marked)
    assert (loaded.left_files, loaded.landed) == (1, Landed())
    (tmp_path / marker).write_text(content.format(sum=digest, SUM=digest.upper()))
    loaded = load(tmp_path, ledger, marked, given.run("run-2"))
    assert (loaded.unread_files, loaded.landed.orders) == ((1, 0) if why else (0, 4))
    assert (why or "") in (extract(ledger, "orders.csv")["detail"] or "")


def test_a_file_that_is_left_is_remembered_since_the_first_look_until_it_is_read_or_gone(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    marked = settings(extract_marker=".done")
    for name in ("orders.csv", "gone.csv", "half.csv.tmp"):
        (tmp_path / name).write_text(csv_text(*SUMS))
    load(tmp_path, ledger, marked)
    first = {row["path"]: row for row in given.rows(ledger, "extracts")}
    assert {path: row["state"] for path, row in first.items()} == dict.fromkeys(first, "left")
    assert first["orders.csv"]["detail"] == "its marker, .done, is not there"
    assert first["half.csv.tmp"]["detail"] == "by its name it is still being written"

    (tmp_path / "gone.csv").unlink()
    (tmp_path / "orders.csv").write_text(csv_text(*SUMS) + "\n")  # it grows
    assert load(tmp_path, ledger, marked, given.run("run-2")).left_files == 2
    later = {row["path"]: row for row in given.rows(ledger, "extracts")}
    assert set(later) == {"orders.csv", "half.csv.tmp"}
    assert later["orders.csv"]["version"] != first["orders.csv"]["version"]
    assert [later[path]["loaded_at"] for path in sorted(later)] == [first[path]["loaded_at"] for path in sorted(later)]
    assert count_run(ledger, "run-2").left_files == 2

    (tmp_path / "orders.csv.done").touch()
    assert load(tmp_path, ledger, marked, given.run("run-3")).files == 1
    assert extract(ledger, "orders.csv")["state"] == "loaded"
    assert count_run(ledger, "run-3").left_files == 1


def test_a_file_without_its_marker_is_loaded_where_a_person_releases_it_and_left_again_where_it_changes(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    marked = settings(extract_marker=".done")
    (tmp_path / "orders.csv").write_text(csv_text(*SUMS))
    load(tmp_path, ledger, marked)
    assert move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED) == 1
    (tmp_path / "orders.csv").write_text(csv_text(*SUMS) + "\n")
    assert load(tmp_path, ledger, marked, given.run("run-2")).left_files == 1
    move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED)
    loaded = load(tmp_path, ledger, marked, given.run("run-3"))
    assert (loaded.files, loaded.landed.orders) == (1, 4)


CARDLESS = {"loyalty_card": "", "email": "a@example.com"}


def test_a_file_without_a_card_from_a_feed_that_had_them_waits_until_it_is_released(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    for day in (1, 2):
        rows = [row(f"S{day}-{n}", **(CARDLESS if n % 2 else {})) for n in range(20)]
        (tmp_path / f"orders-{day}.csv").write_text(csv_text(*rows))
        assert load(tmp_path, ledger, settings(), given.run(f"run-{day}")).landed.orders == 20
    few = [row(f"F{n}", **CARDLESS) for n in range(3)]
    (tmp_path / "orders-3.csv").write_text(csv_text(*few))
    assert load(tmp_path, ledger, settings(), given.run("run-3")).landed.orders == 3, "by chance nobody had one"
    none = [row(f"N{n}", **CARDLESS) for n in range(20)]
    (tmp_path / "orders-4.csv").write_text(csv_text(*none))
    loaded = load(tmp_path, ledger, settings(), given.run("run-4"))
    assert (loaded.unread_files, loaded.landed) == (1, Landed())
    assert "no order has a loyalty_card" in extract(ledger, "orders-4.csv")["detail"]
    assert report_run(ledger, given.run("run-4"), [], settings()).red
    move_waiting(ledger, ["orders-4.csv"], ExtractState.RELEASED)
    assert load(tmp_path, ledger, settings(), given.run("run-5")).landed.orders == 20


def test_the_first_file_without_a_card_and_one_of_another_feed_are_landed(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "web-1.csv").write_text(csv_text(*(row(f"W{n}", **CARDLESS) for n in range(20))))
    (tmp_path / "till-1.csv").write_text(csv_text(*(row(f"T{n}") for n in range(20))))
    load(tmp_path, ledger, settings())
    (tmp_path / "web-2.csv").write_text(csv_text(*(row(f"X{n}", **CARDLESS) for n in range(20))))
    (tmp_path / "till-2.csv").write_text(csv_text(*(row(f"Y{n}", store_id="0500", **CARDLESS) for n in range(20))))
    assert load(tmp_path, ledger, settings(), given.run("run-2")).landed.orders == 40


def without(column: str, rows: list[list[str]]) -> str:
    """A CSV of these rows that lacks a column."""
    place = HEADER.index(column)
    return csv_text(*([*each[:place], *each[place + 1 :]] for each in rows), header=[n for n in HEADER if n != column])


@pytest.mark.parametrize("column", ["loyalty_card", "line_total"])
def test_a_column_of_ours_that_is_gone_keeps_its_file_waiting(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings, column: str
) -> None:
    (tmp_path / "orders.csv").write_text(csv_text(row("S1"), row("S2")))
    load(tmp_path, ledger, settings())
    for number in (2, 3):  # also where the same file comes again
        (tmp_path / "orders.csv").write_text(without(column, [row(f"S{number}{n}") for n in range(number)]))
        loaded = load(tmp_path, ledger, settings(), given.run(f"run-{number}"))
        assert (loaded.unread_files, loaded.landed) == (1, Landed())
        assert f"column {column} is gone" in extract(ledger, "orders.csv")["detail"]
    move_waiting(ledger, ["orders.csv"], ExtractState.RELEASED)
    assert load(tmp_path, ledger, settings(), given.run("run-4")).landed.orders == 3
    (tmp_path / "orders.csv").write_text(without(column, [row(f"T{n}") for n in range(4)]))
    assert load(tmp_path, ledger, settings(), given.run("run-5")).landed.orders == 4


def test_other_headings_than_those_of_the_file_before_are_told(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    def counted(run_id: str) -> int:
        load(tmp_path, ledger, settings(), given.run(run_id))
        counts = report_run(ledger, given.run(run_id), [], settings()).document
        alert = soft_alerts(counts, Ages(0, 0, 0), settings(), shares=True)["changed_fields"]
        assert (alert is not None) == bool(counts["changed_fields"])
        return int(counts["changed_fields"])

    (tmp_path / "orders-1.csv").write_text(csv_text([*row("S1"), "7"], header=[*HEADER, "till_id"]))
    (tmp_path / "quiet-1.csv").write_text("")
    assert counted("run-1") == 0
    (tmp_path / "orders-2.csv").write_text(csv_text(["7", *row("S2")], header=["till_id", *HEADER]))
    assert counted("run-2") == 0, "another order of the same columns"
    (tmp_path / "orders-3.csv").write_text(csv_text([*row("S3"), "7"], header=[*HEADER, "cashier_id"]))
    assert counted("run-3") == 1
    assert extract(ledger, "orders-3.csv")["detail"] == ("other fields than before: new cashier_id, gone till_id")
    (tmp_path / "orders-4.csv").write_text(csv_text([*row("S4"), "7"], header=[*HEADER, "cashier_id"]))
    assert counted("run-4") == 0


def test_the_rows_of_an_order_in_two_files_are_one_order(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    for line in (1, 2):
        (tmp_path / f"part-{line}.csv").write_text(csv_text(*(half(f"S{n}", line) for n in range(3)), row("W")))
        os.utime(tmp_path / f"part-{line}.csv", (line, line))
    loaded = load(tmp_path, ledger, settings())
    assert (loaded.landed.orders, loaded.landed.corrections, loaded.landed.collisions) == (4, 3, 0)
    lines = json.loads(given.row(ledger, "S1")["payload"])["lines"]
    assert [line["productCode"] for line in lines] == ["947861", "947862"]
    given.assert_every_record_is_in_one_place(ledger)


def test_a_half_order_that_landed_is_corrected_by_the_whole_file(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "orders.csv").write_text(csv_text(half("S1", 1)))
    load(tmp_path, ledger, settings())
    (tmp_path / "orders.csv").write_text(csv_text(half("S1", 1, line_total="1.70"), half("S1", 2, line_total="1.80")))
    os.utime(tmp_path / "orders.csv", (4e9, 4e9))
    assert load(tmp_path, ledger, settings(), given.run("run-2")).landed.corrections == 1
    assert given.row(ledger, "S1")["payload"].count("productCode") == 2


def _write_again(path: Path) -> None:
    """The same bytes, at another time."""
    os.utime(path, (path.stat().st_mtime + 60,) * 2)


def test_a_file_that_only_its_time_changed_of_is_not_read_again(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    (tmp_path / "orders.csv").write_text(orders_text("S1", "S2"))
    assert load(tmp_path, ledger, settings()).landed.orders == 2
    _write_again(tmp_path / "orders.csv")
    assert load(tmp_path, ledger, settings(), given.run("run-2")) == Loaded()
    os.utime(tmp_path / "orders.csv", (5e9, 5e9))
    (tmp_path / "orders.csv").write_text(orders_text("S1", "S2", "S3"))
    assert load(tmp_path, ledger, settings(), given.run("run-3")).landed == Landed(received=3, orders=1, duplicates=2)


def test_a_file_that_is_written_again_is_read_again_where_it_would_become_something_else(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    text = csv_text(row("S1")).replace("loyalty_card", "Karte").replace("email", "Mail")
    (tmp_path / "orders.csv").write_text(text)
    by_heading = {"Karte": "loyalty_card", "Mail": "email"}
    assert load(tmp_path, ledger, settings(extract_columns={"Mail": "email"})).landed.orders == 1
    _write_again(tmp_path / "orders.csv")
    corrected = settings(extract_columns=by_heading)
    assert load(tmp_path, ledger, corrected, given.run("run-2")).landed.corrections == 1
    assert given.row(ledger, "S1")["loyalty_card"] == "6035770741165744"


def test_a_file_that_came_damaged_meanwhile_is_read_when_it_is_as_it_was(
    tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    whole = orders_text("S1", "S2")
    for number, text in enumerate((whole, whole[:-30], whole)):
        (tmp_path / "orders.csv").write_text(text)
        os.utime(tmp_path / "orders.csv", (number, number))
        load(tmp_path, ledger, settings(), given.run(f"run-{number}"))
    assert extract(ledger, "orders.csv")["state"] == "loaded"
