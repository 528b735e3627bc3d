"""What `check --suggest` proposes for each worked example's file, through the DAG's real tasks to the Profile Store.

A person fills in what the proposal tells her to answer, and nothing else.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from include.instore.model.declarations import LINE_FIELDS, ORDER_FIELDS
from include.instore_airflow.cli import app
from tests.cases.case import read_case
from tests.cases.running import CaseSandbox, run_case
from tests.cases.test_cases import sandbox
from tests.instore.sources.adapters.test_examples import ADAPTERS, EXAMPLES, sample_of

__all__ = ["sandbox"]

ANSWERS: dict[str, dict[str, str]] = {
    "shopify_export": {"order.orderNumber": "Name", "lines.discount": "Lineitem discount"},
    "shopify_webhook": {
        "order.orderNumber": "name",
        "order.loyaltyCardNumber": "note_attributes[?name=='loyalty_card'].value | [0]",
        "lines.description": "name",
    },
    "business_central_de": {
        "constants.currency": "EUR",
        "values.orderType": '{"Rechnung": "sale", "Gutschrift": "return"}',
        "dates.zone": "Europe/Berlin",
    },
    "poslog": {
        "order.total": """RetailTransaction.Total[?"@TotalType"=='TransactionGrandAmount'] | [0]""",
        "dates.zone": "Europe/Stockholm",
    },
}
"""To what the proposals of the examples ask: `# name: ?`, or a line that ends in `ask`."""
NOT_FOUND = {"shopify_export": {"storeName"}}
"""Fields that orders may be without, and that no proposal looks for in a column that is another field already."""


def answered(proposal: str, answers: dict[str, str]) -> str:
    """The proposal with the answers; each has to be to a question of it."""
    written, part = [], ""
    for line in proposal.splitlines():
        part = line.rstrip(":") if line.endswith(":") and not line.startswith("#") else part
        found = re.match(r"(\s*)(# )?(\w+):", line)
        name = f"{part}.{found[3]}" if found and found[1] else found[3] if found else ""
        asked = bool(found) and (" ?  # " in line or line.endswith("ask"))
        if found and name in answers and asked:
            answer = answers[name]
            line = f"{found[1]}{found[3]}: {answer if answer.startswith('{') else json.dumps(answer)}"
        elif found and f"constants.{found[3]}" in answers and asked:
            written.insert(0, f"constants: {json.dumps({found[3]: answers[f'constants.{found[3]}']})}")
        written.append(line)
    return "\n".join(written)


def fields(document: dict[str, Any], without: set[str]) -> dict[str, Any]:
    """The contract's fields of an order, as an event or an expectation has them."""
    order = {name: document[name] for name in ORDER_FIELDS if document.get(name) is not None and name not in without}
    lines = [{name: each[name] for name in LINE_FIELDS if each.get(name) is not None} for each in document["lines"]]
    return order | {"lines": lines}


@pytest.mark.parametrize("at", range(len(EXAMPLES)), ids=EXAMPLES)
def test_a_proposal_with_the_answers_to_its_questions_brings_the_orders_to_the_profile_store(
    sandbox: CaseSandbox,
    tmp_path: Path,
    at: int,
) -> None:
    name = EXAMPLES[at]
    sample = sample_of(ADAPTERS / name)
    told = CliRunner().invoke(app, ["check", str(sample), "--suggest"])
    assert told.exit_code == 0, told.output
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "acme.yaml").write_text(answered(told.stdout, ANSWERS[name]), encoding="utf-8")
    shutil.copy(sample, folder / f"1-{sample.name}")
    settings = {"INSTORE_EXTRACT_ADAPTERS": {"*": "acme.yaml"}}
    case = {"deliveries": [[f"1-{sample.name}"]], "right": "as expected.json", "settings": settings}
    (folder / "case.json").write_text(json.dumps(case), encoding="utf-8")
    tables = run_case(sandbox, read_case(folder), tmp_path / "run", at)
    assert [row["state"] for row in tables["runs"]] == ["green"], tables["runs"]
    expected = json.loads((ADAPTERS / name / "expected.json").read_text(encoding="utf-8"))
    to_somebody = [each for each in expected if each.get("loyaltyCardNumber") or each.get("emailAddress")]
    sent = [json.loads(row["payload"]) for row in tables["events"]]
    without = NOT_FOUND.get(name, set())
    assert sorted((fields(each, without) for each in sent), key=str) == sorted(
        (fields(each, without) for each in to_somebody), key=str
    )
    assert len(tables["orders"]) == len(expected)
