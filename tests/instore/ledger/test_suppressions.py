"""Nothing leaves for a person who was suppressed before the order was marked as sending, whatever came first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.customers.lookup import look_up_batch
from include.instore.destinations.delivery import Delivered
from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.customers import CardAnswer, remember
from include.instore.ledger.deliveries import mark_sending
from include.instore.ledger.suppressions import check_hash_key
from include.instore.ledger.tables import orders, suppressions
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import Settings
from include.instore.model.windows import Run
from tests.instore import given
from tests.instore.destinations.test_delivery import Outcome, Store

MakeSettings = Callable[..., Settings]
ANN = "ann@example.com"
A_DAY = timedelta(days=1)


class Provider:
    """A loyalty provider: card to outcome and address; any other card is not found."""

    def __init__(self, **answers: tuple[str, str | None]) -> None:
        self.answers = answers

    def resolve(self, card: str) -> CardAnswer:
        outcome, email = self.answers.get(card, ("not_found", None))
        return CardAnswer(card, outcome, email)


def answered(ledger: Ledger, card: str, outcome: str, email: str | None = None, run: str = "run-1") -> None:
    remember(ledger, given.batch(run), [CardAnswer(card, outcome, email)], cache=A_DAY, negative=A_DAY)


def hashes(ledger: Ledger) -> set[str]:
    with ledger.read() as connection:
        return set(connection.scalars(sa.select(suppressions.c.hash)))


def send(ledger: Ledger, store: Store, settings: Settings, run: Run | None = None) -> Delivered:
    run = run or given.run()
    given.planned(ledger, run)
    return given.send(store, ledger, given.batch(run.run_id, 0), settings)


def test_a_person_the_very_batch_has_just_learnt_of_gets_nothing_though_the_order_has_an_email(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.landed(
        ledger,
        given.document("asked", loyaltyCardNumber="x1"),
        given.document("own", loyaltyCardNumber="x1", emailAddress=ANN),
        given.document("email alone", loyaltyCardNumber=None, emailAddress=ANN.upper()),
        given.document("other", loyaltyCardNumber="m1"),
    )
    given.planned(ledger)
    provider = Provider(x1=("suppressed", None), m1=("matched", "bob@example.com"))
    look_up_batch([provider], ledger, given.batch(), settings())
    store = Store(ledger)
    assert given.send(store, ledger, given.batch(), settings()) == Delivered(sent=1)
    assert given.statuses(ledger) == {
        "asked": "suppressed",
        "own": "suppressed",
        "email alone": "suppressed",
        "other": "sent",
    }


def test_an_answer_covers_the_card_the_address_in_it_and_those_on_its_orders(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", loyaltyCardNumber="x1", emailAddress="own@example.com"))
    answered(ledger, "x1", "suppressed", ANN)
    assert hashes(ledger) == {ledger.keyed_hash(each) for each in ("x1", ANN, "own@example.com")}
    # The address itself is not kept.
    assert [row["email"] for row in given.rows(ledger, "customers")] == [None]


@pytest.mark.parametrize(("cards", "covered"), [(5, True), (6, False)])
def test_an_address_of_many_cards_is_nobodys(ledger: Ledger, cards: int, covered: bool) -> None:
    shared = "store@example.com"
    given.landed(
        ledger,
        *(given.document(f"S{n}", loyaltyCardNumber=f"c{n}", emailAddress=shared) for n in range(cards)),
    )
    answered(ledger, "c1", "suppressed")
    assert (ledger.keyed_hash(shared) in hashes(ledger)) == covered
    assert ledger.keyed_hash("c1") in hashes(ledger)


def test_later_orders_of_the_person_are_suppressed_and_those_of_others_are_not(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.landed(ledger)
    answered(ledger, "x1", "suppressed", ANN)
    given.landed(
        ledger,
        given.document("hers", loyaltyCardNumber=None, emailAddress=ANN),
        given.document("anothers", loyaltyCardNumber=None, emailAddress="bob@example.com"),
    )
    given.planned(ledger)
    look_up_batch([Provider()], ledger, given.batch(), settings())
    assert given.statuses(ledger) == {"hers": "suppressed", "anothers": "ready"}
    assert given.row(ledger, "hers")["reason"] == "suppressed"


def test_a_later_active_answer_about_the_card_lifts_what_an_answer_said(ledger: Ledger) -> None:
    given.landed(ledger)
    answered(ledger, "x1", "suppressed", ANN)
    answered(ledger, "x2", "suppressed", ANN)
    answered(ledger, "x1", "not_found")
    assert ledger.keyed_hash("x1") in hashes(ledger)
    answered(ledger, "x1", "matched", ANN)
    # Her other card still says so.
    assert hashes(ledger) == {ledger.keyed_hash("x2"), ledger.keyed_hash(ANN)}


def test_an_order_that_is_ready_is_not_sent_after_its_person_was_suppressed(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.ready(ledger, "S1", "S2", loyaltyCardNumber=None)
    answered(ledger, "x1", "suppressed", "S1@example.com", run="run-2")
    assert given.statuses(ledger) == {"S1": "suppressed", "S2": "ready"}
    store = Store(ledger)
    assert given.send(store, ledger, given.batch(), settings()) == Delivered(sent=1)
    assert given.statuses(ledger) == {"S1": "suppressed", "S2": "sent"}


def test_marking_looks_whatever_moved_the_order_to_ready(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2", loyaltyCardNumber=None)
    answered(ledger, "x1", "suppressed", "S1@example.com")
    given.set_orders(ledger, status="ready")
    store = Store(ledger)
    assert given.send(store, ledger, given.batch(), settings()) == Delivered(sent=1)
    row = given.row(ledger, "S1")
    assert (row["status"], row["attempts"], row["sending_at"], row["left_seq"]) == ("suppressed", 0, None, None)
    assert row["outcome_run"] == "run-1"


def test_a_resend_sends_nothing_to_who_was_suppressed_since(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", loyaltyCardNumber=None)
    store = Store(ledger)
    given.send(store, ledger, given.batch(), settings())
    release(ledger, "run-1")
    answered(ledger, "x1", "suppressed", "S1@example.com")
    assert given.statuses(ledger) == {"S1": "sent"}
    day = given.window("2017-06-05", "2017-06-06")
    again = given.run("again", "backfill", window=day, claims="in_window", resend=True)
    assert send(ledger, store, settings(), again) == Delivered()
    assert (given.statuses(ledger), store.orders) == ({"S1": "suppressed"}, ["S1"])


def test_a_request_is_not_tried_again_once_somebody_in_it_is_suppressed(ledger: Ledger, settings: MakeSettings) -> None:
    class Busy(Store):
        """Answers 429 first, after which she opts out."""

        def send_events(
            self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
        ) -> Iterator[Outcome]:
            before_leaving()
            answered(ledger, "x1", "suppressed", "S1@example.com", run="run-2")
            before_leaving()
            return super().send_events(events, before_leaving)

    given.ready(ledger, "S1", "S2", loyaltyCardNumber=None)
    store = Busy(ledger)
    with pytest.raises(RetriableError, match="has been suppressed"):
        given.send(store, ledger, given.batch(), settings())
    assert store.orders == []
    assert given.statuses(ledger) == {"S1": "sending", "S2": "sending"}


def test_who_is_suppressed_while_her_order_is_being_marked_is_seen_by_one_of_the_two(
    ledger: Ledger, another_process: Ledger
) -> None:
    """Marking holds the row when the answer comes: the answer waits, and finds the order sending; or it came first."""
    given.ready(ledger, "S1", loyaltyCardNumber=None)
    key = [given.row(ledger, "S1")["key"]]
    begin = threading.Barrier(2)
    marked: list[Any] = []

    def mark() -> None:
        begin.wait()
        marked.extend(mark_sending(ledger, given.batch(), key))

    thread = threading.Thread(target=mark)
    thread.start()
    begin.wait()
    answered(another_process, "x1", "suppressed", "S1@example.com", run="run-2")
    thread.join()
    assert given.statuses(ledger) == {"S1": "sending" if marked else "suppressed"}


def test_an_answer_that_is_not_committed_yet_stops_the_marking_that_comes_after_it(
    ledger: Ledger, another_process: Ledger
) -> None:
    """The order's row is locked by the answer: the marking waits, and then reads what was committed meanwhile."""
    given.ready(ledger, "S1", loyaltyCardNumber=None)
    given.set_orders(ledger, orders.c.order_number == "S1", email_hash=None, card_hash=ledger.keyed_hash("x1"))
    key = [given.row(ledger, "S1")["key"]]
    marked: list[Any] = []
    thread = threading.Thread(target=lambda: marked.extend(mark_sending(ledger, given.batch(), key)))
    with another_process.write() as connection:
        connection.execute(sa.update(orders).values(reason="touched"))
        thread.start()
        thread.join(0.3)
        row = {"hash": ledger.keyed_hash("x1"), "source": "command", "learnt_from": "", "cause": "asked for"}
        connection.execute(sa.insert(suppressions).values(**row, since=given.hours_ago(0)))
    thread.join()
    assert (marked, given.statuses(ledger)) == ([], {"S1": "suppressed"})


def test_persons_are_known_by_the_key_and_a_ledger_keeps_to_one(ledger_url: sa.URL, ledger: Ledger) -> None:
    one, other = Ledger(ledger_url, hash_key="one key of them"), Ledger(ledger_url, hash_key="and another one")
    assert one.keyed_hash(" Ann@Example.com ") == one.keyed_hash("ann@example.com") != other.keyed_hash(ANN)
    check_hash_key(one)
    check_hash_key(one)
    with pytest.raises(ConfigurationError, match=r"instore_hash_key.*put the old one back"):
        check_hash_key(other)
    one.close()
    other.close()
