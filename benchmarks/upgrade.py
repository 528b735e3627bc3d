"""``python -m benchmarks.upgrade``: a full ledger of the release before is brought to this one, and back.

On both databases. Forward is the command ``set-up``; back is the backup that was made before it. A
migration is one transaction: what writes meanwhile waits for it. Argument: how many orders.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from benchmarks.databases import KINDS, Database, opened
from benchmarks.many_orders import delivery_row, order_row, write_rows
from include.instore.ledger import Ledger
from include.instore.ledger import __file__ as _ledger

BEFORE = "0003"
_MIGRATIONS = Path(_ledger).with_name("migrations")


def fill_release_before(ledger: Ledger, count: int) -> None:
    """Orders as that release wrote them: how far one had come to its only destination is in its own row."""
    config, old = Config(), sa.MetaData()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with ledger.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)
        old.reflect(connection)
    table = old.tables["orders"]
    write_rows(ledger, table, _orders(ledger, {column.name for column in table.c}, count))


def _orders(ledger: Ledger, names: set[str], count: int) -> Iterator[dict[str, Any]]:
    now = datetime.now(timezone.utc)
    for n in range(count):
        row = order_row(ledger, n, count, now)
        row |= {"attempts": 0, "sends": 0, "sending_at": None, "sent_at": None, "outcome_run": None, "claim_time": None}
        if sent := delivery_row(n, count, now):
            row |= {name: sent[name] for name in ("attempts", "sending_at", "sent_at", "outcome_run")}
            row |= {"status": sent["status"] if sent["status"] in ("ready", "sending") else "sent", "sends": 1}
        document = json.loads(row["payload"]) | {"storeId": row["store_id"], "date": row["order_time"].isoformat()}
        yield {name: value for name, value in (row | {"payload": json.dumps(document)}).items() if name in names}


def measure(database: Database, count: int) -> dict[str, Any]:
    """Seconds of backup, forward and back; what there is before and after each."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(database.open()) as ledger:
        fill_release_before(ledger, count)
        before, backup = _found(ledger), Path(folder) / "ledger.backup"
        seconds = {"back_up": _seconds(lambda: database.back_up(backup))}
        seconds["forward"] = _seconds(lambda: ledger.migrate())
        after = _found(ledger)
        ledger.close()
        seconds["back"] = _seconds(lambda: database.restore(backup))
        again = _found(ledger)
        ledger.close()
        seconds["forward_again"] = _seconds(lambda: ledger.migrate())
        last = _found(ledger)
    right = before == again and after == last and after["orders"] == count and after["sent"] == before["sent"]
    return {"database": type(database).__name__, "orders": count, "seconds": seconds, "before": before, "after": after,
            "right": right}  # fmt: skip


def _found(ledger: Ledger) -> dict[str, Any]:
    with ledger.read() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
        where = "orders" if revision == BEFORE else "deliveries"
        return {
            "revision": revision,
            "orders": connection.scalar(sa.text("SELECT count(*) FROM orders")),
            "sent": connection.scalar(sa.text(f"SELECT count(*) FROM {where} WHERE status = 'sent'")),
            "events": connection.scalar(sa.text("SELECT max(event_id) FROM orders")),
        }


def _seconds(do: Any) -> float:
    begun = time.monotonic()
    do()
    return round(time.monotonic() - begun, 1)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    found = []
    for kind in KINDS:
        with opened(kind) as database:
            found.append(measure(database, count))
            print(json.dumps(found[-1]), flush=True)  # noqa: T201
    return 0 if all(each["right"] for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
