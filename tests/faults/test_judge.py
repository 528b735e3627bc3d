"""The judge is fair: it sees what is lost, doubled, foreign, altered and told, and it is not content with nothing."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.judge import Judge
from tests.faults.source import EITHER, Order
from tests.faults.totals import TOTALS, Totals
from tests.faults.world import World


@pytest.fixture(autouse=True)
def _totals_of_staged_crimes_do_not_count() -> Any:
    before = Totals(**vars(TOTALS))
    yield
    for name in ("lost", "missing", "wrong", "duplicated", "unexpected"):
        setattr(TOTALS, name, getattr(before, name))


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


def _event_of(judge: Judge, order: Order, **changed: Any) -> dict[str, Any]:
    """The event of an order that never left, made after the example of one that did."""
    event: dict[str, Any] = copy.deepcopy(judge.taken[0])
    payload = json.loads(order.body()) | {"orderType": "return" if order.total < 0 else "sale"}
    event |= {"eventType": order.event_type, "value": order.event_type, "trackId": f"forged-{order.id}-{len(changed)}"}
    return event | {
        "eventTime": order.date.replace("Z", ".000Z"), "user": {"email": order.email}, "payload": payload, **changed
    }  # fmt: skip


def _in_the_ledger(world: World, statement: str) -> None:
    with sqlite3.connect(str(world.ledger["host"])) as ledger:
        assert ledger.execute(statement).rowcount == 1
    ledger.close()


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another total": (lambda event: event["payload"].update(total="1.23"), "total"),
    "the price of a line": (lambda event: event["payload"]["lines"][0].update(unitPrice=0), "lines.0.unitPrice"),
    "a line is missing": (lambda event: event["payload"]["lines"].pop(), "lines: "),
    "a field is missing": (lambda event: event["payload"].pop("storeName"), "storeName is missing"),
    "a field of its own": (lambda event: event["payload"].update(note="x"), "note is nothing of the source's"),
    "another card": (lambda event: event["payload"].update(loyaltyCardNumber="1"), "loyaltyCardNumber"),
    "another moment": (lambda event: event.update(eventTime="2017-06-01T00:00:00.000Z"), "eventTime"),
    "a return": (lambda event: event.update(value="StoreReturn"), "value"),
}


@pytest.mark.smoke
def test_a_wrong_content_is_seen_field_by_field(make_world: MakeWorld) -> None:
    world, judge = make_world(26, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(20, only="sent", cards=range(50)))
    world.recover(world.run())
    judge.check(at_least=20)
    for what, (spoil, field) in WRONG.items():
        order = next(each for each in world.source.take(20, only="sent") if each.card and each.total > 0)
        world.published[order.number] = [order]
        spoilt = _event_of(judge, order)
        spoil(spoilt)
        _track(world, spoilt)
        with pytest.raises(AssertionError) as caught:
            judge.check(at_least=20)
        assert f"1 wrong: {order.number}: {field}" in str(caught.value), what
        judge._fit.add(len(judge.taken) - 1)  # the next one shall be told alone
        assert not judge.look().wrong, what


@pytest.mark.smoke
def test_an_event_of_a_suppressed_person_is_seen(make_world: MakeWorld) -> None:
    """What left before nobody knew is none of it; what leaves afterwards is, with the card or with the email alone."""
    world, judge = make_world(27, use_topic=False)
    by_card, _, own = world.source.of_a_suppressed_person()
    world.extract("2017/06/05/orders.csv", [own, *world.source.take(20, only="sent")])
    world.recover(world.run())
    assert own.id in judge.check(at_least=21).delivered
    world.extract("2017/06/06/orders.csv", [by_card])
    world.recover(world.run())
    judge.check(at_least=21)
    *_, with_card, by_email = world.source.of_a_suppressed_person(world.source.withdrawn[:1])
    for number, order in enumerate((with_card, by_email), start=1):
        assert order.becomes == "suppressed"
        world.published[order.id] = [order, own, by_card]  # of the right person, and told as the source has it
        _track(world, _event_of(judge, order))
        with pytest.raises(AssertionError, match=f"{number} unexpected"):
            judge.check(at_least=20)


def test_what_a_look_up_has_just_learnt_holds_for_the_very_batch(make_world: MakeWorld) -> None:
    """Between the look-up and the sending of one batch the judge notes of whom nothing may leave any more."""
    world, judge = make_world(28, use_topic=False)
    world.extract("2017/06/05/orders.csv", [*world.source.of_a_suppressed_person(), *world.source.take(20)])
    done = world.run()
    assert not judge.look().unexpected
    either = next(order for (order,) in world.published.values() if order.becomes == EITHER)
    first = judge.taken[0]
    assert done.green
    # Whatever was taken down in this run came behind the look-up of its only batch.
    judge.taken[0] = {**_event_of(judge, either), "trackId": first["trackId"]}
    assert judge.look().unexpected == {either.id}


@pytest.mark.smoke
def test_editions_are_counted_by_the_runs_that_ordered_them(make_world: MakeWorld) -> None:
    world, judge = make_world(29, use_topic=False)
    orders = world.source.take(20, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.recover(world.run())
    judge.check(at_least=20)
    june = {"start": "2017-06-01T00:00:00+00:00", "end": "2017-07-01T00:00:00+00:00"}
    world.run("backfill__june", run_type="backfill", params={"resend": True}, **june)
    judge.check(at_least=20)
    assert len(judge.taken) == 40
    again = {**judge.taken[0], "trackId": "a-third-edition"}
    _track(world, again)
    with pytest.raises(AssertionError, match="1 unexpected"):
        judge.check(at_least=20)
    del judge.taken[-1], judge._places[-1]
    judge.check(at_least=20)
    # A run that says it sends them again, and does not.
    world.run_begins({"run_id": "backfill__idle", "params": {"resend": True}, **june})
    with pytest.raises(AssertionError, match="20 orders were not sent again as ordered"):
        judge.check(at_least=20)


@pytest.mark.smoke
def test_a_collision_that_vanishes_or_is_green_and_a_content_that_is_forgotten_are_seen(make_world: MakeWorld) -> None:
    world, judge = make_world(30, use_topic=False)
    world.arrive_mixed("2017/06/01/orders.csv", rows=40)
    world.recover(world.run())
    world.arrive_mixed("2017/06/02/orders.csv", rows=40)
    world.recover(world.run())
    judge.check(at_least=50)
    assert len(world.collisions) == 3

    red = next(run for run in world.runs if not run.green)
    red.states["report_run"] = "success"
    with pytest.raises(AssertionError, match=f"run {red.run_id} found a collision and is green"):
        judge.check(at_least=50)
    red.states["report_run"] = "failed"

    (corrected,) = (versions for versions in world.published.values() if len(versions) > 1)
    _in_the_ledger(world, "UPDATE contents SET payload = replace(payload, ', corrected', '')")
    with pytest.raises(AssertionError, match=f"a content of {corrected[0].number} was published and is not in the led"):
        judge.check(at_least=50)
    _in_the_ledger(
        world,
        f"UPDATE orders SET payload = replace(payload, 'A, ', 'B, ') WHERE order_number = '{corrected[0].number}'",
    )
    with pytest.raises(AssertionError, match="has a content in the ledger that nobody published"):
        judge.check(at_least=50)
    _in_the_ledger(world, "DELETE FROM quarantine WHERE id = (SELECT min(id) FROM quarantine)")
    with pytest.raises(AssertionError, match="1 collisions are not in quarantine with their bytes"):
        judge.check(at_least=50)


@pytest.mark.smoke
def test_what_nobody_tells_of_is_missing_also_while_others_are_under_way(make_world: MakeWorld) -> None:
    world, judge = make_world(31, use_topic=False)
    world.extract("2017/06/05/orders.csv", world.source.take(20, only="sent"))
    world.recover(world.run())
    waiting = world.source.take(3, only="sent")
    world.extract("2017/06/06/orders.csv", waiting)
    judge.check(at_least=20, settled=False)  # the next run reads it
    world.published |= {order.number: [order] for order in world.source.take(1, only="sent")}
    with pytest.raises(AssertionError, match="1 missing"):
        judge.check(at_least=20, settled=False)
