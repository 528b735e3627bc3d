"""One measurement in a process of its own: ``python near_side.py NAME 'JSON'``; its last line is what it came to.

It runs in whichever checkout PYTHONPATH names, by the functions of the DAG's tasks, with connections of the environment
as Airflow gives them. Times are in seconds: ``wall``, and ``cpu`` of this process and of those it forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gzip
import json
import multiprocessing
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_TASKS_AT_ONCE = 4
"""As the pools have it."""
_HOUR = 500
_TUNED = ("AIRFLOW__SCHEDULER__", "AIRFLOW__WORKERS__", "AIRFLOW__TRIGGERER__")


class Clock:
    """Seconds between two moments, by the wall and by the CPU."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), _cpu()

    def read(self, name: str) -> dict[str, float]:
        wall, cpu = self._begun
        return {f"{name}_wall": time.perf_counter() - wall, f"{name}_cpu": _cpu() - cpu}


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak_mb() -> float:
    """Of the largest process, this one or a forked one."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


class Pipeline:
    """The DAG's tasks, one after the other; those of the batches in processes of their own, as many as the pools let.

    :param given: ``url`` of the far side, ``folder`` for ledger and extracts, ``bus`` and ``topic`` where there is one,
        ``ledger`` another connection than a file in the folder.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        _connect(given)
        self._runs = 0
        # What a task imports is no work of its own.
        for module in import_module("tests.faults.step").WARM:
            if not module.startswith("tests."):
                import_module(module)
        from include.instore_airflow import tasks
        from include.instore_airflow.connections import open_ledger

        open_ledger().close()  # made as set-up makes it
        self._tasks: Any = tasks
        self.begin()

    def begin(self) -> None:
        """Another run from now on."""
        self._runs += 1
        self._run = SimpleNamespace(
            dag_id="instore_orders", run_id=f"scheduled__{self._runs}", run_type="scheduled",
            data_interval_start=None, data_interval_end=None, clear_number=0,
        )  # fmt: skip

    def drain(self) -> dict[str, Any]:
        counts: dict[str, Any] = self._tasks.drain_topic(self._run, {})
        return counts

    def load(self) -> dict[str, Any]:
        counts: dict[str, Any] = self._tasks.load_extracts(self._run, {})
        return counts

    def rest(self) -> dict[str, Any]:
        """What follows once everything has landed; the report."""
        batches = self._tasks.plan_batches(self._run, {})
        forks = multiprocessing.get_context("fork")
        for task in (self._look_up, self._send):
            waiting = list(batches)
            running: list[Any] = []
            while waiting or running:
                while waiting and len(running) < _TASKS_AT_ONCE:
                    running.append(forks.Process(target=task, args=(waiting.pop(0),)))
                    running[-1].start()
                running[0].join()
                if (ended := running.pop(0)).exitcode:
                    raise RuntimeError(f"a task ended with {ended.exitcode}")
        report: dict[str, Any] = self._tasks.report_run(self._run, {}, _TaskInstance(self._run.run_id))
        return report

    def _look_up(self, batch: dict[str, int]) -> None:
        self._tasks.look_up_customers(self._run, {}, batch)

    def _send(self, batch: dict[str, int]) -> None:
        sending = self._tasks.SendEventsOperator(task_id="send_events", batch=batch, destination="profile_store")
        sending.execute({"dag_run": self._run, "params": {}})


def _connect(given: dict[str, Any]) -> None:
    folder, far = Path(given["folder"]), given["url"]
    connections: dict[str, Any] = {
        "instore_loyalty": {"conn_type": "loyalty", "host": far, "password": "key"},
        "instore_profile_store": {
            "conn_type": "profile_store", "host": far, "password": "key",
            "extra": {"read_host": far, "read_api_key": "key"},
        },
        "instore_extracts": {"conn_type": "fs", "extra": {"path": str(folder / "extracts")}},
        "instore_ledger": given.get("ledger") or {"conn_type": "sqlite", "host": str(folder / "ledger.db")},
        "instore_hash_key": {"conn_type": "generic", "password": "the-hash-key-of-the-bench"},
    }  # fmt: skip
    if given.get("bus"):
        connections["instore_service_bus"] = {"conn_type": "azure_service_bus", "schema": given["bus"]}
    for name, fields in connections.items():
        os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(fields)
    settings = {"use_topic": bool(given.get("bus")), "extract_min_age": 0, "topic": given.get("topic", "orders")}
    for name, value in settings.items():
        os.environ[f"INSTORE_{name.upper()}"] = str(value)
    (folder / "extracts").mkdir(parents=True, exist_ok=True)


class _TaskInstance:
    """What the report asks of Airflow's own."""

    dag_id = "instore_orders"

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str]]:
        return {self.run_id: {}}

    def xcom_pull(self, **_: Any) -> list[Any]:
        return []

    def xcom_push(self, **_: Any) -> None:
        pass


def extracts(given: dict[str, Any]) -> dict[str, float]:
    """A run of many files, the same files again as they are, and again as if they had been written anew."""
    pipeline, whole = Pipeline(given), Clock()
    clock = Clock()
    landed = pipeline.load()
    figures = clock.read("load")
    report = pipeline.rest()
    figures |= whole.read("run") | {"orders": landed["orders"], "sent": report["sent"], "peak_mb": _peak_mb()}
    for name in ("untouched", "touched"):
        if name == "touched":
            for path in (Path(given["folder"]) / "extracts").rglob("*.gz"):
                at = path.stat().st_mtime + 60
                os.utime(path, (at, at))
        pipeline.begin()
        clock = Clock()
        again = pipeline.load()
        figures |= clock.read(name)
        if again["orders"]:
            raise RuntimeError("orders came twice")
    return figures


def topic(given: dict[str, Any]) -> dict[str, float]:
    """A run of what waits on a topic."""
    pipeline, whole = Pipeline(given), Clock()
    clock = Clock()
    drained = pipeline.drain()
    figures = clock.read("drain")
    report = pipeline.rest()
    return figures | whole.read("run") | {"orders": drained["orders"], "sent": report["sent"], "peak_mb": _peak_mb()}


def growth(given: dict[str, Any]) -> dict[str, float]:
    """An hour of new orders on a ledger that holds many, several times; the fastest, since more does not get less."""
    write_extracts = import_module("made").write_extracts  # of this bench, whichever checkout is measured
    pipeline = Pipeline(given)
    from benchmarks.many_orders import fill
    from include.instore_airflow.connections import open_ledger

    with contextlib.closing(open_ledger()) as ledger:
        fill(ledger, given["count"])
    best: dict[str, float] = {}
    for hour in range(given["hours"]):
        write_extracts(Path(given["folder"]) / "extracts" / f"hour-{hour}", 1, 1000 + hour, _HOUR)
        pipeline.begin()
        clock = Clock()
        if pipeline.load()["orders"] != _HOUR:
            raise RuntimeError("not all of the hour's orders are new")
        pipeline.rest()
        figures = clock.read("hour")
        best = figures if not best or figures["hour_cpu"] < best["hour_cpu"] else best
    return best | {"peak_mb": _peak_mb()}


def parse(given: dict[str, Any]) -> dict[str, float]:
    """The files read by the standard library into a document an order, and nothing done with them."""
    clock = Clock()
    orders = sum(1 for _ in _orders_of_files(Path(given["folder"]) / "extracts"))
    return clock.read("run") | {"orders": orders}


def _orders_of_files(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob("*.gz")):
        with gzip.open(path, "rt", newline="", encoding="utf-8") as text:
            for number, rows in groupby(csv.DictReader(text), lambda row: row["order_number"]):
                lines = list(rows)
                first = lines[0]
                yield {
                    "orderNumber": number, "date": first["order_date"], "storeId": first["store_id"],
                    "loyaltyCardNumber": first["loyalty_card"], "currency": first["currency"],
                    "total": first["order_total"],
                    "lines": [
                        {"productCode": each["product_code"], "description": each["description"],
                         "quantity": each["quantity"], "unitPrice": each["unit_price"],
                         "discount": each["discount"], "total": each["line_total"]}
                        for each in lines
                    ],
                }  # fmt: skip


def _event(order: dict[str, Any], email: str) -> dict[str, Any]:
    return {
        "trackId": order["orderNumber"], "deviceId": "InStoreDevice", "eventType": "StorePurchase",
        "value": "StorePurchase", "eventTime": order["date"], "scope": "Default", "user": {"email": email},
        "payload": order,
    }  # fmt: skip


def script(given: dict[str, Any]) -> dict[str, float]:
    """What somebody would write in an afternoon: csv, a dict as cache, one POST an order, 64 threads."""
    import requests

    cache: dict[str, str] = {}
    local = threading.local()
    far = given["url"]

    def send(order: dict[str, Any]) -> None:
        session = getattr(local, "session", None)
        if session is None:
            session = local.session = requests.Session()
        card = order["loyaltyCardNumber"]
        if card not in cache:
            answer = session.get(f"{far}/customers/by-loyalty-card/{card}", timeout=30)
            answer.raise_for_status()
            cache[card] = answer.json()["email"]
        event = json.dumps(_event(order, cache[card]))
        headers = {"Content-Type": "application/json"}
        session.post(f"{far}/api/v1.0/Track", data=event, headers=headers, timeout=30).raise_for_status()

    clock = Clock()
    with ThreadPoolExecutor(64) as threads:
        sent = sum(1 for _ in threads.map(send, _orders_of_files(Path(given["folder"]) / "extracts")))
    return clock.read("run") | {"sent": sent, "peak_mb": _peak_mb()}


def sdk(given: dict[str, Any]) -> dict[str, float]:
    """The SDK's own loop: receive, append to a file, complete; as many receivers as the pipeline has."""
    from azure.servicebus import ServiceBusClient

    done: list[int] = []
    kept = Path(given["folder"]) / "kept"
    kept.mkdir(parents=True, exist_ok=True)

    def receive(number: int) -> None:
        with (
            ServiceBusClient.from_connection_string(given["bus"]) as client,
            client.get_subscription_receiver(given["topic"], "orderprocessing") as receiver,
            (kept / f"{number}").open("ab") as file,
        ):
            while messages := receiver.receive_messages(max_message_count=200, max_wait_time=1):
                for message in messages:
                    file.write(b"".join(message.body) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                for message in messages:
                    receiver.complete_message(message)
                    done.append(1)

    clock = Clock()
    with ThreadPoolExecutor(given["receivers"]) as threads:
        list(threads.map(receive, range(given["receivers"])))
    return clock.read("drain") | {"orders": len(done)}


def function(given: dict[str, Any]) -> dict[str, float]:
    """A function per message: asynchronous, one look-up, one Track, one complete each, so many under way at once."""
    import aiohttp
    from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient

    sent = 0

    async def handle(message: Any, receiver: Any, session: Any) -> None:
        nonlocal sent
        order = json.loads(b"".join(message.body))
        async with session.get(f"{given['url']}/customers/by-loyalty-card/{order['loyaltyCardNumber']}") as answer:
            email = (await answer.json())["email"]
        async with session.post(f"{given['url']}/api/v1.0/Track", json=_event(order, email)) as answer:
            answer.raise_for_status()
        # One after the other: a link takes one settlement at a time.
        async with receiver.lock:
            await receiver.bus.complete_message(message)
        sent += 1

    async def receive(session: Any) -> None:
        async with (
            ServiceBusClient.from_connection_string(given["bus"]) as client,
            client.get_subscription_receiver(given["topic"], "orderprocessing") as bus,
            AutoLockRenewer(),
        ):
            receiver = SimpleNamespace(bus=bus, lock=asyncio.Lock())
            while messages := await bus.receive_messages(max_message_count=given["at_once"], max_wait_time=1):
                await asyncio.gather(*(handle(each, receiver, session) for each in messages))

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(receive(session) for _ in range(given["receivers"])))

    clock = Clock()
    asyncio.run(run())
    return clock.read("run") | {"sent": sent, "peak_mb": _peak_mb()}


def look_ups(given: dict[str, Any]) -> dict[str, float]:
    """Cards asked for by the provider's hook, and the same by requests alone, in turn; the medians, a card."""
    import requests
    from instore_provider.hooks.loyalty import LoyaltyHook

    _connect(given)
    hook, session = LoyaltyHook("instore_loyalty"), requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=32))
    far = f"{given['url']}/customers/by-loyalty-card"

    def plain(card: str) -> str:
        return str(session.get(f"{far}/{card}", headers={"X-Api-Key": "key"}, timeout=30).json()["email"])

    found: dict[str, list[float]] = {"hook": [], "requests": []}
    with ThreadPoolExecutor(8) as threads:
        for turn in range(given["turns"]):
            for name, ask in (("hook", hook.look_up), ("requests", plain)):
                clock = Clock()
                list(threads.map(ask, (f"6035{turn:06d}{n:06d}" for n in range(200))))
                found[name].append(clock.read("card")["card_cpu"] / 200)
    return {f"{name}_cpu": sorted(each)[len(each) // 2] for name, each in found.items()}


def ceiling(given: dict[str, Any]) -> dict[str, float]:
    """How many requests of one event the far side answers in a second."""
    url = given["url"].removeprefix("http://")
    host, port = url.split(":")
    body = json.dumps(_event({"orderNumber": "X", "date": "", "lines": [{"total": "1.0"}] * 9}, "a@example.com"))
    request = (
        f"POST /api/v1.0/Track HTTP/1.1\r\nHost: {url}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()

    async def ask(count: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(count):
            writer.write(request)
            await reader.readuntil(b"{}")
        writer.close()

    async def run() -> None:
        await asyncio.gather(*(ask(100) for _ in range(32)))

    clock = Clock()
    asyncio.run(run())
    return {"per_second": 3200 / clock.read("run")["run_wall"]}


_NO_OP = """
from datetime import datetime, timezone
from airflow.sdk import dag, task

@dag(schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc), catchup=False)
def no_op():
    def nothing(): pass
    first, second, third, fourth, fifth, sixth = (task(nothing, task_id=f"nothing_{n}")() for n in range(6))
    [first, second] >> third >> fourth >> fifth >> sixth

no_op()
"""


@contextlib.contextmanager
def _airflow(given: dict[str, Any], **more: str) -> Iterator[Any]:
    """A real Airflow with the hourly DAG and one that does nothing, once the first hourly run has ended.

    :param more: of its environment.
    """
    from demo.local_airflow import ROOT, LocalAirflow

    try:
        from sandbox.processes import Processes
    except ImportError:  # it was there in the release before
        from demo.processes import Processes  # type: ignore[import-not-found,no-redef]

    _connect(given)
    folder = Path(given["folder"])
    dags = folder / "dags"
    dags.mkdir(parents=True)
    (dags / "no_op.py").write_text(_NO_OP)
    (dags / "instore_orders.py").write_text((ROOT / "dags" / "instore_orders.py").read_text())
    own = {name: value for name, value in os.environ.items() if name.startswith(("AIRFLOW_CONN_", "INSTORE_"))}
    own |= {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), **more}
    processes = Processes(folder)
    airflow = LocalAirflow(folder / "airflow", processes, settings=own)
    try:
        airflow.start()
        for dag in ("instore_orders", "no_op"):
            airflow.wait_for_dag(dag)
            airflow.call("PATCH", f"/dags/{dag}", json={"is_paused": False})
        while not (first := airflow.call("GET", "/dags/instore_orders/dagRuns")["dag_runs"]):
            time.sleep(0.2)
        _ended(airflow, "instore_orders", first[0]["dag_run_id"])
        yield airflow
    finally:
        processes.stop()


def _ended(airflow: Any, dag: str, run_id: str) -> float:
    """Wait for the end of a run; how long it took."""
    while (run := airflow.call("GET", f"/dags/{dag}/dagRuns/{run_id}"))["state"] not in ("success", "failed"):
        time.sleep(0.1)
    if run["state"] == "failed":
        raise RuntimeError(f"run {run_id} of {dag} failed")
    begun, end = (datetime.fromisoformat(run[name].replace("Z", "+00:00")) for name in ("start_date", "end_date"))
    return (end - begun).total_seconds()


def small_run(given: dict[str, Any]) -> dict[str, float]:
    """Ten orders in a real Airflow, and six tasks that do nothing, in turn; the medians of both."""
    seconds: dict[str, list[float]] = {"instore_orders": [], "no_op": []}
    with _airflow(given) as airflow:
        for number in range(given["runs"]):
            import_module("made").publish(given["bus"], given["topic"], 10, given["seed"] * 100 + number)
            for dag, found in seconds.items():
                run = airflow.call("POST", f"/dags/{dag}/dagRuns", json={"logical_date": None, "conf": {}})
                found.append(_ended(airflow, dag, run["dag_run_id"]))
    medians = {f"{dag}_wall": sorted(found)[len(found) // 2] for dag, found in seconds.items()}
    return medians | {"runs": given["runs"]}


def latency(given: dict[str, Any]) -> dict[str, float]:
    """Ten orders a second, each a message of its own, and how long each takes until its event is at the Profile Store.

    With the settings of Airflow that docker-compose.yaml and deploy/helm-values.yaml have.
    """
    import requests
    import yaml
    from azure.servicebus import ServiceBusClient, ServiceBusMessage

    compose = yaml.safe_load((Path(__file__).parents[1] / "docker-compose.yaml").read_text())
    shipped = compose["x-airflow"]["environment"]
    tuned = {name: str(value) for name, value in shipped.items() if name.startswith(_TUNED)}
    made, seconds = import_module("made"), given["seconds"]
    enqueued: dict[str, float] = {}

    def visible() -> dict[str, float]:
        return dict(requests.get(f"{given['url']}/visible", timeout=30).json())

    def wait(patience: float) -> None:
        until = time.monotonic() + patience
        while enqueued.keys() - visible().keys():
            if time.monotonic() > until:
                raise RuntimeError(f"{len(enqueued.keys() - visible().keys())} orders did not arrive")
            time.sleep(1)

    with (
        _airflow(given, INSTORE_WAKE_UP="true", **tuned) as airflow,
        ServiceBusClient.from_connection_string(given["bus"]) as client,
        client.get_topic_sender(given["topic"]) as sender,
    ):

        def publish(number: int) -> None:
            body = made.message(number, given["seed"])
            sender.send_messages(ServiceBusMessage(body))
            enqueued[json.loads(body)["orderNumber"]] = time.time()

        publish(0)
        wait(240)  # until its file is read again the DAG is not watched
        enqueued.clear()
        begun = time.time()
        for number in range(1, seconds * 10 + 1):
            time.sleep(max(0.0, begun + number / 10 - time.time()))
            publish(number)
        wait(240)
        asked = {"run_type": "asset_triggered", "limit": 1}
        runs = airflow.call("GET", "/dags/instore_orders/dagRuns", params=asked)["total_entries"]
    arrived = visible()
    took = sorted(arrived[number] - at for number, at in enqueued.items())
    percentiles = {f"p{percent}_wall": took[len(took) * percent // 100] for percent in (50, 95)}
    return percentiles | {"most_wall": took[-1], "orders": len(took), "runs": runs, "per_second": 10, "for": seconds}


MEASURES: Sequence[Callable[[dict[str, Any]], dict[str, float]]] = (
    extracts, topic, growth, parse, script, sdk, function, look_ups, ceiling, small_run, latency,
)  # fmt: skip


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.WARNING)
    chosen = {each.__name__: each for each in MEASURES}[sys.argv[1]]
    print(json.dumps(chosen(json.loads(sys.argv[2]))))  # noqa: T201
