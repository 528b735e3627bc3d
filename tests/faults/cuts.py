"""Files cut anywhere, and what noticed it: ``python -m tests.faults.cuts FILE…`` prints the shares; .csv or .csv.gz."""

from __future__ import annotations

import gzip
import logging
import random
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import simplejson
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.model.settings import load_settings
from include.instore.model.windows import Run
from include.instore.sources.extracts import Storage, load_extracts

TRAILER = r"EOF;(?P<count>\d+);(?P<sum>[\d.]+)"
FORMS = ("csv", "csv without a final line break", "csv.gz", "csv with a trailer")
MEANS = {
    "trailer": "trailer",
    "unreadable from here": "gzip",
    "compressed data is damaged": "gzip",
    "seems cut": "sums",
    "in the middle of a line": "row",
    "column": "heading",
}
"""What a waiting file's detail holds, and what it was then that noticed."""
NOTICED = (*dict.fromkeys(MEANS.values()), "sums, told")
BETWEEN, NOTHING, WRONG = "between two orders", "before lines of nothing", "wrong"


def written(text: bytes, form: str) -> bytes:
    """The file in one of the forms. :param text: a CSV that ends in a line break."""
    if form == "csv.gz":
        return gzip.compress(text, mtime=0)
    if form == "csv with a trailer":
        rows = [line.split(b",") for line in text.splitlines()[1:]]
        total = sum(Decimal(row[-1].decode()) for row in rows)
        return text + f"EOF;{len(rows)};{total}\n".encode()
    return text if form == "csv" else text.rstrip(b"\n")


def anywhere(data: bytes, count: int, chance: random.Random) -> list[int]:
    return [chance.randrange(1, len(data)) for _ in range(count)]


def at_lines(text: bytes, count: int, chance: random.Random) -> list[int]:
    """In the last field of lines, and around their ends."""
    ends = [place for place, byte in enumerate(text) if byte == ord("\n")]
    last_fields = [(text.rindex(b",", 0, end) + 1, end) for end in chance.sample(ends[1:], count)]
    inside = [chance.randrange(comma, end) for comma, end in last_fields]
    return inside + [chance.choice(ends) + chance.choice((-1, 0, 1, 2)) for _ in range(count)]


def landed(folder: Path, form: str, data: bytes) -> tuple[dict[str, list[Any]] | None, str]:
    """Order number to its lines as landed, None where the file waits; and what noticed that it is cut."""
    name = "orders.csv.gz" if form == "csv.gz" else "orders.csv"
    (folder / "extracts").mkdir(parents=True)
    (folder / "extracts" / name).write_bytes(data)
    shutil.copy(_empty_ledger(folder.parent), folder / "ledger.db")
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    run = Run("cut", "scheduled", None, True, True, "due")
    open_run(ledger, run)
    settings = load_settings(extract_min_age=0, extract_trailer=TRAILER if form == "csv with a trailer" else "")
    loaded = load_extracts(Storage.local(folder / "extracts"), ledger, run, settings)
    with ledger.read() as connection:
        rows = connection.execute(sa.text("SELECT order_number, payload FROM orders")).all()
        details = connection.execute(sa.text("SELECT detail FROM extracts")).scalars().all()
        quarantined = connection.execute(sa.text("SELECT count(*) FROM quarantine")).scalar_one()
        short = connection.execute(sa.text("SELECT lines_do_not_add_up FROM runs")).scalar_one()
    ledger.close()
    shutil.rmtree(folder)
    if loaded.unread_files:
        assert not rows
        return None, next(means for text, means in MEANS.items() if text in str(details[0]))
    assert not quarantined
    found = {number: simplejson.loads(payload, use_decimal=True)["lines"] for number, payload in rows}
    return found, "sums, told" if short else ""


def outcome(folder: Path, form: str, data: bytes, position: int, whole: dict[str, list[Any]]) -> str:
    """What became of the file cut there: what noticed it, or what nothing can notice, or :data:`WRONG`."""
    cut = data[: min(position, len(data) - 1)]
    found, noticed = landed(folder, form, cut)
    if found is None or noticed:
        return noticed
    if found == whole:
        return "whole"
    begun = {line.split(b",")[0].decode() for line in _readable(cut, form).splitlines()[1:]}
    different = {number for number in found if found[number] != whole.get(number)}
    if not different and begun == found.keys():
        return BETWEEN
    short = [number for number in different if _lost_nothing(found[number], whole[number])]
    return NOTHING if len(short) == len(different) == 1 else WRONG


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


def _readable(cut: bytes, form: str) -> bytes:
    return zlib.decompressobj(31).decompress(cut) if form == "csv.gz" else cut


def _lost_nothing(lines: list[Any], all_of_them: list[Any]) -> bool:
    """Whether the lines that are missing make nothing of the total."""
    return all_of_them[: len(lines)] == lines and not sum(line["total"] for line in all_of_them[len(lines) :])


def main(names: list[str]) -> None:
    """Cut each file 300 times in each form and print the shares."""
    logging.disable()
    with tempfile.TemporaryDirectory() as temporary:
        for form in FORMS:
            counts = Counter[str]()
            for index, name in enumerate(names):
                file = Path(name).read_bytes()
                data = written(gzip.decompress(file) if name.endswith(".gz") else file, form)
                folder = Path(temporary) / f"{form}{index}"
                whole, _ = landed(folder / "whole", form, data)
                assert whole is not None
                for position in anywhere(data, 300, random.Random(index)):
                    counts[outcome(folder / "cut", form, data, position, whole)] += 1
            shares = ", ".join(f"{each} {count / counts.total():.1%}" for each, count in counts.most_common())
            print(f"{form}, {counts.total()} cuts: {shares}; wrong and silent {counts[WRONG]}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
