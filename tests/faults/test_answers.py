"""Family 4: what the services answer, scripted order by order and card by card by hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.world import World

STATUSES = [200, 202, 204, 400, 401, 403, 404, 408, 409, 413, 425, 429, 500, 502, 503, 504]
ACCIDENTS = ["lost", "reset", "html", "accepted_html", "truncated", "cut"]
HOUR = 3600.0
REFUSALS = {400, 409, 413}
"""Answers that mean: this event, and will again."""
RETRY_AFTERS = ["0", "1", "1.5", "date+1", "date+-3600", "99999999999", "soon", "-5", "", "Wed, 99 Foo 2017"]

answers = st.lists(st.sampled_from(STATUSES + ACCIDENTS), min_size=1, max_size=7)
scripts = st.lists(answers, min_size=1, max_size=12)
card_answers = st.lists(st.sampled_from([400, 401, 403, 408, 425, 429, 500, 502, 503, 504, *ACCIDENTS[:4]]), max_size=4)

relaxed = settings(
    deadline=None,
    derandomize=True,
    # Without shrinking: each example is a whole run, and a failure shows its seed and timeline as drawn.
    phases=[Phase.explicit, Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.smoke
def test_scripted_answers_in_brief(make_world: MakeWorld) -> None:
    @settings(relaxed, max_examples=2)
    @given(scripts, st.sampled_from(RETRY_AFTERS))
    def check(scripts: list[list[Any]], retry_after: str) -> None:
        _scripted(make_world, 401, scripts, retry_after)

    check()


@pytest.mark.weight(60)
@pytest.mark.parametrize("seed", range(410, 412))
def test_scripted_answers(make_world: MakeWorld, seed: int) -> None:
    @settings(relaxed, max_examples=8)
    @given(scripts, st.sampled_from(RETRY_AFTERS), st.integers())
    def check(scripts: list[list[Any]], retry_after: str, _: int) -> None:
        _scripted(make_world, seed, scripts, retry_after)

    check()


def _scripted(make_world: MakeWorld, seed: int, scripts: list[list[Any]], retry_after: str) -> None:
    """Orders with a script each, the others in between; the answer to a bulk is that of the first that has one."""
    world, judge = make_world(seed, use_topic=False, retry_first_wait=0.1)
    orders = world.source.take(50)
    sendable = [order.number for order in orders if order.becomes == "sent"]
    script = dict(zip(world.random.sample(sendable, len(scripts)), scripts, strict=True))
    world.extract("2017/06/05/orders.csv", orders)
    judge.fault_happened()
    for number, steps in script.items():
        world.inject(4, f"{number} is answered with {steps}, Retry-After {retry_after!r}", times=len(steps))
    world.sandbox.store.set_faults(script=script, retry_after=retry_after, only=["POST "], slow_seconds=0.2)
    for _ in range(12):
        done = world.run()
        if done.green and not world.under_way(done):
            break
    world.sandbox.store.set_faults()
    world.recover()
    # Refused for good: only where its own script, or that of a neighbour in the same request, has a refusal.
    judge.may_be_rejected = {number for number, steps in script.items() if REFUSALS & set(steps)}
    judge.check(at_least=len(sendable) - len(judge.may_be_rejected), recovered=True)


@pytest.mark.weight(70)
@pytest.mark.parametrize("seed", range(420, 422))
def test_scripted_answers_of_the_loyalty_api(make_world: MakeWorld, seed: int) -> None:
    @settings(relaxed, max_examples=8)
    @given(st.lists(card_answers, min_size=3, max_size=15), st.sampled_from(RETRY_AFTERS), st.integers())
    def check(scripts: list[list[Any]], retry_after: str, _: int) -> None:
        world, judge = make_world(seed, use_topic=False, retry_first_wait=0.1)
        orders = world.source.take(50)
        cards = sorted({order.card for order in orders if order.card})
        script = {card: steps for card, steps in zip(cards, scripts, strict=False) if steps}
        world.extract("2017/06/05/orders.csv", orders)
        judge.fault_happened()
        world.inject(4, f"cards are answered with {list(script.values())}", sum(map(len, script.values())))
        world.sandbox.loyalty.set_faults(script=script, retry_after=retry_after)
        for _ in range(12):
            done = world.run()
            if done.green and not world.under_way(done):
                break
        world.sandbox.loyalty.set_faults()
        world.recover()
        judge.check(at_least=25, recovered=True)

    check()


@pytest.mark.parametrize("policy", in_smoke(["resend", "hold"], "resend"))
def test_other_policies_for_what_is_in_doubt(make_world: MakeWorld, policy: str) -> None:
    """``resend`` may double, but only what a lost answer explains; ``hold`` never does, and holds it for a person."""
    world, judge = make_world(430, use_topic=False, on_ambiguous=policy)
    orders = world.source.take(60, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    judge.fault_happened()
    lost = {order.number for order in orders[:3]}
    world.inject(4, f"answers lost under policy {policy}", times=3)
    world.sandbox.store.set_faults(script={number: ["lost"] for number in lost}, only=["POST "])
    done = world.run()
    world.sandbox.store.set_faults()
    seen = judge.look()
    if policy == "hold":
        assert done.report is not None
        assert done.report["ledger"]["held"] == done.report["held"] > 0
        assert not done.green
        judge.held = True
        judge.check(at_least=60, recovered=True)
    else:
        world.recover()
        assert seen.duplicated
        # Each lost answer stood for one request of at most a bulk's events.
        judge.may_double = set(world.published)
        assert len(judge.look().duplicated) <= 3 * int(world.settings["bulk_events"])
        judge.check(at_least=60, recovered=True)


def test_a_systemic_fault_ends_the_run_early(make_world: MakeWorld) -> None:
    """Nothing works: the rest is carried over after a few calls, instead of thousands that fail."""
    world, judge = make_world(440, use_topic=False, breaker_seconds=10)
    world.extract("2017/06/05/orders.csv", world.source.take(400, only="sent"))
    judge.fault_happened()
    world.sandbox.store.set_faults(share=1, answers=[503], only=["POST "])
    world.inject(4, "the Tracking API answers 503 to everything")
    before = _calls(world, "store", "POST ")
    done = world.run()
    calls = _calls(world, "store", "POST ") - before
    assert not done.green
    assert done.report is not None
    assert done.report["carried_over"] == 400
    assert calls <= 25, f"{calls} calls of a service that is down\n{world.timeline}"
    world.sandbox.store.set_faults()
    world.settings["breaker_seconds"] = 1
    world.recover()
    judge.check(at_least=400, recovered=True)


@pytest.mark.weight(25)
@pytest.mark.parametrize("status", in_smoke([401, 403], 401))
def test_every_key_is_refused_for_three_hours(make_world: MakeWorld, status: int) -> None:
    """Somebody has changed the key: each hour is red, nothing is sent, and all of it once when the key is right."""
    world, judge = make_world(450, bulk_events=10, use_topic=False)
    world.sandbox.store.set_faults(share=1, answers=[status])
    for hour in range(3):
        world.arrive_mixed(f"2017/06/{hour + 1:02d}/orders.csv", rows=60)
        world.inject(4, f"the Profile Store answers {status} to every key for the {hour + 1}. hour")
        before = _calls(world, "store", "POST ")
        done = world.run(clock={"seconds": (hour - 3) * HOUR})
        assert not done.green
        assert any("send_events" in each for each in (done.report or {})["red"])
        assert not judge.look().delivered
        # Each batch asks once: who was refused is not asked again for the others of its batch.
        assert _calls(world, "store", "POST ") - before <= len([each for each in done.states if "send" in each])
        judge.check(at_least=0, settled=False)
    judge.fault_happened()
    world.sandbox.store.set_faults()
    world.recover()
    judge.check(at_least=len(world.published) * 3 // 5, recovered=True)


def test_one_dead_slow_service_does_not_starve_the_other(make_world: MakeWorld) -> None:
    """The loyalty API hangs; orders that need no look-up, or whose card is known, go out all the same."""
    world, judge = make_world(441, use_topic=False)
    known = world.source.take(60, only="sent")
    world.extract("2017/06/05/known.csv", known)
    world.recover(world.run())
    world.extract("2017/06/06/fresh.csv", world.source.take(60, only="sent"))
    judge.fault_happened()
    world.inject(4, "the loyalty API takes 3 s for every answer and then fails")
    world.sandbox.loyalty.set_faults(share=1, answers=[503], latency=3)
    own = {number for number, (order,) in world.published.items() if order.own_email}
    assert own - {order.number for order in known}
    world.run(tries=1)
    seen = judge.look()
    world.sandbox.loyalty.set_faults()
    assert own <= seen.delivered, f"orders with an email of their own waited for the loyalty API\n{world.timeline}"
    world.recover()
    judge.check(at_least=120, recovered=True)


def _calls(world: World, service: str, operation: str) -> int:
    calls = getattr(world.sandbox, service).state()["calls"]
    return sum(sum(outcomes.values()) for name, outcomes in calls.items() if name.startswith(operation))
