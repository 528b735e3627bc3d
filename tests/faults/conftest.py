"""One sandbox a session, a world of its own for each test; a failure prints the world's seed and timeline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disks import may_mount
from tests.faults.judge import Judge
from tests.faults.standins import Sandbox
from tests.faults.totals import TOTALS
from tests.faults.world import World

FULL = "FAULTS_FULL"
"""Set by `make faults`: everything; without it only what is in the smoke part."""
TOTALS_FOLDER = "FAULTS_TOTALS"
"""Where each worker leaves its totals."""


def in_smoke(choices: Iterable[Any], *chosen: Any) -> list[Any]:
    """Parameters for a test, of which only the chosen ones are in the smoke part."""
    return [pytest.param(each, marks=pytest.mark.smoke) if each in chosen else each for each in choices]


_worlds = pytest.StashKey[list[World]]()
MakeWorld = Callable[..., tuple[World, Judge]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smoke: also in the part of the fault suite that `make test` runs")
    config.addinivalue_line("markers", "weight(seconds): about how long it takes; the longest begin first")
    config.addinivalue_line("markers", "mounts: needs the right to mount a tmpfs, and is left out without it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    out = []
    if not os.environ.get(FULL):
        out = [item for item in mine if item.get_closest_marker("smoke") is None]
    else:
        for item in mine:  # many workers share two cores
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))
        items.sort(key=_weight, reverse=True)
    out += [item for item in mine if item not in out and item.get_closest_marker("mounts") and not may_mount()]
    if out:
        config.hook.pytest_deselected(items=out)
        gone = set(out)
        items[:] = [item for item in items if item not in gone]


def _weight(item: pytest.Item) -> float:
    marker = item.get_closest_marker("weight")
    return float(marker.args[0]) if marker else 8.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        for world in item.stash.get(_worlds, []):
            report.sections.append(("timeline", str(world.timeline)))
    return report


def pytest_sessionfinish() -> None:
    if folder := os.environ.get(TOTALS_FOLDER):
        TOTALS.write(Path(folder) / f"{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}.json")


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
    try:
        sandbox.start()
        yield sandbox
    finally:
        sandbox.stop()


@pytest.fixture
def make_world(
    sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest, _world_numbers: Iterator[int]
) -> Iterator[MakeWorld]:
    """Make a world, and its judge. The sandbox is without faults before and after."""
    worlds = request.node.stash[_worlds] = []

    def make(seed: int, *, index: int | None = None, **options: Any) -> tuple[World, Judge]:
        index = next(_world_numbers) if index is None else index
        folder = tmp_path / f"world{index}"
        world = World(sandbox, folder, seed=seed, index=index, name=f"W{index}-{seed}", **options)
        worlds.append(world)
        return world, Judge(world)

    yield make
    for world in worlds:
        world.hang_up()
    sandbox.calm()


@pytest.fixture(scope="session")
def _world_numbers() -> Iterator[int]:
    return iter(range(10_000))
