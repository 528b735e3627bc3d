"""Each planted bug can be planted: its text is there once, and what stands there instead is Python."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.__main__ import judged
from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_can_be_planted(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text()
    assert source.count(mutant.old) == 1
    planted = source.replace(mutant.old, mutant.new)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(source))
    for each in mutant.tests:
        file, _, test = each.partition("::")
        assert (ROOT / file).exists()
        assert not test or f"def {test}(" in (ROOT / file).read_text()


def test_no_two_have_one_name() -> None:
    assert [name for name, times in Counter(mutant.name for mutant in MUTANTS).items() if times > 1] == []


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        (0, "12 passed", "survived"),
        (1, "FAILED tests/a.py::test_b[sqlite] - assert 1 == 2", "killed"),
        (1, "FAILED tests/a.py::test_b - NameError: name 'c' is not defined", "faulty"),
        (1, "ERROR tests/a.py - ImportError: cannot import name 'c'", "faulty"),
        (2, "ERROR tests/a.py\nInterrupted: 1 error during collection", "faulty"),
        (4, "ERROR: file or directory not found: tests/a.py", "faulty"),
        (-1, "not done after 300 s", "faulty"),
    ],
)
def test_only_a_test_that_ran_and_failed_kills(code: int, said: str, verdict: str) -> None:
    assert judged(code, said)[0] == verdict
    assert verdict != "killed" or judged(code, said)[1] == "tests/a.py::test_b[sqlite]"
