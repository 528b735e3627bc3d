"""Landing: each record in exactly one place, duplicates, changed duplicates, quarantine."""

from __future__ import annotations

import threading
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.extract_files import known_versions
from include.instore.ledger.intake import Landed, LoadedExtract, land
from include.instore.model.errors import RecordRefused
from include.instore.model.settings import load_settings
from tests.instore import given


def test_received_is_orders_and_duplicates_and_quarantined(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    landed = given.landed(
        ledger,
        given.document("S1"),
        given.document("S2"),
        given.document("S2"),
        given.document("S3"),
        refusals=[given.refused(b"a", "r1"), given.refused(b"b", "r2"), given.refused(b"a", "r1")],
    )
    assert landed == Landed(received=7, orders=2, duplicates=3, quarantined=2)
    tally = given.tally(ledger)
    assert (tally["received"], tally["duplicates"], tally["corrections"]) == (8, 3, 0)
    given.assert_every_record_is_in_one_place(ledger)


def test_an_order_lands_with_all_that_is_needed_to_send_it(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", date="2017-06-05T12:04:12+02:00", emailAddress="ann@example.com"))
    row = given.row(ledger, "S1")
    assert row["order_time"] == given.moment("2017-06-05T10:04:12")
    assert row["order_time"].utcoffset().total_seconds() == 0
    assert (row["status"], row["loyalty_card"], row["email"]) == ("pending", given.CARD, "ann@example.com")
    assert (row["source"], row["reference"], row["received_run"]) == ("topic", "ref-0", "run-1")
    assert (row["attempts"], row["look_ups"], row["claim_run"]) == (0, 0, None)


def test_the_same_order_from_topic_and_extract_is_one_order_with_one_event(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    before = given.row(ledger, "S1")
    landed = given.landed(ledger, given.document("S1"), source="extract")
    assert (landed.orders, landed.duplicates, landed.corrections) == (0, 1, 0)
    assert given.row(ledger, "S1") == before


def test_the_later_of_two_contents_in_one_block_holds(ledger: Ledger) -> None:
    landed = given.landed(ledger, *(given.document("S1", total=total) for total in ("1.00", "2.00", "3.00")))
    assert (landed.orders, landed.duplicates, landed.corrections) == (1, 0, 2)
    assert '"total":3.00' in given.row(ledger, "S1")["payload"]
    assert given.tally(ledger)["corrections"] == 2


def test_an_order_without_card_and_email_is_kept_as_unmatched_and_never_asked_for(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", loyaltyCardNumber=None))
    row = given.row(ledger, "S1")
    assert (row["status"], row["reason"], row["next_attempt"]) == ("unmatched", "no_customer_key", None)
    assert given.planned(ledger) == []
    given.assert_every_record_is_in_one_place(ledger)


def test_a_refused_record_is_kept_once_with_its_raw_bytes(ledger: Ledger) -> None:
    raw = b"\xff\x00not text"
    assert given.landed(ledger, refusals=[given.refused(raw)]).quarantined == 1
    again = given.landed(ledger, refusals=[given.refused(raw)], run=given.run("run-2"))
    assert (again.quarantined, again.duplicates) == (0, 1)
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["raw"], kept["reason"], kept["state"], kept["run"]) == (raw, "not_json", "quarantined", "run-1")
    given.assert_every_record_is_in_one_place(ledger)


def test_the_log_names_what_was_set_aside_by_its_codes(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    given.landed(ledger, given.document("S1"))
    bad = [given.refused(b"1"), given.refused(b"2"), given.refused(b"3", reason="bad_value")]
    given.landed(ledger, given.document("S1", storeId="0505"), refusals=bad)
    assert "set aside: bad_value 1, collision 1, not_json 2" in caplog.text


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "lone surrogate"])
def test_a_reference_or_detail_that_no_database_takes_does_not_stop_the_block(ledger: Ledger, text: str) -> None:
    odd = given.set_aside(RecordRefused("not_json", text), b"x", text)
    landed = given.landed(ledger, given.document("S1"), refusals=[odd])
    assert (landed.orders, landed.quarantined) == (1, 1)


def test_cards_as_json_numbers_are_counted(ledger: Ledger) -> None:
    cards: list[Any] = [6035770741165744, "6035770741165745", None]
    documents = [given.document(f"S{number}", loyaltyCardNumber=card) for number, card in enumerate(cards)]
    given.landed(ledger, *documents)
    assert given.tally(ledger)["cards_as_numbers"] == 1


def test_dates_without_offset_are_counted(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", date="2017-06-05T10:00:00"), given.document("S2"))
    assert given.tally(ledger)["dates_without_offset"] == 1


def test_a_block_is_landed_whole_or_not_at_all(ledger: Ledger) -> None:
    given.landed(ledger)
    items = given.arrivals(given.document("S1"), given.document("S2"))
    items[1].row["status"] = None  # no database takes an order without a status
    with pytest.raises(Exception, match="instore_ledger"):
        land(ledger, "run-1", items, [given.refused()])
    assert given.on_the_way(ledger) == given.rows(ledger, "quarantine") == []
    assert given.tally(ledger)["received"] == 0


def test_a_file_is_remembered_in_the_commit_of_its_block_and_again_when_it_changed(ledger: Ledger) -> None:
    given.landed(ledger)
    for version in ("1:a", "2:b"):
        land(ledger, "run-1", [], [], LoadedExtract("05/orders.csv", version, 3, 1))
        assert known_versions(ledger, ["05/orders.csv", "06/orders.csv"]) == {"05/orders.csv": version}
    (kept,) = given.rows(ledger, "extracts")
    assert (kept["orders"], kept["bad_rows"], kept["state"], kept["run"]) == (3, 1, "loaded", "run-1")


def test_the_same_orders_landed_by_several_threads_at_once_are_there_once(ledger: Ledger) -> None:
    documents = [given.document(f"S{number}") for number in range(40)]
    given.landed(ledger)
    begin = threading.Barrier(4)
    results: list[Landed] = []

    def bring(backwards: bool) -> None:
        items = given.arrivals(*(reversed(documents) if backwards else documents))
        begin.wait()
        results.append(land(ledger, "run-1", items, []))

    threads = [threading.Thread(target=bring, args=(bool(number % 2),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results, Landed()) == Landed(received=160, orders=40, duplicates=120)
    given.assert_every_record_is_in_one_place(ledger)


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        ("1753-01-01T00:00:00Z", "before 2000-01-01"),
        ("1900-01-01", "before 2000-01-01"),
        ("9999-12-31T00:00:00Z", "more than a day in the future"),
        ("2154-05-06T00:00:00Z", "more than a day in the future"),
    ],
)
def test_a_date_that_stands_for_none_is_refused(moment: str, why: str) -> None:
    with pytest.raises(RecordRefused, match=why):
        given.arrivals(given.document("S1", date=moment))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"total": "-3.50", "orderType": "sale"}, "below zero, and orderType says sale"),
        ({"orderNumber": "#REF!"}, "error of a spreadsheet"),
        ({"orderNumber": "#n/a"}, "error of a spreadsheet"),
        ({"orderNumber": "#####"}, "orderNumber is what programs write where there is nothing"),
        ({"orderNumber": "NULL"}, "orderNumber is what programs write where there is nothing"),
        ({"orderNumber": "(blank)"}, "orderNumber is what programs write where there is nothing"),
        ({"orderNumber": "undefined"}, "orderNumber is what programs write where there is nothing"),
        ({"orderNumber": "[object Object]"}, "orderNumber is what programs write where there is nothing"),
        ({"orderNumber": "--"}, "orderNumber is what programs write where there is nothing"),
        ({"orderNumber": "1234567.0"}, "orderNumber is written as a number"),
        ({"orderNumber": "1,234,567"}, "orderNumber is written as a number"),
        ({"storeId": "None"}, "storeId is what programs write where there is nothing"),
        ({"storeId": "404.0"}, "storeId is written as a number"),
        ({"isCancelled": True}, "isCancelled says that it is no purchase"),
        ({"voided": "Y"}, "voided says that it is no purchase"),
        ({"cancelled_at": "2026-11-24T10:00:00Z"}, "cancelled_at says that it is no purchase"),
        ({"orderStatus": "VOIDED"}, "orderStatus says that it is no purchase"),
        ({"isTest": 1}, "isTest says that it is no purchase"),
        ({"trainingModeFlag": "true"}, "trainingModeFlag says that it is no purchase"),
        ({"lines": [{"productCode": "A", "status": "cancelled"}] * 2}, "status says that it is no purchase"),
        ({"loyaltyCardNumber": "603577******5744"}, "is masked"),
        ({"loyaltyCardNumber": "xxxxxxxxxxxx5744"}, "is masked"),
    ],
)
def test_what_contradicts_itself_or_is_no_number_any_more_is_refused(changes: dict[str, str], why: str) -> None:
    with pytest.raises(RecordRefused, match=why):
        given.arrivals(given.document(**{"number": "S1", **changes}))


@pytest.mark.parametrize(
    "fields",
    [
        {"isCancelled": False}, {"voided": "N"}, {"cancelledAt": ""}, {"cancelledAt": None}, {"testament": True},
        {"fulfilmentStatus": "shipped"}, {"cancellationPolicy": "30 days"}, {"isTest": None},
        {"lines": [{"productCode": "A", "status": "cancelled"}, {"productCode": "B", "status": "sold"}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_only_looks_like_no_purchase_is_one(fields: dict[str, Any]) -> None:
    assert given.arrivals(given.document("S1", **fields))


def test_a_field_of_that_name_may_mean_something_else_here() -> None:
    assert given.arrivals(given.document("S1", test="yes"), settings=load_settings(no_purchase_words=""))


def test_less_than_nothing_without_a_type_is_a_return(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", total="-3.50"), given.document("S2", total="-3.50", orderType="return"))
    assert [row["order_type"] for row in given.rows(ledger, "orders")] == ["return", "return"]


def test_a_clock_may_be_some_hours_ahead_and_a_shop_old() -> None:
    soon = datetime.now(timezone.utc) + timedelta(hours=20)
    assert given.arrivals(given.document("S1", date=soon.isoformat()))
    old = given.document("S1", date="1999-12-31T12:00:00Z")
    assert given.arrivals(old, settings=load_settings(earliest_date=date(1990, 1, 1)))
