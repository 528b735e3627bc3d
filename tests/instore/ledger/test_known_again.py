"""An order whose key is known: the same again, corrected, or another purchase."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.intake import Landed, land
from include.instore.ledger.quarantined import Wanted
from include.instore.ledger.runs import count_run, faults_in
from include.instore.ledger.tables import orders, quarantine, runs
from include.instore.model.settings import load_settings
from include.instore.sources.quarantine import redrive
from tests.instore import given


def landed(ledger: Ledger, *documents: dict[str, Any], key: str = "order_number", by_rows: bool = False) -> Landed:
    given.landed(ledger)
    arrivals = given.arrivals(*documents, settings=load_settings(order_key=key))
    return land(ledger, "run-1", [replace(each, by_rows=by_rows) for each in arrivals], [])


def quarantined(ledger: Ledger) -> list[str]:
    return [row["detail"] for row in given.rows(ledger, "quarantine") if row["reason"] == "collision"]


@pytest.mark.parametrize("status", ["pending", "ready", "unmatched", "suppressed"])
@pytest.mark.parametrize("held", [None, "another"])
def test_a_correction_takes_the_place_of_what_has_not_left(ledger: Ledger, status: str, held: str | None) -> None:
    landed(ledger, given.document("S1"))
    given.set_orders(ledger, status=status, claim_run=held)
    assert landed(ledger, given.document("S1", total="9.90")).corrections == 1
    row = given.row(ledger, "S1")
    assert '"total":9.90' in row["payload"]
    assert (row["status"], row["claim_run"]) == (status, held)
    (before,) = given.rows(ledger, "contents")
    assert (before["state"], before["reference"]) == ("replaced", "ref-0")
    assert '"total":3.50' in before["payload"]
    assert given.tally(ledger)["corrected_after_sent"] == 0
    given.assert_every_record_is_in_one_place(ledger)


def test_what_is_suppressed_stays_so_whatever_email_a_correction_brings(ledger: Ledger) -> None:
    landed(ledger, given.document("S1"))
    given.set_orders(ledger, status="suppressed")
    assert landed(ledger, given.document("S1", emailAddress="ann@example.com")).corrections == 1
    row = given.row(ledger, "S1")
    assert (row["status"], row["email"]) == ("suppressed", None)


def test_a_correction_that_names_a_customer_at_last_is_asked_for_again(ledger: Ledger) -> None:
    landed(ledger, given.document("S1", loyaltyCardNumber=None))
    assert given.row(ledger, "S1")["status"] == "unmatched"
    landed(ledger, given.document("S1"))
    row = given.row(ledger, "S1")
    assert (row["status"], row["reason"], row["loyalty_card"]) == ("pending", None, given.CARD)


@pytest.mark.parametrize(
    "state", [{"status": "ready", "attempts": 1}, {"status": "sending", "attempts": 1}, {"status": "sent"}]
)
def test_a_correction_after_sending_changes_nothing_and_is_kept_and_counted(
    ledger: Ledger, state: dict[str, Any]
) -> None:
    landed(ledger, given.document("S1"))
    given.set_orders(ledger, **state)
    before = given.row(ledger, "S1")
    assert landed(ledger, given.document("S1", total="9.90")).corrections == 1
    assert given.row(ledger, "S1") == before
    (later,) = given.rows(ledger, "contents")
    assert later["state"] == "after_sending"
    assert '"total":9.90' in later["payload"]
    assert given.tally(ledger)["corrected_after_sent"] == 1


def test_each_content_counts_once(ledger: Ledger) -> None:
    first, second = given.document("S1"), given.document("S1", total="9.90")
    landed(ledger, first, second)
    again = landed(ledger, first, second, first)
    assert (again.duplicates, again.corrections, again.quarantined) == (3, 0, 0)
    assert '"total":9.90' in given.row(ledger, "S1")["payload"]


def test_what_was_published_before_does_not_come_in_the_place_of_what_came_later(ledger: Ledger) -> None:
    given.landed(ledger)
    older, newer = given.arrivals(given.document("S1", total="1.00"), given.document("S1", total="2.00"))
    land(ledger, "run-1", [newer], [])
    assert land(ledger, "run-1", [older], []).corrections == 1
    assert '"total":2.00' in given.row(ledger, "S1")["payload"]
    assert [row["state"] for row in given.rows(ledger, "contents")] == ["older"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"storeId": "0500"}, "the store differs; INSTORE_ORDER_KEY with storeId would"),
        ({"storeId": "0500", "tillId": "4"}, "the store differs; INSTORE_ORDER_KEY with storeId or tillId would"),
        ({"date": "2017-06-06T10:04:12Z"}, "the day differs; INSTORE_ORDER_KEY with day would"),
        ({"date": "2017-06-05T11:00:00Z", "tillId": "4"}, "the time differs; INSTORE_ORDER_KEY with tillId would"),
        ({"date": "2017-06-05T11:00:00Z"}, "the time differs; no field"),
        ({"loyaltyCardNumber": "77", "total": "1.00"}, "the customer differs"),
        ({"emailAddress": "bob@example.com"}, "the customer differs"),
    ],
)
def test_another_purchase_never_takes_the_place_of_the_first(ledger: Ledger, changes: dict[str, Any], why: str) -> None:
    landed(ledger, given.document("S1", emailAddress="ann@example.com", tillId="3"))
    before = given.row(ledger, "S1")
    whole = {"emailAddress": "ann@example.com", "tillId": "3", **changes}
    done = landed(ledger, given.document("S1", **whole))
    assert (done.quarantined, done.collisions, done.duplicates) == (1, 1, 0)
    assert given.row(ledger, "S1") == before
    (detail,) = quarantined(ledger)
    assert why in detail
    assert detail.startswith("ref-0 has the same key")
    assert "example.com" not in detail
    given.assert_every_record_is_in_one_place(ledger)
    assert landed(ledger, given.document("S1", **whole)).duplicates == 1, "its file delivered again"


def test_where_nobody_can_tell_which_is_later_it_is_no_correction(ledger: Ledger) -> None:
    given.landed(ledger)
    first, second = given.arrivals(given.document("S1"), given.document("S1", total="9.90"))
    first.row["content_at"] = second.row["content_at"]
    land(ledger, "run-1", [first], [])
    assert land(ledger, "run-1", [second], []).collisions == 1
    unknown = replace(second, published_at=None)
    assert land(ledger, "run-1", [unknown], []).collisions == 0, "it is in quarantine already"
    assert "nobody can tell" in quarantined(ledger)[0]


@pytest.mark.parametrize(("card", "collisions"), [(given.CARD, 0), (None, 1)])
def test_without_a_time_of_day_both_must_name_the_same_customer(
    ledger: Ledger, card: str | None, collisions: int
) -> None:
    landed(ledger, given.document("S1", date="2017-06-05"))
    done = landed(ledger, given.document("S1", date="2017-06-05", total="9.90", loyaltyCardNumber=card))
    assert (done.collisions, done.corrections) == (collisions, 1 - collisions)


def test_a_piece_of_an_order_takes_no_order_s_place(ledger: Ledger) -> None:
    one, other = ({"productCode": code, "quantity": "1", "total": "5.00"} for code in "ab")
    whole = {"total": "10.00"}
    assert landed(ledger, given.document("S1", lines=[one], **whole), by_rows=True).orders == 1
    done = landed(ledger, given.document("S1", lines=[other], **whole), by_rows=True)
    assert (done.collisions, done.corrections) == (1, 0)
    assert "it is a piece" in quarantined(ledger)[0]
    assert landed(ledger, given.document("S1", lines=[one, other], **whole), by_rows=True).corrections == 1
    assert given.row(ledger, "S1")["payload"].count("productCode") == 2


def test_a_return_is_not_its_sale(ledger: Ledger) -> None:
    done = landed(ledger, given.document("S1"), given.document("S1", total="-3.50"))
    assert (done.orders, done.quarantined) == (2, 0)
    assert len({row["event_id"] for row in given.on_the_way(ledger)}) == 2


def test_a_return_that_is_sent_as_the_same_type_has_an_event_id_of_its_own(ledger: Ledger) -> None:
    given.landed(ledger)
    settings = load_settings(return_event_type="StorePurchase")
    items = given.arrivals(given.document("S1"), given.document("S1", total="-3.50"), settings=settings)
    assert land(ledger, "run-1", items, []).orders == 2


def test_two_spellings_of_a_number_are_one_order(ledger: Ledger) -> None:
    done = landed(ledger, given.document("Z1"), given.document("\ufeffZ1"), given.document("Ｚ1"), given.document("z1"))
    assert (done.orders, done.quarantined) == (1, 0)
    assert done.duplicates + done.corrections == 3


def test_two_stores_with_the_same_numbers_are_told_apart_by_the_key(ledger: Ledger) -> None:
    documents = [given.document(str(number), storeId=store) for store in ("1", "2") for number in range(20)]
    done = landed(ledger, *documents, key="store_id,order_number")
    assert (done.orders, done.quarantined) == (40, 0)
    assert len({row["event_id"] for row in given.on_the_way(ledger)}) == 40


@pytest.mark.parametrize(("one", "other"), [("0001234", "1234"), ("1234", "0001234"), ("01", "001")])
def test_an_order_whose_number_lost_its_zeros_in_one_source_is_set_aside(ledger: Ledger, one: str, other: str) -> None:
    for documents in ([given.document(one)], [given.document(other)], [given.document(one), given.document(other)]):
        landed(ledger, *documents)
    assert [row["order_number"] for row in given.on_the_way(ledger)] == [one]
    (kept,) = {(row["reason"], row["detail"].partition(";")[0]) for row in given.rows(ledger, "quarantine")}
    assert kept[0] == "suspected_twin"
    assert "leading zeros" in kept[1]
    given.assert_every_record_is_in_one_place(ledger)


def test_two_that_come_in_one_block_are_twins_as_well(ledger: Ledger) -> None:
    done = landed(ledger, given.document("0001234"), given.document("1234"))
    assert (done.orders, done.collisions) == (1, 1)


@pytest.mark.parametrize(
    "changes", [{"storeId": "0500"}, {"date": "2017-06-05T11:00:00Z"}, {"orderType": "return"}, {"number": "12340"}]
)
def test_numbers_of_other_purchases_may_differ_in_their_zeros(ledger: Ledger, changes: dict[str, Any]) -> None:
    done = landed(ledger, given.document("0001234"), given.document(**{"number": "1234", **changes}))
    assert (done.orders, done.quarantined) == (2, 0)


@pytest.mark.parametrize("emails", [("ann@example.com",), ("ann@example.com", "ann@example.com")])
def test_what_is_suppressed_stays_so_after_two_corrections_in_one_block(ledger: Ledger, emails: tuple[str]) -> None:
    landed(ledger, given.document("S1"))
    given.set_orders(ledger, status="suppressed")
    corrections = [given.document("S1", emailAddress=email, note=str(at)) for at, email in enumerate(emails)]
    assert landed(ledger, given.document("S1", note="first"), *corrections).corrections == 1 + len(emails)
    row = given.row(ledger, "S1")
    assert (row["status"], row["email"]) == ("suppressed", None)


def test_tills_that_count_alike_are_no_twins(ledger: Ledger) -> None:
    """Where dates have no time of day, the receipts of two tills of one day are of one moment."""
    receipts = [given.document("0001", date="2017-06-05", tillId=till) for till in ("1", "2", "3")]
    done = landed(ledger, *receipts, key="till_id,order_number")
    assert (done.orders, done.quarantined) == (3, 0)
    assert landed(ledger, *receipts, key="till_id,order_number").duplicates == 3
    (twin,) = [given.document("1", date="2017-06-05", tillId="4")]
    assert landed(ledger, twin, key="till_id,order_number").collisions == 1


def test_half_a_minute_past_midnight_is_a_time_of_day(ledger: Ledger) -> None:
    landed(ledger, given.document("S1", date="2017-06-05T00:00:30Z"))
    done = landed(ledger, given.document("S1", date="2017-06-05T00:00:30Z", total="9.90", loyaltyCardNumber=None))
    assert (done.corrections, done.collisions) == (1, 0)


def test_letters_that_grow_when_they_are_folded_stop_no_block(ledger: Ledger) -> None:
    done = landed(ledger, given.document("\u00df" * 64), given.document("S1"))
    assert (done.orders, done.quarantined) == (2, 0)


def piece(number: str = "S1", code: str = "A", total: str = "1.75", **changes: Any) -> dict[str, Any]:
    """One of two lines of an order over 3.50, by default half of it."""
    return given.document(number, lines=[{"productCode": code, "total": total}], **changes)


def from_a_file(ledger: Ledger, *documents: dict[str, Any], run: str = "run-1") -> Landed:
    given.landed(ledger, run=given.run(run))
    arrivals = given.arrivals(*documents, source="extract")
    return land(ledger, run, [replace(each, by_rows=True) for each in arrivals], [])


def set_runs(ledger: Ledger, **values: Any) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(sa.update(runs).values(**values))


def codes(ledger: Ledger, number: str = "S1") -> list[str]:
    return [line["productCode"] for line in json.loads(given.row(ledger, number)["payload"])["lines"]]


def test_two_pieces_that_together_make_the_total_are_one_order(ledger: Ledger) -> None:
    assert from_a_file(ledger, piece()).orders == 1
    assert given.tally(ledger)["lines_do_not_add_up"] == 1
    assert from_a_file(ledger, piece(code="B"), run="run-2").corrections == 1
    assert codes(ledger) == ["A", "B"]
    assert given.tally(ledger, "run-2")["lines_do_not_add_up"] == 0
    # Either piece that comes again is known.
    assert from_a_file(ledger, piece(), piece(code="B"), run="run-3").duplicates == 2
    assert codes(ledger) == ["A", "B"]
    given.assert_every_record_is_in_one_place(ledger)


def test_a_piece_that_completes_one_that_was_sent_is_listed(ledger: Ledger) -> None:
    from_a_file(ledger, piece())
    given.set_orders(ledger, status="sent")
    assert from_a_file(ledger, piece(code="B"), run="run-2").corrections == 1
    assert codes(ledger) == ["A"]
    assert given.tally(ledger, "run-2")["corrected_after_sent"] == 1
    (later,) = (each for each in given.rows(ledger, "contents") if each["state"] == "after_sending")
    assert later["payload"].count("productCode") == 2


@pytest.mark.parametrize(
    "other",
    [piece(code="B", total="1.00"), piece(code="B", storeName="Another name"), piece(code="B", loyaltyCardNumber="77")],
    ids=["a third is missing", "another store name", "another card"],
)
@pytest.mark.parametrize("state", [{}, {"status": "ready"}, {"status": "unmatched", "claim_run": "another"}])
def test_pieces_that_make_no_order_together_are_all_set_aside(
    ledger: Ledger, state: dict[str, Any], other: dict[str, Any]
) -> None:
    from_a_file(ledger, piece(), given.document("S2"))
    given.set_orders(ledger, orders.c.order_number == "S1", planned_run="run-1", **state)
    set_runs(ledger, claimed=1)
    assert from_a_file(ledger, other, given.document("S3"), run="run-2").collisions == 1
    assert set(given.statuses(ledger)) == {"S2", "S3"}
    kept = {each["run"]: each for each in given.rows(ledger, "quarantine")}
    assert {each["reason"] for each in kept.values()} == {"split_order"}
    assert set(kept) == {"run-1", "run-2"}, "each in the run that received it"
    assert all("its rows are in two places, ref-0 and ref-0" in each["detail"] for each in kept.values())
    assert (given.tally(ledger)["claimed"], given.tally(ledger, "run-2")["corrected_after_sent"]) == (0, 0)
    assert not [each for each in given.rows(ledger, "deliveries") if each["key"].startswith('["s1"')]
    for run in ("run-1", "run-2"):
        assert faults_in(count_run(ledger, run)) == []
    given.assert_every_record_is_in_one_place(ledger)


def test_a_piece_that_does_not_complete_one_that_was_sent_is_set_aside_and_listed(ledger: Ledger) -> None:
    from_a_file(ledger, piece())
    given.set_orders(ledger, status="sent")
    assert from_a_file(ledger, piece(code="B", total="1.00"), run="run-2").collisions == 1
    assert given.statuses(ledger) == {"S1": "sent"}
    assert given.tally(ledger, "run-2")["corrected_after_sent"] == 1


def test_the_whole_order_comes_after_its_pieces_were_set_aside(ledger: Ledger) -> None:
    from_a_file(ledger, piece())
    from_a_file(ledger, piece(code="B", total="1.00"), piece(code="C", total="0.75"), run="run-2")
    assert given.statuses(ledger) == {}
    assert len(given.rows(ledger, "quarantine")) == 3
    assert from_a_file(ledger, given.document("S1"), run="run-3").orders == 1
    # Pieces are not redriven unasked; by its id a person may.
    (outcome, *_) = redrive(ledger, Wanted(reason="split_order"), given.SETTINGS)
    assert outcome.outcome == "impossible"
    first = next(each for each in given.rows(ledger, "quarantine") if each["run"] == "run-1")
    redrive(ledger, Wanted(ids=(first["id"],)), given.SETTINGS)
    assert codes(ledger) == ["947865"]


def test_a_piece_that_a_person_redrove_is_set_aside_again(ledger: Ledger) -> None:
    from_a_file(ledger, piece())
    from_a_file(ledger, piece(code="B", total="1.00"), run="run-2")
    first = next(each for each in given.rows(ledger, "quarantine") if each["run"] == "run-1")
    with ledger.engine.begin() as connection:
        connection.execute(sa.update(quarantine).values(reference="orders.csv:2"))
    (outcome,) = redrive(ledger, Wanted(ids=(first["id"],)), given.SETTINGS)
    assert outcome.outcome == "landed"
    from_a_file(ledger, piece(code="B", total="1.00"), run="run-3")
    assert given.statuses(ledger) == {}
    assert {each["state"] for each in given.rows(ledger, "quarantine") if each["run"] != "run-1"} == {"quarantined"}


@pytest.mark.parametrize("kind", ["a document", "another moment", "the whole one is known"])
def test_what_is_no_piece_of_the_order_leaves_it_where_it_is(ledger: Ledger, kind: str) -> None:
    known = given.document("S1") if kind == "the whole one is known" else piece()
    from_a_file(ledger, known)
    other = piece(code="B", total="1.00")
    if kind == "a document":
        arrivals = given.arrivals(other, source="extract")
        assert land(ledger, "run-1", arrivals, []).corrections == 1
    else:
        other |= {"date": "2017-06-05T11:00:00Z"} if kind == "another moment" else {}
        assert from_a_file(ledger, other).collisions == 1
        assert len(quarantined(ledger)) == 1
    assert set(given.statuses(ledger)) == {"S1"}
