"""The worlds of the fault suite, for trying the runbook in; a webhook for what is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.alerts.channels import Webhook
from tests.faults.conftest import (  # noqa: F401  fixtures, and the timeline of a test that fails
    _world_numbers,
    make_world,
    pytest_runtest_makereport,
    sandbox,
)
from tests.faults.judge import Judge
from tests.faults.postgres import PostgresServer, postgres_server
from tests.faults.world import World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "remedy(section, *steps): tries these steps of the section's remedy")


Begin = Callable[..., tuple[World, Judge]]


@pytest.fixture
def begin(make_world: Callable[..., tuple[World, Judge]]) -> Begin:  # noqa: F811
    """Make a world and its judge, of extracts alone unless told otherwise: a look at the bus costs two seconds."""

    def make(seed: int, **settings: Any) -> tuple[World, Judge]:
        return make_world(seed, **{"use_topic": False, "drain_receivers": 1, **settings})

    return make


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook().running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server
