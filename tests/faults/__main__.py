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

from tests.faults.conftest import FULL, TOTALS_FOLDER
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
        code = _run_tests(Path(folder), arguments.workers, arguments.k)
        totals = Totals()
        for path in Path(folder).iterdir():
            totals.add(json.loads(path.read_text()))
    failed = code != 0
    print(f"{time.monotonic() - begun:.0f} s by {arguments.workers} workers, exit code {code}")  # noqa: T201
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


def _run_tests(totals: Path, workers: int, only: str) -> int:
    """One pytest of several workers, each with a sandbox of its own; whoever is done takes the next test."""
    command = [sys.executable, "-m", "pytest", "tests/faults", "-q", "--durations=10", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, "-n", str(workers), "--dist", "load", "--maxschedchunk", "1", *(["-k", only] if only else [])],
        cwd=ROOT,
        env={**os.environ, FULL: "1", TOTALS_FOLDER: str(totals)},
    )
    try:
        return process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # so that pytest ends its fixtures' processes
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
