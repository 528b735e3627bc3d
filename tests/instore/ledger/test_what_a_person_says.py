"""What a person says of what was set aside: another order or a correction, sent again or not, suppressed or not."""

from __future__ import annotations

import json

import pytest

from include.instore.customers.lookup import look_up_batch
from include.instore.ledger import Ledger
from include.instore.ledger.customers import CardAnswer, search_again
from include.instore.ledger.editions import keep_corrected
from include.instore.ledger.held import DECIDED, Decision, decide, held_events
from include.instore.ledger.keys import check_key, rekey
from include.instore.ledger.known_again import AcceptAs
from include.instore.ledger.quarantined import Wanted
from include.instore.ledger.resends import resend, sent_ones
from include.instore.ledger.suppressions import lift, list_suppressed, suppress
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import load_settings
from include.instore.sources.quarantine import redrive
from tests.instore import given
from tests.instore.destinations.test_delivery import Store

OTHER = given.document("S1", storeId="0505", total="9.99")
COLLIDED = Wanted(reason="collision")


@pytest.fixture
def collided(ledger: Ledger) -> Ledger:
    given.landed(ledger, given.document("S1"))
    given.landed(ledger, OTHER)
    return ledger


def accepted(ledger: Ledger, what: AcceptAs, wanted: Wanted = COLLIDED) -> list[str]:
    return [each.outcome for each in redrive(ledger, wanted, given.SETTINGS, accept_as=what)]


def stores(ledger: Ledger) -> list[str]:
    return sorted(row["store_id"] for row in given.rows(ledger, "orders"))


def test_an_order_accepted_beside_another_has_its_own_event_and_is_known_when_it_comes_again(collided: Ledger) -> None:
    assert accepted(collided, AcceptAs.NEW_ORDER) == ["accepted"]
    assert stores(collided) == ["0404", "0505"]
    assert len({row["event_id"] for row in given.rows(collided, "orders")}) == 2
    again = given.landed(collided, {**OTHER, "note": None}, run=given.run("run-2"), source="extract")
    assert (again.duplicates, again.collisions, again.orders) == (1, 0, 0)
    third = given.landed(collided, {**OTHER, "total": "1.00"}, run=given.run("run-3"))
    assert third.collisions == 1
    assert accepted(collided, AcceptAs.NEW_ORDER) == ["accepted"]
    assert stores(collided) == ["0404", "0505", "0505"]
    given.assert_every_record_is_in_one_place(collided)


def test_orders_that_stand_beside_others_get_plain_keys_where_a_key_tells_them_apart(collided: Ledger) -> None:
    check_key(collided, given.SETTINGS)
    accepted(collided, AcceptAs.NEW_ORDER)
    events = {row["store_id"]: row["event_id"] for row in given.rows(collided, "orders")}
    rekey(collided, load_settings(order_key="order_number,day"))
    assert sorted(len(json.loads(row["key"])) for row in given.rows(collided, "orders")) == [3, 4]
    rekey(collided, load_settings(order_key="store_id,order_number"))
    found = {row["store_id"]: row for row in given.rows(collided, "orders")}
    assert json.loads(found["0505"]["key"]) == ["0505", "s1", "sale"]
    assert {store: row["event_id"] for store, row in found.items()} == events


def test_a_correction_takes_the_place_of_what_has_not_been_sent(collided: Ledger) -> None:
    assert accepted(collided, AcceptAs.CORRECTION) == ["accepted"]
    (order,) = given.rows(collided, "orders")
    assert json.loads(order["payload"])["total"] == 9.99
    assert [row["state"] for row in given.rows(collided, "quarantine")] == ["redriven"]
    given.assert_every_record_is_in_one_place(collided)


def test_a_twin_is_a_new_order_and_no_correction(ledger: Ledger) -> None:
    given.landed(ledger, given.document("0100"))
    given.landed(ledger, given.document("100"))
    twin = Wanted(reason="suspected_twin")
    assert accepted(ledger, AcceptAs.CORRECTION, twin) == ["impossible"]
    assert accepted(ledger, AcceptAs.NEW_ORDER, twin) == ["accepted"]
    assert sorted(given.statuses(ledger)) == ["0100", "100"]


def test_what_is_no_order_is_accepted_as_nothing(ledger: Ledger) -> None:
    given.landed(ledger, refusals=[given.refused()])
    assert accepted(ledger, AcceptAs.NEW_ORDER, Wanted(reason="not_json")) == ["impossible"]


def _resent(ledger: Ledger, *, dry_run: bool) -> int:
    return resend(ledger, given.SETTINGS, sent_ones(corrected=True), "who", dry_run=dry_run)[0]


def _corrected(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    given.send(Store(ledger), ledger, given.batch(), given.SETTINGS)
    given.landed(ledger, given.document("S1", emailAddress="S1@example.com", total="9.99"), run=given.run("run-2"))


def test_what_was_corrected_after_it_was_sent_goes_out_once_more_as_an_event_of_its_own(ledger: Ledger) -> None:
    _corrected(ledger)
    first = given.row(ledger, "S1")["event_id"]
    assert _resent(ledger, dry_run=True) == 1
    assert given.statuses(ledger) == {"S1": "sent"}
    assert _resent(ledger, dry_run=False) == 1
    assert _resent(ledger, dry_run=False) == 0
    order = given.row(ledger, "S1")
    assert (order["status"], order["edition"], json.loads(order["payload"])["total"]) == ("ready", 2, 9.99)
    assert order["event_id"] != first


def test_what_was_corrected_after_it_was_sent_may_stay_as_it_is(ledger: Ledger) -> None:
    _corrected(ledger)
    assert (keep_corrected(ledger, dry_run=True), keep_corrected(ledger, dry_run=False)) == (1, 1)
    assert keep_corrected(ledger, dry_run=False) == 0
    assert _resent(ledger, dry_run=False) == 0


@pytest.mark.parametrize("status", ["held", "rejected", "sent", "sending"])
@pytest.mark.parametrize("decision", Decision)
def test_a_person_decides_only_what_can_be_decided(ledger: Ledger, status: str, decision: Decision) -> None:
    given.ready(ledger, "S1")
    given.set_orders(ledger, status=status)
    event_id = given.row(ledger, "S1")["event_id"]
    assert decide(ledger, [event_id], decision) == (status in DECIDED[decision])
    became = {"sent": "sent", "send-again": "ready", "ask-again": "sending", "give-up": "cancelled"}[decision.value]
    assert given.statuses(ledger) == {"S1": became if status in DECIDED[decision] else status}
    assert held_events(ledger, (), 10) == [] or (status, status in DECIDED[decision]) == ("held", False)


class Members:
    def __init__(self, outcome: str) -> None:
        self.outcome = outcome

    def resolve(self, card: str) -> CardAnswer:
        return CardAnswer(card, self.outcome, "m@example.com")


def searched(ledger: Ledger, run_id: str, outcome: str = "matched") -> str:
    given.planned(ledger, given.run(run_id))
    look_up_batch([Members(outcome)], ledger, given.batch(run_id), given.SETTINGS)
    return given.statuses(ledger)["S1"]


def test_cards_are_asked_for_anew_whatever_is_remembered_of_them(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    assert searched(ledger, "run-1", "not_found") == "unmatched"
    assert searched(ledger, "run-2") == "unmatched"  # not yet: it was asked for a moment ago
    assert search_again(ledger, "no_email", dry_run=False) == 0
    assert search_again(ledger, "not_found", dry_run=True) == 1
    assert search_again(ledger, "not_found", dry_run=False) == 1
    assert searched(ledger, "run-3") == "ready"


def test_nothing_is_sent_for_a_suppressed_person_until_it_is_lifted(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1", emailAddress="own@example.com"))
    assert searched(ledger, "run-1") == "ready"
    assert suppress(ledger, [given.CARD], "a ticket") >= 1
    assert given.statuses(ledger) == {"S1": "suppressed"}
    later = given.document("S2", loyaltyCardNumber=None, emailAddress="m@example.com")
    given.landed(ledger, later, run=given.run("run-2"))
    found = list_suppressed(ledger, 10)
    assert {(each.source, each.cause) for each in found} == {("command", "a ticket")}
    assert lift(ledger, [each.id for each in found]) == len(found)
    assert list_suppressed(ledger, 10) == []
    assert given.statuses(ledger)["S1"] == "ready"


def test_of_two_orders_that_would_be_one_again_the_rekey_keeps_apart_what_a_person_did(collided: Ledger) -> None:
    accepted(collided, AcceptAs.NEW_ORDER)
    assert rekey(collided, load_settings(order_key="order_number,day")).orders == 2
    given.landed(collided, given.document("S2"))
    with pytest.raises(ConfigurationError, match="would become one"):
        rekey(collided, load_settings(order_key="day"))
