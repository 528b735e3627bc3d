"""Each remedy of the registry is typed on a ledger that has what it is for, and afterwards nothing of it waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from include.instore.ledger import Ledger
from include.instore.model.codes import CODES, Code
from include.instore_airflow.cli import app
from tests.instore import given
from tests.instore.set_aside import GIVEN, SET_ASIDE, waiting

ON_THE_BUS = {
    ("undecodable", "dead-letters redrive"): "tests/instore/sources/test_dead_letters.py::"
    "test_the_list_and_the_redrive_go_on_past_what_cannot_be_decoded",
}
"""Remedies for which a bus is needed, and where each is tried."""

REMEDIES = [
    (code, command)
    for code in CODES.values()
    if code.kind in SET_ASIDE
    for _, command in code.remedies
    if command and (code, command) not in ON_THE_BUS
]
BY_ANOTHER_KEY = ("ledger rekey", "quarantine redrive --reason collision")
LISTS = {"deliveries": "event_id", "extracts": "path"}


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    with closing(Ledger(f"sqlite:///{path}", hash_key="a key of tests")) as opened:
        opened.migrate()
        yield opened


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def filled_in(code: Code, command: str) -> list[str]:
    """The command with what its `list` shows for ID and PATH."""
    words = command.split()
    if not {"ID", "PATH"} & set(words):
        return words
    options = ["--rejected"] if code == "rejected" else []
    found = json.loads(typed(words[0], "list", "--json", *options).stdout)
    ids = [each[LISTS.get(words[0], "id")] for each in found]
    assert ids
    return [each for word in words for each in (ids if word in ("ID", "PATH") else [word])]


@pytest.mark.parametrize(("code", "command"), REMEDIES, ids=[f"{code}: {command}" for code, command in REMEDIES])
def test_a_remedy_leaves_nothing_of_what_it_is_for_and_is_in_the_audit(
    code: Code, command: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    GIVEN[code](ledger)
    assert waiting(ledger, code) > 0
    words = filled_in(code, command)
    steps = [each.split() for each in BY_ANOTHER_KEY] if command in BY_ANOTHER_KEY else [words]
    if len(steps) > 1:
        monkeypatch.setenv("INSTORE_ORDER_KEY", "store_id,order_number")
    before = waiting(ledger, code)
    dry = typed(*steps[0], "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert waiting(ledger, code) == before
    for step in steps:
        done = typed(*step)
        assert done.exit_code == 0, done.output
        assert given.CARD not in done.output
    assert waiting(ledger, code) == 0
    audited = json.loads(typed("ledger", "audit", "--json").stdout)
    assert [" ".join(steps[-1]).startswith(each["what"]) for each in audited][:1] == [True]
    given.assert_every_record_is_in_one_place(ledger)


def test_everything_that_is_set_aside_has_a_command_but_what_settles_itself() -> None:
    without = {code for code in CODES.values() if code.kind in SET_ASIDE} - {code for code, _ in REMEDIES}
    assert without == {"in_doubt", "no_customer_key"}


@pytest.mark.parametrize("command", sorted({each for code in CODES.values() for _, each in code.remedies if each}))
def test_every_command_of_a_remedy_exists(command: str) -> None:
    words = command.split()
    path = words[:1] if words[0] in ("reconcile", "set-up") else words[:2]
    told = typed(*path, "--help")
    assert told.exit_code == 0, told.output
    assert all(word in told.output for word in words if word.startswith("--"))


@pytest.mark.parametrize("where", ON_THE_BUS.values())
def test_what_needs_a_bus_is_tried_there(where: str) -> None:
    path, _, name = where.partition("::")
    assert f"def {name}(" in (Path(__file__).parents[2] / path).read_text()
