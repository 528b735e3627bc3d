"""Every case of this folder through the DAG's real tasks; `make cases` prints what came out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.case import HERE, find_cases, read_case
from tests.cases.checks import failing
from tests.cases.checks import in_words as check_in_words
from tests.cases.running import CaseSandbox, in_words, run_case

NOT_YET = {
    "200-success-false": "a 200 that says success false is taken for accepted: 40 sent, green, nobody told",
    "amqp-value-and-sequence": "quarantine keeps a map's keys and a generator's name instead of the values",
    "bodies-of-dotnet": "the dead letters' details say not UTF-8 or not an object, and not what the bodies are",
    "bulk-answer-per-item": "the statuses of a 207's items are not read: 40 sent, of which the store has 32",
    "card-column-renamed": "15 orders without a customer key, green, nobody told",
    "dot-as-thousands-separator": "three totals are sent a thousand times too small; only 1.250.000 is refused",
    "empty-file-of-a-quiet-hour": "an empty CSV is a broken file: red, and alerted",
    "file-endings-nobody-reads": "four files are not read, green, nobody told",
    "messages-expired-on-the-bus": "90 expired dead letters are below the limit of 100: green, nobody told",
    "newtonsoft-references": "R1 is sent with an empty line for the $ref",
    "null-and-absurd-dates": "all four dates are sent",
    "proxy-resets-large-bodies": "a bulk without an answer is sent again as large: 100 in doubt, green, nobody told",
    "sep-line": "the line sep=; is taken for the heading: the file is not read",
    "shopify-export": "the date 2026-11-24 09:50:26 +0200 is refused: no order read",
    "two-columns-of-one-name": "the last of two columns named order_total wins: 31 sent, A with 30 instead of 99",
}
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
