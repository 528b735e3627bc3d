"""Family 8: a file cut at any byte is told as cut, or holds nothing but whole orders.

What nobody can tell is named: a cut exactly between two orders, and one before last lines of nothing. With a trailer
or compressed, these are told as well.
"""

from __future__ import annotations

import gzip
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import week
from tests.faults.conftest import FULL, in_smoke
from tests.faults.cuts import BETWEEN, FORMS, NOTHING, NOTICED, WRONG, anywhere, at_lines, landed, outcome, written
from tests.faults.totals import count_fault

RANDOM, AT_LINES = (300, 150) if os.environ.get(FULL) else (12, 12)


@pytest.mark.weight(60)
@pytest.mark.parametrize("form", in_smoke(FORMS, FORMS[0]))
@pytest.mark.parametrize("day", in_smoke(range(3), 0))
def test_a_file_cut_anywhere(
    tmp_path: Path, day: int, form: str, record_property: Callable[[str, object], None]
) -> None:
    text = gzip.decompress(week.extracts()[day].read_bytes())
    lines = text.splitlines(keepends=True)
    end = next(n for n in range(1200, len(lines)) if lines[n].split(b",")[0] != lines[n - 1].split(b",")[0])
    text = b"".join(lines[:end])
    data = written(text, form)
    whole, why = landed(tmp_path / "whole", form, data)
    assert whole is not None, why
    chance = random.Random(day)
    positions = anywhere(data, RANDOM, chance) + (at_lines(text, AT_LINES, chance) if form != "csv.gz" else [])
    outcomes = Counter[str]()
    for index, position in enumerate(positions):
        count_fault(8)
        outcomes[outcome(tmp_path / f"{index}", form, data, position, whole)] += 1
    told = ", ".join(f"{count} {each}" for each, count in sorted(outcomes.items()))
    record_property("cut files", f"day {day}, {form}: {told}")
    assert not outcomes[WRONG], told
    assert sum(outcomes[each] for each in NOTICED) > outcomes.total() / 2, told
    if form in ("csv.gz", "csv with a trailer"):
        assert not outcomes[BETWEEN] + outcomes[NOTHING], told
