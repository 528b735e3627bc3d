"""Those remedies of docs/runbook.md that are about single messages: set aside, locked, dead."""

from __future__ import annotations

import pytest

from tests.faults.world import Killer
from tests.runbook.conftest import Begin
from tests.runbook.oncall import LEFT_ALONE, command, only_the_drain, printed, trigger


@pytest.mark.remedy("Too many records were set aside", "3")
def test_too_many_records_were_set_aside_as_too_large_and_are_redriven(begin: Begin) -> None:
    world, judge = begin(1210, use_topic=True, max_message_bytes=1024)
    orders = [each.with_description("x" * 1500) for each in world.source.take(20)]
    world.publish(orders)
    judge.fault_happened()
    done = world.run()
    assert not done.green
    assert done.report is not None
    assert done.report["quarantined_by_reason"] == {"too_large": 20}

    del world.settings["max_message_bytes"]
    assert printed(world, "quarantine", "redrive", "--all")["counts"] == {"landed": 20}
    assert trigger(world, **LEFT_ALONE).green
    judge.check(at_least=12, deliveries=0, dead_lettered=20, recovered=True)


@pytest.mark.remedy("Messages wait on the bus", "3")
def test_messages_wait_on_the_bus_whose_locks_expire_until_blocks_are_smaller(begin: Begin) -> None:
    world, judge = begin(1221, use_topic=True, drain_block=40, settle_in_blocks=False)
    world.publish(world.source.take(40))
    world.hang_up()
    judge.fault_happened()
    world.sandbox.bus.set_faults(lock_seconds=1, latency_seconds=0.04)
    before = only_the_drain(world)
    assert dict(before.tries)["drain_topic"].value["settle_failed"] > 0
    world.publish(world.source.take(40))
    world.hang_up()

    world.settings["drain_block"] = 10
    after = only_the_drain(world)
    assert dict(after.tries)["drain_topic"].value["settle_failed"] == 0
    assert trigger(world, **LEFT_ALONE).green
    judge.check(at_least=55, deliveries=4, recovered=True)


@pytest.mark.remedy("Dead letters on the bus", "1", "2")
def test_dead_letters_on_the_bus_are_redriven_and_those_that_stay_are_given_up(begin: Begin) -> None:
    world, judge = begin(1230, use_topic=True, max_message_bytes=1024, max_bad_share=1)
    orders = [each.with_description("x" * 1500) for each in world.source.take(10)]
    world.publish(orders)
    world.publish_malformed([b"no order"] * 3)
    judge.fault_happened()
    assert only_the_drain(world).states["drain_topic"] == "success"
    listed = printed(world, "dead-letters", "list")
    assert sorted(each["reason"] for each in listed) == ["not_json"] * 3 + ["too_large"] * 10

    del world.settings["max_message_bytes"]
    wanted = {"landed": 10, "refused": 3}
    assert printed(world, "dead-letters", "redrive", "--dry-run")["counts"] == wanted
    assert printed(world, "dead-letters", "redrive")["counts"] == wanted
    assert trigger(world, **LEFT_ALONE).green
    rows = printed(world, "quarantine", "list", "--source", "topic")
    assert len(rows) == 3
    ids = [row["id"][:12] for row in rows]
    assert printed(world, "quarantine", "discard", *ids)["counts"] == {"discarded": 3}
    removed = printed(world, "dead-letters", "redrive")
    assert (removed["counts"], removed["completed"]) == ({"discarded": 3}, 3)
    judge.check(at_least=5, dead_lettered=0, recovered=True)


@pytest.mark.remedy("Dead letters on the bus", "2", "3")
def test_dead_letters_on_the_bus_of_runs_that_died_are_redriven_and_what_is_no_order_is_given_up(begin: Begin) -> None:
    """A message that no run has ever landed has left nothing in quarantine."""
    world, judge = begin(1231, index=-1, use_topic=True, claim_minutes=0.002)
    world.publish(world.source.take(20))
    world.publish_malformed([b"no order"])
    judge.fault_happened()
    world.sandbox.bus.set_faults(lock_seconds=1)
    for _ in range(3):
        killed = world.run(killer=Killer({"drain_topic": ["topic.after_receive:1"]}), tries=1, only=("drain_topic",))
        assert killed.kills == 1
        world.wait_for_locks()
    world.sandbox.bus.set_faults()
    listed = printed(world, "dead-letters", "list")
    assert {each["reason"] for each in listed} == {"MaxDeliveryCountExceeded"}
    assert len(listed) == 21

    assert printed(world, "dead-letters", "redrive")["counts"] == {"landed": 20, "refused": 1}
    assert trigger(world, **LEFT_ALONE).green
    (row,) = printed(world, "quarantine", "list", "--source", "topic")
    assert command(world, "quarantine", "discard", row["id"]).exit_code == 0
    assert printed(world, "dead-letters", "redrive")["counts"] == {"discarded": 1}
    judge.check(at_least=12, deliveries=3, dead_lettered=0, recovered=True)
