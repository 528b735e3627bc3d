"""Rows of one order that stand apart in a file, put together again; what is remembered of a file is on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cached_property

from include.instore.model.codes import SPLIT_ORDER
from include.instore.model.errors import RecordRefused
from include.instore.model.order_keys import key_fields, order_key
from include.instore.model.orders import InStoreOrder, order_of_payload
from include.instore.model.settings import Settings
from include.instore.sources.extracts.records import ExtractRecord


class OrdersOfFile:
    """The orders of one file by their keys: how often each comes, and the rows of those that come more than once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fields = key_fields(settings.orders.order_key)
        self._database = sqlite3.connect("", isolation_level=None)  # a file of its own, which goes with it
        self._database.execute(
            "CREATE TABLE seen (key TEXT PRIMARY KEY, times INT, adds_up INT, beside INT) WITHOUT ROWID"
        )
        self._database.execute("CREATE TABLE refused (number BLOB PRIMARY KEY) WITHOUT ROWID")
        self._database.execute(
            "CREATE TABLE pieces (key TEXT, line INT, raw BLOB, heading BLOB, payload TEXT, adapter TEXT, member TEXT)"
        )
        self._database.execute("BEGIN")
        self._last: str | None = None
        self._behind_refused = False
        self._half_a_line = False

    def __enter__(self) -> OrdersOfFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def note(self, record: ExtractRecord) -> None:
        """Remember an order of the first reading."""
        keyed = self._keyed(record)
        refused = isinstance(record.order, RecordRefused)
        if refused and self._last:
            self._database.execute("UPDATE seen SET beside = 1 WHERE key = ?", (self._last,))
        if refused and record.number:
            self._database.execute("INSERT OR IGNORE INTO refused VALUES (?)", (_bytes(record.number),))
        self._last = keyed[0] if keyed else None
        self._half_a_line = self._may_be_half_a_line(record)
        if keyed:
            key, order = keyed
            self._database.execute(
                "INSERT INTO seen VALUES (?, 1, ?, ?) ON CONFLICT (key)"
                " DO UPDATE SET times = times + 1, adds_up = min(adds_up, excluded.adds_up)",
                (key, order.adds_up(self._settings.orders.sums_tolerance), self._behind_refused),
            )
        self._behind_refused = refused

    def seems_cut(self) -> str:
        """Why the file seems to have lost its end, nothing where it does not.

        Its last order does not make its total, and all others that can tell do; without a final line break it is enough
        that it cannot tell, since its last amount may be cut off. Where rows stand apart, any order may have lost some.
        """
        whole, short, apart = self._counts
        if apart and whole and short:
            return f"its rows are not sorted by order, and of {whole + short} orders {short} do not make their totals"
        last = "SELECT 1 FROM seen WHERE key = ? AND times = 1 AND adds_up = 0", (self._last,)
        if short == 1 and whole and self._database.execute(*last).fetchone():
            return "its last order's lines do not make its total, those of all other orders do"
        if self._half_a_line and whole and not short and not apart:
            return "its last line has no line break, and its last order cannot tell whether it is whole, all others can"
        return ""

    def lost_a_row(self, record: ExtractRecord) -> str:
        """Why an order seems to have lost a row; nothing where it makes its total, or stands in no suspicious place."""
        whole, short, apart = self._counts
        if self._may_be_half_a_line(record):
            return "it may have lost the end of its last line" if whole and not short else ""
        keyed = self._keyed(record)
        mine = "SELECT adds_up, beside FROM seen WHERE key = ? AND times = 1 AND adds_up IS NOT 1"
        found = self._database.execute(mine, keyed[:1]).fetchone() if keyed else None
        if keyed is None or found is None:
            return ""
        refused = "SELECT 1 FROM refused WHERE number = ?", (_bytes(record.number),)
        if self._database.execute(*refused).fetchone():
            return "rows of its number were refused elsewhere in the file"
        places = {"beside a refused row": found[1], "the last of its file": keyed[0] == self._last}
        where = next((place for place, is_there in places.items() if is_there), "in a file not sorted" if apart else "")
        # Where most orders make no total, that this one does not says nothing.
        if found[0] is None or whole < short or not where:
            return ""
        return f"its lines do not make its total, those of most other orders do, and it is {where}"

    @cached_property
    def _counts(self) -> tuple[int, int, int]:
        """Orders in one place that make their totals and that do not, and orders in rows apart."""
        counted = "SELECT count(*) FROM seen WHERE times = 1 AND adds_up ="
        queries = f"{counted} 1", f"{counted} 0", "SELECT count(*) FROM seen WHERE times > 1 AND adds_up = 0"
        whole, short, apart = (self._database.execute(query).fetchone()[0] for query in queries)
        return whole, short, apart

    def _may_be_half_a_line(self, record: ExtractRecord) -> bool:
        if record.ends or not record.heading:
            return False
        return not isinstance(record.order, InStoreOrder) or record.order.adds_up() is None

    def hold(self, record: ExtractRecord) -> bool:
        """Keep a record of the second reading whose order comes more than once; False: it is whole."""
        keyed = self._keyed(record)
        if not keyed:
            return False
        key, order = keyed
        if not self._database.execute("SELECT 1 FROM seen WHERE key = ? AND times > 1", (key,)).fetchone():
            return False
        row = key, record.line, record.raw, record.heading, order.payload(), record.adapter, record.member
        self._database.execute("INSERT INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return True

    def put_together(self) -> Iterator[ExtractRecord]:
        """The orders of the rows that were held, by their first line."""
        keys = self._database.execute("SELECT key FROM pieces GROUP BY key ORDER BY min(line)")
        for (key,) in keys:
            rows = self._database.execute(
                "SELECT line, raw, payload, heading, adapter, member FROM pieces WHERE key = ? ORDER BY line", (key,)
            )
            pieces = [
                ExtractRecord(line, raw, order_of_payload(payload), heading, adapter=adapter, member=member)
                for line, raw, payload, heading, adapter, member in rows
            ]
            yield from _together(pieces, self._settings.orders.sums_tolerance)

    def _keyed(self, record: ExtractRecord) -> tuple[str, InStoreOrder] | None:
        """An order in rows, and its key; a document is never a piece of another."""
        if not record.heading or not isinstance(record.order, InStoreOrder):
            return None
        try:
            return order_key(record.order, self._fields, self._settings.orders.store_timezone), record.order
        except RecordRefused:
            return None  # and refused for it where it is landed


def _bytes(number: str | None) -> bytes:
    """As SQLite takes text of another encoding."""
    return (number or "").encode(errors="surrogatepass")


def _together(pieces: Sequence[ExtractRecord], tolerance: Decimal) -> Iterator[ExtractRecord]:
    """One order where only all lines make its total; each its own where each does; none where it cannot be told."""
    orders = [piece.order for piece in pieces if isinstance(piece.order, InStoreOrder)]
    said = [order.model_dump(exclude={"lines"}) for order in orders]
    if len({(order.store_id, order.date) for order in orders}) > 1:
        yield from pieces  # several purchases under one number
        return
    alone = [order.adds_up(tolerance) for order in orders]
    if all(adds_up is True for adds_up in alone):
        yield from pieces
        return
    first = orders[0].model_copy(update={"lines": tuple(line for each in orders for line in each.lines)})
    whole = replace(pieces[0], raw=b"".join(piece.raw for piece in pieces), order=first)
    if all(one == said[0] for one in said) and first.adds_up(tolerance) and True not in alone:
        yield whole
        return
    lines = ", ".join(str(piece.line) for piece in pieces)
    why = "their order fields differ" if any(one != said[0] for one in said) else "together they do not make its total"
    detail = f"its rows stand apart, at lines {lines}, and {why}; have the ERP sort its export by order"
    yield replace(whole, order=RecordRefused(SPLIT_ORDER, detail))
