"""Every remedy of docs/runbook.md is tried by a test of this folder, or it says here where it is, or why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.instore.model.codes import CODES, RECOVERED
from tests.runbook import test_remedies, test_remedies_for_messages, test_remedies_on_the_bus

RUNBOOK = Path(__file__).parents[2] / "docs/runbook.md"
MODULES = (test_remedies, test_remedies_for_messages, test_remedies_on_the_bus)

ELSEWHERE = {
    # Nothing to try: it tells whom to ask.
    ("The numbers do not add up", "3"): "",
    ("The run failed without a report", "3"): "tests/alerts/test_telling.py::"
    "test_the_callback_tells_also_without_a_ledger_and_without_a_dag_run",
    # It needs Airflow's own database.
    ("A task failed", "is of an older release"): "tests/dags/test_instore_orders.py::"
    "test_a_ledger_of_an_older_release_is_refused_until_set_up_migrates_it",
    # The SDK tries for a minute before it says so.
    ("A task failed", "Service Bus … failed with"): "tests/faults/test_bus.py::"
    "test_bus_gone_for_longer_than_the_retry_window",
    # These need a scheduler that runs: a deadline that passes, a pool that is full.
    ("The run is not done in time", "1"): "",
    ("The run is not done in time", "3"): "tests/dags/test_instore_orders.py::"
    "test_set_up_makes_every_pool_the_dag_names_in_the_settings_size",
    # A size to be chosen; that the setting is obeyed is tested with what it bounds.
    ("The run is not done in time", "4"): "",
    ("Messages wait on the bus", "2"): "",
    # A question to the owner of the topic. What is found in the dead letters is redriven by the section of that name.
    ("Messages wait on the bus", "4"): "",
    # Questions to people, and limits to be chosen.
    ("Nothing came", ""): "",
    ("Sent events are not visible", ""): "",
    # Which addresses are placeholders is tested with what reads them.
    ("One address or card on many orders", ""): "tests/instore/model/test_customer_keys.py",
    ("No run is woken", ""): "tests/dags/test_wake_up.py::test_what_stays_away_is_told_once_and_its_end_as_well",
    ("A maintenance run failed", ""): "tests/dags/test_maintenance.py::"
    "test_pruning_is_red_when_somebody_should_have_settled_what_it_gave_up",
    # It sends to where it is tried.
    ("Orders wait to be sent", "2"): "",
}
"""Section and step: the test, or none where there is nothing that could fail."""


def remedies() -> set[tuple[str, str]]:
    """Section and number of each step; of a table, what the log names; empty where there is only one."""
    found: set[tuple[str, str]] = set()
    for section in re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]:
        heading, text = section.split("\n", 1)
        said = re.search(r"\*\*[^*]*remedy[^*]*\*\*(.*)", text, flags=re.DOTALL | re.IGNORECASE)
        if said is None:
            continue
        steps = re.findall(r"^(\d+)\. ", said[1], flags=re.MULTILINE)
        rows = re.findall(r"^\|[^|]+\| ([^|]+) \|", said[1], flags=re.MULTILINE)
        causes = [row.replace("`", "") for row in rows if row != "its log names"]
        found |= {(heading, step) for step in (steps or causes or [""])}
    return found


def tried() -> set[tuple[str, str]]:
    """What the tests of this folder say they try."""
    tests = [each for module in MODULES for name, each in vars(module).items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in getattr(test, "pytestmark", []) if mark.name == "remedy"]
    assert len(marks) >= len(tests)
    return {(mark.args[0], step) for mark in marks for step in mark.args[1:]}


def test_the_runbook_is_read_with_its_steps_and_its_table() -> None:
    found = remedies()
    assert ("Dead letters on the bus", "3") in found
    assert ("A task failed", "no active topic") in found
    assert ("Many orders find no customer", "") in found
    alerts = {code.heading for code in CODES.values() if code.alert is code and code is not RECOVERED}
    assert alerts - {section for section, _ in found} == set()


def test_every_remedy_of_the_runbook_is_tried_here_or_elsewhere() -> None:
    assert remedies() - tried() - set(ELSEWHERE) == set()


def test_nothing_is_said_to_be_tried_that_the_runbook_does_not_have() -> None:
    assert (tried() | set(ELSEWHERE)) - remedies() == set()
    assert tried() & set(ELSEWHERE) == set()


@pytest.mark.parametrize("where", sorted(filter(None, set(ELSEWHERE.values()))))
def test_what_is_tried_elsewhere_is_there(where: str) -> None:
    path, _, name = where.partition("::")
    assert f"def {name or 'test_'}" in (RUNBOOK.parents[1] / path).read_text()


@pytest.mark.parametrize("module", MODULES)
def test_each_test_is_named_after_its_section(module: object) -> None:
    for name, test in vars(module).items():
        sections = [mark.args[0] for mark in getattr(test, "pytestmark", []) if mark.name == "remedy"]
        if name.startswith("test_"):
            slugs = [re.sub(r"\W+", "_", section.lower()) for section in sections]
            assert any(name.startswith(f"test_{slug}") for slug in slugs), name
