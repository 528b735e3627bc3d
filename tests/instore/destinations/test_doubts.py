"""Doubts: absence is proven by events that left later and are shown, and one doubt holds up nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from include.instore.destinations.delivery import Delivered
from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.deliveries import mark_sending
from include.instore.ledger.held import Decision, decide, held_events
from include.instore.ledger.runs import count_run
from include.instore.model.errors import RetriableError
from include.instore.model.settings import Settings
from tests.instore import given
from tests.instore.destinations.test_delivery import Outcome

MakeSettings = Callable[..., Settings]
LATER = ("T1", "T2", "T3")


class Store(given.Events):
    """A destination with a reading side that lags, ignores its filter, shows empty pages, or hides people.

    :param doubtful: orders whose first request dies; of those in ``taken_all_the_same`` the event is there.
    :param shows: what the reading side answers for an event that is there, and for one that is not.
    """

    def __init__(
        self, *doubtful: str, there: Sequence[str] = (), absent: str = "absent", reads_back: bool = True
    ) -> None:
        self.reads_back = reads_back
        self.requests: list[list[str]] = []
        self.taken: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.questions = 0
        self.absent = absent
        self._doubtful = set(doubtful)
        self._there = set(there)

    def send_events(self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]) -> Iterator[Outcome]:
        before_leaving()
        self.requests.append([event["payload"]["orderNumber"] for event in events])
        for event in events:
            number = event["payload"]["orderNumber"]
            if number not in self._doubtful or number in self._there:
                assert number not in self.taken.values(), f"{number} is there twice"
                self.taken[event["trackId"]] = number
            yield Outcome(event["trackId"], "ambiguous" if number in self._doubtful else "accepted")
            self._doubtful.discard(number)

    def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
        ids = list(event_ids)
        self.questions += len(ids)
        shown = {each for each, number in self.taken.items() if number not in self.hidden}
        return {each: "shown" if each in shown else self.absent for each in ids}

    @property
    def sent(self) -> list[str]:
        return sorted(self.taken.values())


@pytest.fixture
def send(ledger: Ledger, settings: MakeSettings) -> Callable[..., Delivered]:
    def send(store: Store, run_id: str = "run-1", **changes: Any) -> Delivered:
        return given.send(store, ledger, given.batch(run_id, 0), settings(**{"verify_after": 0.02, **changes}))

    return send


def next_run(ledger: Ledger, run_id: str, *numbers: str) -> None:
    """The next hour, with these orders ready."""
    for held in {row["claim_run"] for row in given.on_the_way(ledger)} - {None}:
        release(ledger, held)
    given.ready(ledger, *numbers, run=given.run(run_id))


def test_a_lost_event_is_sent_again_once_later_events_are_shown(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1", *LATER)
    store = Store("S1")
    assert send(store, bulk_events=1) == Delivered(sent=4)
    assert store.sent == ["S1", *LATER]
    assert [store.requests[0], store.requests[-1]] == [["S1"], ["S1"]]


def test_witnesses_leave_only_after_the_wait(ledger: Ledger, send: Any) -> None:
    class Looking(Store):
        """Looks at the ledger when it is called."""

        def send_events(self, *given_: Any) -> Iterator[Outcome]:
            waited.append(given.row(ledger, "S1")["waited_seq"] is not None)
            return super().send_events(*given_)

    waited: list[bool] = []
    given.ready(ledger, "S1", "T1", "T2", "T3", "U1", "U2")
    store = Looking("S1")
    send(store, bulk_events=2)
    assert store.requests == [["S1", "T1"], ["T2"], ["T3", "U1"], ["U2"], ["S1"]]
    assert waited == [False, False, True, True, False]  # S1 has left once more


def test_an_event_that_is_shown_is_sent_and_needs_no_witness(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1")
    store = Store("S1", there=["S1"])
    assert send(store) == Delivered(sent=1, verified=1)
    assert store.requests == [["S1"]]


def test_without_later_events_the_doubt_stays_and_nothing_is_sent(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1", "T1", "T2")
    store = Store("S1")
    assert send(store, bulk_events=1) == Delivered(sent=2, in_doubt=1)
    assert given.statuses(ledger) == {"S1": "sending", "T1": "sent", "T2": "sent"}
    assert store.sent == ["T1", "T2"]


def test_a_later_run_finds_out_by_its_own_events(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1")
    store = Store("S1")
    assert send(store) == Delivered(in_doubt=1)
    next_run(ledger, "run-2", *LATER)
    assert send(store, "run-2") == Delivered(sent=4)
    assert store.sent == ["S1", *LATER]


def test_events_that_left_before_the_wait_was_over_are_no_witnesses(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1", *LATER)
    store = Store("S1")
    # All leave in one request: none is later than the doubt.
    assert send(store, verify_witnesses=4, bulk_events=2) == Delivered(sent=3, in_doubt=1)
    assert given.statuses(ledger)["S1"] == "sending"


def test_a_witness_that_is_not_shown_is_passed_over(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1")
    store = Store("S1")
    send(store)
    store.hidden = {"T1"}
    next_run(ledger, "run-2", *LATER)
    assert send(store, "run-2") == Delivered(sent=3, in_doubt=1)
    next_run(ledger, "run-3", "U1")
    assert send(store, "run-3") == Delivered(sent=2)
    assert store.sent == ["S1", *LATER, "U1"]


def test_a_reading_side_that_lags_proves_nothing(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1", *LATER)
    store = Store("S1", there=["S1"])
    store.hidden = {"S1", *LATER}
    assert send(store, bulk_events=1) == Delivered(sent=3, in_doubt=1)
    store.hidden = set()
    next_run(ledger, "run-2")
    given.planned(ledger, given.run("run-2"))
    assert send(store, "run-2") == Delivered(sent=1, verified=1)
    assert store.sent == ["S1", *LATER]


def test_a_reading_side_that_answers_something_else_proves_nothing(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1", *LATER)
    store = Store("S1", there=["S1"], absent="ignored_filter")
    store.hidden = {"S1"}
    assert send(store, bulk_events=1) == Delivered(sent=3, in_doubt=1)
    assert given.statuses(ledger)["S1"] == "sending"


def test_an_answer_to_another_question_proves_nothing_where_all_others_are_right(ledger: Ledger, send: Any) -> None:
    class Muddled(Store):
        """Answers for S1 with something else, and for all others as it should."""

        def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
            asked_for = given.row(ledger, "S1")["event_id"]
            return {
                each: "empty_pages" if each == asked_for else said for each, said in super().look_for(event_ids).items()
            }

    given.ready(ledger, "S1", *LATER)
    store = Muddled("S1", there=["S1"])
    assert send(store, bulk_events=1) == Delivered(sent=3, in_doubt=1)
    assert store.sent == ["S1", *LATER]


def test_a_reading_side_that_shows_what_nobody_sent_proves_nothing(ledger: Ledger, send: Any) -> None:
    class Boastful(Store):
        """Has everything, but for the one event that is asked for with it."""

        def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
            return {each: "absent" if self.number_of(each) == "S1" else "shown" for each in event_ids}

        def number_of(self, event_id: str) -> str:
            found = [row["order_number"] for row in given.on_the_way(ledger) if row["event_id"] == event_id]
            return found[0] if found else ""

    given.ready(ledger, "S1", *LATER)
    assert send(Boastful("S1", there=["S1"]), bulk_events=1) == Delivered(sent=3, in_doubt=1)


@pytest.mark.parametrize(
    ("store", "word"),
    [
        ({}, "lag"),
        ({"absent": "ignored_filter"}, "ignored_filter"),
        ({"absent": "empty_pages"}, "empty_pages"),
        ({"absent": "shown"}, "ignored_filter"),
    ],
    ids=str,
)
def test_what_keeps_an_event_in_doubt_is_said_by_name(
    ledger: Ledger, send: Any, store: dict[str, Any], word: str
) -> None:
    given.ready(ledger, "S1", *LATER)
    hides = Store("S1", there=["S1"], **store)
    hides.hidden = {"S1"} if word != "lag" else {"S1", *LATER}
    if store.get("absent") == "shown":  # but for the event in doubt
        hides.look_for = lambda ids: {  # type: ignore[method-assign]
            each: "absent" if each == given.row(ledger, "S1")["event_id"] else "shown" for each in ids
        }
    assert send(hides, bulk_events=1) == Delivered(sent=3, in_doubt=1)
    assert given.row(ledger, "S1")["reason"] == word
    assert count_run(ledger, "run-1").in_doubt_by_reason == {word: 1}


@pytest.mark.parametrize(("policy", "word"), [("verify", "no_read_side"), ("hold", "on_ambiguous")])
def test_what_is_held_at_once_says_why_by_name(ledger: Ledger, send: Any, policy: str, word: str) -> None:
    given.ready(ledger, "S1")
    assert send(Store("S1", reads_back=False), on_ambiguous=policy) == Delivered(held=1)
    assert count_run(ledger, "run-1").in_doubt_by_reason == {word: 1}


def test_an_event_that_leaves_again_is_in_doubt_for_no_reason_of_before(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1")
    send(Store("S1"))
    assert given.row(ledger, "S1")["reason"] == "lag"
    given.set_orders(ledger, status="ready")
    mark_sending(ledger, given.batch(), [given.row(ledger, "S1")["key"]])
    assert count_run(ledger, "run-1").in_doubt_by_reason == {"not_asked": 1}


def test_a_doubt_is_asked_for_twice_after_its_witnesses(ledger: Ledger, send: Any) -> None:
    class Late(Store):
        """Shows the event in doubt one question after all of its witnesses."""

        late = True

        def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
            self.hidden = {"S1"} if self.late or len(self.taken) < 4 else set()
            answers = super().look_for(event_ids)
            self.late = not (len(self.taken) == 4 and len(answers) == 2 and "shown" not in answers.values())
            return answers

    given.ready(ledger, "S1", *LATER)
    store = Late("S1", there=["S1"])
    assert send(store, bulk_events=1) == Delivered(sent=4, verified=1)
    assert store.sent == ["S1", *LATER]


def test_ready_events_do_not_wait_for_doubts_but_for_three(ledger: Ledger, send: Any) -> None:
    numbers = [f"T{number:02}" for number in range(30)]
    given.ready(ledger, "S1", *numbers)
    store = Store("S1", absent="ignored_filter")
    assert send(store, bulk_events=10) == Delivered(sent=30, in_doubt=1)
    assert [len(request) for request in store.requests] == [10, 10, 8, 3]


def test_many_doubts_take_few_questions(ledger: Ledger, send: Any) -> None:
    numbers = [f"S{number:03}" for number in range(50)]
    given.ready(ledger, *numbers, *LATER)
    store = Store(*numbers)
    # Long enough that a busy machine has the time to ask too often.
    assert send(store, bulk_events=50, verify_after=0.5) == Delivered(sent=53)
    assert store.questions <= 9 * 50


def test_without_a_reading_side_an_event_in_doubt_is_held_at_once(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1", "T1")
    store = Store("S1", reads_back=False)
    assert send(store, bulk_events=1) == Delivered(sent=1, held=1)
    assert given.statuses(ledger) == {"S1": "held", "T1": "sent"}
    assert store.questions == 0


def test_what_cannot_be_known_for_hours_is_held_for_a_person(ledger: Ledger, send: Any) -> None:
    given.ready(ledger, "S1")
    store = Store("S1")
    assert send(store, doubt_hours=1) == Delivered(in_doubt=1)
    given.set_orders(ledger, sending_at=given.hours_ago(1.1))
    assert send(store, doubt_hours=1) == Delivered(held=1)
    assert given.statuses(ledger) == {"S1": "held"}
    (event,) = held_events(ledger, (), 10)
    assert event.reason == "lag: not known for 1 hours whether it was taken"
    release(ledger, "run-1")
    assert given.planned(ledger, given.run("run-2")) == []


@pytest.mark.parametrize(
    ("decision", "becomes"), [(Decision.SENT, []), (Decision.SEND_AGAIN, ["S1"]), (Decision.ASK_AGAIN, [])]
)
def test_a_person_decides_what_is_held(ledger: Ledger, send: Any, decision: Decision, becomes: list[str]) -> None:
    given.ready(ledger, "S1")
    store = Store("S1", reads_back=False)
    send(store)
    assert decide(ledger, [given.row(ledger, "S1")["event_id"]], decision) == 1
    assert decide(ledger, [given.row(ledger, "S1")["event_id"]], decision) == 0
    release(ledger, "run-1")
    store.reads_back = True
    given.planned(ledger, given.run("run-2"))
    send(store, "run-2")
    assert store.sent == becomes
    assert given.statuses(ledger) == {"S1": "sending" if decision is Decision.ASK_AGAIN else "sent"}


def test_a_reading_side_that_is_away_fails_the_task_after_the_others_were_sent(ledger: Ledger, send: Any) -> None:
    class Away(Store):
        def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
            raise RetriableError("away")

    given.ready(ledger, "S1", "T1", "T2", "T3", "T4")
    store = Away("S1")
    for _ in range(2):
        with pytest.raises(RetriableError, match="away"):
            send(store, bulk_events=1)
    assert given.statuses(ledger) == {"S1": "sending", **dict.fromkeys(("T1", "T2", "T3", "T4"), "sent")}


def test_a_doubt_that_left_again_meanwhile_is_not_given_back(ledger: Ledger, send: Any) -> None:
    from include.instore.ledger.deliveries import give_back, in_doubt

    given.ready(ledger, "S1")
    key = [given.row(ledger, "S1")["key"]]
    mark_sending(ledger, given.batch(), key)
    before = in_doubt(ledger, given.batch())
    given.set_orders(ledger, status="ready")
    mark_sending(ledger, given.batch(), key)
    give_back(ledger, given.batch(), before)
    assert given.statuses(ledger) == {"S1": "sending"}
    give_back(ledger, given.batch(), in_doubt(ledger, given.batch()))
    assert given.statuses(ledger) == {"S1": "ready"}
