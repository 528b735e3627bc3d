"""Sending again: a few at once; many only by a list, as it was approved, and of it only what is sent still."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.resends import approved_list, digest_of, list_in_words, resend, sent_ones
from include.instore.ledger.tables import deliveries, orders, resend_events, resends
from include.instore.model.errors import ConfigurationError
from include.instore.model.windows import Run
from include.instore.runs.planning import plan
from tests.instore import given

FEW = given.SETTINGS.having(resend_approval=2)
NUMBERS = ("S1", "S2", "S3", "S4")


@pytest.fixture
def sent(ledger: Ledger) -> Ledger:
    """Three orders of one day that were sent, and one of another that was rejected."""
    run = given.ready(ledger, *NUMBERS[:3])
    given.ready(ledger, "S4", run=run, date="2017-06-06T10:04:12Z")
    given.set_orders(ledger, orders.c.order_number != "S4", status="sent", outcome_run="run-1")
    given.set_orders(ledger, orders.c.order_number == "S4", status="rejected", outcome_run="run-1")
    with ledger.write() as connection:
        connection.execute(sa.update(orders).values(claim_run=None))
    return ledger


def _listed(ledger: Ledger, who: str = "ann") -> str:
    _, listed = resend(ledger, FEW, sent_ones(day="2017-06-05"), who, dry_run=False)
    assert listed
    return listed.id


def _run(list_id: str) -> Run:
    return Run("instore_resend/manual__1", "resend", None, False, False, "listed", resend=True, resend_list=list_id)


def _planned(ledger: Ledger, run: Run, approved: str) -> int:
    from include.instore.ledger.claims import open_run

    return sum(each.orders for each in plan(ledger, open_run(ledger, run), FEW, approved))


def _editions(ledger: Ledger) -> dict[str, int]:
    latest = sa.select(orders.c.order_number, deliveries.c.edition).join(deliveries, deliveries.c.key == orders.c.key)
    with ledger.read() as connection:
        return dict(connection.execute(latest.where(deliveries.c.is_latest)).tuples().all())


def test_a_few_are_sent_again_at_once(sent: Ledger) -> None:
    which = sent_ones(events=[given.row(sent, number)["event_id"] for number in ("S1", "S2", "S4")])
    assert resend(sent, FEW, which, "ann", dry_run=True) == (2, None)
    assert set(_editions(sent).values()) == {1}
    assert resend(sent, FEW, which, "ann", dry_run=False) == (2, None)
    assert _editions(sent) == {"S1": 2, "S2": 2, "S3": 1, "S4": 1}


def test_many_become_a_list_and_nothing_is_claimed_before_it_is_approved(sent: Ledger) -> None:
    found = approved_list(sent, _listed(sent))
    assert (found.events, found.made_by) == (3, "ann")
    assert found.digest == digest_of(given.row(sent, number)["event_id"] for number in NUMBERS[:3])
    assert list_in_words(sent, found).startswith("3 events of 3 orders of 1 stores, from 2017-06-05 to 2017-06-05, ")
    assert set(_editions(sent).values()) == {1}
    assert given.planned(sent, given.run("run-2")) == []


def test_the_plan_takes_only_what_is_on_the_list_and_still_sent(sent: Ledger) -> None:
    listed = _listed(sent)
    resend(sent, FEW, sent_ones(events=[given.row(sent, "S1")["event_id"]]), "bob", dry_run=False)
    given.set_orders(sent, orders.c.order_number == "S1", status="sent", outcome_run="run-2")
    given.set_orders(sent, orders.c.order_number == "S2", status="held", outcome_run="run-2")
    given.landed(sent, given.document("S5"), run=given.run("run-3"))
    digest = approved_list(sent, listed).digest
    assert _planned(sent, _run(listed), digest) == 1
    assert _editions(sent) == {"S1": 2, "S2": 1, "S3": 2, "S4": 1}
    assert given.statuses(sent)["S4"] == "rejected"
    assert _planned(sent, _run(listed), digest) == 1  # its task is cleared: the same edition, once more claimed
    assert _editions(sent)["S3"] == 2


def test_what_another_destination_refused_of_a_listed_order_is_not_tried_again(sent: Ledger) -> None:
    listed = _listed(sent)
    refused = {"key": given.row(sent, "S3")["key"], "destination": "archive", "event_id": "0" * 36, "edition": 1}
    refused |= {"is_latest": True, "status": "rejected", "attempts": 1, "outcome_run": "run-1"}
    with sent.write() as connection:
        connection.execute(sa.insert(deliveries), refused)
    assert _planned(sent, _run(listed), approved_list(sent, listed).digest) == 3
    of_archive = sa.select(deliveries.c.status).where(deliveries.c.destination == "archive")
    with sent.read() as connection:
        assert connection.scalars(of_archive).all() == ["rejected"]


@pytest.mark.parametrize("how", ["not approved", "another digest", "one more event", "a day old", "not there"])
def test_a_list_that_is_not_the_approved_one_or_expired_is_refused(sent: Ledger, how: str) -> None:
    listed = _listed(sent)
    approved = approved_list(sent, listed).digest
    with sent.write() as connection:
        if how == "one more event":
            connection.execute(sa.insert(resend_events), {"resend": listed, "event_id": "0" * 36})
        elif how == "a day old":
            old = datetime.now(timezone.utc) - timedelta(hours=24, minutes=1)
            connection.execute(sa.update(resends).values(made_at=old))
    approved = {"not approved": "", "another digest": "f" * 64}.get(how, approved)
    with pytest.raises(ConfigurationError, match="list"):
        _planned(sent, _run("another" if how == "not there" else listed), approved)
    assert set(_editions(sent).values()) == {1}


def test_a_run_that_would_send_more_again_than_may_be_without_approval_is_refused(sent: Ledger) -> None:
    day = given.window("2017-06-05T00:00:00", "2017-06-06T00:00:00")
    run = Run("backfill__1", "backfill", day, False, False, "in_window", resend=True)
    with pytest.raises(ConfigurationError, match="3 events again, and more than 2 need"):
        _planned(sent, run, "")
    assert set(_editions(sent).values()) == {1}
