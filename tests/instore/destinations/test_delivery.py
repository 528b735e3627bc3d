"""Sending: `sending` is committed before a request leaves, and what became of one that died is asked, not guessed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.destinations.delivery import Delivered
from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.deliveries import give_back, in_doubt
from include.instore.ledger.tables import orders
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.events import event_bytes
from include.instore.model.settings import Settings
from tests.instore import given

MakeSettings = Callable[..., Settings]


@dataclass(frozen=True)
class Outcome:
    track_id: str
    state: str
    status_code: int | None = 200
    detail: str = ""
    retry_after: float | None = None


class Store(given.Events):
    """A destination that does as it is told, remembers what it took, and looks at the ledger when it is called.

    :param answers: by order number, the states to answer with, one a request; then "accepted". "ambiguous" is taken all
        the same, "lost" is not taken and left without an outcome, an exception is raised.
    """

    def __init__(self, ledger: Ledger, **answers: Sequence[Any]) -> None:
        self.taken: list[dict[str, Any]] = []
        self.requests: list[list[str]] = []
        self.seen_in_ledger: list[dict[str, str]] = []
        self.asked: list[set[str]] = []
        self.shows = True
        self._ledger = ledger
        self._answers = {number: list(each) for number, each in answers.items()}

    def send_events(self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]) -> Iterator[Outcome]:
        before_leaving()
        self.requests.append([event["payload"]["orderNumber"] for event in events])
        self.seen_in_ledger.append(given.statuses(self._ledger))
        for event in events:
            waiting = self._answers.get(event["payload"]["orderNumber"], [])
            answer = waiting.pop(0) if waiting else "accepted"
            if isinstance(answer, str) and answer in ("accepted", "ambiguous"):
                self.taken.append(dict(event))
            if isinstance(answer, BaseException):
                raise answer
            if answer == "died after taking":
                self.taken.append(dict(event))
                raise KeyboardInterrupt
            if answer == "refused":
                yield Outcome(event["trackId"], "refused", 400, "scope is unknown")
            elif answer != "lost":
                yield Outcome(event["trackId"], answer)

    reads_back = True

    def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
        asked = set(event_ids)
        self.asked.append(asked)
        shown = {event["trackId"] for event in self.taken} if self.shows else set()
        return {each: "shown" if each in shown else "absent" for each in asked}

    @property
    def orders(self) -> list[str]:
        return [event["payload"]["orderNumber"] for event in self.taken]


def test_sending_is_committed_before_the_request_leaves(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    store = Store(ledger)
    delivered = given.send(store, ledger, given.batch(), settings(bulk_events=2))
    assert delivered == Delivered(sent=3)
    assert store.requests == [["S1", "S2"], ["S3"]]
    assert store.seen_in_ledger == [
        {"S1": "sending", "S2": "sending", "S3": "ready"},
        {"S1": "sent", "S2": "sent", "S3": "sending"},
    ]
    assert given.statuses(ledger) == {"S1": "sent", "S2": "sent", "S3": "sent"}
    assert {given.row(ledger, number)["attempts"] for number in store.orders} == {1}


def test_the_event_sent_is_the_one_of_the_order(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    store = Store(ledger)
    given.send(store, ledger, given.batch(), settings(scope="web"))
    (event,) = store.taken
    assert event["trackId"] == given.row(ledger, "S1")["event_id"]
    assert (event["user"], event["scope"], event["eventTime"]) == (
        {"email": "S1@example.com"},
        "web",
        "2017-06-05T10:04:12.000Z",
    )


def test_sending_again_sends_nothing(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    store = Store(ledger)
    given.send(store, ledger, given.batch(), settings())
    assert given.send(store, ledger, given.batch(), settings()) == Delivered()
    assert store.orders == ["S1"]


def test_with_tracking_switched_off_nothing_is_sent_and_orders_stay_ready(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.ready(ledger, "S1")
    store = Store(ledger)
    assert given.send(store, ledger, given.batch(), settings(enable_track_events=False)) == Delivered()
    assert (store.requests, store.asked, given.statuses(ledger)) == ([], [], {"S1": "ready"})
    given.send(store, ledger, given.batch(), settings())
    assert store.orders == ["S1"]


def test_a_refused_event_alone_is_rejected_and_keeps_its_reason(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2")
    delivered = given.send(Store(ledger, S1=["refused"]), ledger, given.batch(), settings())
    assert delivered == Delivered(sent=1, rejected=1)
    assert given.statuses(ledger) == {"S1": "rejected", "S2": "sent"}
    assert given.row(ledger, "S1")["reason"] == "400: scope is unknown"


def test_an_order_of_which_no_event_can_be_built_is_rejected_and_the_others_go_out(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.ready(ledger, "S1", "S2")
    with ledger.write() as connection:
        connection.execute(sa.update(orders).where(orders.c.order_number == "S1").values(email="x"))
    store = Store(ledger)
    assert given.send(store, ledger, given.batch(), settings()) == Delivered(sent=1, rejected=1)
    assert given.statuses(ledger) == {"S1": "rejected", "S2": "sent"}
    assert store.orders == ["S2"]


def test_unsent_events_are_ready_again_and_the_next_try_sends_them(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    store = Store(ledger, S2=["unsent"])
    with pytest.raises(RetriableError, match="1 of 3 events"):
        given.send(store, ledger, given.batch(), settings())
    assert given.statuses(ledger) == {"S1": "sent", "S2": "ready", "S3": "sent"}
    assert given.send(store, ledger, given.batch(), settings()) == Delivered(sent=1)
    assert sorted(store.orders) == ["S1", "S2", "S3"]
    assert store.asked == []


def test_after_an_unsent_event_no_further_bulk_leaves(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2")
    store = Store(ledger, S1=["unsent"])
    with pytest.raises(RetriableError):
        given.send(store, ledger, given.batch(), settings(bulk_events=1))
    assert store.requests == [["S1"]]


def test_a_configuration_error_returns_what_was_not_answered_to_ready(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    store = Store(ledger, S2=[ConfigurationError("the key is wrong")])
    with pytest.raises(ConfigurationError, match="the key is wrong"):
        given.send(store, ledger, given.batch(), settings())
    assert given.statuses(ledger) == {"S1": "sent", "S2": "ready", "S3": "ready"}


@pytest.mark.parametrize("error", [RetriableError("away"), RuntimeError("a bug"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_else_is_raised_leaves_what_was_not_answered_in_doubt(
    ledger: Ledger, settings: MakeSettings, error: BaseException
) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    with pytest.raises(type(error)):
        given.send(Store(ledger, S2=[error]), ledger, given.batch(), settings())
    assert given.statuses(ledger) == {"S1": "sent", "S2": "sending", "S3": "sending"}


@pytest.mark.parametrize("run_id", ["run-1", "run-2"], ids=["the same run", "another run"])
def test_a_crash_between_request_and_outcome_sends_nothing_twice(
    ledger: Ledger, settings: MakeSettings, run_id: str
) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    store = Store(ledger, S2=["died after taking"])
    with pytest.raises(KeyboardInterrupt):
        given.send(store, ledger, given.batch(), settings())
    assert given.statuses(ledger) == {"S1": "sent", "S2": "sending", "S3": "sending"}
    if run_id != "run-1":
        release(ledger, "run-1")
        given.planned(ledger, given.run(run_id))
    in_doubt = {given.row(ledger, number)["event_id"] for number in ("S2", "S3")}
    assert given.send(store, ledger, given.batch(run_id, 0), settings()) == Delivered(sent=1, verified=1, in_doubt=1)
    assert sorted(store.orders) == ["S1", "S2"]
    assert store.asked[0] == in_doubt
    assert given.statuses(ledger) == {"S1": "sent", "S2": "sent", "S3": "sending"}
    assert given.row(ledger, "S2")["outcome_run"] == run_id


def test_an_ambiguous_event_that_the_store_shows_is_sent_and_not_sent_again(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.ready(ledger, "S1", "S2")
    store = Store(ledger, S2=["ambiguous"])
    assert given.send(store, ledger, given.batch(), settings()) == Delivered(sent=2, verified=1)
    assert store.orders == ["S1", "S2"]
    assert store.asked == [{given.row(ledger, "S2")["event_id"]}]


def test_a_lost_event_that_the_store_does_not_show_is_sent_again(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    store = Store(ledger, S1=["lost"])
    assert given.send(store, ledger, given.batch(), settings(bulk_events=1, verify_witnesses=2)) == Delivered(sent=3)
    assert store.orders == ["S2", "S3", "S1"]
    assert given.row(ledger, "S1")["attempts"] == 2


def test_absence_is_proven_only_by_an_answer_given_after_the_wait(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    store = Store(ledger, S1=["ambiguous"])

    class Slow(Store):
        """Shows what it took only when it is asked a second time: ingest is asynchronous."""

        def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
            self.shows = len(self.asked) >= 1
            return super().look_for(event_ids)

    store = Slow(ledger, S1=["ambiguous"])
    assert given.send(store, ledger, given.batch(), settings(verify_after=0.9)) == Delivered(sent=1, verified=1)
    assert (store.orders, len(store.asked)) == (["S1"], 2)


def test_a_store_that_cannot_be_asked_leaves_the_doubt(ledger: Ledger, settings: MakeSettings) -> None:
    class Mute(Store):
        def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
            raise RetriableError("the Profile Store API is away")

    given.ready(ledger, "S1")
    store = Mute(ledger, S1=["ambiguous"])
    for _ in range(2):
        with pytest.raises(RetriableError, match="is away"):
            given.send(store, ledger, given.batch(), settings())
    assert (store.orders, given.statuses(ledger)) == (["S1"], {"S1": "sending"})


def test_by_resend_an_event_in_doubt_is_sent_again_without_asking(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    store = Store(ledger, S1=["ambiguous"])
    assert given.send(store, ledger, given.batch(), settings(on_ambiguous="resend")) == Delivered(sent=1)
    assert (store.orders, store.asked) == (["S1", "S1"], [])


def test_by_hold_an_event_in_doubt_waits_for_a_person(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", "S2")
    store = Store(ledger, S1=["ambiguous"])
    for _ in range(2):
        given.send(store, ledger, given.batch(), settings(on_ambiguous="hold"))
    assert (store.orders, store.asked) == (["S1", "S2"], [])
    assert given.statuses(ledger) == {"S1": "held", "S2": "sent"}


class Narrow(Store):
    """Something on the way answers nothing to more events than that, and lets none of them pass."""

    passes = 20

    def send_events(self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]) -> Iterator[Outcome]:
        if len(events) <= self.passes:
            yield from super().send_events(events, before_leaving)
            return
        before_leaving()
        self.requests.append([event["payload"]["orderNumber"] for event in events])
        for event in events:
            yield Outcome(event["trackId"], "ambiguous", None)


def test_bulks_become_smaller_until_they_pass(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, *(f"S{number:03}" for number in range(120)))
    store = Narrow(ledger)
    delivered = given.send(store, ledger, given.batch(), settings(verify_after=0.02))
    assert (delivered.sent, delivered.in_doubt) == (120, 0)
    assert len(set(store.orders)) == len(store.orders) == 120
    assert sum(len(request) > Narrow.passes for request in store.requests) <= 3


def test_a_store_that_never_answers_ends_the_try_with_the_orders_ready(ledger: Ledger, settings: MakeSettings) -> None:
    numbers = [f"S{number}" for number in range(9)]
    given.ready(ledger, *numbers)
    store = Store(ledger, **{number: ["lost"] * 20 for number in numbers})
    with pytest.raises(RetriableError, match="never answered"):
        given.send(store, ledger, given.batch(), settings(bulk_events=1, verify_witnesses=1))
    # A request in doubt and its witness, in each of three rounds; no more is put in doubt than that.
    assert len(store.requests) <= 6
    assert set(given.statuses(ledger).values()) == {"sending", "ready"}


def test_a_run_that_lost_its_orders_sends_nothing(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    store = Store(ledger)
    given.set_orders(ledger, claim_run="run-2")
    assert given.send(store, ledger, given.batch(), settings()) == Delivered()
    assert store.requests == []


def test_orders_taken_over_while_their_bulk_waits_are_not_sent(ledger: Ledger, settings: MakeSettings) -> None:
    class Stealing(Store):
        def send_events(
            self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
        ) -> Iterator[Outcome]:
            given.set_orders(self._ledger, sa.text("order_number = 'S2'"), claim_run="run-2")
            return super().send_events(events, before_leaving)

    given.ready(ledger, "S1", "S2")
    store = Stealing(ledger)
    assert given.send(store, ledger, given.batch(), settings(bulk_events=1)) == Delivered(sent=1)
    assert store.orders == ["S1"]


def test_truncated_events_are_counted_once_when_they_are_sent(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1", lines=[{"productCode": str(number) * 20} for number in range(200)])
    given.ready(ledger, "S2")
    store = Store(ledger, S1=["unsent"])
    with pytest.raises(RetriableError):
        given.send(store, ledger, given.batch(), settings(max_event_bytes=2048))
    assert given.tally(ledger)["truncated"] == 0
    assert given.send(store, ledger, given.batch(), settings(max_event_bytes=2048)) == Delivered(sent=1, truncated=1)
    assert given.tally(ledger)["truncated"] == 1
    assert event_bytes(store.taken[-1]) <= 2048


def test_an_unsent_events_reason_and_retry_after_reach_the_task(ledger: Ledger, settings: MakeSettings) -> None:
    class Busy(Store):
        def send_events(
            self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
        ) -> Iterator[Outcome]:
            waits = iter((3.0, 7.0, None))
            for event in events:
                yield Outcome(event["trackId"], "unsent", 429, "too many requests", next(waits))

    given.ready(ledger, "S1", "S2", "S3")
    with pytest.raises(RetriableError, match="too many requests") as caught:
        given.send(Busy(ledger), ledger, given.batch(), settings())
    assert caught.value.retry_after == 7.0


def test_a_request_does_not_leave_once_another_try_has_the_events(ledger: Ledger, settings: MakeSettings) -> None:
    class Frozen(Store):
        """Hangs before its request leaves, until another try has given the events back and sent them."""

        def send_events(
            self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
        ) -> Iterator[Outcome]:
            give_back(ledger, given.batch(), in_doubt(ledger, given.batch()))
            assert given.send(other, ledger, given.batch(), settings()) == Delivered(sent=1)
            before_leaving()
            return super().send_events(events, before_leaving)

    given.ready(ledger, "S1")
    frozen, other = Frozen(ledger), Store(ledger)
    with pytest.raises(RetriableError, match="taken over batch 0"):
        given.send(frozen, ledger, given.batch(), settings())
    assert (frozen.orders, other.orders, given.statuses(ledger)) == ([], ["S1"], {"S1": "sent"})


def test_no_email_card_or_payload_is_in_a_log_record(
    ledger: Ledger, settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="include.instore")
    given.ready(ledger, "S1", "S2", "S3", loyaltyCardNumber=given.CANARY, storeName=given.CANARY)
    given.send(Store(ledger, S1=["refused"], S2=["ambiguous"]), ledger, given.batch(), settings())
    messages = [record.getMessage() for record in caplog.records]
    assert any("sent=" in message for message in messages)
    assert any("was refused" in message for message in messages)
    assert not [message for message in messages if given.CANARY in message or "@example.com" in message]
