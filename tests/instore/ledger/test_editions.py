"""What is sent again is an edition with an event id of its own, one a run, whatever is cleared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.deliveries import mark_sending, ready_orders, record_outcomes
from include.instore.ledger.runs import count_run
from include.instore.model.windows import Run
from tests.instore import given

DAY = given.window("2017-06-05", "2017-06-06")


def resend(run_id: str = "again", **changes: object) -> Run:
    return replace(given.run(run_id, "backfill", window=DAY, claims="in_window", resend=True), **changes)  # type: ignore[arg-type]


def sent(ledger: Ledger, *numbers: str) -> dict[str, str]:
    """Sent by the hourly run; number to event id."""
    given.ready(ledger, *numbers)
    send(ledger, given.run())
    return event_ids(ledger)


def send(ledger: Ledger, run: Run) -> list[str]:
    """What the run plans leaves, is taken, and the run ends."""
    given.planned(ledger, run)
    keys = [row["key"] for row in given.on_the_way(ledger) if row["claim_run"] == run.run_id]
    left = mark_sending(ledger, given.batch(run.run_id, 0), keys)
    record_outcomes(ledger, given.batch(run.run_id, 0), sent=[order.event_id for order in left])
    release(ledger, run.run_id)
    return [order.event_id for order in left]


def event_ids(ledger: Ledger) -> dict[str, str]:
    return {row["order_number"]: row["event_id"] for row in given.on_the_way(ledger)}


def test_a_resend_makes_an_edition_with_an_event_id_of_its_own(ledger: Ledger) -> None:
    first = sent(ledger, "S1", "S2")
    second = send(ledger, resend())
    assert len(second) == 2
    assert not {*first.values()} & {*second}
    (one, two) = given.rows(ledger, "editions")
    assert [(each["edition"], each["ordered_by"]) for each in (one, two)] == [(2, "again")] * 2
    made = [(row["edition"], row["is_latest"], row["event_id"]) for row in given.rows(ledger, "deliveries")]
    assert made == [
        (edition, edition == 2, ids[number])
        for number in ("S1", "S2")
        for edition, ids in ((1, first), (2, event_ids(ledger)))
    ]
    counts = count_run(ledger, "again")
    assert (counts.sent, counts.resent) == (0, 2)


def test_a_resend_that_dies_while_sending_does_not_take_the_first_event_for_its_own(ledger: Ledger) -> None:
    first = sent(ledger, "S1")
    given.planned(ledger, resend())
    mark_sending(ledger, given.batch("again", 0), [row["key"] for row in given.on_the_way(ledger)])
    record_outcomes(
        ledger, given.batch("again", 0), sent=first.values()
    )  # what reading back shows of the first edition
    assert given.statuses(ledger) == {"S1": "sending"}


def test_a_resend_run_cleared_as_a_whole_makes_no_second_edition(ledger: Ledger) -> None:
    sent(ledger, "S1", "S2", "S3")
    again = resend()
    given.planned(ledger, again)
    mark_sending(ledger, given.batch("again", 0), [row["key"] for row in given.on_the_way(ledger)[:2]])
    record_outcomes(ledger, given.batch("again", 0), sent=list(event_ids(ledger).values())[:2])
    release(ledger, "again")
    assert len(send(ledger, replace(again, run_id="again#1", clear_number=1))) == 1
    assert send(ledger, replace(again, run_id="again#2", clear_number=2)) == []
    assert [row["edition"] for row in given.on_the_way(ledger)] == [2, 2, 2]


def test_what_a_resend_run_sent_for_the_first_time_it_does_not_send_again_when_cleared(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    release(ledger, "run-1")
    assert len(send(ledger, resend())) == 1
    assert send(ledger, resend(run_id="again#1", clear_number=1)) == []


def test_another_resend_run_makes_another_edition(ledger: Ledger) -> None:
    sent(ledger, "S1")
    seen = {*event_ids(ledger).values(), *send(ledger, resend()), *send(ledger, resend("once more"))}
    assert len(seen) == 3
    assert [(row["ordered_by"], row["edition"]) for row in given.rows(ledger, "editions")] == [
        ("again", 2),
        ("once more", 3),
    ]


@pytest.mark.parametrize("status", ["sending", "rejected", "suppressed", "unmatched", "pending"])
def test_no_edition_is_made_of_an_order_that_is_not_sent(ledger: Ledger, status: str) -> None:
    first = sent(ledger, "S1")
    given.set_orders(ledger, status=status)
    given.planned(ledger, resend())
    assert [row["edition"] for row in given.on_the_way(ledger)] == [1]
    assert [row for row in given.rows(ledger, "editions") if row["edition"] > 1] == []
    assert event_ids(ledger) == first


def test_a_new_edition_has_the_content_that_came_after_the_first_had_left(ledger: Ledger) -> None:
    sent(ledger, "S1")
    given.landed(ledger, given.document("S1", emailAddress="S1@example.com", total="9.50"), run=given.run("run-2"))
    assert '"total":3.50' in given.row(ledger, "S1")["payload"].replace(" ", "")
    send(ledger, resend())
    assert '"total":9.50' in given.row(ledger, "S1")["payload"].replace(" ", "")
    assert [row["state"] for row in given.rows(ledger, "contents")] == ["sent"]
    # Both contents are known: neither is a correction when its file comes once more.
    given.landed(ledger, given.document("S1", emailAddress="S1@example.com"), run=given.run("run-3"))
    assert given.tally(ledger, "run-3")["duplicates"] == 1


def test_a_new_edition_for_another_customer_is_looked_up_first(ledger: Ledger) -> None:
    given.ready(ledger, "S1", loyaltyCardNumber=None)
    send(ledger, given.run())
    corrected = given.document("S1", emailAddress="S1@example.com")
    given.landed(ledger, corrected, run=given.run("run-2"))
    given.planned(ledger, resend())
    row = given.row(ledger, "S1")
    assert (row["status"], row["loyalty_card"], row["edition"]) == ("pending", given.CARD, 2)
    # Nobody is found behind the card: the edition waits for that, and no hour takes it for ready meanwhile.
    release(ledger, "again")
    with ledger.engine.begin() as connection:
        values = {"status": "unmatched", "reason": "not_found", "next_attempt": given.hours_ago(-1)}
        connection.execute(sa.update(given.orders).values(values))
    assert given.planned(ledger, given.run("run-4")) == []
    assert ready_orders(ledger, given.batch("run-4")) == []


def test_a_backfill_that_sent_an_order_sends_it_again_when_it_is_run_again_with_resend(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    release(ledger, "run-1")
    first = send(ledger, resend(resend=False))
    assert first
    second = send(ledger, resend(run_id="again#1", clear_number=1))
    assert (len(second), second == first) == (1, False)
    assert send(ledger, resend(run_id="again#2", clear_number=2)) == []


def test_the_database_refuses_two_editions_of_one_run(ledger: Ledger) -> None:
    sent(ledger, "S1")
    given.planned(ledger, resend())
    (made,) = given.rows(ledger, "editions")
    with pytest.raises(sa.exc.IntegrityError), ledger.engine.begin() as connection:
        connection.execute(sa.insert(given.TABLES["editions"]).values({**made, "edition": 3}))
