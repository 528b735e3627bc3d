"""Family 8: a file cut at any byte is told as cut, or holds nothing but whole orders.

What nobody can tell is named: a cut exactly between two orders, and one before last lines of nothing.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import simplejson
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from include.instore.sources.extracts import Storage, load_extracts
from sandbox import week
from tests.faults.conftest import FULL, in_smoke
from tests.faults.totals import count_fault

RANDOM, AT_LINES = (300, 150) if os.environ.get(FULL) else (12, 12)
FORMS = ("csv", "csv without a final line break", "csv.gz")


def _landed(folder: Path, name: str, data: bytes) -> tuple[dict[str, list[Any]] | None, str]:
    """Order number to its lines as landed, None where the file waits; and why it does."""
    (folder / "extracts").mkdir(parents=True)
    (folder / "extracts" / name).write_bytes(data)
    shutil.copy(_empty_ledger(folder.parent), folder / "ledger.db")
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    run = Run("cut", "scheduled", None, True, True, "due")
    open_run(ledger, run)
    loaded = load_extracts(Storage.local(folder / "extracts"), ledger, run, Settings(extract_min_age=0))
    with ledger.read() as connection:
        rows = connection.execute(sa.text("SELECT order_number, payload FROM orders")).all()
        details = connection.execute(sa.text("SELECT detail FROM extracts")).scalars().all()
        quarantined = connection.execute(sa.text("SELECT count(*) FROM quarantine")).scalar_one()
    ledger.close()
    if loaded.unread_files:
        assert not rows
        return None, str(details[0])
    assert not quarantined
    return {number: simplejson.loads(payload, use_decimal=True)["lines"] for number, payload in rows}, ""


def _empty_ledger(folder: Path) -> Path:
    """A ledger without an order, made once for all cuts of a file."""
    path = folder / "empty.db"
    if not path.exists():
        ledger = Ledger(f"sqlite:///{path}")
        ledger.migrate()
        with ledger.write() as connection:
            connection.execute(sa.text("SELECT 1"))
        ledger.close()  # the last connection puts what is in the WAL into the file
    return path


def _positions(text: bytes, data: bytes, seed: int) -> list[int]:
    """Where it is cut: anywhere, around the ends of lines, and in the last field of lines."""
    chance = random.Random(seed)
    anywhere = [chance.randrange(1, len(data)) for _ in range(RANDOM)]
    if data is not text and data != text.rstrip(b"\n"):
        return anywhere
    ends = [place for place, byte in enumerate(text) if byte == ord("\n")]
    last_fields = [(text.rindex(b",", 0, end) + 1, end) for end in chance.sample(ends[1:], AT_LINES)]
    anywhere += [chance.randrange(comma, end) for comma, end in last_fields]
    return anywhere + [chance.choice(ends) + chance.choice((-1, 0, 1, 2)) for _ in range(AT_LINES)]


@pytest.mark.weight(60)
@pytest.mark.parametrize("form", in_smoke(FORMS, FORMS[0]))
@pytest.mark.parametrize("day", in_smoke(range(3), 0))
def test_a_file_cut_anywhere(
    tmp_path: Path, day: int, form: str, record_property: Callable[[str, object], None]
) -> None:
    text = gzip.decompress(week.extracts()[day].read_bytes())
    lines = text.splitlines(keepends=True)
    end = next(n for n in range(1200, len(lines)) if lines[n].split(b",")[0] != lines[n - 1].split(b",")[0])
    text = b"".join(lines[:end])
    name = "orders.csv.gz" if form == "csv.gz" else "orders.csv"
    data = {"csv": text, "csv.gz": gzip.compress(text, mtime=0)}.get(form, text.rstrip(b"\n"))
    whole, why = _landed(tmp_path / "whole", name, data)
    assert whole is not None, why
    outcomes = Counter[str]()
    for index, position in enumerate(_positions(text, data, seed=day)):
        cut = data[: min(position, len(data) - 1)]
        count_fault(8)
        landed, why = _landed(tmp_path / f"{index}", name, cut)
        outcomes[_outcome(landed, whole, _readable(cut, name))] += 1
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    record_property("cut files", f"day {day}, {form}: {told}")
    assert not outcomes["wrong"], told
    assert outcomes["told"] > outcomes.total() / 2, told


def _readable(cut: bytes, name: str) -> bytes:
    return zlib.decompressobj(31).decompress(cut) if name.endswith(".gz") else cut


def _outcome(landed: dict[str, list[Any]] | None, whole: dict[str, list[Any]], cut: bytes) -> str:
    if landed is None:
        return "told"
    if landed == whole:
        return "whole"
    begun = {line.split(b",")[0].decode() for line in cut.splitlines()[1:]}
    different = {number for number in landed if landed[number] != whole.get(number)}
    if not different and begun == landed.keys():
        return "between two orders"
    short = [number for number in different if _lost_nothing(landed[number], whole[number])]
    return "before lines of nothing" if len(short) == len(different) == 1 else "wrong"


def _lost_nothing(lines: list[Any], all_of_them: list[Any]) -> bool:
    """Whether the lines that are missing make nothing of the total."""
    return all_of_them[: len(lines)] == lines and not sum(line["total"] for line in all_of_them[len(lines) :])
