"""Those remedies of docs/runbook.md for which a bus is needed, and the one that needs a PostgreSQL."""

from __future__ import annotations

import pytest

from tests.alerts.channels import Webhook
from tests.faults.postgres import PostgresServer
from tests.faults.world import Killer, RunDone, World
from tests.runbook.conftest import Begin
from tests.runbook.oncall import command, keep_copy, printed, put_back, trigger

ALERTS = "instore_alerts"
LEFT_ALONE = {"drain_topic": False}
"""Of a run that needs no bus: each look at it costs two seconds."""


def only_the_drain(world: World) -> RunDone:
    return world.run(tries=1, only=("drain_topic",))


@pytest.mark.remedy("The numbers do not add up", "1", "2", "4", "5", "6", "7", "8")
def test_the_numbers_do_not_add_up_after_a_backup_is_restored(begin: Begin) -> None:
    world, judge = begin(1201)
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    world.recover()
    backup = keep_copy(world)
    world.settings["use_topic"] = True
    since = world.source.take(40)
    world.publish(since)
    world.extract("2017/06/07/orders.csv", world.source.take(40))
    assert world.run().green
    sent = judge.look().delivered
    put_back(world, backup)
    world.publish(world.source.take(20))
    world.extract("2017/06/08/orders.csv", world.source.take(20))
    judge.fault_happened()

    keep_copy(world)
    world.settings["enable_track_events"] = False
    world.publish(since)
    done = trigger(world)
    assert done.green
    assert dict(done.tries)["drain_topic"].value["stopped_by"] == "drained"
    assert judge.look().delivered == sent
    dry = printed(world, "reconcile", "--dry-run")["counts"]
    done_for_good = printed(world, "reconcile")["counts"]
    assert dry == done_for_good
    assert done_for_good["sent"] > 50
    world.settings["enable_track_events"] = True
    assert trigger(world, **LEFT_ALONE).green
    judge.check(at_least=125, deliveries=0, recovered=True)


@pytest.mark.remedy("The run failed without a report", "1", "2")
@pytest.mark.remedy("A task failed", "The ledger (connection instore_ledger) failed")
def test_the_run_failed_without_a_report_and_postgresql_is_back(begin: Begin, postgres: PostgresServer) -> None:
    world, judge = begin(1202, use_topic=True, ledger=postgres.ledger())
    world.publish(world.source.take(30))
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    judge.fault_happened()
    postgres.stop()
    done = world.run(tries=1)
    assert set(done.states.values()) == {"failed"}
    assert all("The ledger (connection instore_ledger) failed" in each.error for _, each in done.tries)

    postgres.start()
    assert trigger(world).green
    judge.check(at_least=40, deliveries=0, recovered=True)


@pytest.mark.remedy("A task failed", "Service Bus refused the key", "no active topic")
def test_a_task_failed_of_the_bus_s_subscription_and_then_of_its_key(begin: Begin) -> None:
    world, judge = begin(1203, use_topic=True)
    world.publish(world.source.take(30))
    judge.fault_happened()
    world.settings["subscription"] = "orderprocesing"
    told = dict(only_the_drain(world).tries)["drain_topic"]
    assert (told.fatal, "has no active topic" in told.error) == (True, True)
    del world.settings["subscription"]
    wrong = world.sandbox.connection_string.replace("SharedAccessKey=", "SharedAccessKey=another")
    world.connections["instore_service_bus"] = {"conn_type": "azure_service_bus", "schema": wrong}
    told = dict(only_the_drain(world).tries)["drain_topic"]
    assert (told.fatal, "Service Bus refused the key" in told.error) == (True, True)

    del world.connections["instore_service_bus"]
    assert trigger(world).green
    judge.check(at_least=20, deliveries=0, recovered=True)


@pytest.mark.remedy("Too many records were set aside", "4")
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


@pytest.mark.remedy("Messages wait on the bus", "1")
def test_messages_wait_on_the_bus_until_runs_have_taken_them(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1220, use_topic=True, drain_max_messages=30, alert_oldest_message_minutes=0.0001)
    world.connections[ALERTS] = {"conn_type": "generic", "password": webhook.url}
    world.publish(world.source.take(50))
    judge.fault_happened()
    done = world.run()
    assert done.green
    assert dict(done.tries)["drain_topic"].value["stopped_by"] == "count"
    assert webhook.titles == ["Messages wait on the bus"]

    while webhook.titles[-1] != "Recovered":
        assert len(world.runs) < 4
        assert trigger(world).green
    assert webhook.titles == ["Messages wait on the bus", "Recovered"]
    judge.check(at_least=30, deliveries=0, recovered=True)


@pytest.mark.remedy("Messages wait on the bus", "3")
def test_messages_wait_on_the_bus_whose_locks_expire_until_blocks_are_smaller(begin: Begin) -> None:
    world, judge = begin(1221, use_topic=True, drain_block=60)
    world.publish(world.source.take(60))
    world.hang_up()
    judge.fault_happened()
    world.sandbox.bus.set_faults(lock_seconds=1, latency_seconds=0.04)
    before = only_the_drain(world)
    assert dict(before.tries)["drain_topic"].value["settle_failed"] > 0
    world.publish(world.source.take(60))
    world.hang_up()

    world.settings["drain_block"] = 10
    after = world.run()
    assert dict(after.tries)["drain_topic"].value["settle_failed"] == 0
    assert after.green
    judge.check(at_least=80, deliveries=4, recovered=True)


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
