"""One running product for all tests here that need a scheduler: starting an Airflow takes a minute of a core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.demo.product import Product, running_product


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running_product(tmp_path_factory.mktemp("product") / "demo") as running:
        yield running
