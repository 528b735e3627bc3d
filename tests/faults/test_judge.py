"""The judge is fair: it sees what is lost, doubled, foreign, altered and told, and it is not content with nothing."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
import requests

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.totals import TOTALS, Totals
from tests.faults.world import World


@pytest.fixture(autouse=True)
def _totals_of_staged_crimes_do_not_count() -> Any:
    before = Totals(**vars(TOTALS))
    yield
    TOTALS.lost, TOTALS.duplicated, TOTALS.unexpected = before.lost, before.duplicated, before.unexpected


def _track(world: World, *events: dict[str, Any]) -> None:
    key = world.sandbox.keys.profile_store_key
    url, headers = f"{world.sandbox.store.url}/api/v1.0/TrackBulk", {"Ocp-Apim-Subscription-Key": key}
    answer = requests.post(url, json=events, headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text


@pytest.mark.smoke
def test_every_crime_is_seen(make_world: MakeWorld) -> None:
    world, judge = make_world(21, use_topic=False)
    orders = world.source.take(40, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.recover(world.run())
    judge.check(at_least=40)
    (first, second, *_), taken = orders, {str(e["payload"]["orderNumber"]): e for e in judge.taken}

    missing = world.source.take(1, only="sent")
    world.published[missing[0].number] = missing
    with pytest.raises(AssertionError, match="1 lost"):
        judge.check(at_least=40)
    del world.published[missing[0].number]

    _track(world, taken[first.number])
    with pytest.raises(AssertionError, match="1 duplicated"):
        judge.check(at_least=40)
    judge.may_double = {first.number}
    judge.check(at_least=40)

    _track(world, {**taken[second.number], "user": {"email": "somebody@else.example"}})
    with pytest.raises(AssertionError, match="1 unexpected"):
        judge.check(at_least=40)
    judge.may_double.add(second.number)
    stranger = {**taken[second.number], "payload": {**taken[second.number]["payload"], "orderNumber": "X-1"}}
    _track(world, stranger)
    with pytest.raises(AssertionError, match="2 unexpected"):
        judge.check(at_least=40)


def test_a_vacuous_pass_is_none(make_world: MakeWorld) -> None:
    world, judge = make_world(22, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(20, only="sent"))
    world.recover(world.run())
    with pytest.raises(AssertionError, match="only 20 of at least 21"):
        judge.check(at_least=21)
    with pytest.raises(AssertionError, match="proves nothing"):
        judge.check(at_least=20, recovered=True)


def test_numbers_that_do_not_add_up_and_a_ledger_that_forgot_are_seen(make_world: MakeWorld) -> None:
    world, judge = make_world(23, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    world.recover(world.run())
    judge.check(at_least=15)
    with sqlite3.connect(str(world.ledger["host"])) as ledger:
        ledger.execute("UPDATE runs SET received = received + 1 WHERE received > 0")
    with pytest.raises(AssertionError, match="received 31 is not 30 orders"):
        judge.check(at_least=15)
    with sqlite3.connect(str(world.ledger["host"])) as ledger:
        ledger.execute("UPDATE runs SET received = received - 1 WHERE received > 0")
        ledger.execute("DELETE FROM orders WHERE order_number = (SELECT min(order_number) FROM orders)")
    ledger.close()
    with pytest.raises(AssertionError, match="in the ledger or published, not both"):
        judge.check(at_least=15)


@pytest.mark.parametrize("what", in_smoke(["email", "card", "key"], "email"))
def test_a_log_that_tells_is_seen(make_world: MakeWorld, what: str) -> None:
    world, judge = make_world(24, use_topic=False)
    order = world.source.take(1, only="sent")[0]
    world.extract("2017/06/05/orders.csv", [order])
    world.recover(world.run())
    judge.check(at_least=1)
    told = {"email": order.email, "card": "77340000" + "0000", "key": world.sandbox.keys.profile_store_key}[what]
    with (world.logs / "9999-told.log").open("a") as log:
        log.write(json.dumps({"oops": told}))
    with pytest.raises(AssertionError, match="shows"):
        judge.check(at_least=1)


@pytest.mark.smoke
def test_a_message_completed_before_it_is_on_disk_is_seen(make_world: MakeWorld) -> None:
    world, judge = make_world(25)
    world.publish(world.source.take(10))
    world.run()
    judge.nothing_completed_that_is_not_on_disk()
    with sqlite3.connect(str(world.ledger["host"])) as ledger:
        ledger.execute("DELETE FROM orders WHERE order_number = (SELECT min(order_number) FROM orders)")
    ledger.close()
    with pytest.raises(AssertionError, match="10 of 10 messages have left the bus, 9 are on disk"):
        judge.nothing_completed_that_is_not_on_disk()
