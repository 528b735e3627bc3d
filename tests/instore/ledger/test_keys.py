"""A ledger knows its orders by one key, until a person changes it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.intake import land
from include.instore.ledger.keys import adopt, check_key, check_pipeline, rekey
from include.instore.ledger.quarantined import Wanted
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import Settings, load_settings
from include.instore.sources.quarantine import redrive
from tests.instore import given

NUMBER, STORE = Settings(), load_settings(order_key="store_id,order_number")


def test_the_key_is_written_into_a_new_ledger_and_another_is_refused_there(ledger: Ledger) -> None:
    check_key(ledger, STORE)
    check_key(ledger, STORE)
    with pytest.raises(ConfigurationError, match="by storeId,orderNumber, and INSTORE_ORDER_KEY says orderNumber;"):
        check_key(ledger, NUMBER)


def test_orders_that_were_there_before_are_known_by_their_number(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    with pytest.raises(ConfigurationError, match="ledger rekey"):
        check_key(ledger, STORE)
    check_key(ledger, NUMBER)


def test_a_ledger_with_orders_is_refused_by_another_pipeline_until_a_person_says_it_was_renamed(ledger: Ledger) -> None:
    check_pipeline(ledger, Settings())
    check_pipeline(
        ledger, load_settings(scope="web", subscription="corrected")
    )  # nothing was received by the wrong one
    ours = load_settings(scope="web", subscription="corrected")
    given.landed(ledger, given.document("S1"))
    check_pipeline(ledger, ours)
    for name, other, known in (
        ("pipeline", load_settings(scope="web", subscription="corrected", pipeline="brand_b"), "instore_orders"),
        ("scope", load_settings(scope="brand-b", subscription="corrected"), "web"),
        ("subscription", load_settings(scope="web", subscription="other"), "orders/corrected"),
    ):
        with pytest.raises(ConfigurationError, match=f"has orders of {name} '{known}'.*ledger adopt"):
            check_pipeline(ledger, other)
    # One that drains no topic has no subscription.
    check_pipeline(ledger, load_settings(scope="web", subscription="other", use_topic=False))
    renamed = load_settings(scope="web", subscription="renamed")
    assert adopt(ledger, renamed, dry_run=True) == {"subscription": ("orders/corrected", "orders/renamed")}
    check_pipeline(ledger, ours)
    adopt(ledger, renamed)
    check_pipeline(ledger, renamed)
    with pytest.raises(ConfigurationError, match="ledger adopt"):
        check_pipeline(ledger, ours)


def test_rekeyed_orders_keep_their_events_and_what_collided_lands(ledger: Ledger) -> None:
    check_key(ledger, NUMBER)
    first = [given.document(str(number)) for number in range(1000)]
    second = [given.document(str(number), storeId="0500") for number in range(20)]
    given.landed(ledger, *first)
    assert given.landed(ledger, *second).collisions == 20
    events = {row["order_number"]: row["event_id"] for row in given.on_the_way(ledger)}
    done = rekey(ledger, STORE, dry_run=True)
    assert (done.before, done.after, done.orders, done.collisions) == (
        "orderNumber", "storeId,orderNumber", 1000, 20,
    )  # fmt: skip
    check_key(ledger, NUMBER)
    assert rekey(ledger, STORE) == done
    check_key(ledger, STORE)
    assert {row["order_number"]: row["event_id"] for row in given.on_the_way(ledger)} == events
    outcomes = redrive(ledger, Wanted(reason="collision"), STORE)
    assert [each.outcome for each in outcomes] == ["landed"] * 20
    again = land(ledger, "run-1", given.arrivals(*first, *second, settings=STORE), [])
    assert (again.orders, again.duplicates, again.quarantined) == (0, 1020, 0)
    assert len({row["event_id"] for row in given.on_the_way(ledger)}) == 1020
    given.assert_every_record_is_in_one_place(ledger)


def test_a_collision_that_is_redriven_too_early_stays(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S1", storeId="0500"))
    (outcome,) = redrive(ledger, Wanted(), NUMBER)
    assert (outcome.outcome, outcome.reason) == ("refused", "collision")
    assert [row["state"] for row in given.rows(ledger, "quarantine")] == ["quarantined"]


def test_a_key_by_which_two_orders_would_become_one_is_refused_with_both_named(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"))
    with pytest.raises(ConfigurationError, match="ref-0 and ref-1 would become one"):
        rekey(ledger, load_settings(order_key="store_id"))
    with pytest.raises(ConfigurationError, match="ref-0 has no such key"):
        rekey(ledger, load_settings(order_key="till_id"))
    assert {row["key"] for row in given.on_the_way(ledger)} == {'["s1", "sale"]', '["s2", "sale"]'}


def test_keys_may_change_places(ledger: Ledger) -> None:
    given.landed(ledger, given.document("1", tillId="2"), given.document("2", tillId="1"))
    with ledger.write() as connection:
        connection.execute(sa.update(given.orders).values(claim_run="run-1"))
    rekey(ledger, load_settings(order_key="till_id"))
    assert {row["order_number"]: row["key"] for row in given.on_the_way(ledger)} == {
        "1": '["2", "sale"]', "2": '["1", "sale"]',
    }  # fmt: skip


def test_contents_deliveries_and_editions_go_with_their_order_s_key(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S1", total="9.90"))
    (before,) = (row["key"] for row in given.on_the_way(ledger))
    given.set_orders(ledger, status="sent")
    edition = {"key": before, "destination": "profile_store", "ordered_by": "again", "edition": 2}
    edition["made_at"] = given.hours_ago(0)
    with ledger.engine.begin() as connection:
        connection.execute(sa.insert(given.TABLES["editions"]).values(**edition))
    rekey(ledger, STORE)
    (now,) = (row["key"] for row in given.on_the_way(ledger))
    assert now != before
    there = [row["key"] for table in ("contents", "deliveries", "editions") for row in given.rows(ledger, table)]
    assert there == [now, now, now]
    assert given.statuses(ledger) == {"S1": "sent"}
