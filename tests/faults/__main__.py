"""``make faults``: the whole fault suite, by several workers at once, and its totals as JSON on the last line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.conftest import FULL, SHARD, TOTALS_FILE
from tests.faults.totals import Totals

ROOT = Path(__file__).parents[2]
LEAST_KILLS, LEAST_RANDOM, LEAST_ORDERS = 200, 200, 50_000
_SECONDS = 1800
"""The end of a suite that hangs. On two quiet cores it takes less than 1,200; what it took is printed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--workers", type=int, default=6, help="most of the time is waiting: more than there are cores")
    parser.add_argument("-k", default="", help="only tests that match, as pytest's -k; the minima do not hold then")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        workers = [_Worker(Path(folder), n, arguments.workers, arguments.k) for n in range(1, arguments.workers + 1)]
        try:
            codes = [worker.wait(_SECONDS - (time.monotonic() - begun)) for worker in workers]
        finally:
            for worker in workers:
                worker.stop()
                worker.show()
        totals = Totals()
        for worker in workers:
            totals.add(worker.totals())
    # 5: nothing matched; with fewer tests than workers some have nothing to do.
    failed = any(code not in (0, 5) for code in codes)
    print(f"{time.monotonic() - begun:.0f} s by {arguments.workers} workers, exit codes {codes}")  # noqa: T201
    if not arguments.k:
        for what, number, least in (
            ("kills", totals.kills, LEAST_KILLS),
            ("runs killed at a random moment", totals.runs_killed_at_random, LEAST_RANDOM),
            ("orders", totals.orders, LEAST_ORDERS),
        ):
            if number < least:
                print(f"only {number} {what}, at least {least} are wanted")  # noqa: T201
                failed = True
        failed |= any(not count for count in totals.document()["families"].values())
    print(json.dumps(totals.document()))  # noqa: T201
    return int(failed)


class _Worker:
    """One pytest over its share of the tests; what it says is shown when it has ended."""

    def __init__(self, folder: Path, number: int, workers: int, only: str) -> None:
        self._totals = folder / f"{number}.json"
        self._log = folder / f"{number}.log"
        command = [sys.executable, "-m", "pytest", "tests/faults", "-q", "--durations=8", "-p", "no:cacheprovider"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *(["-k", only] if only else [])],
                cwd=ROOT,
                env={**os.environ, FULL: "1", SHARD: f"{number}/{workers}", TOTALS_FILE: str(self._totals)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, seconds: float) -> int:
        try:
            code = self._process.wait(max(1, seconds))
        except subprocess.TimeoutExpired:
            code = 124
        return code

    def show(self) -> None:
        """What it has said."""
        sys.stdout.write(self._log.read_text(errors="replace"))
        sys.stdout.flush()

    def stop(self) -> None:
        """SIGINT, so that pytest ends its fixtures' processes; a worker that will not is killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def totals(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self._totals.read_text()) if self._totals.exists() else {}
        return document


if __name__ == "__main__":
    sys.exit(main())
