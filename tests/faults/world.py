"""One pipeline with its bus, its services and its ledger; its runs as Airflow makes them, and the faults ordered."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusError

from sandbox.servicebus import connection_string
from tests.faults import step
from tests.faults.source import COLLISION, TWIN, Order, Source, stands_apart, write_extract
from tests.faults.standins import SUBSCRIPTION, Sandbox, topic
from tests.faults.totals import TOTALS, count_fault
from tests.instore.sources.encoded import send_encoded

TRIES = 3
"""``retries=2`` of the DAG; report_run has one."""
STEP_SECONDS = 120

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(step.WARM)


class Timeline:
    """What happened, in the order in which it happened; printed with the seed when a test fails."""

    def __init__(self, seed: object) -> None:
        self._seed = seed
        self._begun = time.monotonic()
        self._lines: list[str] = []

    def note(self, text: str) -> None:
        self._lines.append(f"{time.monotonic() - self._begun:8.2f} s  {text}")

    def __str__(self) -> str:
        return "\n".join([f"seed {self._seed}", *self._lines[-400:]])


@dataclass(frozen=True)
class Done:
    """What one try of a task came to: success, failed (for good when ``fatal``) or killed."""

    state: str
    value: Any = None
    error: str = ""
    fatal: bool = False
    pushed: Any = None


@dataclass
class RunDone:
    """What one run came to; ``report`` is the document of report_run, None when that was killed."""

    run_id: str
    dag_id: str = ""
    clear_number: int = 0
    states: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] | None = None
    tries: list[tuple[str, Done]] = field(default_factory=list)

    @property
    def ledger_id(self) -> str:
        """What the ledger knows it by."""
        run_id = f"{self.dag_id}/{self.run_id}" if self.dag_id else self.run_id
        return f"{run_id}#{self.clear_number}" if self.clear_number else run_id

    @property
    def green(self) -> bool:
        return self.states.get("report_run") == "success"

    @property
    def well(self) -> bool:
        """Green, or red for nothing but collisions, of which the run that meets them has to tell."""
        red = (self.report or {}).get("red")
        return self.green or bool(red and all("another order's key" in each for each in red))

    @property
    def kills(self) -> int:
        return sum(done.state == "killed" for _, done in self.tries)

    def errors(self, task: str) -> list[str]:
        return [done.error for name, done in self.tries if name.startswith(task) and done.state == "failed"]


class Killer:
    """Decides when which process dies: at named points (a plan a try of a task), or once at a moment of the run.

    :param points: task (``send_events``, or ``send_events_0`` for one batch) to the plans of its tries.
    :param after: seconds into the run at which the process that runs then is killed.
    """

    def __init__(self, points: Mapping[str, Sequence[str]] | None = None, after: float | None = None) -> None:
        self._points = {task: list(plans) for task, plans in (points or {}).items()}
        self._at = None if after is None else time.monotonic() + after

    def plan(self, task: str) -> str:
        for name in (task, task.rstrip("0123456789").rstrip("_")):
            if plans := self._points.get(name):
                return plans.pop(0)
        return ""

    def due(self) -> float | None:
        return self._at

    def used(self) -> None:
        self._at = None


class World:
    """Runs the pipeline against a sandbox.

    :param name: begins each order's number and names its topic's number by ``index``.
    :param ledger: fields of the Airflow connection; default: a SQLite file in the folder.
    :param settings: INSTORE_* variables, over those of the suite.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        folder: Path,
        *,
        seed: int,
        index: int,
        name: str,
        ledger: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.seed = seed
        self.topic = topic(index)
        self.random = random.Random(seed)
        self.source = Source(seed, name)
        self.timeline = Timeline(f"{seed}, orders {name}-*, topic {self.topic}")
        self.extracts = folder / "extracts"
        self.logs = folder / "logs"
        for each in (self.extracts, self.logs):
            each.mkdir(parents=True, exist_ok=True)
        self.ledger = dict(ledger or {"conn_type": "sqlite", "host": str(folder / "ledger.db")})
        self.connections: dict[str, dict[str, Any] | None] = {}
        """Other ones than the sandbox's; None: it is missing."""
        self.settings = {
            "topic": self.topic,
            "drain_receivers": 2,
            "drain_block": 60,
            "drain_wait": 0.3,
            "batch_orders": 120,
            "bulk_events": 25,
            "lookup_threads": 4,
            "verify_after": 2,
            "extract_block": 40,
            "extract_min_age": 0,
            "breaker_seconds": 1,
            "claim_wait": 5,
            **settings,
        }
        # What the judge needs to know of this world's past.
        self.published: dict[str, list[Order]] = {}
        self.on_bus: Counter[str] = Counter()
        self.malformed: list[bytes] = []
        self.collisions: list[bytes] = []
        self.in_file: dict[str, set[str]] = {}
        """Which orders an extract has, by its name."""
        self.late = False
        """The network may deliver a request after its sender has given up on it."""
        self.run_begins: Callable[[Mapping[str, Any]], object] = lambda _: None
        self.customers_found: Callable[[], object] = lambda: None
        """Called behind the look-up of a batch where nothing else is at work: for the judge."""
        self.sent_to_bus = 0
        self.runs: list[RunDone] = []
        self.crashes = 0
        self.first_event = int(sandbox.store.state()["events"])
        sandbox.worlds.add(name)
        self._client: ServiceBusClient | None = None
        self._sender: Any = None
        self._steps = 0
        self._modified = 0
        self.working: set[Started] = set()
        """The tasks that are at work at this moment."""

    # The sources ------------------------------------------------------------------------------------------------

    def publish(self, orders: Iterable[Order], *, message_id: bool = True, **properties: Any) -> None:
        """The ERP publishes orders on the topic. :param properties: of the messages, such as ``time_to_live``."""
        orders = list(orders)
        for order in orders:
            if order.becomes == COLLISION:
                self.collisions.append(order.body())
            else:
                self.published.setdefault(order.id, []).append(order)
                self.on_bus[order.id] += 1
        self.send_raw(
            [(order.body(), order.number if message_id else None) for order in orders],
            what=f"{len(orders)} orders",
            **properties,
        )

    def publish_wrapped(self, *wrapped: tuple[bytes, Sequence[Order]]) -> None:
        """The ERP publishes bodies with these orders in them, each otherwise than as its document."""
        for _, orders in wrapped:
            for order in orders:
                self.published.setdefault(order.id, []).append(order)
                self.on_bus[order.id] += 1
        self.send_raw([(body, None) for body, _ in wrapped], what=f"{len(wrapped)} wrapped messages")

    def publish_malformed(self, bodies: Sequence[bytes]) -> None:
        """The ERP publishes what is no order."""
        self.malformed += bodies
        self.send_raw([(body, None) for body in bodies], what=f"{len(bodies)} malformed messages")

    def publish_undecodable(self, messages: Sequence[bytes]) -> None:
        """The ERP publishes what the SDK cannot decode, AMQP as it goes over the wire."""
        self.malformed += messages
        with (
            ServiceBusClient.from_connection_string(self.sandbox.connection_string) as client,
            client.get_topic_sender(self.topic) as sender,
        ):
            send_encoded(sender, *messages)
        self.sent_to_bus += len(messages)
        self.timeline.note(f"published {len(messages)} messages that cannot be decoded")

    def send_raw(self, messages: Sequence[tuple[bytes, str | None]], what: str = "messages", **properties: Any) -> None:
        if self._sender is None:
            self._client = ServiceBusClient.from_connection_string(self.sandbox.connection_string)
            self._sender = self._client.get_topic_sender(self.topic)
        batch = self._sender.create_message_batch()
        for body, message_id in messages:
            message = ServiceBusMessage(body, message_id=message_id, **properties)
            try:
                batch.add_message(message)
            except ValueError:
                if len(batch):
                    self._sender.send_messages(batch)
                batch = self._sender.create_message_batch()
                try:
                    batch.add_message(message)
                except ValueError:  # larger than a batch may be; a single message may be as large as the broker takes
                    self._sender.send_messages(message)
        if len(batch):
            self._sender.send_messages(batch)
        self.sent_to_bus += len(messages)
        self.timeline.note(f"published {what}")

    def extract(self, name: str, orders: Sequence[Order], apart: Collection[str] = ()) -> Path:
        """The ERP writes an extract, later than the one before it also where a clock ticks slowly.

        :param apart: ids of orders whose rows stand apart.
        """
        for order in orders:
            if order.becomes == COLLISION:
                self.collisions.append(order.csv())
            else:
                self.published.setdefault(order.id, []).append(order)
        self.in_file.setdefault(name, set()).update(order.id for order in orders)
        self.timeline.note(f"extract {name} with {len(orders)} orders")
        path = write_extract(self.extracts, name, orders, apart)
        self._modified = max(path.stat().st_mtime_ns, self._modified + 1_000_000)
        os.utime(path, ns=(self._modified, self._modified))
        return path

    def arrive_mixed(self, name: str, *, rows: int, messages: int = 0) -> None:
        """An extract, and messages, in which not every order is one that nobody has heard of.

        Beside new orders: rows of an order that stand apart, returns under their sales' numbers, other purchases with a
        known number, corrections of what was sent, orders of suppressed people. What arrived before has landed, or
        nobody could say which of two contents is the first.
        """
        source, known, withdrawn = self.source, self._once_published(), list(self.source.withdrawn)
        self.random.shuffle(known)
        told_again = [source.corrected(order) for order in known[:2]] + [source.another(order) for order in known[2:4]]
        orders = source.take(rows)
        sales = [order for order in orders[:-1] if order.becomes == "sent" and order.total > 0]
        apart = {order.id for order in sales[:10] if stands_apart(order)}
        # Not beside the rows of the sale: those of one store and moment would be its own.
        more = [*source.of_a_suppressed_person(withdrawn), *map(source.returned, sales[10:12]), *told_again[::2]]
        self.extract(name, [*orders, *more, *map(source.another, sales[12:13])], apart)
        if messages:
            drawn = source.take(messages)
            sales = [order for order in drawn if order.becomes == "sent" and order.total > 0]
            self.publish(
                [*drawn, *source.of_a_suppressed_person(withdrawn), *map(source.returned, sales[:2]), *told_again[1::2]]
            )

    def _once_published(self) -> list[Order]:
        """Sales of which one content is known, and which were not brought back."""
        return [
            versions[0]
            for versions in self.published.values()
            if len(set(versions)) == 1
            and versions[0].becomes == "sent"
            and versions[0].total > 0
            and f"{versions[0].id}{TWIN}" not in self.published
        ]

    def hang_up(self) -> None:
        """The ERP closes its connection to the bus."""
        for each in (self._sender, self._client):
            if each is not None:
                with contextlib.suppress(ServiceBusError, OSError, ValueError, AttributeError):  # it may be dead
                    each.close()
        self._sender = self._client = None

    def through(self, *, store: str = "", loyalty: str = "") -> None:
        """Call these services by another address from now on, such as a relay's."""
        keys = self.sandbox.keys
        if store:
            self.connections["instore_profile_store"] = {
                "conn_type": "profile_store",
                "host": store,
                "password": keys.profile_store_key,
                "extra": {"read_host": store, "read_api_key": keys.profile_store_key},
            }
        if loyalty:
            self.connections["instore_loyalty"] = {
                "conn_type": "loyalty",
                "host": loyalty,
                "password": keys.loyalty_api_key,
            }

    def bus_at(self, port: int) -> None:
        """Reach the bus through a relay on this port from now on; 0: as it is."""
        self.connections.pop("instore_service_bus", None)
        if port:
            self.connections["instore_service_bus"] = {
                "conn_type": "azure_service_bus",
                "schema": connection_string(port, key=self.sandbox.keys.service_bus_key),
            }

    # Faults -----------------------------------------------------------------------------------------------------

    def inject(self, family: int, what: str, times: int = 1) -> None:
        """Put a fault on record."""
        count_fault(family, times)
        self.timeline.note(f"FAULT {what}")

    # Runs -------------------------------------------------------------------------------------------------------

    def run(
        self,
        run_id: str | None = None,
        *,
        run_type: str = "scheduled",
        killer: Killer | None = None,
        tries: int = TRIES,
        only: Sequence[str] = (),
        clocks: Sequence[float] = (),
        **options: Any,
    ) -> RunDone:
        """One run to its end, every task tried like Airflow does.

        :param tries: how often a task is tried; report_run always once.
        :param only: tasks to run, where it should not be all of them.
        :param clocks: by how many seconds the clocks of the workers are wrong, who take turns at the tasks.
        :param options: of the run (start, end, params, clear_number, dag_id) and of each step (clock, file_size_limit).
        """
        killer = killer or Killer()
        run = {"run_id": run_id or f"scheduled__{len(self.runs)}", "run_type": run_type}
        told = ("start", "end", "params", "clear_number", "dag_id")
        run |= {name: options.pop(name) for name in told if name in options}
        done = RunDone(run["run_id"], run.get("dag_id", ""), run.get("clear_number", 0))
        self.runs.append(done)
        self.run_begins(run)
        TOTALS.runs += 1
        self.timeline.note(f"run {done.run_id} begins")

        def attempt(task: str, key: str, most: int = tries, **more: Any) -> Done:
            if only and task not in only:
                return Done("skipped")
            for _ in range(most):
                if clocks:
                    more["clock"] = {"seconds": clocks[len(done.tries) % len(clocks)]}
                last = self.step(task, run, key=key, killer=killer, **more, **options)
                while last.state == "rescheduled":  # no try of its own
                    time.sleep(0.3)
                    last = self.step(task, run, key=key, killer=killer, **more, **options)
                done.tries.append((key, last))
                if last.state == "success" or last.fatal:
                    break
            done.states[key] = "failed" if last.state == "killed" else last.state
            return last

        attempt("drain_topic", "drain_topic")
        attempt("load_extracts", "load_extracts")
        planned = attempt("plan_batches", "plan_batches")
        for batch in planned.value or ():
            attempt("look_up_customers", f"batch.look_up_customers_{batch['batch']}", batch=batch)
            if not (self.working or self.late):
                self.customers_found()
            attempt("send_events", f"batch.send_events_{batch['batch']}", batch=batch)
        reported = attempt("report_run", "report_run", 1, task_states=dict(done.states))
        done.report = reported.value if reported.state == "success" else reported.pushed
        self.timeline.note(
            f"run {done.run_id} ends {'green' if done.green else 'red'}: "
            + ", ".join(f"{task} {state}" for task, state in done.states.items() if state != "success")
        )
        return done

    def step(
        self, task: str, run: Mapping[str, Any], *, key: str = "", killer: Killer | None = None, **options: Any
    ) -> Done:
        """One try of one task in a process of its own, to its end."""
        killer = killer or Killer()
        key = key or task
        started = self.start_step(task, run, fault=killer.plan(key.removeprefix("batch.")), **options)
        return started.wait(killer)

    def start_step(self, task: str, run: Mapping[str, Any], *, fault: str = "", **options: Any) -> Started:
        """Begin one try of one task."""
        self._steps += 1
        name = f"{self._steps:04d}-{task}"
        spec = {"task": task, "run": dict(run), "env": self.environment(), "fault": fault, **options}
        result = self.folder / f"{name}.json"
        process = _forks.Process(target=step.run_step, args=(spec, str(result), str(self.logs / f"{name}.log")))
        process.start()
        started = Started(self, f"{run['run_id']} {task}", process, result, fault)
        self.working.add(started)
        return started

    def environment(self) -> dict[str, str]:
        """Connections and settings, as a deployment gives them."""
        store, loyalty, keys = self.sandbox.store, self.sandbox.loyalty, self.sandbox.keys
        connections: dict[str, dict[str, Any] | None] = {
            "instore_service_bus": {"conn_type": "azure_service_bus", "schema": self.sandbox.connection_string},
            "instore_loyalty": {"conn_type": "loyalty", "host": loyalty.url, "password": keys.loyalty_api_key},
            "instore_profile_store": {
                "conn_type": "profile_store",
                "host": store.url,
                "password": keys.profile_store_key,
                "extra": {"read_host": store.url, "read_api_key": keys.profile_store_key},
            },
            "instore_extracts": {"conn_type": "fs", "extra": {"path": str(self.extracts)}},
            "instore_ledger": self.ledger,
            "instore_hash_key": {"conn_type": "generic", "password": "the-hash-key-of-the-tests"},
            **self.connections,
        }
        environment = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(each) for name, each in connections.items() if each}
        return environment | {f"INSTORE_{name.upper()}": str(value) for name, value in self.settings.items()}

    def recover(self, done: RunDone | None = None, most: int = 6, **options: Any) -> RunDone:
        """Run the pipeline undisturbed until nothing is left on the bus or under way, as the next hours would.

        :param done: the last run, which may have been enough. :param options: of the runs, as of :meth:`run`.
        """
        for _ in range(most):
            if done is not None and self._settled(done):
                return done
            self.wait_for_locks()
            if done is not None and (done.report or {}).get("ledger", {}).get("sending"):
                # What is in doubt is known once later events are shown, which every next hour brings.
                self.extract(f"later/{len(self.runs)}.csv", self.source.take(5, only="sent"))
            # A card without an answer is asked for again after hours.
            later = {"clock": {"seconds": 25 * 3600.0}} if done and self._set_aside(done) else {}
            done = self.run(**{**options, **later})
        if done is not None and self._settled(done):
            return done
        raise AssertionError(f"after {most} undisturbed runs there is still work\n{self.timeline}")

    def _settled(self, done: RunDone) -> bool:
        counts = self.sandbox.subscription(self.topic)
        waits = counts["active"] or counts["locked"] or self.under_way(done) or self._set_aside(done)
        return done.well and not waits

    def _set_aside(self, done: RunDone) -> int:
        """Orders whose card got no answer."""
        return int((done.report or {}).get("look_ups_failing", 0))

    def under_way(self, done: RunDone) -> int:
        """Orders that had somewhere to go by themselves when a run ended."""
        return sum((done.report or {}).get("ledger", {}).get(status, 0) for status in UNDER_WAY)

    def wait_for_locks(self) -> None:
        """Wait until the locks of a dead receiver have run out."""
        until = time.monotonic() + 30
        while self.sandbox.subscription(self.topic)["locked"] and time.monotonic() < until:
            time.sleep(0.1)


UNDER_WAY = ("pending", "ready", "sending")


class Started:
    """A task's process that runs."""

    def __init__(self, world: World, name: str, process: ForkServerProcess, result: Path, fault: str) -> None:
        self._world = world
        self._name = name
        self._process = process
        self._result = result
        self._fault = fault

    def wait(self, killer: Killer | None = None, seconds: float = STEP_SECONDS) -> Done:
        """Wait for its end; meanwhile it may die."""
        until = time.monotonic() + seconds
        while True:
            due = killer.due() if killer else None
            now = time.monotonic()
            if due is not None and killer is not None and now >= due:
                killer.used()
                self.kill()
            pause = min(until, due if due is not None else until) - now
            if multiprocessing.connection.wait([self._process.sentinel], max(0.001, pause)):
                break
            if time.monotonic() > until:
                self.kill()
                raise AssertionError(f"{self._name} did not end within {seconds} s\n{self._world.timeline}")
        self._process.join()
        self._world.working.discard(self)
        return self._done()

    def _done(self) -> Done:
        timeline = self._world.timeline
        if not self._result.exists():
            TOTALS.kills += 1
            self._world.crashes += 1
            why = f" at {self._fault}" if self._fault else ""
            timeline.note(f"FAULT {self._name} was killed{why} (exit code {self._process.exitcode})")
            return Done("killed", error=f"killed{why}")
        document = json.loads(self._result.read_text())
        if document["state"] == "rescheduled":
            timeline.note(f"{self._name} waits for another run")
            return Done("rescheduled")
        if document["state"] == "success":
            timeline.note(f"{self._name}: {_brief(document['value'])}")
            return Done("success", document["value"])
        timeline.note(f"{self._name} failed: {document['kind']}: {document['error'][:300]}")
        return Done("failed", None, document["error"], document["fatal"], document["pushed"])

    def kill(self) -> None:
        """kill -9, unless it has ended by itself."""
        self._process.kill()

    def wait_until_frozen(self, seconds: float = 60) -> None:
        """Wait until it has frozen itself at its fault point."""
        until = time.monotonic() + seconds
        assert self._process.pid is not None
        watched = psutil.Process(self._process.pid)
        while watched.status() != psutil.STATUS_STOPPED:
            if self._process.exitcode is not None or time.monotonic() > until:
                raise AssertionError(f"{self._name} never came to {self._fault}\n{self._world.timeline}")
            time.sleep(0.01)
        self._world.timeline.note(f"FAULT {self._name} is frozen at {self._fault}")

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process.pid is not None
        psutil.Process(self._process.pid).resume()
        self._world.timeline.note(f"{self._name} goes on")


def _brief(value: Any) -> str:
    if isinstance(value, dict) and "ledger" in value:
        names = (
            "received",
            "orders",
            "duplicates",
            "quarantined",
            "sent",
            "unmatched",
            "carried_over",
            "ledger",
            "red",
        )
        value = {name: value[name] for name in names}
    return json.dumps(value)[:400]


__all__ = ["SUBSCRIPTION", "Done", "Killer", "RunDone", "Started", "Timeline", "World"]
