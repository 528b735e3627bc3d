"""``python -m benchmarks.streaming``: large files read as a run reads them, and how much memory that takes at most.

Each file is made in a folder for temporary files, read twice by a process of its own, and deleted: to its end, and then
in blocks, which are sorted into orders and refusals, and with ``--land`` landed in a ledger on SQLite. Prints a line a
format: megabytes of the file, orders, seconds, and the most memory that the process ever had, in megabytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.records import Arrival
from include.instore.model.errors import RecordRefused
from include.instore.model.settings import load_settings
from include.instore.model.windows import Run
from include.instore.sources.adapters import adapter_of_file
from include.instore.sources.checking import check_file
from include.instore.sources.extracts import Storage, load_extracts

FORMATS = ("csv", "json", "xml")
LIMIT_MB = 200
_XML = """format: xml
orders: order
lists: [line]
order: {orderNumber: number, date: date, storeId: store, loyaltyCardNumber: card, currency: currency, total: total}
lines_at: line
lines: {productCode: code, description: description, quantity: quantity, unitPrice: price, total: total}
"""
_TEXT = "One of the many things that a store sells by its long name"


def write(path: Path, form: str, size: int) -> int:
    """A file of about ``size`` bytes of orders with three lines each; how many they are."""
    begin, order, between, end = _WRITTEN[form]
    written, number = 0, 0
    with path.open("w", encoding="utf-8") as file:
        written += file.write(begin)
        while written < size:
            number += 1
            written += file.write((between if number > 1 else "") + order(number))
        file.write(end)
    return number


def _rows(number: int) -> str:
    order = f"S{number},2026-11-24T09:50:26Z,{number % 400:04},60{number:014},EUR,37.50"
    return "".join(f"{order},P{line},{_TEXT},1,12.50,12.50\n" for line in range(3))


def _document(number: int) -> str:
    line = {"description": _TEXT, "quantity": 1, "unitPrice": "12.50", "total": "12.50"}
    order = {
        "orderNumber": f"S{number}", "date": "2026-11-24T09:50:26Z", "storeId": f"{number % 400:04}",
        "loyaltyCardNumber": f"60{number:014}", "currency": "EUR", "total": "37.50",
        "lines": [{"productCode": f"P{at}", **line} for at in range(3)],
    }  # fmt: skip
    return json.dumps(order)


def _element(number: int) -> str:
    lines = "".join(
        f"<line><code>P{at}</code><description>{_TEXT}</description><quantity>1</quantity><price>12.50</price>"
        "<total>12.50</total></line>"
        for at in range(3)
    )
    return (
        f"<order><number>S{number}</number><date>2026-11-24T09:50:26Z</date><store>{number % 400:04}</store>"
        f"<card>60{number:014}</card><currency>EUR</currency><total>37.50</total>{lines}</order>\n"
    )


_HEAD = "order_number,order_date,store_id,loyalty_card,currency,order_total,product_code,description,quantity,"
_WRITTEN: dict[str, tuple[str, Callable[[int], str], str, str]] = {
    "csv": (f"{_HEAD}unit_price,line_total\n", _rows, "", ""),
    "json": ("[", _document, ",\n", "]"),
    "xml": ("<orders>", _element, "", "</orders>"),
}
"""Of each format how a file begins, an order, what is between two, and how it ends."""


def read(path: Path, land: bool) -> None:
    """Read a file as a run does, in this process; prints orders and the most memory, in megabytes."""
    declared = path.with_name("benchmark.yaml")
    declared.write_text(_XML, encoding="utf-8")
    settings = load_settings(extract_adapters={"*.xml": str(declared)}, extract_min_age=0, extract_glob=path.name)
    if land:
        run = Run("benchmark", "scheduled", None, drains_topic=False, loads_any_extract=True, claims="due")
        with closing(Ledger(f"sqlite:///{path.with_name('ledger.db')}")) as ledger:
            ledger.migrate()
            open_run(ledger, run)
            loaded = load_extracts(Storage.local(path.parent), ledger, run, settings)
            told = (loaded.landed.orders, loaded.landed.quarantined, loaded.files)
    else:
        fates = Counter(type(became) for _, became in check_file(path, settings, adapter_of_file(path.name, settings)))
        told = (fates[Arrival], fates[RecordRefused], 1)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(json.dumps([*told, most]) + "\n")


def measure(form: str, megabytes: int, land: bool) -> int:
    """The most megabytes of memory that it takes to read a file of so many; prints what was read.

    :raises RuntimeError: not all was read.
    """
    with tempfile.TemporaryDirectory(prefix="instore-streaming-") as folder:
        path = Path(folder) / f"orders.{form}"
        written = write(path, form, megabytes << 20)
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.streaming", "--read", str(path), *["--land"] * land]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  our own
        orders, refused, files, most = json.loads(said.splitlines()[-1])
        seconds = time.monotonic() - began
    if (orders, refused, files) != (written, 0, 1):
        raise RuntimeError(f"{form}: of {written} orders {orders} were read, {refused} refused, {files} files loaded")
    sys.stdout.write(f"{form:5} {megabytes:6} MB {orders:9} orders {seconds:8.1f} s {most:6} MB of memory at most\n")
    sys.stdout.flush()
    return int(most)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    options.add_argument("--mb", type=int, default=2000, help="megabytes of each file")
    options.add_argument("--format", choices=FORMATS, action="append", help="only this one; again for more")
    options.add_argument("--land", action="store_true", help="into a ledger on SQLite as well")
    options.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.read:
        read(chosen.read, chosen.land)
        return 0
    most = [measure(form, chosen.mb, chosen.land) for form in chosen.format or FORMATS]
    return int(max(most) >= LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
