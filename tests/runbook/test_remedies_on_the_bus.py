"""Those remedies of docs/runbook.md for which a bus is needed, and the one that needs a PostgreSQL."""

from __future__ import annotations

import pytest
from azure.servicebus import ServiceBusClient

from tests.alerts.channels import Webhook
from tests.faults.postgres import PostgresServer
from tests.faults.standins import SUBSCRIPTION
from tests.runbook.conftest import Begin
from tests.runbook.oncall import LEFT_ALONE, keep_copy, only_the_drain, printed, put_back, trigger

ALERTS = "instore_alerts"


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


@pytest.mark.remedy("A task failed", "Service Bus refused the key", "no active topic", "auto-forwarding on")
def test_a_task_failed_of_the_bus_s_subscription_and_then_of_its_key(begin: Begin) -> None:
    world, judge = begin(1203, use_topic=True)
    world.publish(world.source.take(30))
    judge.fault_happened()
    world.settings["subscription"] = "orderprocesing"
    told = dict(only_the_drain(world).tries)["drain_topic"]
    assert (told.fatal, "has no active topic" in told.error) == (True, True)
    del world.settings["subscription"]
    world.settings["topic"] = "forwards"
    told = dict(only_the_drain(world).tries)["drain_topic"]
    assert (told.fatal, "auto-forwarding on" in told.error) == (True, True)
    world.settings["topic"] = world.topic
    wrong = world.sandbox.connection_string.replace("SharedAccessKey=", "SharedAccessKey=another")
    world.connections["instore_service_bus"] = {"conn_type": "azure_service_bus", "schema": wrong}
    told = dict(only_the_drain(world).tries)["drain_topic"]
    assert (told.fatal, "Service Bus refused the key" in told.error) == (True, True)

    del world.connections["instore_service_bus"]
    assert trigger(world).green
    judge.check(at_least=20, deliveries=0, recovered=True)


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


@pytest.mark.remedy("The bus was not drained", "1", "2")
def test_the_bus_was_not_drained_by_two_runs_and_then_could_not_be_asked(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1240, use_topic=True, drain_max_messages=20)
    world.connections[ALERTS] = {"conn_type": "generic", "password": webhook.url}
    world.publish(world.source.take(50))
    judge.fault_happened()
    first, second = world.run(), trigger(world)
    assert first.report is not None
    assert second.report is not None
    assert (first.report["drain"], first.report["not_drained"], first.report["alerts"]) == ("count", 30, [])
    assert (second.report["not_drained"], webhook.titles) == (10, ["The bus was not drained"])
    assert trigger(world).green
    assert webhook.titles[1:] == ["Recovered"]

    world.sandbox.bus.set_faults(refuse_peeks=1)
    world.publish(world.source.take(5))
    assert trigger(world).green
    world.sandbox.bus.set_faults()
    assert trigger(world).green
    assert webhook.titles[2:] == ["The bus was not drained", "Recovered"]
    judge.check(at_least=30, deliveries=0, recovered=True)


@pytest.mark.remedy("Deferred messages on the bus", "1", "2")
def test_deferred_messages_on_the_bus_are_redriven(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1242, use_topic=True)
    world.connections[ALERTS] = {"conn_type": "generic", "password": webhook.url}
    world.publish(world.source.take(20))
    world.hang_up()
    judge.fault_happened()
    with (
        ServiceBusClient.from_connection_string(world.sandbox.connection_string) as client,
        client.get_subscription_receiver(world.topic, SUBSCRIPTION) as receiver,
    ):
        for message in receiver.receive_messages(5, max_wait_time=5):
            receiver.defer_message(message)
    dry = trigger(world, dry_run=True)
    assert dry.report is not None
    assert (dry.report["received"], dry.report["deferred"]) == (15, 5)
    done = world.run()
    assert done.report is not None
    assert (done.report["received"], done.report["deferred"]) == (15, 5)
    assert webhook.titles == ["Deferred messages on the bus"]

    assert printed(world, "dead-letters", "redrive", "--deferred", "--dry-run")["counts"] == {"landed": 5}
    assert printed(world, "dead-letters", "redrive", "--deferred")["counts"] == {"landed": 5}
    assert trigger(world).green
    assert webhook.titles[1:] == ["Recovered"]
    judge.check(at_least=12, deliveries=1, recovered=True)
