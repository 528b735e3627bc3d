"""Card answers: what they mean for an order, for how long they hold, and when an unmatched order is asked for again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.customers import CardAnswer, cards_to_ask, remember, settle_customers
from tests.instore import given

DAY = timedelta(days=1)


def answer(ledger: Ledger, *answers: CardAnswer, run: str = "run-1", expiry: timedelta = 30 * DAY) -> None:
    """Remember these answers and settle batch 0 by them."""
    begun = datetime.now(timezone.utc)
    remember(ledger, given.batch(run), answers, cache=DAY, negative=timedelta(hours=0.9))
    settle_customers(ledger, given.batch(run), asked_after=begun, cache_hits=0, expiry=expiry)


def in_hours(row: dict[str, object]) -> float:
    again = row["next_attempt"]
    assert isinstance(again, datetime)
    return round((again - datetime.now(timezone.utc)).total_seconds() / 3600, 1)


@pytest.mark.parametrize(
    ("outcome", "email", "status", "reason"),
    [
        ("matched", "ann@example.com", "ready", None),
        ("not_found", None, "unmatched", "not_found"),
        ("inactive", None, "unmatched", "inactive"),
        ("no_email", None, "unmatched", "no_email"),
        ("ambiguous", None, "unmatched", "ambiguous"),
        ("suppressed", None, "suppressed", "suppressed"),
    ],
)
def test_each_outcome_has_its_status(
    ledger: Ledger, outcome: str, email: str | None, status: str, reason: str | None
) -> None:
    given.landed(ledger, given.document("S1"))
    given.planned(ledger)
    answer(ledger, CardAnswer(given.CARD, outcome, email))
    row = given.row(ledger, "S1")
    assert (row["status"], row["reason"], row["email"], row["resolved_run"]) == (status, reason, email, "run-1")
    assert (row["next_attempt"] is not None) == (status == "unmatched")


def test_a_card_is_asked_for_also_where_the_order_has_an_email_of_its_own(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", emailAddress="own@example.com"))
    given.planned(ledger)
    assert cards_to_ask(ledger, given.batch()).cards == (given.CARD,)
    answer(ledger)
    assert given.statuses(ledger) == {"S1": "pending"}


def test_an_order_whose_card_has_no_answer_stays_pending(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2", loyaltyCardNumber="77"))
    given.planned(ledger)
    answer(ledger, CardAnswer("77", "not_found"))
    assert given.statuses(ledger) == {"S1": "pending", "S2": "unmatched"}


def test_a_card_is_asked_for_once_however_many_orders_it_has(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(f"S{number}") for number in range(3)))
    given.planned(ledger)
    asking = cards_to_ask(ledger, given.batch())
    assert (asking.cards, asking.cache_hits) == ((given.CARD,), 0)
    assert given.CARD not in repr(asking)


def test_a_remembered_card_is_not_asked_for_until_its_answer_expires(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", loyaltyCardNumber="1"), given.document("S2", loyaltyCardNumber="2"))
    given.planned(ledger)
    answers = [CardAnswer("1", "matched", "a@x.org"), CardAnswer("2", "not_found")]
    remember(ledger, given.batch(), answers, cache=timedelta(hours=1), negative=timedelta(0))
    asking = cards_to_ask(ledger, given.batch())
    assert (asking.cards, asking.cache_hits) == (("2",), 1)
    remember(ledger, given.batch(), answers, cache=timedelta(0), negative=timedelta(hours=1))
    asking = cards_to_ask(ledger, given.batch())
    assert (asking.cards, asking.cache_hits) == (("1",), 1)
    assert given.tally(ledger)["looked_up"] == 4


def test_an_expired_answer_does_not_count(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.planned(ledger)
    remember(ledger, given.batch(), [CardAnswer(given.CARD, "matched", "a@x.org")], cache=timedelta(0), negative=DAY)
    later = datetime.now(timezone.utc)
    settle_customers(ledger, given.batch(), asked_after=later, cache_hits=0, expiry=DAY)
    assert given.statuses(ledger) == {"S1": "pending"}


def test_unmatched_orders_are_asked_for_after_one_six_and_twenty_four_hours_and_then_daily(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    waits = []
    for look_up in range(6):
        run = given.run(f"run-{look_up}")
        given.set_orders(ledger, next_attempt=given.hours_ago(0))
        assert len(given.planned(ledger, run)) == 1
        answer(ledger, CardAnswer(given.CARD, "not_found"), run=run.run_id)
        release(ledger, run.run_id)
        waits.append(in_hours(given.row(ledger, "S1")))
    assert waits == [1.0, 6.0, 24.0, 24.0, 24.0, 24.0]
    assert given.row(ledger, "S1")["look_ups"] == 6


def test_an_unmatched_order_is_not_asked_for_again_after_its_expiry(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.set_orders(ledger, received_at=given.hours_ago(29 * 24), look_ups=2)
    given.planned(ledger)
    answer(ledger, CardAnswer(given.CARD, "not_found"), expiry=30 * DAY + timedelta(minutes=1))
    assert in_hours(given.row(ledger, "S1")) == 24.0
    given.set_orders(ledger, status="pending")
    answer(ledger, CardAnswer(given.CARD, "not_found"), expiry=30 * DAY - timedelta(minutes=1))
    row = given.row(ledger, "S1")
    assert (row["status"], row["next_attempt"]) == ("unmatched", None)


def test_an_unmatched_order_whose_card_is_matched_later_becomes_ready(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.planned(ledger)
    answer(ledger, CardAnswer(given.CARD, "not_found"))
    release(ledger, "run-1")
    given.set_orders(ledger, next_attempt=given.hours_ago(0))
    given.planned(ledger, given.run("run-2"))
    answer(ledger, CardAnswer(given.CARD, "matched", "a@x.org"), run="run-2")
    row = given.row(ledger, "S1")
    assert (row["status"], row["reason"], row["email"], row["resolved_run"]) == ("ready", None, "a@x.org", "run-2")
    assert row["next_attempt"] is None


def test_a_run_that_lost_its_claim_settles_nothing(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.planned(ledger)
    given.set_orders(ledger, claim_run="run-2")
    answer(ledger, CardAnswer(given.CARD, "matched", "a@x.org"))
    assert given.statuses(ledger) == {"S1": "pending"}


def test_answers_show_neither_card_nor_email(ledger: Ledger) -> None:
    assert repr(CardAnswer(given.CARD, "matched", "a@x.org")) == "CardAnswer(outcome='matched')"
