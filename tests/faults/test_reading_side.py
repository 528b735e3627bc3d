"""Family 11: what is asked what became of a request cannot be relied on. Nothing is sent twice, nobody is held up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.judge import Judge
from tests.faults.world import RunDone, World

LAGS = {
    "lag": {"ingest_delay": 1.5},
    "a lag longer than verify_after": {"ingest_delay": 5},
    "a lag of each event's own": {"ingest_spread": 2},
}
DEAF = {"ignores its filter": {"ignores_filter": True}, "shows empty pages": {"empty_pages": True}}
HOUR = 3600.0


def _in_doubt(
    world: World, judge: Judge, *, share: float = 0.3, answers: Any = ("lost", "reset"), **side: Any
) -> RunDone:
    """A run of 120 orders of which some are in doubt afterwards, or were while it ran."""
    orders = world.source.take(120, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.sandbox.store.set_faults(share=share, answers=list(answers), only=["POST "], **side)
    world.inject(11, f"{share:.0%} of the requests are answered {answers}; the reading side: {side}")
    done = world.run(tries=1)
    world.sandbox.store.set_faults(**side)
    judge.fault_happened()
    return done


@pytest.mark.weight(60)
@pytest.mark.parametrize("lag", in_smoke(LAGS, "a lag longer than verify_after"))
def test_lag(make_world: MakeWorld, lag: str) -> None:
    world, judge = make_world(1201, use_topic=False, bulk_events=10)
    _in_doubt(world, judge, **LAGS[lag])
    world.recover()
    judge.check(at_least=120)


@pytest.mark.parametrize("kind", in_smoke(DEAF, *DEAF))
def test_a_reading_side_that_answers_something_else(make_world: MakeWorld, kind: str) -> None:
    """Whoever is not in doubt is sent; who is stays so until the reading side is mended, and then goes out once."""
    world, judge = make_world(1202, use_topic=False, bulk_events=10)
    _in_doubt(world, judge, **DEAF[kind])
    later = world.source.take(60, only="sent")
    world.extract("2017/06/06/orders.csv", later)
    done = world.run()
    assert done.green
    assert done.report is not None
    assert done.report["in_doubt"] > 0
    assert {order.number for order in later} <= judge.look().delivered
    assert not judge.look().duplicated
    world.sandbox.store.set_faults()
    world.recover()
    judge.check(at_least=180, recovered=True)


@pytest.mark.smoke
def test_without_a_reading_side_the_others_go_out_and_the_doubts_are_held(make_world: MakeWorld) -> None:
    world, judge = make_world(1203, use_topic=False, bulk_events=10)
    keys = world.sandbox.keys
    world.connections["instore_profile_store"] = {
        "conn_type": "profile_store",
        "host": world.sandbox.store.url,
        "password": keys.profile_store_key,
    }
    done = _in_doubt(world, judge, answers=["lost"])
    assert not done.green
    world.recover()
    held = world.runs[-1].report or {}
    assert 0 < held["ledger"]["held"] < 120
    judge.held = True
    judge.check(at_least=120)


@pytest.mark.weight(20)
def test_a_reading_side_that_is_away_holds_up_nobody_but_the_doubts(make_world: MakeWorld) -> None:
    world, judge = make_world(1204, use_topic=False, bulk_events=10, retry_first_wait=0.1)
    orders = world.source.take(120, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.sandbox.store.set_faults(
        script={orders[7].number: ["lost"]}, share=1, answers=[503], only=["GET /api/v1.0/trackevents"]
    )
    world.inject(11, "one request is lost, and the reading side is away")
    world.sandbox.store.set_faults(script={orders[7].number: ["lost"]}, only=["POST "])
    keys = world.sandbox.keys
    world.connections["instore_profile_store"] = {
        "conn_type": "profile_store",
        "host": world.sandbox.store.url,
        "password": keys.profile_store_key,
        "extra": {"read_host": "http://127.0.0.1:9", "read_api_key": keys.profile_store_key},
    }
    done = world.run()
    assert not done.green
    assert len(judge.look().delivered) == 120
    del world.connections["instore_profile_store"]
    world.recover()
    judge.check(at_least=120)


@pytest.mark.weight(20)
def test_hidden_witnesses_are_passed_over(make_world: MakeWorld) -> None:
    world, judge = make_world(1205, use_topic=False, bulk_events=10)
    orders = world.source.take(60, only="sent")
    blacklist = sorted({order.email for order in orders[-6:] if order.email})
    lost = orders[3].number
    world.extract("2017/06/05/orders.csv", orders)
    judge.fault_happened()
    world.inject(11, "one request is reset, and some witnesses never show")
    world.sandbox.store.set_faults(script={lost: ["reset"] * 9}, only=["POST "], blacklist=blacklist)
    world.run(tries=1)
    world.sandbox.store.set_faults(blacklist=blacklist)
    for day in range(7, 9):
        world.extract(f"2017/06/0{day}/orders.csv", world.source.take(20, only="sent"))
        done = world.run()
    assert "sending" not in (done.report or {})["ledger"]
    seen = judge.look()
    assert not seen.duplicated
    assert lost in seen.delivered
    judge.count(len(world.published))


@pytest.mark.parametrize("doubts", in_smoke([1, 5], 1))
def test_all_in_doubt_and_nothing_else_for_a_day(make_world: MakeWorld, doubts: int) -> None:
    """Nobody can tell: it is asked for a day long, and then a person is."""
    world, judge = make_world(1206, use_topic=False, verify_after=0.2)
    world.extract("2017/06/05/orders.csv", world.source.take(doubts, only="sent"))
    judge.fault_happened()
    world.inject(11, "one request is reset, and nothing else is sent for a day")
    world.sandbox.store.set_faults(share=1, answers=["reset"], only=["POST "])
    world.run(tries=1)
    world.sandbox.store.set_faults()
    for hour in (1, 12, 23):
        done = world.run(clock={"seconds": hour * HOUR})
        assert done.green
        assert (done.report or {})["in_doubt"] == doubts
    red = world.run(clock={"seconds": 24.5 * HOUR})
    assert not red.green
    assert (red.report or {})["held"] == doubts
    after = world.run(clock={"seconds": 25 * HOUR})
    assert after.green
    assert not judge.look().delivered
    judge.held = True
    judge.check(at_least=0, settled=False)


@pytest.mark.weight(15)
@pytest.mark.parametrize("answers", [["lost", "reset"], ["reset"], ["lost"]], ids=" and ".join)
def test_all_in_doubt_until_the_next_hour_brings_witnesses(make_world: MakeWorld, answers: list[str]) -> None:
    """Every request of an hour dies, taken or not: what was taken is found, the others go out when it can be proven."""
    world, judge = make_world(1210, use_topic=False, bulk_events=10)
    done = _in_doubt(world, judge, share=1, answers=answers)
    assert not done.green or (done.report or {})["in_doubt"]
    assert (done.report or {})["sent"] == 120 - (done.report or {})["carried_over"]
    world.recover()
    judge.check(at_least=120, recovered="reset" in answers)


@pytest.mark.weight(200)
@pytest.mark.parametrize("lag", [{"ingest_delay": 60}, {"ingest_spread": 60}], ids=["of all alike", "of each its own"])
def test_a_lag_of_a_minute_at_the_default_settings(make_world: MakeWorld, lag: dict[str, int]) -> None:
    world, judge = make_world(1207, use_topic=False, bulk_events=10)
    for name in ("verify_after", "breaker_seconds"):
        del world.settings[name]
    _in_doubt(world, judge, share=0.1, **lag)
    world.recover()
    judge.check(at_least=120)


def test_one_doubt_holds_up_nobody(make_world: MakeWorld) -> None:
    world, judge = make_world(1209, use_topic=False, bulk_events=20)
    orders = world.source.take(340, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.inject(11, "one request of many is reset, and the reading side shows empty pages")
    world.sandbox.store.set_faults(script={orders[100].number: ["reset"] * 9}, only=["POST "], empty_pages=True)
    world.run()
    delivered = len(judge.look().delivered)
    assert delivered >= 320
    world.sandbox.store.set_faults()
    world.recover()
    judge.check(at_least=340)
