"""Ready to sent, fenced by the claim: a run that lost its orders can neither send them nor tell what became of them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.deliveries import (
    OutgoingOrder,
    Renewed,
    give_back,
    in_doubt,
    left_later,
    mark_sending,
    ready_orders,
    record_outcomes,
    renew_sending,
    waited_for,
)
from tests.instore import given


def event_of(ledger: Ledger, number: str) -> str:
    return str(given.row(ledger, number)["event_id"])


def keys(*numbers: str, order_type: str = "sale") -> list[str]:
    return [json.dumps([number.lower(), order_type]) for number in numbers]


def marked(ledger: Ledger, *numbers: str) -> list[OutgoingOrder]:
    known = {row["order_number"]: row["key"] for row in given.on_the_way(ledger)}
    return mark_sending(ledger, given.batch(), [known[number] for number in numbers])


def test_ready_orders_come_oldest_first(ledger: Ledger) -> None:
    given.ready(ledger, "new", date="2017-06-07T00:00:00Z")
    given.ready(ledger, "old", date="2017-06-05T00:00:00Z")
    given.ready(ledger, "mid", date="2017-06-06T00:00:00Z")
    assert ready_orders(ledger, given.batch()) == keys("old", "mid", "new")
    assert ready_orders(ledger, given.batch("run-1", 1)) == ready_orders(ledger, given.batch("run-2", 0)) == []


def test_marking_commits_sending_and_hands_over_what_the_event_is_built_from(ledger: Ledger) -> None:
    given.ready(ledger, "S1", total="-3.50")
    before = datetime.now(timezone.utc)
    (order,) = marked(ledger, "S1")
    row = given.row(ledger, "S1")
    assert (row["status"], row["attempts"]) == ("sending", 1)
    assert before <= row["sending_at"] <= datetime.now(timezone.utc)
    assert (order.key, order.event_id, order.order_type) == (
        *keys("S1", order_type="return"),
        row["event_id"],
        "return",
    )
    assert (order.order_time, order.email) == (given.moment("2017-06-05T10:04:12"), "S1@example.com")
    assert order.payload == row["payload"]
    assert "S1@example.com" not in repr(order)
    assert order.payload not in repr(order)


def test_only_ready_orders_are_marked(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    assert len(marked(ledger, "S1")) == 1
    assert marked(ledger, "S1") == []
    assert given.row(ledger, "S1")["attempts"] == 1


@pytest.mark.parametrize("how", ["taken over", "released", "another batch"])
def test_a_run_that_lost_its_claim_cannot_mark_sending(ledger: Ledger, how: str) -> None:
    given.ready(ledger, "S1", "S2")
    given.set_orders(ledger, given.orders.c.order_number == "S2", **_lost(how))
    assert [order.key for order in marked(ledger, "S1", "S2")] == keys("S1")
    assert given.statuses(ledger) == {"S1": "sending", "S2": "ready"}


@pytest.mark.parametrize("how", ["taken over", "released", "another batch"])
def test_a_run_that_lost_its_claim_cannot_record_outcomes(ledger: Ledger, how: str) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    marked(ledger, "S1", "S2", "S3")
    given.set_orders(ledger, **_lost(how))
    before = given.on_the_way(ledger)
    sent, rejected, unsent = (event_of(ledger, number) for number in ("S1", "S2", "S3"))
    record_outcomes(ledger, given.batch(), sent=[sent], rejected={rejected: "400"}, unsent=[unsent])
    assert given.on_the_way(ledger) == before
    assert in_doubt(ledger, given.batch()) == []


def _lost(how: str) -> dict[str, object]:
    return {"taken over": {"claim_run": "run-2"}, "released": {"claim_run": None}, "another batch": {"claim_batch": 7}}[
        how
    ]


def test_every_outcome_moves_its_order_and_the_unnamed_stay_in_doubt(ledger: Ledger) -> None:
    given.ready(ledger, "sent", "rejected", "unsent", "unnamed")
    marked(ledger, "sent", "rejected", "unsent", "unnamed")
    record_outcomes(
        ledger,
        given.batch(),
        sent=[event_of(ledger, "sent")],
        rejected={event_of(ledger, "rejected"): "400: bad scope"},
        unsent=[event_of(ledger, "unsent")],
        truncated=3,
    )
    assert given.statuses(ledger) == {"sent": "sent", "rejected": "rejected", "unsent": "ready", "unnamed": "sending"}
    assert given.row(ledger, "sent")["sent_at"] is not None
    assert {number: given.row(ledger, number)["outcome_run"] for number in given.statuses(ledger)} == {
        "sent": "run-1",
        "rejected": "run-1",
        "unsent": None,
        "unnamed": None,
    }
    assert given.row(ledger, "rejected")["reason"] == "400: bad scope"
    assert given.row(ledger, "unsent")["sending_at"] is None
    assert [doubt.event_id for doubt in in_doubt(ledger, given.batch())] == [event_of(ledger, "unnamed")]
    assert given.tally(ledger)["truncated"] == 3


def test_what_is_sent_stays_sent_whatever_is_told_later(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    marked(ledger, "S1")
    event = event_of(ledger, "S1")
    record_outcomes(ledger, given.batch(), sent=[event])
    record_outcomes(ledger, given.batch(), rejected={event: "400"}, unsent=[event])
    assert given.statuses(ledger) == {"S1": "sent"}


def test_only_what_left_later_and_was_taken_is_a_witness(ledger: Ledger) -> None:
    given.ready(ledger, "S1", "S2", "S3", "S4", "S5")
    for number in ("S1", "S2", "S3", "S4", "S5"):
        marked(ledger, number)
    record_outcomes(ledger, given.batch(), sent=[event_of(ledger, number) for number in ("S1", "S3", "S4", "S5")])
    assert left_later(ledger, "profile_store", 2, 9) == {event_of(ledger, f"S{place}"): place for place in (3, 4, 5)}
    assert left_later(ledger, "profile_store", 2, 1) == {event_of(ledger, f"S{place}"): place for place in (3, 5)}


def test_doubts_tell_when_their_request_left(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    marked(ledger, "S1")
    (doubt,) = in_doubt(ledger, given.batch())
    assert (doubt.event_id, doubt.left, doubt.waited) == (event_of(ledger, "S1"), 1, None)
    assert timedelta(0) <= datetime.now(timezone.utc) - doubt.sending_at < timedelta(minutes=1)


def test_what_leaves_later_has_a_later_place(ledger: Ledger) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    marked(ledger, "S1")
    marked(ledger, "S2", "S3")
    places = {row["order_number"]: row["left_seq"] for row in given.on_the_way(ledger)}
    assert places == {"S1": 1, "S2": 2, "S3": 2}
    # When a request is tried again, those of it that were taken by the first one have not left later.
    assert renew_sending(ledger, given.batch(), {event_of(ledger, "S1"): 1}) is Renewed.YES
    assert given.row(ledger, "S1")["left_seq"] == 1


def test_what_leaves_once_more_has_been_waited_for_by_nobody(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    marked(ledger, "S1")
    doubts = in_doubt(ledger, given.batch())
    waited_for(ledger, given.batch(), doubts)
    assert given.row(ledger, "S1")["waited_seq"] == 2
    assert renew_sending(ledger, given.batch(), {event_of(ledger, "S1"): 1}) is Renewed.YES
    assert given.row(ledger, "S1")["waited_seq"] is None
    waited_for(ledger, given.batch(), doubts)  # of the request before
    assert given.row(ledger, "S1")["waited_seq"] is None


def test_recording_is_a_sign_of_life(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    given.alive_hours_ago(ledger, 1)
    record_outcomes(ledger, given.batch())
    (claim,) = given.rows(ledger, "claims")
    assert claim["alive_at"] > given.hours_ago(0.1)


def test_a_reason_longer_than_its_column_is_cut(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    marked(ledger, "S1")
    record_outcomes(ledger, given.batch(), rejected={event_of(ledger, "S1"): "x" * 5000})
    assert given.row(ledger, "S1")["reason"] == "x" * 1024


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "lone surrogate"])
def test_a_reason_that_no_database_takes_does_not_lose_the_other_outcomes(ledger: Ledger, text: str) -> None:
    given.ready(ledger, "S1", "S2")
    marked(ledger, "S1", "S2")
    record_outcomes(ledger, given.batch(), sent=[event_of(ledger, "S2")], rejected={event_of(ledger, "S1"): text})
    assert given.statuses(ledger) == {"S1": "rejected", "S2": "sent"}


def test_the_doubts_of_a_dead_run_go_to_the_run_that_takes_over(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    marked(ledger, "S1")
    release(ledger, "run-1")
    given.planned(ledger, given.run("run-2"))
    assert [doubt.event_id for doubt in in_doubt(ledger, given.batch("run-2", 0))] == [event_of(ledger, "S1")]
    record_outcomes(ledger, given.batch("run-2", 0), sent=[event_of(ledger, "S1")])
    assert given.row(ledger, "S1")["outcome_run"] == "run-2"


def test_a_try_that_was_thought_dead_neither_gives_back_nor_rejects_what_another_one_is_sending(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    marked(ledger, "S1")
    event = event_of(ledger, "S1")
    give_back(ledger, given.batch(), in_doubt(ledger, given.batch()))
    marked(ledger, "S1")
    record_outcomes(ledger, given.batch(), unsent=[event], attempts={event: 1})
    record_outcomes(ledger, given.batch(), rejected={event: "400"}, attempts={event: 1})
    assert given.statuses(ledger) == {"S1": "sending"}
    record_outcomes(ledger, given.batch(), unsent=[event], attempts={event: 2})
    assert given.statuses(ledger) == {"S1": "ready"}
