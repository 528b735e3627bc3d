"""The report: its counts against a scenario made by hand, and the reasons for which a run is red."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from include.instore.customers.erasing import forget_person
from include.instore.customers.lookup import look_up_batch
from include.instore.ledger import Ledger
from include.instore.ledger.customers import CardAnswer
from include.instore.ledger.runs import count_run, note_drain
from include.instore.ledger.suppressions import FILE, suppress
from include.instore.ledger.tables import deliveries, orders, suppressions
from include.instore.model.codes import HELD_EVENTS
from include.instore.model.settings import Settings
from include.instore.runs.report import Failure, report_run
from tests.instore import given
from tests.instore.destinations.test_delivery import Store

MakeSettings = Callable[..., Settings]
TEN = [f"S{number}" for number in range(10)]


class Members:
    def resolve(self, card: str) -> CardAnswer:
        if card.startswith("m"):
            return CardAnswer(card, "matched", f"{card}@example.com")
        return CardAnswer(card, {"x": "suppressed", "i": "inactive"}.get(card[0], "not_found"))


def scenario(ledger: Ledger, settings: Settings) -> None:
    """A run that meets every status: twelve records, two of them bad, one a duplicate, one order carried over."""
    given.landed(ledger, given.document("old", loyaltyCardNumber="m1"), run=given.run("run-0"))
    cards = {"sent": "m1", "rejected": "m2", "doubt": "m3", "without": "n", "shut": "i", "erased": "x"}
    documents = [given.document(number, loyaltyCardNumber=card) for number, card in cards.items()]
    given.landed(
        ledger,
        *documents,
        given.document("anonymous", loyaltyCardNumber=None),
        given.document("own", emailAddress="own@example.com", date="2017-06-05T10:00:00"),
        given.document("sent", loyaltyCardNumber="m1", total="9.99"),
        refusals=[given.refused(b"1"), given.refused(b"2", reason="bad_value")],
    )
    given.planned(ledger)
    given.landed(ledger, given.document("late"), run=given.run("run-1"))
    look_up_batch([Members()], ledger, given.batch(), settings)
    store = Store(ledger, rejected=["refused"], doubt=["ambiguous"])
    store.shows = False
    given.send(store, ledger, given.batch(), settings)


def test_the_counts_are_those_of_the_run(ledger: Ledger, settings: MakeSettings) -> None:
    scenario(ledger, settings())
    report = report_run(ledger, given.run(), [], settings(max_bad_share=1))
    assert report.document == {
        "run_kind": "scheduled",
        "window": None,
        "received": 12,
        "orders": 9,
        "duplicates": 0,
        "corrections": 1,
        "corrected_after_sent": 0,
        "lines_do_not_add_up": 1,
        "changed_fields": 0,
        "new_stores": 0,
        "collisions": 0,
        "quarantined": 2,
        "quarantined_by_reason": {"bad_value": 1, "not_json": 1},
        "undecodable": 0,
        "drain": None,
        "drained_before": None,
        "not_drained": None,
        "locked_elsewhere": None,
        "deferred": None,
        "unread_files": 0,
        "unread_bytes": 0,
        "broken_files": 0,
        "waiting_files": 0,
        "left_files": 0,
        "dates_without_offset": 1,
        "cards_as_numbers": 0,
        "mapping_cards": None,
        "claimed": 8,
        "batches": 1,
        "looked_up": 7,
        "cache_hits": 0,
        "matched": 5,
        "unmatched": 3,
        "unmatched_by_outcome": {"inactive": 1, "no_customer_key": 1, "not_found": 1},
        "look_up_failed": 0,
        "look_ups_failing": 0,
        "suppressed": 1,
        "suppressed_by_reason": {"loyalty": 1},
        "sent": 3,
        "resent": 0,
        "rejected": 1,
        "rejected_by_reason": {"400: scope is unknown": 1},
        "truncated": 0,
        "in_doubt": 1,
        "in_doubt_by_reason": {"lag": 1},
        "held": 0,
        "cancelled": 0,
        "by_destination": {"profile_store": {"rejected": 1, "sent": 3}},
        "carried_over": 2,
        "ledger": {
            "pending": 1,
            "rejected": 1,
            "sending": 1,
            "sent": 3,
            "suppressed": 1,
            "unmatched": 3,
        },
        "set_aside": {"bad_value": 1, "in_doubt": 1, "not_json": 1, "rejected": 1},
        "window_orders": {},
        "tracking": True,
        "red": [],
    }
    assert report.red == ()
    given.assert_every_record_is_in_one_place(ledger)


def test_what_is_suppressed_is_told_by_who_said_so(ledger: Ledger, settings: MakeSettings, tmp_path: Path) -> None:
    """An order without a customer yet, or an event that was ready; a person who is erased and opted out is erased."""
    cards = {"answer": "x1", "command": "c1", "file": "f1", "erased": "e1000", "lifted": "l1", "fine": "m1"}
    given.landed(ledger, *(given.document(number, loyaltyCardNumber=card) for number, card in cards.items()))
    given.planned(ledger)
    look_up_batch([Members()], ledger, given.batch(), settings())
    given.set_orders(ledger, orders.c.order_number.in_(["command", "file"]), status="ready")
    suppress(ledger, ["c1"], "a ticket")
    suppress(ledger, ["f1", "e1000"], "a list", FILE)
    mine = settings(erasure_receipts=tmp_path)
    forget_person(ledger, mine, cards=["e1000"], emails=[], on_bus=None)
    suppress(ledger, ["l1"], "by mistake")
    counted: Counter[str] = Counter()
    with ledger.engine.begin() as connection:
        connection.execute(sa.delete(suppressions).where(suppressions.c.hash == ledger.keyed_hash("l1")))
        run_ids = connection.scalars(sa.select(orders.c.resolved_run).union(sa.select(deliveries.c.outcome_run)))
        known = [each for each in run_ids if each]
    for run_id in known:
        given.landed(ledger, run=given.run(run_id))
        counted.update(count_run(ledger, run_id).suppressed_by_reason)
    assert counted == {"loyalty": 1, "command": 1, "file": 1, "erasure": 1, "suppressed": 1}


FEED = {"feed": "topic", "fields": "{}"}


def test_what_a_drain_left_is_told_beside_how_the_one_before_ended(ledger: Ledger, settings: MakeSettings) -> None:
    for run_id, ended in (("run-0", "time"), ("a backfill", None), ("run-1", "count")):
        bad = [given.refused(run_id.encode(), reason="undecodable")]
        given.landed(ledger, run=given.run(run_id), refusals=bad)
        if ended:
            note_drain(ledger, run_id, FEED, False, drain=ended, not_drained=7, locked_elsewhere=0, deferred=2)
    told = report_run(ledger, given.run(), [], settings(max_bad_share=1)).document
    names = ("drain", "drained_before", "not_drained", "locked_elsewhere", "deferred", "undecodable")
    assert [told[name] for name in names] == ["count", "time", 7, 0, 2, 1]


def test_the_report_is_kept_and_the_claims_are_given_up(ledger: Ledger, settings: MakeSettings) -> None:
    scenario(ledger, settings())
    report = report_run(ledger, given.run(), [], settings())
    tally = given.tally(ledger)
    assert json.loads(tally["counts"]) == report.document
    assert tally["ended_at"] is not None
    assert {row["claim_run"] for row in given.on_the_way(ledger)} == {None}
    assert "@" not in tally["counts"]


def test_reporting_again_tells_the_same(ledger: Ledger, settings: MakeSettings) -> None:
    scenario(ledger, settings())
    first = report_run(ledger, given.run(), [], settings())
    assert report_run(ledger, given.run(), [], settings()) == first


def test_a_run_of_a_window_tells_all_orders_of_it_whoever_brought_them(ledger: Ledger, settings: MakeSettings) -> None:
    days = {"S1": "2017-06-04T23:59:59Z", "S2": "2017-06-05T00:00:00Z", "S3": "2017-06-05T12:00:00Z"}
    given.landed(ledger, *(given.document(number, date=date) for number, date in days.items()), run=given.run("run-0"))
    given.set_orders(ledger, sa.text("order_number = 'S3'"), status="sent")
    backfill = given.run("b", "backfill", window=given.window("2017-06-05", "2017-06-06"), claims="in_window")
    given.planned(ledger, backfill)
    report = report_run(ledger, backfill, [], settings())
    assert report.document["window_orders"] == {"pending": 1, "sent": 1}
    assert (report.document["claimed"], report.document["sent"], report.red) == (1, 0, ())


def test_a_run_without_orders_is_green(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger)
    window = given.window("2017-06-05", "2017-06-06")
    report = report_run(ledger, given.run(window=window), [], settings(max_bad_share=0))
    assert (report.red, report.document["received"], report.document["ledger"]) == ((), 0, {})
    assert report.document["window"] == "2017-06-05T00:00:00+00:00/2017-06-06T00:00:00+00:00"


def test_each_failed_task_makes_the_run_red(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger)
    report = report_run(ledger, given.run(), [Failure("drain_topic"), Failure("send_events")], settings())
    assert len(report.red) == 2
    assert "drain_topic" in report.red[0]
    assert "send_events" in report.red[1]
    assert report.document["red"] == list(report.red)


@pytest.mark.parametrize(
    ("quarantined", "rejected", "share", "red"),
    [
        (5, 0, 0.4, True),
        (5, 0, 0.5, False),
        (0, 5, 0.4, True),
        (0, 5, 0.5, False),
        (3, 2, 0.4, True),
        (4, 0, 0.02, False),  # too few to say anything about the stream
        (2, 2, 0.02, False),
        (0, 0, 0, False),
    ],
)
def test_a_run_is_red_when_more_than_the_set_share_was_set_aside(
    ledger: Ledger, settings: MakeSettings, quarantined: int, rejected: int, share: float, red: bool
) -> None:
    bad = [given.refused(str(number).encode()) for number in range(quarantined)]
    given.ready(ledger, *TEN[: 10 - quarantined])
    given.landed(ledger, refusals=bad)
    store = Store(ledger, **{number: ["refused"] for number in TEN[:rejected]})
    given.send(store, ledger, given.batch(), settings())
    report = report_run(ledger, given.run(), [], settings(max_bad_share=share))
    assert bool(report.red) == red
    if red:
        assert report.red == (
            f"bad_share: {quarantined + rejected} of 10 records were set aside ({quarantined} quarantined, "
            f"{rejected} rejected), "
            f"more than the {share:.0%} of INSTORE_MAX_BAD_SHARE",
        )


def test_unmatched_orders_never_make_a_run_red(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, *(given.document(number, loyaltyCardNumber=None) for number in TEN))
    report = report_run(ledger, given.run(), [], settings(max_bad_share=0))
    assert (report.red, report.document["unmatched"]) == ((), 10)


def test_a_run_reported_again_after_another_took_its_orders_adds_up(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"))
    given.planned(ledger)
    report_run(ledger, given.run(), [], settings())
    given.planned(ledger, given.run("run-2"))
    assert report_run(ledger, given.run(), [], settings()).red == ()
    assert report_run(ledger, given.run("run-2"), [], settings()).red == ()


@pytest.mark.parametrize(
    "tampering",
    [
        "DELETE FROM orders WHERE order_number = 'S1'",
        "DELETE FROM orders WHERE order_number = 'early'",
        "DELETE FROM quarantine",
        "UPDATE orders SET status = 'gone' WHERE order_number = 'S1'",
        "UPDATE runs SET received = received + 1",
        "UPDATE runs SET duplicates = duplicates - 1",
    ],
)
def test_a_tampered_ledger_makes_the_run_red(ledger: Ledger, settings: MakeSettings, tampering: str) -> None:
    given.landed(ledger, given.document("early"), run=given.run("run-0"))
    given.landed(ledger, given.document("S1"), given.document("S1"), given.document("S2"), refusals=[given.refused()])
    given.planned(ledger)
    assert report_run(ledger, given.run(), [], settings(max_bad_share=1)).red == ()
    given.planned(ledger)
    with ledger.engine.begin() as connection:
        connection.execute(sa.text(tampering))
    assert report_run(ledger, given.run(), [], settings(max_bad_share=1)).red


def test_events_that_are_held_make_the_run_red_that_holds_them(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    given.send(Store(ledger, S1=["ambiguous"]), ledger, given.batch(), settings(on_ambiguous="hold"))
    report = report_run(ledger, given.run(), [], settings())
    assert (report.document["held"], report.document["ledger"]) == (1, {"held": 1})
    assert "held for a person" in report.red[0]
    assert [f"held_events: {reason}" for reason in report.red_by_cause[HELD_EVENTS]] == list(report.red)
    assert report.document["set_aside"] == {"held": 1}
    given.planned(ledger, given.run("run-2"))
    assert report_run(ledger, given.run("run-2"), [], settings()).red == ()


def test_an_order_with_the_key_of_another_one_makes_the_run_red(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1"))
    given.landed(ledger, given.document("S1", storeId="0505"))
    report = report_run(ledger, given.run(), [], settings(max_bad_share=1))
    assert report.document["collisions"] == 1
    assert report.red == (
        "collisions: 1 orders seem to have another order's key, or number, and were quarantined; their details "
        "there say which, and what would tell them apart",
    )
