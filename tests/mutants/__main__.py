"""``make mutants``: plants each bug in a copy of the code, and names the test that kills it; totals as JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
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
_PARTS = (
    "adapters", "benchmarks", "dags", "docs", "include", "plugins", "sandbox", "demo", "tests", "pyproject.toml",
    "CHANGELOG.md",
)  # fmt: skip
_SECONDS = 900
_TEST_SECONDS = "timeout=60"
"""A bug may make a test wait for ever; it fails then. Without a bug each takes a few seconds."""
_TESTS_FAILED = 1
_KILLED, _SURVIVED, _FAULTY = "killed", "survived", "faulty"
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_NEVER_RAN = re.compile(
    r"(ImportError|ModuleNotFoundError|SyntaxError|IndentationError|NameError|error(s)? during collection)"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--workers", type=int, default=3, help="copies of the code at once")
    parser.add_argument("-k", default="", help="only bugs whose name or file has this in it")
    arguments = parser.parse_args()
    chosen = [each for each in MUTANTS if arguments.k in each.name or arguments.k in each.file]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: Queue[Path] = Queue()
        for number in range(arguments.workers):
            copies.put(_copy(Path(folder) / str(number)))
        first = copies.queue[0]
        if not _provider(first).is_relative_to(first):
            print("The tests would import another provider than the copy's")  # noqa: T201
            return 1
        print(f"{len(chosen)} bugs; first the tests without any", flush=True)  # noqa: T201
        # In a copy as well: what fails there for want of a file would seem to kill every bug.
        code, said = _run(first, sorted({test for mutant in chosen for test in mutant.tests}), "-n", "2")
        if code:
            print(f"They fail by themselves:\n{said[-3000:]}")  # noqa: T201
            return 1
        with ThreadPoolExecutor(arguments.workers) as threads:
            verdicts = list(threads.map(lambda mutant: _try(mutant, copies), chosen))
    print(f"{time.monotonic() - begun:.0f} s by {arguments.workers} workers")  # noqa: T201
    named = {
        verdict: [mutant.name for mutant, one in zip(chosen, verdicts, strict=True) if one == verdict]
        for verdict in (_KILLED, _SURVIVED, _FAULTY)
    }
    totals = {"planted": len(chosen), "killed": len(named[_KILLED]), "survivors": named[_SURVIVED]}
    print(json.dumps(totals | {"faulty": named[_FAULTY]}))  # noqa: T201
    return int(len(named[_KILLED]) < len(chosen))


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
    begun = time.monotonic()
    copy = copies.get()
    file = copy / mutant.file
    source = file.read_text()
    try:
        if source.count(mutant.old) != 1:
            verdict, told = _FAULTY, "its text is not there exactly once"
        else:
            file.write_text(source.replace(mutant.old, mutant.new))
            verdict, told = judged(*_run(copy, mutant.tests, "-x"))
    finally:
        file.write_text(source)
        copies.put(copy)
    seconds = time.monotonic() - begun
    print(f"{verdict}: {mutant.name} ({mutant.file}, {seconds:.0f} s): {told}", flush=True)  # noqa: T201
    return verdict


def judged(code: int, said: str) -> tuple[str, str]:
    """The verdict, and the test that killed the bug or what is to be said instead."""
    by = _FAILED.search(said)
    if code == 0:
        return _SURVIVED, "nothing failed"
    if code != _TESTS_FAILED or by is None or _NEVER_RAN.search(said):
        return _FAULTY, f"no test ran with it: {said[-400:]}"
    return _KILLED, by[1]


def _environment(copy: Path) -> dict[str, str]:
    # The provider may be installed from elsewhere: here it is the copy's.
    path = os.pathsep.join((str(copy / "plugins"), str(copy)))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _provider(copy: Path) -> Path:
    """The file of the provider that tests of this copy import."""
    command = [sys.executable, "-c", "import instore_provider; print(instore_provider.__file__)"]
    done = subprocess.run(command, cwd=copy, env=_environment(copy), capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def _run(copy: Path, tests: Sequence[str], *options: str) -> tuple[int, str]:
    """Exit code of pytest, and what it says."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-o", _TEST_SECONDS]
    process = subprocess.Popen(
        [*command, *options, *tests],
        cwd=copy,
        env=_environment(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that pytest ends its fixtures' processes
        try:
            said, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        return -1, f"{said}\nnot done after {_SECONDS} s"
    return process.returncode, said


if __name__ == "__main__":
    sys.exit(main())
