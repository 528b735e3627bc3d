"""Invariant 9: whatever is set aside, the run that does it is red or somebody is alerted, and its code is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from include.instore.ledger import Ledger
from include.instore.model.codes import CODES, Code, Told
from tests.alerts.channels import Webhook
from tests.alerts.test_telling import dag_run, report
from tests.instore.set_aside import GIVEN, SET_ASIDE

Connect = Callable[..., None]
ALONE = {"suppressed"}
"""A person nothing may be sent for is no fault, and nobody is to be called: the report counts them, by reason."""


@pytest.fixture
def ledger(connect: Connect, tmp_path: Path) -> Iterator[Ledger]:
    connect("instore_ledger", "sqlite", host=str(tmp_path / "ledger.db"))
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", hash_key="a key of tests")) as opened:
        opened.migrate()
        yield opened


def reported(run_id: str) -> dict[str, Any]:
    """The report of a run, red or green."""
    from airflow.sdk.exceptions import AirflowFailException

    try:
        return report(dag_run(run_id))
    except AirflowFailException as error:
        return {"red": [str(error)], "alerts": []}


@pytest.mark.parametrize("code", [code for code in CODES.values() if code.kind in SET_ASIDE], ids=str)
def test_a_run_that_sets_something_aside_is_red_or_somebody_is_alerted(
    code: Code, ledger: Ledger, connect: Connect, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    GIVEN[code](ledger)
    counts = reported("run-1")
    if code in ALONE:
        assert (webhook.told, counts["suppressed_by_reason"]) == ([], {"command": 1})
        return
    assert len(webhook.told) == 1  # once, with one number
    assert code in webhook.told[0]["message"]
    assert code.alert is not None
    assert bool(counts["red"]) == (code.alert.told is Told.RED)
    commands = [command for _, command in code.remedies if command]
    if code.alert.told is not Told.LIMIT:
        assert all(command in webhook.told[0]["message"] for command in commands)


@pytest.mark.parametrize("code", [code for code in CODES.values() if code.alert and code.alert in GIVEN], ids=str)
def test_the_end_of_what_was_set_aside_is_told_by_the_run_that_finds_it(
    code: Code, ledger: Ledger, connect: Connect, webhook: Webhook
) -> None:
    connect("instore_alerts", "generic", password=webhook.url)
    GIVEN[code](ledger)
    reported("run-1")
    reported("run-2")
    assert len(webhook.told) == 1  # it lasts
    for table in ("quarantine", "extracts", "contents", "deliveries", "orders"):
        _empty(ledger, table)
    reported("run-3")
    assert webhook.titles[1:] == ["Recovered"]


def _empty(ledger: Ledger, table: str) -> None:
    import sqlalchemy as sa

    with ledger.write() as connection:
        connection.execute(sa.text(f"DELETE FROM {table}"))
