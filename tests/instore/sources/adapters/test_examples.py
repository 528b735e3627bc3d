"""The adapters of adapters/, each with its sample and what its orders are to be, field by field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.model.declarations import load_declaration
from include.instore.model.errors import RecordRefused
from include.instore.model.settings import Settings
from include.instore.sources.adapters import Adapter, read_body
from include.instore.sources.extracts import Storage, load_extracts
from tests.instore import given

MakeSettings = Callable[..., Settings]
ADAPTERS = Path(__file__).parents[4] / "adapters"
EXAMPLES = sorted(path.stem for path in ADAPTERS.glob("*/*.yaml"))


def sample_of(folder: Path) -> Path:
    (sample,) = (path for path in folder.glob("*.*") if path.suffix not in (".yaml", ".py") and path.stem != "expected")
    return sample


def test_the_promised_examples_are_there() -> None:
    assert {"business_central_de", "poslog", "shopify_export", "shopify_webhook"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_sample_s_orders_arrive_in_the_ledger_field_by_field(
    name: str, tmp_path: Path, ledger: Ledger, settings: MakeSettings
) -> None:
    folder = ADAPTERS / name
    shutil.copy(sample_of(folder), tmp_path)
    chosen = settings(extract_adapters={"*": str(folder / f"{name}.yaml")})
    run = given.run()
    open_run(ledger, run)
    loaded = load_extracts(Storage.local(tmp_path), ledger, run, chosen)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert (loaded.files, loaded.landed.orders, loaded.landed.quarantined) == (1, len(expected), 0)
    payloads = [json.loads(row["payload"]) for row in given.rows(ledger, "orders")]
    assert sorted(map(without_nulls, payloads), key=number_of) == sorted(expected, key=number_of)


def test_the_webhook_s_message_is_the_same_order(settings: MakeSettings) -> None:
    folder = ADAPTERS / "shopify_webhook"
    adapter = Adapter(settings(), load_declaration(str(folder / "shopify_webhook.yaml")))
    (part,) = read_body((folder / "order.json").read_bytes(), adapter)
    assert not isinstance(part.order, RecordRefused)
    assert [without_nulls(json.loads(part.order.payload()))] == json.loads((folder / "expected.json").read_text())


def without_nulls(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def number_of(document: dict[str, Any]) -> str:
    return str(document["orderNumber"])
