"""Runs a case through the DAG's own tasks, against the stand-ins, and writes down what anybody can see of it.

Each task runs as the fault suite runs it: its real function in a process of its own, tried as often as the DAG says,
with the real SDK on a socket, real HTTP and a real ledger. A run that ends red is followed by the DAG's own failure
callback. Every hourly run after the first has its clock an hour later, but where the case has messages: the broker's
clock stays, and locks would seem to have run out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusSubQueue
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageHeader

from sandbox.profile_store import ProfileStoreFaults, ProfileStoreStandIn
from tests.alerts.channels import Webhook
from tests.cases.case import MESSAGES, Case, delivered_name
from tests.faults.standins import SUBSCRIPTION, Sandbox, StandIn
from tests.faults.world import RunDone, World, _forks
from tests.instore.sources.encoded import APPLICATION, data, map_of, section, send_encoded

HOUR = 3600
FILE_AGE = 600
"""Seconds since a delivered file was changed last, where the case does not say it: nobody writes it any more."""
ANYBODY = "m{card}@example.com"
"""Whoever has a card that the case says nothing of is a member with this email."""
FASTER = {"drain_receivers": 2, "drain_wait": 0.3, "verify_after": 1, "breaker_seconds": 0.2, "claim_wait": 5}
"""Settings that a case does not set are the product's own, but for these waits, which only cost time."""
STORE = "profile_store"
"""The destination whose deliveries are looked at."""
SHOWN = 6
"""So many rows of a table, or kinds of events, are shown to a person."""
FIELDS = {
    "runs": (
        "run", "state", "failed", "why", "received", "orders", "duplicates", "corrections", "quarantined", "sent",
        "unmatched", "suppressed", "rejected", "carried_over", "report",
    ),
    "events": ("run", "order", "id", "type", "total", "lines", "codes", "empty_lines", "email", "time", "store"),
    "orders": ("order", "store", "type", "status", "reason", "email", "card"),
    "quarantine": ("source", "reference", "reason", "detail", "raw"),
    "files": ("path", "state", "detail", "orders", "bad_rows"),
    "bus": ("active", "locked", "dead_lettered"),
    "dead_letters": ("reason", "detail"),
    "alerts": ("run", "cause", "title", "text"),
}  # fmt: skip
"""The tables of what came out and their fields."""
Tables = dict[str, list[dict[str, Any]]]


class FreshStore(ProfileStoreStandIn):
    """A Profile Store of one case: an order number has the same event id in all cases, and would be found shown."""

    def state(self) -> dict[str, Any]:
        return self.store.totals()


class CaseSandbox(Sandbox):
    """The fault suite's stand-ins, without members of their own and with dead-lettering on expiration.

    ``store`` is there while :meth:`fresh_store` is entered.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        members = folder / "members.csv"
        members.write_text(members.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
        config = json.loads((folder / "Config.json").read_text())
        for each in config["UserConfig"]["Namespaces"][0]["Topics"]:
            for subscription in each["Subscriptions"]:
                subscription["Properties"] = {**subscription["Properties"], "DeadLetteringOnMessageExpiration": True}
        (folder / "Config.json").write_text(json.dumps(config))

    @property
    def all(self) -> tuple[StandIn, ...]:
        return self.bus, self.loyalty

    @contextlib.contextmanager
    def fresh_store(self, knobs: Mapping[str, Any]) -> Iterator[None]:
        with FreshStore(self.keys.profile_store_key, faults=ProfileStoreFaults.model_validate(knobs)) as store:
            self.store = store
            yield


def run_case(sandbox: CaseSandbox, case: Case, folder: Path, index: int) -> Tables:
    """Run every delivery of the case and return what came out, see :data:`FIELDS`.

    :param folder: for ledger, extracts and logs; must be new.
    :param index: of the topic; each case has its own.
    """
    with sandbox.fresh_store(case.stand_ins.get("profile_store", {})):
        return _run_all(sandbox, case, World(sandbox, folder, seed=0, index=index, name=f"case{index}"))


def _run_all(sandbox: CaseSandbox, case: Case, world: World) -> Tables:
    world.settings = {"topic": world.topic, **FASTER}
    for name, value in case.settings.items():
        world.settings[name.removeprefix("INSTORE_").lower()] = value
    sandbox.loyalty.set_faults(**{"anybody": ANYBODY, **case.stand_ins.get("loyalty", {})})
    tables: Tables = {name: [] for name in FIELDS}
    with Webhook().running() as webhook:
        world.connections["instore_alerts"] = {"conn_type": "generic", "password": webhook.url}
        world.connections["instore_loyalty"] = {
            "conn_type": "loyalty",
            "host": sandbox.loyalty.url,
            "password": sandbox.keys.loyalty_api_key,
            "extra": dict(case.loyalty_extra),
        }
        try:
            for number, names in enumerate(case.deliveries, 1):
                _deliver(world, case, number, names)
                tables["runs"].append(_run_row(number, _run(world, case, number)))
                seen = len(tables["events"])
                events = sandbox.events(world.first_event)
                tables["events"] += [_event_row(number, each["event"]) for each in events[seen:]]
                told = webhook.told[len(tables["alerts"]) :]
                tables["alerts"] += [_alert_row(number, each) for each in told]
        finally:
            world.hang_up()
            sandbox.calm()
    _read_ledger(Path(world.ledger["host"]), tables)
    counts = sandbox.subscription(world.topic)
    tables["bus"] = [{name: counts[name] for name in FIELDS["bus"]}]
    if counts["dead_lettered"]:
        tables["dead_letters"] = _dead_letters(world)
    return tables


def _deliver(world: World, case: Case, number: int, names: Iterable[str]) -> None:
    bus, ages = case.stand_ins.get("bus", {}), case.stand_ins.get("files", {}).get("age", {})
    for name in names:
        path = case.folder / name
        if name.endswith(MESSAGES):
            _publish(world, path, bus)
            continue
        to = world.extracts / delivered_name(name)
        shutil.copyfile(path, to)
        changed = time.time() + _hours_on(case, number) * HOUR - ages.get(name, FILE_AGE)
        os.utime(to, (changed, changed))
    if wait := bus.get("wait", 0):
        time.sleep(wait)


def _publish(world: World, path: Path, bus: Mapping[str, Any]) -> None:
    body, lives, copies = path.read_bytes(), bus.get("time_to_live"), bus.get("copies", 1)
    header = AmqpMessageHeader(time_to_live=int(lives * 1000)) if lives else None
    # An AMQP decimal128, which the SDK writes and cannot read, or any bytes.
    given = bus.get("properties", {})
    properties = {
        name: Decimal(value["decimal"]) if isinstance(value, dict) and "decimal" in value else value
        for name, value in given.items()
    }
    raw = {name: bytes.fromhex(value["encoded"]) for name, value in given.items() if "encoded" in str(value)}
    more: dict[str, Any] = {"header": header, "application_properties": properties or None}
    with (
        ServiceBusClient.from_connection_string(world.sandbox.connection_string) as client,
        client.get_topic_sender(world.topic) as sender,
    ):
        for at in range(copies):
            # Copies are as many orders: T00 becomes T00, T01 and so on.
            text = body.replace(b"00", f"{at:02d}".encode(), 1) if copies > 1 else body
            message: Any
            if raw:
                send_encoded(sender, section(APPLICATION, map_of(raw)) + data(text))
                continue
            if path.suffix == ".value":
                message = AmqpAnnotatedMessage(value_body=json.loads(text), **more)
            elif path.suffix == ".sequence":
                message = AmqpAnnotatedMessage(sequence_body=json.loads(text), **more)
            else:
                message = AmqpAnnotatedMessage(data_body=text, **more)
            sender.send_messages(message)


def _hours_on(case: Case, number: int) -> int:
    return 0 if case.has_messages else number - 1


def _run(world: World, case: Case, number: int) -> RunDone:
    clock = {"clock": {"seconds": _hours_on(case, number) * HOUR}} if _hours_on(case, number) else {}
    done = world.run(f"scheduled__{number}", **clock)
    if not done.green:
        # Airflow calls it for every red run; the DAG tells there what the report could not.
        called = _forks.Process(target=_call_back, args=(world.environment(), done.run_id, str(world.logs)))
        called.start()
        called.join(60)
        said = (world.logs / "callback.log").read_text()[-500:]
        assert called.exitcode == 0, f"the failure callback ended with {called.exitcode}: {said}"
    return done


def _call_back(environment: Mapping[str, str], run_id: str, logs: str) -> None:
    """In a process of its own: the DAG's failure callback."""
    with (Path(logs) / "callback.log").open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        os.environ.update(environment)
        from include.instore_airflow import alerting

        dag_run = SimpleNamespace(
            dag_id="instore_orders",
            run_id=run_id,
            run_type="scheduled",
            data_interval_start=None,
            data_interval_end=None,
            clear_number=0,
            conf=None,
        )
        dag = SimpleNamespace(dag_id=dag_run.dag_id)
        alerting.run_failed({"dag": dag, "dag_run": dag_run, "run_id": run_id, "reason": "task_failure"})


def _run_row(number: int, done: RunDone) -> dict[str, Any]:
    report = done.report or {}
    failed = sorted({key.removeprefix("batch.") for key, state in done.states.items() if state == "failed"})
    # Of each task that failed for good, its last sentence; report_run's is what it reports.
    last = {key: each.error for key, each in done.tries if key != "report_run" and done.states[key] == "failed"}
    row = {name: report.get(name) for name in FIELDS["runs"]}
    return row | {
        "run": number,
        "state": "green" if done.green else "red",
        "failed": ", ".join(failed),
        "report": json.dumps(report),
        "why": "; ".join([*dict.fromkeys(last.values()), *report.get("red", ())]),
    }


def _event_row(number: int, event: Mapping[str, Any]) -> dict[str, Any]:
    payload = event.get("payload") or {}
    lines = payload.get("lines") or []
    codes = [str(line.get("productCode") or "") for line in lines]
    return {
        "run": number,
        "order": payload.get("orderNumber"),
        "id": event.get("trackId"),
        "type": event.get("eventType"),
        "total": payload.get("total"),
        "lines": len(lines),
        "codes": ",".join(codes),
        "empty_lines": sum(not code for code in codes),
        "email": (event.get("user") or {}).get("email"),
        "time": event.get("eventTime"),
        "store": payload.get("storeId"),
        "payload": json.dumps(payload),
    }


def _alert_row(number: int, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"run": number, "cause": "", "title": told["title"], "text": told["message"]}


def _read_ledger(path: Path, tables: Tables) -> None:
    if not path.exists():  # no task came so far
        return
    with contextlib.closing(sqlite3.connect(path)) as ledger:
        ledger.row_factory = sqlite3.Row

        def rows(table: str) -> list[dict[str, Any]]:
            if not ledger.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                return []
            return [dict(row) for row in ledger.execute(f"SELECT * FROM {table}")]

        names = {"order": "order_number", "store": "store_id", "type": "order_type", "card": "loyalty_card"}
        latest = {row["key"]: row for row in rows("deliveries") if row["is_latest"] and row["destination"] == STORE}
        for row in rows("orders"):
            # Once there is a delivery, it says where the order is; before, the search for its customer does.
            delivery = latest.get(row["key"])
            row |= {name: delivery[name] for name in ("status", "reason")} if delivery else {}
            tables["orders"].append({each: row[names.get(each, each)] for each in FIELDS["orders"]})
        tables["files"] = [{each: row[each] for each in FIELDS["files"]} for row in rows("extracts")]
        tables["quarantine"] = [
            {**{each: row[each] for each in FIELDS["quarantine"]}, "raw": bytes(row["raw"]).decode(errors="replace")}
            for row in rows("quarantine")
        ]
        causes = {row["text"].strip(): row["cause"] for row in rows("alerts")}
    for alert in tables["alerts"]:
        alert["cause"] = causes.get(alert["text"].strip(), "")


def _dead_letters(world: World) -> list[dict[str, Any]]:
    import include.instore.sources.decoding  # noqa: F401  the SDK's own decoder raises at one that it cannot decode

    with (
        ServiceBusClient.from_connection_string(world.sandbox.connection_string) as client,
        client.get_subscription_receiver(
            world.topic, SUBSCRIPTION, sub_queue=ServiceBusSubQueue.DEAD_LETTER
        ) as receiver,
    ):
        found = receiver.peek_messages(max_message_count=500)
    return [{"reason": each.dead_letter_reason, "detail": each.dead_letter_error_description} for each in found]


def in_words(case: Case, tables: Tables) -> str:
    """What came out, in one line; more of it where a person must judge."""
    most = 90 if case.checks else 400

    def counted(table: str, name: str) -> str:
        counts = Counter(str(row[name]) for row in tables[table])
        return ", ".join(f"{each} {count}" for each, count in sorted(counts.items())) or "none"

    runs = [row["state"] + (f" ({cut(row['why'], most)})" if row["why"] else "") for row in tables["runs"]]
    received = sum(row["received"] or 0 for row in tables["runs"])
    parts = [
        f"received {received}",
        f"orders {len(tables['orders'])}: {counted('orders', 'status')}",
        f"events {len(tables['events'])}",
        f"runs: {', '.join(runs)}",
        f"alerts: {counted('alerts', 'cause')}",
    ]
    if tables["quarantine"]:
        parts.append(f"quarantine: {counted('quarantine', 'reason')}")
    if tables["dead_letters"]:
        parts.append(f"dead letters: {counted('dead_letters', 'reason')}")
    if waits := sum(row["active"] + row["locked"] for row in tables["bus"]):
        parts.append(f"still on the bus {waits}")
    if waiting := [row["path"] for row in tables["files"] if row["state"] != "loaded"]:
        parts.append(f"files not loaded: {', '.join(waiting)}")
    if not case.checks:
        kinds = Counter(_kind_of(event) for event in tables["events"])
        some = [f"{kind} ×{count}" for kind, count in sorted(kinds.items(), key=lambda each: each[1])[:SHOWN]]
        more = [f"and {len(kinds) - SHOWN} kinds more"] if len(kinds) > SHOWN else []
        parts.append(f"events by kind, the rarest first: {', '.join([*some, *more]) or 'none'}")
        parts += [f"alert: {cut(alert['text'].partition(chr(10))[0], 200)}" for alert in tables["alerts"][:SHOWN]]
        parts += [
            f"set aside: {row['reference']}, {row['detail']}: {cut(row['raw'], 80)}"
            for row in tables["quarantine"][:SHOWN]
        ]
    if case.settings:
        parts.append(f"settings: {', '.join(case.settings)}")
    return "; ".join(parts)


def _kind_of(event: Mapping[str, Any]) -> str:
    """Events alike but for the numbers in them are of one kind."""
    order, email = (re.sub(r"\d+", "0", str(event[name])) for name in ("order", "email"))
    return f"{order} {event['type']} {event['total']} of {event['lines']} lines at {event['time']} for {email}"


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


__all__ = ["FIELDS", "CaseSandbox", "Tables", "cut", "in_words", "run_case"]
