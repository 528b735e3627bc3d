"""Ledgers for schedules of the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.instore.ledger import Ledger


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schedules") / "empty.db"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.migrate()
    ledger.close()
    return path


@pytest.fixture
def fresh(empty: Path, tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    opened: list[Ledger] = []

    def fresh() -> Ledger:
        path = tmp_path / f"{len(opened)}.db"
        shutil.copy(empty, path)
        opened.append(Ledger(f"sqlite:///{path}", hash_key="the-hash-key-of-the-tests"))
        return opened[-1]

    yield fresh
    for ledger in opened:
        ledger.close()
