"""``make cases``: every case of a folder through the DAG's real tasks, and a table of what came out and what is right.

A case that has no checks is run as well; what is right there is for a person to judge. The exit code is 1 where
something is wrong. The totals are JSON on the last line.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from tests.cases.case import HERE, CaseRefused, find_cases, read_case
from tests.cases.checks import failing
from tests.cases.checks import in_words as check_in_words
from tests.cases.running import CaseSandbox, in_words, run_case

VERDICTS = ("right", "wrong", "person")
_COLUMNS = (("case", 26), ("came out", 56), ("right", 36), ("verdict", 36))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cases", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE, help="of case folders, or one; default: our own")
    parser.add_argument("-k", default="", help="only cases whose name has this in it")
    parser.add_argument("--json", type=Path, help="write everything that came out into this file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the stand-ins are stopped
    begun = time.monotonic()
    try:
        folders = [path for path in find_cases(arguments.folder) if arguments.k in path.name]
    except CaseRefused as refused:
        parser.error(str(refused))
    rows: list[tuple[str, ...]] = []
    everything = {}
    with tempfile.TemporaryDirectory(prefix="cases-") as place:
        sandbox = CaseSandbox(Path(place) / "sandbox")
        try:
            sandbox.start()
            for number, folder in enumerate(folders):
                started = time.monotonic()
                print(f"[{number + 1}/{len(folders)}] {folder.name} … ", end="", flush=True)  # noqa: T201
                row, tables = _run(sandbox, folder, Path(place) / f"case{number}", number)
                verdict = row[3].split()[0].rstrip(",:")
                print(f"{verdict} ({time.monotonic() - started:.1f} s)", flush=True)  # noqa: T201
                rows.append(row)
                everything[folder.name] = tables
        finally:
            sandbox.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1, default=str))
    _print_table(rows)
    totals = {verdict: sum(row[3].startswith(verdict) for row in rows) for verdict in VERDICTS}
    print(json.dumps({"cases": len(rows), **totals, "seconds": round(time.monotonic() - begun)}))  # noqa: T201
    return int(totals["wrong"] > 0)


def _run(sandbox: CaseSandbox, folder: Path, place: Path, number: int) -> tuple[tuple[str, ...], object]:
    try:
        case = read_case(folder)
        tables = run_case(sandbox, case, place, number)
        wrong = failing(case.checks, tables)
    except Exception as error:  # the other folders are run whatever this one is
        return (folder.name, f"not run: {type(error).__name__}: {error}", "", "wrong: the case cannot be run"), None
    came_out = in_words(case, tables)
    if case.acted_out:
        came_out += f"; acted out of the words: {case.acted_out}"
    if case.not_acted_out:
        came_out += f"; NOT ACTED OUT, the outside behaved as always: {'; '.join(case.not_acted_out)}"
    if not case.checks:
        verdict = "person: for a person to judge"
    else:
        verdict = f"wrong, not so: {'; '.join(map(check_in_words, wrong))}" if wrong else "right"
    return (folder.name, came_out, case.right, verdict), tables


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns of text that wraps in them."""
    line = "-+-".join("-" * width for _, width in _COLUMNS)
    for row in [tuple(name for name, _ in _COLUMNS), *rows]:
        cells = [
            textwrap.wrap(text, width, break_on_hyphens=True) or [""]
            for text, (_, width) in zip(row, _COLUMNS, strict=True)
        ]
        for at in range(max(map(len, cells))):
            parts = [
                f"{cell[at] if at < len(cell) else '':{width}}"
                for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
            ]
            print(" | ".join(parts).rstrip())  # noqa: T201
        print(line)  # noqa: T201
