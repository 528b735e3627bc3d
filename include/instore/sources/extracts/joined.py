"""Orders in one CSV and their lines in another, both of one archive: joined by their key to a CSV with a row a line.

What is kept of an order are the joined rows, so that a redrive reads them as those of any CSV. All rows are on disk
meanwhile, and one is in memory.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from include.instore.model.declarations import Declaration
from include.instore.model.errors import RecordRefused
from include.instore.sources.adapters import Adapter
from include.instore.sources.extracts.csv_lines import read_csv
from include.instore.sources.extracts.parquet import Written, csv_text
from include.instore.sources.extracts.records import BrokenExtract, ExtractRecord

_DELIMITERS = ",;\t|"


def read_joined(orders: BinaryIO, lines: BinaryIO, adapter: Adapter, lines_name: str) -> Iterator[ExtractRecord]:
    """The orders with their lines; behind them those without lines, and the lines without an order, each refused.

    :param lines_name: of the file with the lines, for what is said of them.
    :raises BrokenExtract: a row is none of its file's, or a key is there twice among the orders.
    """
    declared = adapter.declared
    assert declared is not None  # noqa: S101  it says that there are two files
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as database:
        for statement in (
            "CREATE TABLE lines (line INT, key TEXT, cells TEXT)",
            "CREATE TABLE orders (key TEXT PRIMARY KEY, line INT, cells TEXT, has_lines INT) WITHOUT ROWID",
            "BEGIN",
        ):
            database.execute(statement)
        heading = _keep(lines, declared, 1, database, "INSERT INTO lines VALUES (?1, ?2, ?3)")
        database.execute("CREATE INDEX by_key ON lines (key)")
        exists = "(SELECT count(*) FROM lines WHERE key = ?2)"
        whole = _keep(orders, declared, 0, database, f"INSERT INTO orders VALUES (?2, ?1, ?3, {exists})")
        joined = [*whole, *(f"lines.{name}" for name in heading)]
        places: deque[tuple[int, int]] = deque()
        rows = io.BufferedReader(Written(_rows(database, joined, declared, places)))
        for record in read_csv(rows, adapter.settings, adapter):
            line, first = places[0]
            for _ in range(record.rows):
                places.popleft()
            order = record.order
            if isinstance(order, RecordRefused):
                order = RecordRefused(order.reason, f"{order.detail}; its lines begin at line {first} of {lines_name}")
            yield replace(record, line=line, order=order)
        alone = "SELECT line, cells, 'it has no lines in the file of the lines', '' FROM orders WHERE NOT has_lines"
        orphans = "SELECT line, cells, 'a line of an order that the file of the orders does not have', ? FROM lines"
        orphans += " WHERE key NOT IN (SELECT key FROM orders) ORDER BY line"
        for query, values in ((alone, ()), (orphans, (lines_name,))):
            for line, cells, why, member in database.execute(query, values):
                raw = csv_text(json.loads(cells), declared.delimiter or ",").encode()
                yield ExtractRecord(line, raw, RecordRefused("missing_field", why), member=member)


def _rows(
    database: sqlite3.Connection, heading: list[str], declared: Declaration, places: deque[tuple[int, int]]
) -> Iterator[bytes]:
    """:param places: gets of each row the line of its order, and its own, each in its file."""
    encoder = codecs.getincrementalencoder(declared.encoding)()  # writes a byte order mark once
    delimiter = declared.delimiter or ","
    yield encoder.encode("\n" * declared.title_lines + csv_text(heading, delimiter))
    found = "SELECT orders.line, lines.line, orders.cells, lines.cells FROM orders JOIN lines USING (key)"
    for *place, order, line in database.execute(f"{found} ORDER BY orders.line, lines.line"):
        places.append((place[0], place[1]))
        yield encoder.encode(csv_text([*json.loads(order), *json.loads(line)], delimiter))


def _keep(stream: BinaryIO, declared: Declaration, which: int, database: sqlite3.Connection, insert: str) -> list[str]:
    """Keep all rows of a file by their keys; its heading."""
    text = io.TextIOWrapper(stream, encoding=declared.encoding, newline="")
    line, following = 1, declared.title_lines + 2
    try:
        for _ in range(declared.title_lines):
            text.readline()
        first = text.readline()
        delimiter = declared.delimiter or max(_DELIMITERS, key=first.count)
        heading = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if heading.count(declared.key[which]) != 1:
            raise BrokenExtract(
                1, f"{heading.count(declared.key[which])} columns {declared.key[which]}, the key, are there"
            )
        at = heading.index(declared.key[which])
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        for row in rows:
            line, following = following, declared.title_lines + 2 + rows.line_num
            if row and len(row) != len(heading):
                raise BrokenExtract(line, f"has {len(row)} columns, the header has {len(heading)}")
            if row:
                database.execute(insert, (line, row[at].strip(), json.dumps(row)))
    except (csv.Error, UnicodeError, EOFError, OSError) as error:
        raise BrokenExtract(line, f"the row cannot be read ({type(error).__name__})") from None
    except sqlite3.IntegrityError:
        raise BrokenExtract(line, f"the {declared.key[which]} of its order is there twice") from None
    return heading
