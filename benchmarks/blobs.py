"""``python -m benchmarks.blobs``: an hour's look at a container of many loaded blobs of which ten are new.

On Azurite, and a ledger on SQLite that knows all but the ten. Prints seconds and memory of task ``load_extracts`` in a
process of its own, for a small container and for the large one, and what it loaded. Argument: how many blobs.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.tables import extracts
from tests.storages.standing import Azurite

SMALL, NEW = 1000, 10
_MOST_SECONDS, _MOST_MB = 120, 100
_HEADING = "order_number,order_date,store_id,loyalty_card,currency,order_total,product_code,quantity,line_total\n"


def _lay(azurite: Azurite, container: str, names: list[str]) -> None:
    with azurite.container(container) as client, ThreadPoolExecutor(8) as pool:

        def lay(name: str) -> None:
            number = name.rpartition("/")[2].partition(".")[0]
            row = f"{number},2017-06-05T10:00:00Z,0404,6035770741165744,USD,3.50,947865,1,3.50\n"
            client.upload_blob(name, (_HEADING + row).encode())

        for _ in pool.map(lay, names):
            pass


def _know(azurite: Azurite, container: str, ledger: Ledger) -> None:
    """The ledger has loaded what is there."""
    now = datetime.now(timezone.utc)

    def rows() -> Iterator[dict[str, Any]]:
        with azurite.container(container) as client:
            for blob in client.list_blobs():
                tag = blob.etag.strip('"')
                yield {
                    "path": blob.name.removeprefix("orders/"), "version": f'{blob.size}:"{tag}"', "orders": 1,
                    "bad_rows": 0, "state": "loaded", "run": "run-0", "loaded_at": now,
                }  # fmt: skip

    with ledger.write() as connection:
        connection.execute(sa.insert(extracts), list(rows()))


def _hour() -> None:
    """The task, as a worker runs it; its counts, seconds and memory, in MB, before and at most."""
    from include.instore.model.settings import load_settings
    from include.instore_airflow import tasks
    from include.instore_airflow.connections import extracts as opened

    opened(load_settings())
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    dates = dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "conf"))
    run = SimpleNamespace(dag_id="instore_orders", run_id="manual__1", run_type="manual", clear_number=0, **dates)
    counts = tasks.load_extracts(run, {})
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({  # noqa: T201
        "seconds": round(time.monotonic() - begun, 1), "mb_before": before // 1024, "mb_more": (most - before) // 1024,
        "files": counts["files"], "orders": counts["orders"],
    }))  # fmt: skip


def measure(azurite: Azurite, folder: Path, count: int) -> dict[str, Any]:
    """An hour with ten new blobs beside so many that are known."""
    container, path = f"blobs{count}", folder / f"ledger{count}.db"
    _lay(azurite, container, [f"orders/2017/{n % 365:03}/S{n:07}.csv" for n in range(count - NEW)])
    with closing(Ledger(f"sqlite:///{path}")) as ledger:
        ledger.migrate()
        _know(azurite, container, ledger)
    _lay(azurite, container, [f"orders/2018/{n:03}/T{n:07}.csv" for n in range(NEW)])
    extra = {"connection_string": azurite.connection_string, "path": f"abfs://{container}/orders"}
    env = {
        **os.environ,
        "AIRFLOW_CONN_INSTORE_EXTRACTS": json.dumps({"conn_type": "wasb", "extra": extra}),
        "AIRFLOW_CONN_INSTORE_LEDGER": json.dumps({"conn_type": "sqlite", "host": str(path)}),
        "AIRFLOW_CONN_INSTORE_HASH_KEY": json.dumps({"conn_type": "generic", "password": "of this benchmark alone"}),
        "INSTORE_EXTRACT_MIN_AGE": "0",
    }
    command = [sys.executable, "-W", "ignore", "-c", "from benchmarks.blobs import _hour; _hour()"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"blobs": count} | found


def main() -> int:
    """Exit code 1 where the hour takes more than it may, or loads anything but what is new."""
    count, fine = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, True
    with tempfile.TemporaryDirectory() as name:
        azurite = Azurite(Path(name))
        try:
            for each in (SMALL, count):
                found = measure(azurite, Path(name), each)
                print(json.dumps(found), flush=True)  # noqa: T201
                fine = fine and found["files"] == found["orders"] == NEW
                fine = fine and found["seconds"] < _MOST_SECONDS and found["mb_more"] < _MOST_MB
        finally:
            azurite.stop()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
