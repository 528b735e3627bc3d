"""Look-ups: a chain of resolvers behind the ledger's cache, and what a failing one leaves."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

import pytest

from include.instore.customers.lookup import LookedUp, look_up_batch
from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.customers import CardAnswer
from include.instore.ledger.tables import orders
from include.instore.model.codes import LOOK_UP_FAILED
from include.instore.model.errors import CardNotAnswered, ConfigurationError, RetriableError
from include.instore.model.settings import Settings
from tests.instore import given

MakeSettings = Callable[..., Settings]


class Members:
    """A resolver that knows some cards, remembers what it was asked, and fails where it is told to."""

    def __init__(self, emails: Mapping[str, str] | None = None, **outcomes: str) -> None:
        self.emails = dict(emails or {})
        self.outcomes = outcomes
        self.errors: dict[str, BaseException] = {}
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def resolve(self, card: str) -> CardAnswer:
        with self._lock:
            self.asked.append(card)
        if card in self.errors:
            raise self.errors[card]
        if card in self.emails:
            return CardAnswer(card, "matched", self.emails[card])
        return CardAnswer(card, self.outcomes.get(card, "not_found"))


def pending(ledger: Ledger, *cards: str, run_id: str = "run-1") -> None:
    """One order for each card, claimed in batch 0; S1 has the first card."""
    documents = [given.document(f"S{number}", loyaltyCardNumber=card) for number, card in enumerate(cards, 1)]
    given.landed(ledger, *documents, run=given.run(run_id))
    given.planned(ledger, given.run(run_id))


def test_the_first_resolver_that_knows_a_card_answers_for_it(ledger: Ledger, settings: MakeSettings) -> None:
    pending(ledger, "first", "second", "shut", "nobody")
    first = Members({"first": "a@x.org"}, shut="inactive")
    second = Members({"first": "wrong@x.org", "second": "b@x.org", "shut": "wrong@x.org"})
    assert look_up_batch([first, second], ledger, given.batch(), settings()) == LookedUp(looked_up=4, cache_hits=0)
    assert sorted(first.asked) == ["first", "nobody", "second", "shut"]
    assert sorted(second.asked) == ["nobody", "second"]
    assert given.statuses(ledger) == {"S1": "ready", "S2": "ready", "S3": "unmatched", "S4": "unmatched"}
    assert [given.row(ledger, f"S{number}")["email"] for number in (1, 2, 3, 4)] == ["a@x.org", "b@x.org", None, None]
    assert [given.row(ledger, f"S{number}")["reason"] for number in (3, 4)] == ["inactive", "not_found"]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("not_found", "unmatched"),
        ("inactive", "unmatched"),
        ("no_email", "unmatched"),
        ("ambiguous", "unmatched"),
        ("suppressed", "suppressed"),
    ],
)
def test_an_outcome_without_a_customer_has_its_status_and_reason(
    ledger: Ledger, settings: MakeSettings, outcome: str, status: str
) -> None:
    pending(ledger, "c")
    look_up_batch([Members(c=outcome)], ledger, given.batch(), settings())
    assert (given.row(ledger, "S1")["status"], given.row(ledger, "S1")["reason"]) == (status, outcome)


@pytest.mark.parametrize("email", ["", "@", "nobody", "a b@x.org", "a\0@x.org", "\ud800@x.org", "a" * 300 + "@x.org"])
def test_a_matched_card_whose_email_is_none_is_no_email(ledger: Ledger, settings: MakeSettings, email: str) -> None:
    pending(ledger, "odd", "good")
    look_up_batch([Members({"odd": email, "good": "a@x.org"})], ledger, given.batch(), settings())
    assert given.statuses(ledger) == {"S1": "unmatched", "S2": "ready"}
    assert given.row(ledger, "S1")["reason"] == "no_email"


def test_a_card_of_several_orders_is_asked_for_once(ledger: Ledger, settings: MakeSettings) -> None:
    pending(ledger, "c", "c", "c")
    members = Members({"c": "a@x.org"})
    assert look_up_batch([members], ledger, given.batch(), settings()) == LookedUp(looked_up=1, cache_hits=0)
    assert members.asked == ["c"]
    assert set(given.statuses(ledger).values()) == {"ready"}


def test_a_remembered_card_is_not_asked_for_again(ledger: Ledger, settings: MakeSettings) -> None:
    members = Members({"c": "a@x.org"})
    pending(ledger, "c")
    look_up_batch([members], ledger, given.batch(), settings())
    given.landed(ledger, given.document("S2", loyaltyCardNumber="c"), run=given.run("run-2"))
    given.planned(ledger, given.run("run-2"))
    assert look_up_batch([members], ledger, given.batch("run-2"), settings()) == LookedUp(looked_up=0, cache_hits=1)
    assert (members.asked, given.statuses(ledger)["S2"]) == (["c"], "ready")
    assert (given.tally(ledger, "run-2")["cache_hits"], given.tally(ledger, "run-1")["looked_up"]) == (1, 1)


@pytest.mark.parametrize(("hours", "asked"), [(0.0, 2), (1.0, 1)])
def test_a_card_without_a_customer_is_asked_for_again_once_its_answer_has_expired(
    ledger: Ledger, settings: MakeSettings, hours: float, asked: int
) -> None:
    members = Members()
    pending(ledger, "c")
    look_up_batch([members], ledger, given.batch(), settings(negative_cache_hours=hours))
    release(ledger, "run-1")
    given.set_orders(ledger, next_attempt=given.hours_ago(0))
    given.planned(ledger, given.run("run-2"))
    look_up_batch([members], ledger, given.batch("run-2"), settings(negative_cache_hours=hours))
    assert members.asked == ["c"] * asked
    assert given.row(ledger, "S1")["look_ups"] == 2


OWN = "own@x.org"


def with_own_email(ledger: Ledger, *cards: str | None) -> None:
    """One order for each card, all with the same email of their own, claimed in batch 0."""
    documents = [
        given.document(f"S{number}", loyaltyCardNumber=card, emailAddress=OWN) for number, card in enumerate(cards, 1)
    ]
    given.landed(ledger, *documents)
    given.planned(ledger)


def test_an_order_with_an_email_alone_needs_no_look_up(ledger: Ledger, settings: MakeSettings) -> None:
    with_own_email(ledger, None)
    members = Members()
    assert look_up_batch([members], ledger, given.batch(), settings()) == LookedUp(0, 0)
    assert (members.asked, given.statuses(ledger)) == ([], {"S1": "ready"})
    assert given.row(ledger, "S1")["email"] == OWN


def test_a_till_types_one_address_for_everybody_and_each_card_finds_its_own_customer(
    ledger: Ledger, settings: MakeSettings
) -> None:
    with_own_email(ledger, "c1", "c2", "c3")
    members = Members({f"c{number}": f"m{number}@x.org" for number in (1, 2, 3)})
    look_up_batch([members], ledger, given.batch(), settings())
    assert sorted(members.asked) == ["c1", "c2", "c3"]
    assert [given.row(ledger, f"S{number}")["email"] for number in (1, 2, 3)] == ["m1@x.org", "m2@x.org", "m3@x.org"]


@pytest.mark.parametrize(
    ("outcome", "own_email_after", "status", "reason"),
    [
        ("not_found", None, "ready", None),
        ("no_email", None, "ready", None),
        ("inactive", None, "unmatched", "inactive"),
        ("inactive", "not_found,inactive", "ready", None),
        ("not_found", "inactive", "unmatched", "not_found"),
        ("no_email", "", "unmatched", "no_email"),
        ("ambiguous", None, "unmatched", "ambiguous"),
        ("suppressed", None, "suppressed", "suppressed"),
    ],
)
def test_an_orders_own_email_counts_only_where_the_answer_about_its_card_is_final_and_has_none(
    ledger: Ledger,
    settings: MakeSettings,
    outcome: str,
    own_email_after: str | None,
    status: str,
    reason: str | None,
) -> None:
    with_own_email(ledger, "c")
    some = settings() if own_email_after is None else settings(own_email_after=own_email_after)
    look_up_batch([Members(c=outcome)], ledger, given.batch(), some)
    row = given.row(ledger, "S1")
    assert (row["status"], row["reason"], row["email"]) == (status, reason, OWN)


@pytest.mark.parametrize("error", [RetriableError("circuit open"), ConfigurationError("key refused")])
def test_an_orders_own_email_is_no_way_around_an_answer_that_did_not_come(
    ledger: Ledger, settings: MakeSettings, error: Exception
) -> None:
    with_own_email(ledger, "c")
    members = Members()
    members.errors = {"c": error}
    with pytest.raises(type(error)):
        look_up_batch([members], ledger, given.batch(), settings())
    assert given.statuses(ledger) == {"S1": "pending"}


def test_an_order_that_waits_keeps_its_own_email_until_the_card_is_known(
    ledger: Ledger, settings: MakeSettings
) -> None:
    with_own_email(ledger, "c")
    look_up_batch([Members(c="ambiguous")], ledger, given.batch(), settings(negative_cache_hours=0))
    release(ledger, "run-1")
    given.set_orders(ledger, next_attempt=given.hours_ago(0))
    given.planned(ledger, given.run("run-2"))
    look_up_batch([Members(c="no_email")], ledger, given.batch("run-2"), settings())
    assert (given.row(ledger, "S1")["status"], given.row(ledger, "S1")["email"]) == ("ready", OWN)


@pytest.mark.parametrize("error", [RetriableError("away"), ConfigurationError("bad key"), ValueError("a bug")])
def test_an_error_in_the_middle_keeps_what_was_answered_and_the_next_try_asks_only_the_rest(
    ledger: Ledger, settings: MakeSettings, error: Exception
) -> None:
    cards = [f"c{number:03}" for number in range(130)]
    pending(ledger, *cards)
    members = Members({card: f"{card}@x.org" for card in cards})
    members.errors = {"c110": error}
    with pytest.raises(type(error)) as caught:
        look_up_batch([members], ledger, given.batch(), settings(lookup_threads=4))
    assert caught.value is error
    first = list(members.asked)
    statuses = given.statuses(ledger)
    answered = {card for number, card in enumerate(cards, 1) if statuses[f"S{number}"] == "ready"}
    assert answered == set(first) - {"c110"}
    assert len(answered) >= 100
    assert given.tally(ledger)["looked_up"] == len(answered)

    members.errors = {}
    looked_up = look_up_batch([members], ledger, given.batch(), settings(lookup_threads=4))
    assert sorted(members.asked[len(first) :]) == sorted(set(cards) - answered)
    assert looked_up.looked_up == 130 - len(answered)
    assert set(given.statuses(ledger).values()) == {"ready"}


def not_answered(code: str = "answered_400", *, passing: bool = False) -> CardNotAnswered:
    return CardNotAnswered(f"the loyalty API said {code}", code=code, passing=passing)


@pytest.mark.parametrize("passing", [False, True])
def test_one_card_without_an_answer_is_set_aside_alone_and_the_others_go_on(
    ledger: Ledger, settings: MakeSettings, passing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cards = [f"c{number:03}" for number in range(250)]
    pending(ledger, *cards)
    members = Members({card: f"{card}@x.org" for card in cards})
    members.errors = {"c010": not_answered(passing=passing)}
    looked_up = look_up_batch([members], ledger, given.batch(), settings())
    assert looked_up == LookedUp(looked_up=249, cache_hits=0, look_up_failed=1)
    assert Counter(given.statuses(ledger).values()) == {"ready": 249, "unmatched": 1}
    row = given.row(ledger, "S11")
    assert (row["status"], row["reason"]) == ("unmatched", LOOK_UP_FAILED)
    assert row["next_attempt"] is not None
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert message.endswith("1 cards were not answered and are looked up again later: answered_400 1")
    assert "c010" not in caplog.text


def test_an_orders_own_email_is_no_way_around_a_card_that_was_not_answered(
    ledger: Ledger, settings: MakeSettings
) -> None:
    with_own_email(ledger, "c", "d")
    members = Members({"d": "d@x.org"})
    members.errors = {"c": not_answered()}
    look_up_batch([members], ledger, given.batch(), settings(own_email_after="not_found,no_email,inactive"))
    row = given.row(ledger, "S1")
    assert (row["status"], row["reason"], row["email"]) == ("unmatched", LOOK_UP_FAILED, OWN)


def test_the_next_resolver_is_no_way_around_a_card_that_was_not_answered(
    ledger: Ledger, settings: MakeSettings
) -> None:
    pending(ledger, "c")
    first, second = Members(), Members({"c": "c@x.org"})
    first.errors = {"c": not_answered()}
    look_up_batch([first, second], ledger, given.batch(), settings())
    assert (second.asked, given.statuses(ledger)) == ([], {"S1": "unmatched"})


def test_a_card_set_aside_is_asked_for_again_with_growing_pauses_and_found_then(
    ledger: Ledger, settings: MakeSettings
) -> None:
    pending(ledger, "c")
    members = Members({"c": "c@x.org"})
    members.errors = {"c": not_answered()}
    pauses = []
    for number in range(2, 5):
        look_up_batch([members], ledger, given.batch(f"run-{number - 1}"), settings())
        again = given.row(ledger, "S1")["next_attempt"]
        pauses.append(round((again - datetime.now(timezone.utc)).total_seconds() / 3600))
        release(ledger, f"run-{number - 1}")
        given.set_orders(ledger, next_attempt=given.hours_ago(0))
        given.forget_customers(ledger)  # an hour and more has passed
        given.planned(ledger, given.run(f"run-{number}"))
    assert pauses == [1, 6, 24]
    members.errors = {}
    look_up_batch([members], ledger, given.batch("run-4"), settings())
    assert given.statuses(ledger) == {"S1": "ready"}


@pytest.mark.parametrize(
    ("failing", "all_cards", "stops"), [(4, 4, False), (5, 5, True), (5, 25, False), (6, 25, True), (30, 250, False)]
)
@pytest.mark.parametrize("passing", [False, True])
def test_a_share_of_cards_without_an_answer_stops_the_task_after_all_were_asked(
    ledger: Ledger, settings: MakeSettings, failing: int, all_cards: int, stops: bool, passing: bool
) -> None:
    cards = [f"c{number:03}" for number in range(all_cards)]
    pending(ledger, *cards)
    members = Members({card: f"{card}@x.org" for card in cards})
    members.errors = dict.fromkeys(cards[-failing:], not_answered(passing=passing))
    some = settings(max_failed_look_ups=0.2, share_minimum=5)
    if passing and failing == all_cards:
        stops = True  # nothing says that the service is well
    if stops:
        with pytest.raises(RetriableError if passing else ConfigurationError) as error:
            look_up_batch([members], ledger, given.batch(), some)
        assert f"{failing} of {all_cards} cards" in str(error.value)
        assert "the loyalty API said answered_400" in str(error.value)
    else:
        look_up_batch([members], ledger, given.batch(), some)
    assert sorted(members.asked) == cards
    left = {"pending" if stops else "unmatched": failing, "ready": all_cards - failing}
    assert Counter(given.statuses(ledger).values()) == {name: count for name, count in left.items() if count}
    assert given.tally(ledger)["looked_up"] == all_cards - (failing if stops else 0)


def test_where_none_of_the_first_twenty_cards_is_answered_the_rest_is_not_asked_for(
    ledger: Ledger, settings: MakeSettings
) -> None:
    cards = [f"c{number:03}" for number in range(250)]
    pending(ledger, *cards)
    members = Members()
    members.errors = dict.fromkeys(cards, not_answered("answered_404_not_json", passing=True))
    with pytest.raises(RetriableError, match="cards"):
        look_up_batch([members], ledger, given.batch(), settings(lookup_threads=1))
    assert members.asked == cards[:20]
    assert set(given.statuses(ledger).values()) == {"pending"}
    assert given.rows(ledger, "customers") == []


def test_an_order_that_came_before_the_length_of_a_card_was_set_is_asked_for_by_it(
    ledger: Ledger, settings: MakeSettings
) -> None:
    pending(ledger, "12345", "6.0.0")
    given.set_orders(ledger, orders.c.loyalty_card == "6.0.0", loyalty_card="60354.0")  # as it was read once
    members = Members({"00012345": "ann@example.com"})
    look_up_batch([members], ledger, given.batch(), settings(card_length=8))
    assert sorted(members.asked) == ["00012345", "60354.0"]
    assert given.statuses(ledger) == {"S1": "ready", "S2": "unmatched"}


def test_where_all_cards_may_fail_all_are_asked_for(ledger: Ledger, settings: MakeSettings) -> None:
    cards = [f"c{number:03}" for number in range(30)]
    pending(ledger, *cards)
    members = Members()
    members.errors = dict.fromkeys(cards, not_answered())
    look_up_batch([members], ledger, given.batch(), settings(max_failed_look_ups=1))
    assert sorted(members.asked) == cards
    assert set(given.statuses(ledger).values()) == {"unmatched"}


def test_an_error_that_is_no_cards_own_leaves_those_without_an_answer_pending(
    ledger: Ledger, settings: MakeSettings
) -> None:
    pending(ledger, "c0", "c1", "c2")
    members = Members({"c1": "c1@x.org"})
    members.errors = {"c0": not_answered(), "c2": RetriableError("circuit open")}
    with pytest.raises(RetriableError, match="circuit open"):
        look_up_batch([members], ledger, given.batch(), settings(lookup_threads=1))
    assert given.statuses(ledger) == {"S1": "pending", "S2": "ready", "S3": "pending"}


def test_after_an_error_no_new_card_is_asked_for(ledger: Ledger, settings: MakeSettings) -> None:
    cards = [f"c{number:03}" for number in range(60)]
    pending(ledger, *cards)
    members = Members()
    members.errors = {"c000": RetriableError("away")}
    with pytest.raises(RetriableError):
        look_up_batch([members], ledger, given.batch(), settings(lookup_threads=1))
    assert len(members.asked) < 60


def test_answers_kept_before_a_crash_are_not_asked_for_again(ledger: Ledger, settings: MakeSettings) -> None:
    cards = [f"c{number:03}" for number in range(130)]
    pending(ledger, *cards)
    members = Members({card: f"{card}@x.org" for card in cards})
    members.errors = {"c120": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        look_up_batch([members], ledger, given.batch(), settings(lookup_threads=1))
    asked = len(members.asked)
    members.errors = {}
    look_up_batch([members], ledger, given.batch(), settings(lookup_threads=1))
    assert not set(members.asked[asked:]) & set(cards[:100])
    assert set(given.statuses(ledger).values()) == {"ready"}


def test_several_cards_are_asked_for_at_the_same_time_and_no_more_than_set(
    ledger: Ledger, settings: MakeSettings
) -> None:
    class Slow(Members):
        together = threading.Barrier(3)

        def resolve(self, card: str) -> CardAnswer:
            self.together.wait(10)  # broken, and an error, unless three ask at once
            return super().resolve(card)

    pending(ledger, *(f"c{number}" for number in range(6)))
    members = Slow()
    look_up_batch([members], ledger, given.batch(), settings(lookup_threads=3))
    assert len(members.asked) == 6


def test_only_the_cards_of_the_batch_are_asked_for(ledger: Ledger, settings: MakeSettings) -> None:
    documents = [given.document(f"S{number}", loyaltyCardNumber=f"c{number}") for number in (1, 2)]
    given.landed(ledger, *documents)
    given.planned(ledger, batch_orders=1)
    members = Members()
    look_up_batch([members], ledger, given.batch("run-1", 1), settings())
    assert (members.asked, given.statuses(ledger)) == (["c2"], {"S1": "pending", "S2": "unmatched"})


def test_no_card_and_no_email_is_in_a_log_record(
    ledger: Ledger, settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="include.instore")
    pending(ledger, given.CANARY)
    look_up_batch([Members({given.CANARY: f"{given.CANARY}@x.org"})], ledger, given.batch(), settings())
    messages = [record.getMessage() for record in caplog.records]
    assert messages
    assert not [message for message in messages if given.CANARY in message]
