"""Reconciling: orders become sent on the Profile Store's word only, and nothing else of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

import pytest

from include.instore.ledger import Ledger
from include.instore.ledger.tables import orders
from include.instore.model.destinations import PROFILE_STORE
from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore.model.settings import Settings
from include.instore.runs.reconcile import Reconciled, reconcile
from tests.instore import given

MakeSettings = Callable[..., Settings]
UNSENT = ("pending", "ready", "sending", "unmatched", "rejected", "held")


class Store:
    """A destination that shows these orders' events.

    :param fails_at: the question, from 1, at which it can no longer be asked.
    """

    def __init__(self, ledger: Ledger, *shown: str, fails_at: int | None = None) -> None:
        self.asked: list[set[str]] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self._numbers = {row["event_id"]: row["order_number"] for row in given.on_the_way(ledger)}
        self._shown = set(shown)
        self._fails_at = fails_at

    reads_back = True
    unclear = False

    def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
        asked = set(event_ids)
        if asked:
            self.asked.append({self._numbers[each] for each in asked})
            if len(self.asked) == self._fails_at:
                raise RetriableError("the Profile Store API answered 503")
            self.meanwhile()
        missing = "ignored_filter" if self.unclear else "absent"
        return {each: "shown" if self._numbers[each] in self._shown else missing for each in asked}


class NobodyToAsk:
    """A destination whose connection has no URL to read from."""

    reads_back = False

    def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
        raise ConfigurationError("its field 'read_host' is empty")


def in_every_status(ledger: Ledger, suffix: str = "") -> None:
    """An order in each status, named by it."""
    names = [f"{status}{suffix}" for status in (*UNSENT, "sent", "suppressed")]
    given.landed(ledger, *(given.document(name) for name in names))
    for name in names:
        given.set_orders(ledger, orders.c.order_number == name, status=name.removesuffix(suffix), reason="why")


def run_claims(ledger: Ledger) -> None:
    given.planned(ledger)


def unchanged(ledger: Ledger, before: list[dict[str, Any]], *but: str) -> bool:
    return [row for row in before if row["order_number"] not in but] == [
        row for row in given.on_the_way(ledger) if row["order_number"] not in but
    ]


def test_orders_that_are_not_sent_are_asked_for_and_those_shown_become_sent(
    ledger: Ledger, settings: MakeSettings
) -> None:
    in_every_status(ledger)
    given.landed(ledger, given.document("not shown"))
    before, started = given.on_the_way(ledger), datetime.now(timezone.utc)
    store = Store(ledger, *UNSENT, "sent", "suppressed")
    assert reconcile(store, PROFILE_STORE, ledger, settings()) == Reconciled(asked=7, sent=6)
    assert store.asked == [{*UNSENT, "not shown"}]
    assert unchanged(ledger, before, *UNSENT)
    for status in UNSENT:
        row = given.row(ledger, status)
        assert (row["status"], row["reason"], row["edition"], row["next_attempt"]) == ("sent", None, 1, None)
        assert started <= row["sent_at"] <= datetime.now(timezone.utc)


def test_what_was_marked_is_a_run_of_its_own_whose_numbers_add_up(ledger: Ledger, settings: MakeSettings) -> None:
    in_every_status(ledger)
    reconcile(Store(ledger, "ready", "rejected"), PROFILE_STORE, ledger, settings())
    (run,) = (each for each in given.rows(ledger, "runs") if each["kind"] == "reconcile")
    assert {given.row(ledger, number)["outcome_run"] for number in ("ready", "rejected")} == {run["run_id"]}
    assert run["ended_at"] is not None
    given.assert_every_record_is_in_one_place(ledger)


def test_the_next_run_does_not_claim_what_was_marked(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"))
    reconcile(Store(ledger, "S1"), PROFILE_STORE, ledger, settings())
    assert sum(batch.orders for batch in given.planned(ledger, given.run("run-2"))) == 1
    assert given.row(ledger, "S2")["claim_run"] == "run-2"


def test_a_window_that_is_sent_again_sends_what_was_marked_as_well(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1"))
    reconcile(Store(ledger, "S1"), PROFILE_STORE, ledger, settings())
    window = given.window("2017-06-05", "2017-06-06")
    again = given.run("again", "manual", window=window, claims="in_window", resend=True)
    assert sum(batch.orders for batch in given.planned(ledger, again)) == 1


def test_an_order_that_waits_to_be_sent_again_keeps_its_edition(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1"))
    given.set_orders(ledger, status="ready", edition=2)
    reconcile(Store(ledger, "S1"), PROFILE_STORE, ledger, settings())
    assert (given.row(ledger, "S1")["status"], given.row(ledger, "S1")["edition"]) == ("sent", 2)


def test_orders_of_a_live_run_are_left_to_it_and_told(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "held")
    given.landed(ledger, given.document("free"))
    before = given.on_the_way(ledger)
    store = Store(ledger, "held", "free")
    assert reconcile(store, PROFILE_STORE, ledger, settings()) == Reconciled(asked=1, sent=1, held=1)
    assert store.asked == [{"free"}]
    assert unchanged(ledger, before, "free")


def test_orders_of_a_run_that_is_dead_are_asked_for_and_given_up(ledger: Ledger, settings: MakeSettings) -> None:
    given.ready(ledger, "S1")
    given.alive_hours_ago(ledger, 3)
    assert reconcile(Store(ledger, "S1"), PROFILE_STORE, ledger, settings(claim_minutes=120)) == Reconciled(
        asked=1, sent=1
    )
    row = given.row(ledger, "S1")
    assert (row["status"], row["claim_run"]) == ("sent", None)


def test_an_order_claimed_while_it_was_asked_for_stays_with_its_run(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1"))
    store = Store(ledger, "S1")
    store.meanwhile = lambda: run_claims(ledger)
    assert reconcile(store, PROFILE_STORE, ledger, settings()) == Reconciled(asked=1, sent=0)
    assert (given.row(ledger, "S1")["status"], given.row(ledger, "S1")["claim_run"]) == ("pending", "run-1")


def test_a_dry_run_asks_and_changes_nothing(ledger: Ledger, settings: MakeSettings) -> None:
    in_every_status(ledger)
    before, runs = given.on_the_way(ledger), given.rows(ledger, "runs")
    done = reconcile(Store(ledger, *UNSENT), PROFILE_STORE, ledger, settings(), dry_run=True)
    assert (done.asked, done.sent, done.left) == (6, 6, 0)
    assert unchanged(ledger, before)
    assert given.rows(ledger, "runs") == runs


def test_what_was_marked_before_the_profile_store_failed_stays_marked_and_the_rest_is_asked_for_again(
    ledger: Ledger, settings: MakeSettings
) -> None:
    numbers = [f"S{number:03}" for number in range(450)]
    given.landed(ledger, *(given.document(number) for number in numbers))
    told: list[Reconciled] = []
    with pytest.raises(RetriableError):
        reconcile(Store(ledger, *numbers, fails_at=2), PROFILE_STORE, ledger, settings(), after_block=told.append)
    assert told == [Reconciled(asked=200, sent=200)]
    assert sorted(given.statuses(ledger).values()) == ["pending"] * 250 + ["sent"] * 200
    store = Store(ledger, *numbers[:-1])
    assert reconcile(store, PROFILE_STORE, ledger, settings()) == Reconciled(asked=250, sent=249)
    assert [len(each) for each in store.asked] == [200, 50]


def test_no_order_is_asked_for_twice_whatever_its_number_begins_with(ledger: Ledger, settings: MakeSettings) -> None:
    numbers = [f"{first}{number}" for number in range(70) for first in ("a-", "B", "Å", "_", "9")]
    given.landed(ledger, *(given.document(number) for number in numbers))
    store = Store(ledger)
    assert reconcile(store, PROFILE_STORE, ledger, settings()) == Reconciled(asked=350)
    assert set().union(*store.asked) == set(numbers)


def test_where_nobody_can_be_asked_it_is_refused_even_without_an_order(ledger: Ledger, settings: MakeSettings) -> None:
    with pytest.raises(ConfigurationError):
        reconcile(NobodyToAsk(), PROFILE_STORE, ledger, settings())


def test_answers_that_do_not_say_whether_an_event_is_there_change_nothing(
    ledger: Ledger, settings: MakeSettings
) -> None:
    in_every_status(ledger)
    before = given.on_the_way(ledger)
    store = Store(ledger, "ready")
    store.unclear = True
    with pytest.raises(RetriableError, match=r"5 of 6 questions.*filter on TrackId"):
        reconcile(store, PROFILE_STORE, ledger, settings())
    assert given.on_the_way(ledger) == before
