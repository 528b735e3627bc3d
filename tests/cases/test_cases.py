"""Every case of this folder through the DAG's real tasks; `make cases` prints what came out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.case import HERE, find_cases, read_case
from tests.cases.checks import failing
from tests.cases.checks import in_words as check_in_words
from tests.cases.running import CaseSandbox, in_words, run_case

NOT_YET = {}
"""Cases that are wrong today, and what is wrong. One that has become right fails until it is taken off."""

FOLDERS = find_cases(HERE)


class Wrong(AssertionError):
    """What came out is not what is right."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaseSandbox]:
    sandbox = CaseSandbox(tmp_path_factory.mktemp("sandbox"))
    try:
        sandbox.start()
        yield sandbox
    finally:
        sandbox.stop()


def _marks(name: str) -> list[pytest.MarkDecorator]:
    # Only a check that does not hold is expected: a harness that breaks must not look like it.
    return [pytest.mark.xfail(reason=NOT_YET[name], strict=True, raises=Wrong)] if name in NOT_YET else []


@pytest.mark.parametrize("index", [pytest.param(at, id=f.name, marks=_marks(f.name)) for at, f in enumerate(FOLDERS)])
def test_what_comes_out_is_right(sandbox: CaseSandbox, tmp_path: Path, index: int) -> None:
    case = read_case(FOLDERS[index])
    assert case.checks, "a case of this folder is for a program to judge"
    assert not case.not_acted_out
    tables = run_case(sandbox, case, tmp_path / "case", index)
    if wrong := failing(case.checks, tables):
        raise Wrong(f"{in_words(case, tables)}\nright: {case.right}\nnot so: {'; '.join(map(check_in_words, wrong))}")


def test_only_cases_that_there_are_are_not_right_yet() -> None:
    assert set(NOT_YET) <= {folder.name for folder in FOLDERS}
