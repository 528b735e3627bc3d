"""A bad day on the running product, and what all of its days have left in logs and database."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.run_checks import faults_in
from demo.stage import held_by_profile_store
from sandbox.seed import write_cut_extract
from tests.demo.canaries import check_database, check_logs
from tests.demo.product import Product

pytestmark = pytest.mark.timeout(420)


def test_a_bad_day_ends_with_every_order_accounted_for(product: Product) -> None:
    with product.on_a_bad_day() as hostile:
        first = hostile.run()
        write_cut_extract(Path(hostile.sandbox["extracts"]), "none")
        second = hostile.run()
        held = held_by_profile_store(hostile.sandbox)
    counts = first.counts
    assert counts["quarantined_by_reason"] == {
        "not_json": 1,
        "not_an_object": 1,
        "missing_field": 1,
        "bad_value": 1,
        "unsupported_type": 1,
    }
    assert counts["rejected"] == 3
    # The cut extract has 19 whole orders before its break: none of them is landed, until it comes whole.
    assert (counts["orders"], counts["unread_files"]) == (3041, 1)
    assert second.counts["orders"] == 20
    assert counts["received"] == counts["orders"] + counts["duplicates"] + counts["quarantined"]
    assert counts["sent"] == 2727 - 3
    assert held["events"] == held["track_ids"] == 2727 + 20 - 3
    assert faults_in(first, second, held, hostile=True) == []


def test_no_email_card_or_payload_is_in_any_log(product: Product) -> None:
    check_logs(product.folder)


def test_airflows_database_holds_no_order(product: Product) -> None:
    """XCom, rendered templates and labels are what strangers see."""
    check_database(product.airflow.database)
