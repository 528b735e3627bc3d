"""The registry of codes: nothing is refused, set aside or told by a word that has no entry."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.instore.ledger.tables import quarantine
from include.instore.model.codes import CODES, Code, Kind, Told, code_of
from include.instore.model.errors import CardNotAnswered, RecordRefused

ROOT = Path(__file__).parents[3]
WORD_AT = {"RecordRefused": 0, "Refusal": 2, "CardNotAnswered": None, "_no_answer": 1, "ServiceUnavailable": None}
"""Which argument of what is raised is the word; None: the one named ``code``."""


def words_in(path: Path) -> Iterator[tuple[str, int]]:
    """The words that a module raises, each with its line; of a text with a number in it, with NNN for the number."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in WORD_AT:
            continue
        at = WORD_AT[node.func.id]  # type: ignore[attr-defined]
        said = [each.value for each in node.keywords if each.arg == "code"] if at is None else node.args[at : at + 1]
        for each in said:
            if isinstance(each, ast.Constant):
                yield str(each.value), node.lineno


def test_no_word_is_raised_anywhere_in_the_product_that_has_no_entry() -> None:
    sources = [path for name in ("include", "plugins", "dags") for path in (ROOT / name).rglob("*.py")]
    found = {(word, path.name, line) for path in sources for word, line in words_in(path) if word}
    assert len(found) > 25
    assert [each for each in sorted(found) if each[0] not in CODES] == []


def test_a_word_without_an_entry_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        RecordRefused("no_such_word", "a detail")
    with pytest.raises(KeyError):
        CardNotAnswered("a sentence", code="no_such_word", passing=True)


@pytest.mark.parametrize("word", ["answered_400", "answered_404_not_json", "task_failed:drain_topic"])
def test_a_word_of_a_family_has_the_family_s_entry(word: str) -> None:
    assert code_of(word) == re.sub(r"\d+", "NNN", word).partition(":")[0]


@pytest.mark.parametrize("code", CODES.values(), ids=str)
def test_every_code_has_a_meaning_a_cause_and_a_remedy_and_somebody_who_tells_it(code: Code) -> None:
    assert all((code.heading, code.meaning, code.cause, code.remedies))
    assert all(when or command for when, command in code.remedies)
    if code.kind is Kind.REFUSED:
        assert len(code) <= (quarantine.c.reason.type.length or 0)  # type: ignore[attr-defined]
        assert code.alert is not None
    if code.alert is not None:
        assert isinstance(code.alert.told, Told)


def test_the_pages_are_what_the_registry_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/codes_docs.py"],
        cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
