"""The remedies of docs/runbook.md, tried: what breaks is broken, each step is done as written, the judge looks.

What decides is what the Profile Store has and what the bus holds, never the pipeline's word (tests/faults/judge.py).
Those for which a bus is needed are in test_remedies_on_the_bus.py and test_remedies_for_messages.py.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.channels import Webhook
from tests.faults.judge import Judge
from tests.faults.postgres import PostgresServer
from tests.faults.source import Order, write_extract
from tests.faults.world import Killer, RunDone, World
from tests.runbook.conftest import Begin
from tests.runbook.oncall import (
    HOUR,
    clear,
    clear_failed,
    failures,
    keep_copy,
    printed,
    put_back,
    status,
    trigger,
)

SCHEDULED = {"run_type": "scheduled"}
TEN_MINUTES_LATER, AN_HOUR_LATER = {"seconds": 600.0}, {"seconds": 3700.0}
ALERTS = "instore_alerts"


def channel(url: str) -> dict[str, Any]:
    return {"conn_type": "generic", "password": url}


# The numbers do not add up


def _until_the_look_ups(world: World, run: dict[str, str]) -> list[Any]:
    """A run up to the moment before its events leave; its batches."""
    for task in ("load_extracts", "plan_batches"):
        planned = world.step(task, run).value
    return [world.step("look_up_customers", run, batch=batch).value for batch in planned]


@pytest.mark.remedy("The numbers do not add up", "1", "2", "4", "6", "7", "8")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_numbers_do_not_add_up_after_a_backup_from_the_middle_of_a_run_is_restored(
    begin: Begin, database: str, request: pytest.FixtureRequest
) -> None:
    server: PostgresServer | None = request.getfixturevalue("postgres") if database == "postgresql" else None
    world, judge = begin(1101, **({"ledger": server.ledger()} if server else {}))
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    run = {"run_id": "scheduled__in_the_middle", **SCHEDULED}
    batches = _until_the_look_ups(world, run)
    backup = keep_copy(world, server)
    sent_by_it = sum(world.step("send_events", run, batch=batch).value["sent"] for batch in batches)
    assert world.step("report_run", run).state == "success"
    world.extract("2017/06/07/orders.csv", world.source.take(40))
    world.recover()
    sent = judge.look().delivered
    put_back(world, backup, server)
    world.extract("2017/06/08/orders.csv", world.source.take(40))
    judge.fault_happened()

    keep_copy(world, server)
    world.settings["enable_track_events"] = False
    assert trigger(world).green
    assert judge.look().delivered == sent
    counts = printed(world, "reconcile", "--dry-run")["counts"]
    assert (counts["held"], counts["sent"]) == (sum(each["orders"] for each in batches), len(sent) - sent_by_it)
    counts = printed(world, "reconcile", claim_minutes=0.0001)["counts"]
    assert (counts["held"], counts["sent"]) == (0, len(sent))
    world.settings |= {"enable_track_events": True, "claim_minutes": 0.0001}
    world.recover()
    judge.check(at_least=90, recovered=True)


# The run failed without a report


@pytest.mark.remedy("The run failed without a report", "1", "2")
def test_the_run_failed_without_a_report_and_the_ledger_s_folder_is_back(begin: Begin, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    world, judge = begin(1102, ledger={"conn_type": "sqlite", "host": str(volume / "ledger.db")})
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    world.recover()
    away = volume.rename(tmp_path / "not mounted")
    world.extract("2017/06/06/orders.csv", world.source.take(30))
    judge.fault_happened()
    done = world.run(tries=1)
    assert set(done.states.values()) == {"failed"}
    assert all("The ledger (connection instore_ledger) failed" in each.error for _, each in done.tries)

    away.rename(volume)
    assert trigger(world).green
    judge.check(at_least=40, recovered=True)


def _report_killed(begin: Begin, seed: int, **settings: Any) -> tuple[World, Any, RunDone]:
    world, judge = begin(seed, **settings)
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    judge.fault_happened()
    done = world.run(killer=Killer({"report_run": ["report.released:1"]}), **HOUR)
    assert (done.kills, done.report) == (1, None)
    return world, judge, done


@pytest.mark.remedy("The run failed without a report", "2")
def test_the_run_failed_without_a_report_and_its_report_is_cleared_alone(begin: Begin) -> None:
    world, judge, done = _report_killed(begin, 1103)
    again = clear_failed(world, done)
    assert again.green
    assert again.report is not None
    assert (again.report["received"], again.report["sent"]) == (40, len(judge.look().delivered))
    judge.check(at_least=25)


@pytest.mark.remedy("The run failed without a report", "2")
def test_the_run_failed_without_a_report_which_is_cleared_after_the_next_hour_went_on(begin: Begin) -> None:
    """Somebody tidies up in the morning; what the run had left was planned by the next one."""
    world, judge, done = _report_killed(begin, 1104, enable_track_events=False)
    world.settings["enable_track_events"] = True
    world.recover()
    again = clear_failed(world, done)
    assert again.report is not None
    assert again.report["red"] == []
    judge.check(at_least=25, recovered=True)


# A task failed


@pytest.mark.remedy("A task failed", "Setting INSTORE_… is wrong or unknown")
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("bulk_events", "101", "Setting INSTORE_BULK_EVENTS is wrong"),
        ("scop", "Default", "Setting INSTORE_SCOP is unknown; did you mean INSTORE_SCOPE?"),
    ],
)
def test_a_task_failed_of_a_setting(begin: Begin, name: str, value: str, told: str) -> None:
    world, judge = begin(1110)
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    judge.fault_happened()
    world.settings[name] = value
    done = world.run(tries=1, **HOUR)
    assert len(failures(done)) == 3
    assert all(told in error for error in failures(done).values())

    del world.settings[name]
    assert clear_failed(world, done).green
    judge.check(at_least=20, recovered=True)


MISSING = {
    "instore_ledger": "Sqlite with a path as host, or Postgres",
    "instore_extracts": "File (path), Azure Blob Storage or SFTP, with the folder as path",
    "instore_loyalty": "Loyalty, with the provider's URL and key",
    "instore_profile_store": "Profile Store, with the Tracking API's URL and key",
}


@pytest.mark.remedy("A task failed", "Connection … is missing")
@pytest.mark.parametrize("connection", MISSING)
def test_a_task_failed_of_a_missing_connection(begin: Begin, connection: str) -> None:
    world, judge = begin(1111)
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    judge.fault_happened()
    world.connections[connection] = None
    done = world.run(tries=1, **HOUR)
    sentence = f"Connection {connection} is missing; create it under Admin, Connections, as {MISSING[connection]}."
    assert set(failures(done).values()) == {sentence}

    del world.connections[connection]
    clear_failed(world, done)
    world.recover()  # what the cleared task made ready
    judge.check(at_least=20, recovered=True)


@pytest.mark.remedy("A task failed", "instore_loyalty", "instore_profile_store")
@pytest.mark.parametrize("service", ["instore_loyalty", "instore_profile_store"])
def test_a_task_failed_of_a_wrong_key(begin: Begin, service: str) -> None:
    world, judge = begin(1112)
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    judge.fault_happened()
    right = json.loads(world.environment()[f"AIRFLOW_CONN_{service.upper()}"])
    world.connections[service] = {**right, "password": "another"}
    done = world.run(tries=1, **HOUR)
    (error,) = failures(done).values()
    assert service in error
    assert "password" in error

    del world.connections[service]
    cleared = clear_failed(world, done)
    assert cleared.green
    world.recover(cleared)  # whose look-ups were red has its events sent by the next hour
    assert len(world.runs) == (2 if service == "instore_profile_store" else 3)
    judge.check(at_least=25, recovered=True)


@pytest.mark.remedy("A task failed", "a path or instore_extracts")
def test_a_task_failed_of_a_wrong_path(begin: Begin) -> None:
    world, judge = begin(1113)
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    judge.fault_happened()
    world.connections["instore_extracts"] = {"conn_type": "fs", "extra": {"path": str(world.folder / "extract")}}
    done = world.run(tries=1, **HOUR)
    assert list(failures(done)) == ["load_extracts"]
    assert "The extracts folder of connection instore_extracts does not exist" in failures(done)["load_extracts"]

    del world.connections["instore_extracts"]
    assert clear_failed(world, done).green
    world.recover()
    judge.check(at_least=20, recovered=True)


@pytest.mark.remedy("A task failed", "orders of the window are held by another run")
def test_a_task_failed_never_of_orders_held_by_another_run_which_are_sent_when_it_is_cleared(begin: Begin) -> None:
    world, judge = begin(1114, claim_wait=0)
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    hourly = {"run_id": "scheduled__hourly", **SCHEDULED}
    _until_the_look_ups(world, hourly)
    judge.fault_happened()
    window = {"window_start": "2017-06-01", "window_end": "2017-07-01"}
    done = world.run("manual__window", run_type="manual", params=window)
    assert done.green
    assert done.report is not None
    assert done.report["claimed"] == 0
    logs = [each.read_text() for each in world.logs.glob("*-plan_batches.log")]
    assert any("orders of the window are held by another run" in each for each in logs)

    world.step("report_run", hourly)  # the other run ends, without having sent
    cleared = clear(world, done, run_type="manual", params=window)
    assert cleared.green
    world.recover(cleared)
    judge.check(at_least=25, recovered=True)


# The run is not done in time


def _sender_dies(world: World, *, report: bool) -> RunDone:
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    tasks = ("drain_topic", "load_extracts", "plan_batches", "look_up_customers", "send_events")
    point = Killer({"send_events": ["delivery.after_sending:2"]})
    return world.run(killer=point, tries=1, only=(*tasks, *(["report_run"] if report else [])))


@pytest.mark.remedy("The run is not done in time", "2")
def test_the_run_is_not_done_in_time_and_its_orders_go_to_the_next_one_at_once_where_it_still_reported(
    begin: Begin,
) -> None:
    world, judge = begin(1120)
    assert _sender_dies(world, report=True).kills == 1
    judge.fault_happened()
    done = trigger(world)
    assert done.green
    world.recover(done)
    judge.check(at_least=25, recovered=True)


@pytest.mark.remedy("The run is not done in time", "2")
def test_the_run_is_not_done_in_time_and_its_orders_are_taken_over_after_claim_minutes(begin: Begin) -> None:
    world, judge = begin(1121, claim_minutes=60)
    assert _sender_dies(world, report=False).kills == 1
    judge.fault_happened()
    early = trigger(world)
    assert early.report is not None
    assert early.report["claimed"] == 0
    done = world.run(clock=AN_HOUR_LATER)
    assert done.green
    world.recover(done)
    judge.check(at_least=25, recovered=True)


# Too many records were set aside


@pytest.mark.remedy("Too many records were set aside", "1", "2", "4", "6")
def test_too_many_records_were_set_aside_and_are_published_again_corrected(begin: Begin) -> None:
    world, judge = begin(1131)
    good, wrong = world.source.take(10, only="sent"), world.source.take(5, only="sent")
    world.extract("2017/06/05/orders.csv", good)
    path = write_extract(world.extracts, "2017/06/05/wrong.csv", wrong)
    path.write_bytes(path.read_bytes().replace(b",USD,", b",DOLLARS,"))
    done = world.run()
    assert not done.green
    rows = printed(world, "quarantine", "list", "--run", done.run_id)
    assert [row["reason"] for row in rows] == ["bad_value"] * 5
    judge.fault_happened()

    world.extract("2017/06/06/corrected.csv", wrong)
    assert world.run().green
    ids = [row["id"][:12] for row in rows]
    assert printed(world, "quarantine", "discard", *ids)["counts"] == {"discarded": 5}
    assert printed(world, "quarantine", "list") == []
    assert printed(world, "quarantine", "redrive", "--all")["counts"] == {}
    judge.check(at_least=15)


def _touch(path: Path) -> None:
    """Give a file a new modified time."""
    moment = path.stat().st_mtime + 60
    os.utime(path, (moment, moment))


def _with_heading(world: World, name: str, orders: list[Order], ours: str, theirs: str) -> Path:
    """An extract in which a column of ours has the ERP's own name."""
    path = world.extract(name, orders)
    head, rows = path.read_bytes().split(b"\n", 1)
    path.write_bytes(head.replace(ours.encode(), theirs.encode()) + b"\n" + rows)
    return path


@pytest.mark.remedy("Too many records were set aside", "3")
def test_too_many_records_were_set_aside_as_too_large_in_an_extract_which_is_loaded_again(begin: Begin) -> None:
    world, judge = begin(1134, max_message_bytes=1024)
    orders = [order.with_description("x" * 600) for order in world.source.take(20)]
    path = world.extract("2017/06/05/orders.csv", orders)
    judge.fault_happened()
    assert not world.run().green

    del world.settings["max_message_bytes"]
    assert list(printed(world, "quarantine", "redrive", "--all")["counts"]) == ["impossible"]
    _touch(path)
    assert world.run().green
    judge.check(at_least=12, recovered=True)


@pytest.mark.remedy("Too many records were set aside", "5")
@pytest.mark.parametrize("how", ["the red run is cleared", "a window"])
def test_too_many_records_were_set_aside_as_rejected_and_the_setting_is_corrected(begin: Begin, how: str) -> None:
    world, judge = begin(1133)
    orders = world.source.take(30, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.sandbox.store.set_faults(refuse=[order.number for order in orders[:10]])
    done = world.run(**HOUR)
    assert not done.green
    assert done.report is not None
    assert list(done.report["rejected_by_reason"].values()) == [10]
    judge.fault_happened()

    world.sandbox.store.set_faults()
    assert world.run().green
    assert len(judge.look().lost) == 10
    if how == "a window":
        assert trigger(world, window_start="2017-06-01", window_end="2017-07-01").green
    else:
        assert clear(world, done).green
    judge.check(at_least=30, recovered=True)


# Orders wait to be sent


@pytest.mark.remedy("Orders wait to be sent", "1")
@pytest.mark.parametrize("how", ["switched on", "one run with it"])
def test_orders_wait_to_be_sent_with_tracking_off(begin: Begin, webhook: Webhook, how: str) -> None:
    world, judge = begin(1140, enable_track_events=False, alert_oldest_unsent_minutes=0.0001)
    world.connections[ALERTS] = channel(webhook.url)
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    judge.fault_happened()
    assert status(world.run())["ready"] > 0
    assert webhook.titles == ["Orders wait to be sent"]
    assert "Tracking is switched off" in webhook.told[0]["message"]

    if how == "switched on":
        world.settings["enable_track_events"] = True
        assert world.run().green
    else:
        assert trigger(world, track_events="on").green
    assert webhook.titles[1:] == ["Recovered"]
    judge.check(at_least=20, recovered=True)


def _answers_are_lost(world: World) -> None:
    world.sandbox.store.set_faults(share=0.5, answers=["lost", "reset"], only=["POST "])


@pytest.mark.remedy("Orders wait to be sent", "3")
def test_orders_wait_to_be_sent_in_doubt_until_later_events_are_shown(begin: Begin) -> None:
    world, judge = begin(1141, bulk_events=40, verify_after=0.5)
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    world.sandbox.store.set_faults(share=1, answers=["reset"], only=["POST "])
    done = world.run(tries=1)
    world.sandbox.store.set_faults()
    assert status(done)["sending"] > 0
    judge.fault_happened()
    assert judge.look().lost
    world.extract("2017/06/06/orders.csv", world.source.take(20))
    done = world.run()
    assert "sending" not in status(done)
    judge.check(at_least=35, recovered=True)


def _held(begin: Begin, number: int, **settings: Any) -> tuple[World, Judge]:
    """A world of 40 orders, of which some are held."""
    world, judge = begin(number, bulk_events=5, verify_after=0.5, **settings)
    world.extract("2017/06/05/orders.csv", world.source.take(40))
    _answers_are_lost(world)
    done = world.run(tries=1)
    world.sandbox.store.set_faults()
    assert status(done)["held"] > 0
    assert "held for a person" in (done.report or {})["red"][-1]
    judge.fault_happened()
    assert judge.look().lost
    return world, judge


def _held_ids(world: World) -> list[str]:
    return [each["event_id"] for each in printed(world, "deliveries", "list")]


@pytest.mark.remedy("Events are held for a person to decide", "1")
@pytest.mark.parametrize("why", ["nobody can be asked", "hold"])
def test_events_are_held_for_a_person_to_decide_and_the_profile_store_is_asked_again(begin: Begin, why: str) -> None:
    if why == "hold":
        world, judge = _held(begin, 1142, on_ambiguous="hold")
        world.settings["on_ambiguous"] = "verify"
    else:

        def without_reading(*given: Any, **settings: Any) -> tuple[World, Judge]:
            world, judge = begin(*given, **settings)
            right = json.loads(world.environment()["AIRFLOW_CONN_INSTORE_PROFILE_STORE"])
            world.connections["instore_profile_store"] = {**right, "extra": {}}
            return world, judge

        world, judge = _held(without_reading, 1143)
        del world.connections["instore_profile_store"]
    printed(world, "deliveries", "settle", "--all", "--ask-again")
    world.extract("2017/06/06/orders.csv", world.source.take(20))
    world.recover()
    judge.check(at_least=35, recovered=True)


@pytest.mark.remedy("Events are held for a person to decide", "2", "3")
def test_events_are_held_for_a_person_to_decide_and_a_person_looks_for_them(begin: Begin, webhook: Webhook) -> None:
    def begin_told(*given: Any, **settings: Any) -> tuple[World, Judge]:
        world, judge = begin(*given, **settings)
        world.connections[ALERTS] = channel(webhook.url)
        return world, judge

    world, judge = _held(begin_told, 1144, on_ambiguous="hold")
    assert world.run().green
    assert "Events are held for a person to decide" in webhook.titles
    recovered = webhook.titles.count("Recovered")  # the failed task, and nothing else: this is not over
    assert recovered <= 1
    judge.look()
    taken = {event["trackId"] for event in judge.taken}
    held = _held_ids(world)
    shown = [each for each in held if each in taken]
    missing = [each for each in held if each not in taken]
    assert shown
    assert missing
    printed(world, "deliveries", "settle", "--sent", *shown)
    printed(world, "deliveries", "settle", "--send-again", *missing)
    world.recover()
    assert webhook.titles.count("Recovered") == recovered + 1
    judge.check(at_least=25, recovered=True)


# Records wait in quarantine, events were refused or truncated, many orders find no customer


@pytest.mark.remedy("Records wait in quarantine", "")
def test_records_wait_in_quarantine_until_they_are_given_up(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1150)
    world.connections[ALERTS] = channel(webhook.url)
    path = write_extract(world.extracts, "2017/06/05/wrong.csv", world.source.take(3))
    path.write_bytes(path.read_bytes().replace(b",USD,", b",DOLLARS,"))
    world.extract("2017/06/05/orders.csv", world.source.take(30))
    assert world.run().green  # 3 of 33, which are too few to say anything about the stream
    assert webhook.titles == ["Records wait in quarantine"]
    assert "3 bad_value: " in webhook.told[0]["message"]
    world.extract("2017/06/06/orders.csv", world.source.take(20))
    assert world.run().green
    assert webhook.titles[1:] == []
    assert printed(world, "quarantine", "discard", "--reason", "bad_value")["counts"] == {"discarded": 3}
    assert world.run().green
    assert webhook.titles[1:] == ["Recovered"]
    judge.check(at_least=40)


@pytest.mark.remedy("Events were refused", "1", "2")
def test_events_were_refused_and_are_sent_again_or_given_up(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1180)
    world.connections[ALERTS] = channel(webhook.url)
    orders = world.source.take(30, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    world.sandbox.store.set_faults(refuse=[order.number for order in orders[:2]])
    assert world.run().green
    assert webhook.titles == ["Events were refused"]
    again, never = (each["event_id"] for each in printed(world, "deliveries", "list", "--rejected"))
    world.sandbox.store.set_faults()
    printed(world, "deliveries", "settle", "--send-again", again)
    printed(world, "deliveries", "settle", "--give-up", never)
    assert world.run().green
    assert webhook.titles[1:] == ["Recovered"]
    assert len(judge.look().lost) == 1


@pytest.mark.remedy("Events were sent without their lines", "")
def test_events_were_sent_without_their_lines_until_the_setting_is_raised(begin: Begin, webhook: Webhook) -> None:
    world, _ = begin(1181, max_event_bytes=1024)
    world.connections[ALERTS] = channel(webhook.url)
    orders = [order.with_description("x" * 600) for order in world.source.take(20, only="sent")]
    world.extract("2017/06/05/orders.csv", orders[:10])
    assert world.run().green
    assert webhook.titles == ["Events were sent without their lines"]
    del world.settings["max_event_bytes"]
    world.extract("2017/06/06/orders.csv", orders[10:])
    assert world.run().green
    assert webhook.titles[1:] == ["Recovered"]


@pytest.mark.remedy("Many orders find no customer", "")
def test_many_orders_find_no_customer_until_the_connection_is_corrected(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1151)
    world.connections[ALERTS] = channel(webhook.url)
    right = json.loads(world.environment()["AIRFLOW_CONN_INSTORE_LOYALTY"])
    world.connections["instore_loyalty"] = {**right, "extra": {"email_path": "contact.email"}}
    world.extract("2017/06/05/orders.csv", [each for each in world.source.take(30, only="sent") if each.card])
    judge.fault_happened()
    done = world.run()
    assert done.report is not None
    assert list(done.report["unmatched_by_outcome"]) == ["no_email"]
    assert webhook.titles == ["Many orders find no customer"]

    del world.connections["instore_loyalty"]
    assert world.run(clock=AN_HOUR_LATER).green
    judge.check(at_least=20, recovered=True)


@pytest.mark.remedy("Many orders find no customer", "")
def test_many_orders_find_no_customer_until_the_heading_of_the_card_is_named(begin: Begin) -> None:
    world, judge = begin(1152)
    orders = [each for each in world.source.take(30, only="sent") if each.card]
    path = _with_heading(world, "2017/06/05/orders.csv", orders, "loyalty_card", "Karte")
    judge.fault_happened()
    done = world.run()
    assert done.report is not None
    assert list(done.report["unmatched_by_outcome"]) == ["no_customer_key"]

    world.settings["extract_columns"] = json.dumps({"Karte": "loyalty_card"})
    _touch(path)
    assert world.run().green
    judge.check(at_least=20, recovered=True)


# Cards get no answer


@pytest.mark.remedy("Cards get no answer", "1")
def test_cards_get_no_answer_until_the_test_button_has_told_which_path_is_wrong(
    begin: Begin, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instore_provider.hooks.loyalty import LoyaltyHook

    world, judge = begin(1171)
    world.connections[ALERTS] = channel(webhook.url)
    orders = [each for each in world.source.take(20, only="sent") if each.card][:3]
    right = json.loads(world.environment()["AIRFLOW_CONN_INSTORE_LOYALTY"])

    def pressed(**extra: str) -> str:
        connection = {**right, "extra": {**extra, "test_card": orders[0].card}}
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", json.dumps(connection))
        return str(LoyaltyHook("tested").test_connection()[1])

    world.connections["instore_loyalty"] = {**right, "extra": {"card_path": "number"}}
    world.extract("2017/06/05/orders.csv", orders)
    judge.fault_happened()
    done = world.run()
    assert done.report is not None
    assert (done.report["look_up_failed"], done.green) == (3, True)
    assert webhook.titles == ["Cards get no answer"]
    assert "'card_path'" in pressed(card_path="number")
    assert "finds the customer" in pressed()

    del world.connections["instore_loyalty"]
    assert world.run(clock=TEN_MINUTES_LATER).green
    assert judge.look().delivered == set()
    assert world.run(clock=AN_HOUR_LATER).green
    judge.check(at_least=3, recovered=True)


@pytest.mark.remedy("Cards get no answer", "2")
def test_cards_get_no_answer_and_are_asked_for_again_until_the_provider_answers(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1172)
    world.connections[ALERTS] = channel(webhook.url)
    orders = world.source.take(40, only="sent")
    card = next(each.card for each in orders if each.card)
    of_the_card = sum(each.card == card for each in orders)
    world.extract("2017/06/05/orders.csv", orders)
    world.sandbox.loyalty.set_faults(refuse=[card])
    judge.fault_happened()
    done = world.run()
    assert done.report is not None
    assert (done.report["look_up_failed"], done.report["sent"]) == (of_the_card, 40 - of_the_card)
    assert (done.green, webhook.titles) == (True, ["Cards get no answer"])

    world.sandbox.loyalty.set_faults()
    assert world.run(clock=AN_HOUR_LATER).green
    assert webhook.titles == ["Cards get no answer", "Recovered"]
    judge.check(at_least=40, recovered=True)


# A file was not read to its end


def _cut(world: World) -> tuple[Path, bytes]:
    """An extract of 40 orders whose last one lost its last line; its path, and what it should be."""
    orders = world.source.take(40, only="sent")
    last = next(each for each in reversed(orders) if len(each.lines) > 1)
    path = world.extract("2017/06/05/orders.csv", [*(each for each in orders if each is not last), last])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rstrip(b"\n").rindex(b"\n") + 1])
    return path, whole


@pytest.mark.remedy("A file was not read to its end", "1")
def test_a_file_was_not_read_to_its_end_and_is_exported_again(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1165)
    world.connections[ALERTS] = channel(webhook.url)
    path, whole = _cut(world)
    judge.fault_happened()
    done = world.run()
    assert not done.green
    assert done.report is not None
    assert (done.report["unread_files"], done.report["orders"]) == (1, 0)
    (file,) = printed(world, "extracts", "list")
    assert (file["path"], file["orders"], file["run"]) == ("2017/06/05/orders.csv", 39, done.run_id)
    assert world.run().green
    assert webhook.titles == ["A file was not read to its end"]  # it is not over

    path.write_bytes(whole)
    assert world.run().green
    assert webhook.titles[1:] == ["Recovered"]
    assert printed(world, "extracts", "list") == []
    judge.check(at_least=40, recovered=True)


@pytest.mark.remedy("A file was not read to its end", "2")
def test_a_file_was_not_read_to_its_end_for_its_headings_and_is_released(begin: Begin) -> None:
    world, judge = begin(1132)
    _with_heading(world, "2017/06/05/orders.csv", world.source.take(20), "order_total", "Summe")
    judge.fault_happened()
    assert not world.run().green
    (file,) = printed(world, "extracts", "list")
    assert "column order_total is missing" in file["detail"]

    world.settings["extract_columns"] = json.dumps({"Summe": "order_total"})
    assert printed(world, "extracts", "release", file["path"])["counts"] == {"released": 1}
    assert world.run().green
    judge.check(at_least=12, recovered=True)


@pytest.mark.remedy("A file was not read to its end", "3")
def test_a_file_was_not_read_to_its_end_and_what_is_before_the_fault_is_wanted(begin: Begin) -> None:
    world, judge = begin(1166)
    path, whole = _cut(world)
    world.run()
    assert printed(world, "extracts", "release", "2017/06/05/orders.csv")["counts"] == {"released": 1}
    done = world.run()
    assert done.report is not None
    assert (done.report["orders"], done.report["quarantined_by_reason"]) == (39, {"cut_order": 1})
    (row,) = printed(world, "quarantine", "list")
    assert printed(world, "quarantine", "redrive", "--all", "--dry-run")["counts"] == {"impossible": 1}
    assert printed(world, "quarantine", "redrive", row["id"], "--dry-run")["counts"] == {"landed": 1}
    assert len(judge.look().delivered) == 39

    path.write_bytes(whole)
    assert world.run().green
    assert printed(world, "quarantine", "discard", row["id"])["counts"] == {"discarded": 1}
    judge.check(at_least=40)


@pytest.mark.remedy("A file was not read to its end", "4")
def test_a_file_was_not_read_to_its_end_and_has_come_under_another_name(begin: Begin) -> None:
    world, judge = begin(1167)
    path, whole = _cut(world)
    assert not world.run().green
    path.with_name("again.csv").write_bytes(whole)
    assert printed(world, "extracts", "forget", "2017/06/05/orders.csv")["counts"] == {"forgotten": 1}
    done = world.run()
    assert done.green
    assert done.report is not None
    assert done.report["waiting_files"] == 0
    judge.check(at_least=40)


# Files are not read for hours


FOUR_HOURS_LATER = {"seconds": 4 * 3600.0}


@pytest.mark.remedy("Files are not read for hours", "1", "2", "3")
def test_files_are_not_read_for_hours_until_the_marker_comes_or_a_person_decides(
    begin: Begin, webhook: Webhook
) -> None:
    world, judge = begin(1186)
    world.connections[ALERTS] = channel(webhook.url)
    world.settings["extract_marker"] = ".done"
    paths = [world.extract(f"2017/06/0{day}/orders.csv", world.source.take(20)) for day in (5, 6)]
    unwanted = paths[0].with_name("again.csv")
    unwanted.write_bytes(paths[0].read_bytes())
    judge.fault_happened()
    assert world.run().green
    assert webhook.titles == []
    assert world.run(clock=FOUR_HOURS_LATER).green
    assert webhook.titles == ["Files are not read for hours"]
    assert "2017/06/05/orders.csv: its marker, .done, is not there" in webhook.told[0]["message"]
    assert len(printed(world, "extracts", "list")) == 3

    paths[0].with_name("orders.csv.done").touch()
    assert printed(world, "extracts", "release", "2017/06/06/orders.csv")["counts"] == {"released": 1}
    assert printed(world, "extracts", "forget", "2017/06/05/again.csv")["counts"] == {"forgotten": 1}
    assert world.run(clock=FOUR_HOURS_LATER).green
    assert webhook.titles[1:] == ["Recovered"]
    assert printed(world, "extracts", "list") == []
    judge.check(at_least=30, recovered=True)


# Orders with the key of another order


def _of_another_store(world: World, name: str, orders: list[Order]) -> Path:
    """The same numbers again, as the tills of another store print them."""
    path = write_extract(world.extracts, name, orders)
    path.write_bytes(path.read_bytes().replace(b",0404,", b",0500,"))
    return path


@pytest.mark.remedy("Orders with the key of another order", "1")
def test_orders_with_the_key_of_another_order_until_the_key_names_the_store(begin: Begin) -> None:
    world, judge = begin(1160)
    orders = world.source.take(20, only="sent")
    world.extract("2017/06/05/one.csv", orders)
    _of_another_store(world, "2017/06/06/other.csv", orders)
    done = world.run()
    assert not done.green
    assert done.report is not None
    assert (done.report["orders"], done.report["collisions"], done.report["sent"]) == (20, 20, 20)
    assert any(
        reason.startswith("collisions: 20 orders seem to have another order's key") for reason in done.report["red"]
    )
    rows = printed(world, "quarantine", "list", "--reason", "collision")
    assert {"INSTORE_ORDER_KEY with storeId would tell them apart" in row["detail"] for row in rows} == {True}

    world.settings["order_key"] = "store_id,order_number"
    refused = world.run()
    assert "ledger rekey" in "".join(failures(refused).values())
    assert printed(world, "ledger", "rekey", "--dry-run")["orders"] == 20
    assert printed(world, "ledger", "rekey")["collisions"] == 20
    assert printed(world, "quarantine", "redrive", "--reason", "collision")["counts"] == {"landed": 20}
    done = world.run()
    assert done.green
    assert len(judge.taken) == 0
    judge.look()
    assert len(judge.taken) == 40
    assert len({event["trackId"] for event in judge.taken}) == 40


@pytest.mark.remedy("Orders with the key of another order", "5")
def test_orders_with_the_key_of_another_order_that_are_right_as_they_came(begin: Begin) -> None:
    world, judge = begin(1163)
    orders = world.source.take(10, only="sent")
    world.extract("2017/06/05/one.csv", orders)
    _of_another_store(world, "2017/06/06/other.csv", orders)
    assert not world.run().green
    accept = ("quarantine", "accept-as", "new-order", "--reason", "collision")
    assert printed(world, *accept)["counts"] == {"accepted": 10}
    assert world.run().green
    judge.look()
    assert len({event["trackId"] for event in judge.taken}) == 20


@pytest.mark.remedy("Orders with the key of another order", "2", "3", "4")
def test_orders_with_the_key_of_another_order_as_its_rows_are_in_two_files(begin: Begin) -> None:
    world, judge = begin(1161)
    orders = [each for each in world.source.take(30, only="sent") if len(each.lines) > 1][:5]
    path = write_extract(world.extracts, "2017/06/05/orders.csv", orders)
    head, *rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + b"".join(rows[::2]))
    number = orders[-1].csv().split(b",")[0]
    rest = [each for each in rows[1::2] if each.split(b",")[0] != number]
    lost = next(each for each in rows[1::2] if each not in rest)
    path.with_name("the_rest.csv").write_bytes(head + b"".join(rest) + lost.replace(b",USD,", b",EUR,"))
    done = world.run()
    assert not done.green
    rows_there = printed(world, "quarantine", "list", "--reason", "split_order")
    assert len(rows_there) == 2
    assert {"its rows are in two places" in row["detail"] for row in rows_there} == {True}
    ids = [row["id"][:12] for row in rows_there]
    assert printed(world, "quarantine", "discard", *ids)["counts"] == {"discarded": len(ids)}
    judge.look()


@pytest.mark.remedy("Orders were corrected after they were sent", "")
def test_orders_were_corrected_after_they_were_sent(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1162)
    world.connections[ALERTS] = channel(webhook.url)
    orders = world.source.take(10, only="sent")
    world.extract("2017/06/05/orders.csv", orders)
    assert world.run().green
    path = write_extract(
        world.extracts, "2017/06/06/again.csv", [each.with_description("corrected") for each in orders]
    )
    _touch(path)
    done = world.run()
    assert done.green
    assert done.report is not None
    assert (done.report["corrections"], done.report["corrected_after_sent"], done.report["sent"]) == (10, 10, 0)
    assert webhook.titles == ["Orders were corrected after they were sent"]
    judge.check(at_least=10)
    assert printed(world, "orders", "resend", "--corrected")["counts"] == {"resent": 10}
    done = world.run()
    assert done.report is not None
    assert (done.report["resent"], webhook.titles[1:]) == (10, ["Recovered"])


# Lines of orders do not make their totals, orders have other fields


def _short(world: World) -> tuple[Path, bytes]:
    """An extract of 40 orders of which one in the middle and the last lost a line; its path, and what it should be."""
    orders = world.source.take(40, only="sent")
    long = sorted(orders, key=lambda each: len(each.lines) > 1)
    path = world.extract("2017/06/05/orders.csv", [*long[:20], long[-2], *long[20:-2], long[-1]])
    whole = path.read_bytes()
    middle = long[-2].csv()
    without = middle[: middle.rstrip(b"\n").rindex(b"\n") + 1]
    cut = whole.replace(middle, without)
    path.write_bytes(cut[: cut.rstrip(b"\n").rindex(b"\n") + 1])
    return path, whole


@pytest.mark.remedy("Lines of orders do not make their totals", "1")
def test_lines_of_orders_do_not_make_their_totals_and_the_file_comes_again(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1180, enable_track_events=False)
    world.connections[ALERTS] = channel(webhook.url)
    path, whole = _short(world)
    judge.fault_happened()
    done = world.run()
    assert done.green
    assert done.report is not None
    assert (done.report["orders"], done.report["lines_do_not_add_up"]) == (39, 1)
    assert "Lines of orders do not make their totals" in webhook.titles
    (row,) = printed(world, "quarantine", "list", "--reason", "cut_order")

    world.settings["enable_track_events"] = True
    path.write_bytes(whole)
    done = world.run()
    assert done.report is not None
    assert (done.report["orders"], done.report["corrections"]) == (1, 1)
    assert webhook.titles[-1] == "Recovered"
    assert printed(world, "quarantine", "discard", row["id"])["counts"] == {"discarded": 1}
    judge.check(at_least=40)


@pytest.mark.remedy("Lines of orders do not make their totals", "2", "3", "4")
def test_lines_of_orders_do_not_make_their_totals_and_they_are_right(begin: Begin, webhook: Webhook) -> None:
    world, _ = begin(1181, sums="refuse")
    world.connections[ALERTS] = channel(webhook.url)
    _short(world)
    done = world.run()
    assert done.report is not None
    assert done.report["quarantined_by_reason"] == {"cut_order": 1, "lines_do_not_add_up": 1}
    (cut,) = printed(world, "quarantine", "list", "--reason", "cut_order")

    world.settings["sums"] = "tell"
    redriven = printed(world, "quarantine", "redrive", "--reason", "lines_do_not_add_up")
    assert redriven["counts"] == {"landed": 1}
    world.settings["sums"] = "off"
    assert printed(world, "quarantine", "redrive", cut["id"])["counts"] == {"landed": 1}
    assert world.run().green
    assert webhook.titles.count("Lines of orders do not make their totals") == 1
    assert webhook.titles[-1] == "Recovered"


@pytest.mark.remedy("Orders have other fields than before", "")
def test_orders_have_other_fields_than_before(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1182)
    world.connections[ALERTS] = channel(webhook.url)
    world.extract("2017/06/05/orders.csv", world.source.take(20))
    path = world.extract("2017/06/06/orders.csv", world.source.take(20))
    path.write_bytes(b"".join(b"x," + line for line in path.read_bytes().splitlines(keepends=True)))
    judge.fault_happened()
    judge.extra = {"x"}
    assert world.run().green
    assert webhook.titles == ["Orders have other fields than before"]
    path.write_bytes(path.read_bytes() + b"\n")
    assert world.run().green
    assert webhook.titles[1:] == ["Recovered"]
    judge.check(at_least=20, recovered=True)


A_WEEK_LATER = {"seconds": 8 * 24 * 3600.0}


@pytest.mark.remedy("Orders of stores that never had any", "")
def test_orders_of_stores_that_never_had_any(begin: Begin, webhook: Webhook) -> None:
    world, judge = begin(1183)
    world.connections[ALERTS] = channel(webhook.url)
    world.extract("2017/06/05/orders.csv", world.source.take(20, only="sent"))
    assert world.run().green
    judge.fault_happened()
    (order,) = world.source.take(1, only="sent")
    world.extract("2017/06/13/orders.csv", [replace(order, store="0999")])
    assert world.run(clock=A_WEEK_LATER).green
    assert "Orders of stores that never had any" in webhook.titles
    world.run(clock=A_WEEK_LATER)
    assert webhook.titles[-1] == "Recovered"
    judge.check(at_least=21)


# A run is red and nobody was told


def _five_rows_are_no_orders(world: World) -> None:
    path = write_extract(world.extracts, "2017/06/05/wrong.csv", world.source.take(5))
    path.write_bytes(path.read_bytes().replace(b",USD,", b",DOLLARS,"))


@pytest.mark.remedy("A run is red and nobody was told", "")
@pytest.mark.parametrize("why", ["the channel refuses", "a typing error"])
def test_a_run_is_red_and_nobody_was_told_until_the_url_is_corrected(begin: Begin, webhook: Webhook, why: str) -> None:
    world, judge = begin(1160)
    world.connections[ALERTS] = channel(webhook.url if why == "the channel refuses" else "jsom://127.0.0.1/")
    webhook.answer = 500
    _five_rows_are_no_orders(world)
    world.extract("2017/06/05/orders.csv", world.source.take(10))
    done = world.run()
    assert not done.green
    assert done.report is not None
    assert (done.report["alerts"], done.report["alerts_failed"]) == ([], 1)
    told = {"the channel refuses": "did not take", "a typing error": "is not a URL that Apprise knows"}[why]
    assert f"URL 1 of connection instore_alerts {told}" in _log_of_the_last_report(world)

    webhook.answer = 200
    world.connections[ALERTS] = channel(webhook.url)
    assert world.run(clock=TEN_MINUTES_LATER).green
    assert webhook.titles == ["Recovered"]
    judge.check(at_least=6)


@pytest.mark.remedy("A run is red and nobody was told", "")
@pytest.mark.parametrize(("why", "told"), [("the channel refuses", 2), ("the connection is missing", 1)])
def test_a_run_is_red_and_nobody_was_told_which_a_later_run_does_while_it_lasts(
    begin: Begin, webhook: Webhook, why: str, told: int
) -> None:
    """Where there was no channel at all, nothing waits to be told."""
    world, _ = begin(1161)
    world.connections |= {"instore_extracts": None, ALERTS: None}
    if why == "the channel refuses":
        world.connections[ALERTS] = channel(webhook.url)
    webhook.answer = 500
    assert not world.run(tries=1).green
    if why == "the connection is missing":
        assert "Connection instore_alerts is missing" in _log_of_the_last_report(world)

    webhook.answer = 200
    world.connections[ALERTS] = channel(webhook.url)
    assert not world.run(tries=1, clock=TEN_MINUTES_LATER).green
    assert webhook.titles == ["Task load_extracts failed"] * told


def _log_of_the_last_report(world: World) -> str:
    return max(world.logs.glob("*-report_run.log")).read_text()
