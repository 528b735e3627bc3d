"""What a database means to do for what is asked of the ledger: whether it would read a whole table of orders."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from include.instore.ledger import Ledger

_LARGE = r"(orders|deliveries|contents|customers)(_\d+)?\b"
_READING = ("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")
_SQLITE = re.compile(rf"SCAN {_LARGE}")
_POSTGRESQL = re.compile(rf"(Seq Scan on|Scan( Backward)? using \w+ on) {_LARGE}")


def reads_all(ledger: Ledger, ask: Callable[[Ledger], Any], *, as_if_large: bool) -> list[str]:
    """The statements, with their plans, that read all of a large table, whether to show it or to change it.

    :param as_if_large: have PostgreSQL take an index wherever there is one, as it does once a table is large.
    """
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        if statement.startswith(_READING):
            first = parameters[0] if many and isinstance(parameters, list) else parameters
            asked.append((statement, first))

    sa.event.listen(ledger.engine, "before_cursor_execute", note)
    try:
        ask(ledger)
    finally:
        sa.event.remove(ledger.engine, "before_cursor_execute", note)
    if not asked:
        raise ValueError("nothing was asked")
    sqlite = ledger.engine.dialect.name == "sqlite"
    found = []
    with ledger.engine.connect() as connection:
        if as_if_large and not sqlite:
            for way in ("seqscan", "hashjoin", "mergejoin"):  # which join small tables whole
                connection.execute(sa.text(f"SET LOCAL enable_{way} = off"))
        for statement, parameters in asked:
            rows = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{statement}", parameters)
            plan = [str(row[-1]) for row in rows]
            if any(map(_SQLITE.match, plan)) if sqlite else _reads_all(plan):
                found.append("\n".join([statement, *plan]))
    return found


def _reads_all(plan: list[str]) -> bool:
    """A scan of an index without a condition on it reads all as well."""
    for line, below in zip(plan, [*plan[1:], ""], strict=True):
        if _POSTGRESQL.search(line) and ("Seq Scan" in line or "Index Cond" not in below):
            return True
    return False
