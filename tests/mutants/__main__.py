"""``make mutants``: plants each bug in a copy of the code, and names the test that kills it; totals as JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
_PARTS = ("dags", "docs", "include", "plugins", "sandbox", "demo", "tests", "pyproject.toml")
_SECONDS = 300
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_NEVER_RAN = re.compile(
    r"(ImportError|ModuleNotFoundError|SyntaxError|IndentationError|NameError|error(s)? during collection)"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="copies of the code at once")
    parser.add_argument("-k", default="", help="only bugs whose name or file has this in it")
    arguments = parser.parse_args()
    chosen = [each for each in MUTANTS if arguments.k in each.name or arguments.k in each.file]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: Queue[Path] = Queue()
        for number in range(arguments.workers):
            copies.put(_copy(Path(folder) / str(number)))
        print(f"{len(chosen)} bugs; first the tests without any", flush=True)  # noqa: T201
        if wrong := _run(ROOT, sorted({test for mutant in chosen for test in mutant.tests}), "-n", "2"):
            print(f"They fail by themselves:\n{wrong[-3000:]}")  # noqa: T201
            return 1
        with ThreadPoolExecutor(arguments.workers) as threads:
            verdicts = list(threads.map(lambda mutant: _try(mutant, copies), chosen))
    survivors = [mutant.name for mutant, verdict in zip(chosen, verdicts, strict=True) if verdict != "killed"]
    print(f"{time.monotonic() - begun:.0f} s by {arguments.workers} workers")  # noqa: T201
    killed = len(chosen) - len(survivors)
    print(json.dumps({"planted": len(chosen), "killed": killed, "survivors": survivors}))  # noqa: T201
    return int(bool(survivors))


def _copy(folder: Path) -> Path:
    """A copy of the code in which bugs are planted; nothing of the original is touched."""
    folder.mkdir()
    for part in _PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / part)
    if (ROOT / ".servers").exists():
        (folder / ".servers").symlink_to(ROOT / ".servers")
    return folder


def _try(mutant: Mutant, copies: Queue[Path]) -> str:
    copy = copies.get()
    file = copy / mutant.file
    source = file.read_text()
    try:
        file.write_text(source.replace(mutant.old, mutant.new))
        said = _run(copy, mutant.tests, "-x")
    finally:
        file.write_text(source)
        copies.put(copy)
    by = _FAILED.search(said)
    if not said:
        verdict, told = "survived", "nothing failed"
    elif by is None or _NEVER_RAN.search(said):
        verdict, told = "never ran", said[-400:]
    else:
        verdict, told = "killed", by[1]
    print(f"{verdict}: {mutant.name} ({mutant.file}): {told}", flush=True)  # noqa: T201
    return verdict


def _run(folder: Path, tests: Sequence[str], *options: str) -> str:
    """What pytest says where something fails; empty where nothing does."""
    environment = os.environ | {
        # The provider may be installed from elsewhere: here it is the copy's.
        "PYTHONPATH": os.pathsep.join((str(folder / "plugins"), str(folder))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *options, *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"FAILED {tests[0]}: it hangs"
    return done.stdout + done.stderr if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
