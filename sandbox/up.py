"""The whole sandbox as one command: three stand-ins, their keys, the sample week, and hostile mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import week
from .keys import Keys, load_keys, write_private
from .loyalty import TOKEN
from .processes import Child, ChildFailedError, Spawn, Supervisor
from .remote import FILE
from .seed import TOPIC, seed
from .servicebus import connection_string
from .serving import EXIT_BAD_ENVIRONMENT, LOOPBACK, write_ready_line

SUBSCRIPTION = "orderprocessing"
_SEEDED = "seeded.json"


@dataclass(frozen=True)
class Ports:
    """Where the stand-ins listen; 0 picks a free port."""

    service_bus: int = 5672
    loyalty: int = 8701
    profile_store: int = 8702


@dataclass(frozen=True)
class Plan:
    """What `up` is asked for.

    seed: send the sample week, unless this state folder has had it already. members: whom the loyalty API knows.
    """

    state: Path
    extracts: Path
    ports: Ports
    host: str = LOOPBACK
    hostile: bool = False
    seed: bool = True
    restart: bool = True
    members: Path = week.MEMBERS


def hostile_loyalty() -> dict[str, Any]:
    """Return the loyalty API's fault settings of hostile mode."""
    return {"share": 0.1, "answers": [500, 429], "retry_after": 1}


def hostile_profile_store() -> dict[str, Any]:
    """Return the Profile Store's fault settings of hostile mode."""
    return {"share": 0.1, "answers": [503], "refuse": list(week.orders_to_refuse())}


def run(plan: Plan) -> int:
    """Run the sandbox until SIGTERM or SIGINT, and return the exit code. One ready line of JSON goes to stdout."""
    plan.state.mkdir(parents=True, exist_ok=True)
    keys = load_keys(plan.state)
    ready: dict[str, Any] = {}

    def start(supervisor: Supervisor) -> None:
        ready.update(_start(plan, keys, supervisor))
        ready["seeded"] = _seed_once(plan, ready["service_bus"]["connection_string"]) if plan.seed else None
        write_private(plan.state / FILE, json.dumps(ready, indent=2))
        write_ready_line(ready)

    def note(child: Child) -> None:
        sys.stderr.write(f"The {child.name} stand-in had died and is back on its port.\n")
        ready[child.name].update(child.place)
        write_private(plan.state / FILE, json.dumps(ready, indent=2))

    def tell(error: ChildFailedError) -> None:
        if error.code != EXIT_BAD_ENVIRONMENT:  # otherwise the child has said why, in one sentence
            sys.stderr.write(f"The {error.name} stand-in did not start.\n")

    return Supervisor().run(start, on_restart=note, on_failure=tell, restart=plan.restart)


def _start(plan: Plan, keys: Keys, supervisor: Supervisor) -> dict[str, Any]:
    def spawn(command: str, faults: dict[str, Any], *more: str) -> Spawn:
        settings = [f"--set={name}={json.dumps(value)}" for name, value in faults.items()]
        common = ["--state", str(plan.state), "--host", plan.host, "--parent", str(os.getpid())]

        def with_port(port: int) -> subprocess.Popen[str]:
            arguments = [sys.executable, "-m", "sandbox", command, "--port", str(port), *common, *settings, *more]
            return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # noqa: S603

        return with_port

    loyalty_faults = hostile_loyalty() if plan.hostile else {}
    profile_store_faults = hostile_profile_store() if plan.hostile else {}
    bus = supervisor.start("service_bus", spawn("servicebus", {}), plan.ports.service_bus)
    loyal = spawn("loyalty", loyalty_faults, "--members", str(plan.members))
    loyalty = supervisor.start("loyalty", loyal, plan.ports.loyalty)
    store = supervisor.start("profile_store", spawn("profile-store", profile_store_faults), plan.ports.profile_store)
    for child in supervisor.children:
        supervisor.wait(child)
    return {
        "ready": True,
        "pid": os.getpid(),
        "state": str(plan.state),
        "extracts": str(plan.extracts),
        "hostile": plan.hostile,
        "service_bus": {
            **bus.place,
            # The broker answers /sandbox/* on its AMQP port.
            "url": f"http://{plan.host}:{bus.ready['port']}",
            "connection_string": connection_string(bus.ready["port"], plan.host, key=keys.service_bus_key),
            "topic": TOPIC,
            "subscription": SUBSCRIPTION,
        },
        "loyalty": {
            **loyalty.place,
            "url": loyalty.ready["url"],
            "api_key": keys.loyalty_api_key,
            "token_url": f"{loyalty.ready['url']}{TOKEN}",
            "client_id": keys.loyalty_client_id,
            "client_secret": keys.loyalty_client_secret,
        },
        "profile_store": {
            **store.place,
            "url": store.ready["url"],
            "key": keys.profile_store_key,
            "page": f"{store.ready['url']}/",
        },
        "refused_orders": profile_store_faults.get("refuse", []),
    }


def _seed_once(plan: Plan, connection_string: str) -> dict[str, Any]:
    marker = plan.state / _SEEDED
    if marker.exists():
        kept: dict[str, Any] = json.loads(marker.read_text())
        if plan.hostile and not kept["hostile"]:
            sys.stderr.write("This state folder was seeded without --hostile; its malformed messages are missing.\n")
        return kept
    seeded = seed(connection_string=connection_string, extracts=plan.extracts, hostile=plan.hostile)
    done = {**seeded.as_json(), "hostile": plan.hostile}
    marker.write_text(json.dumps(done))
    return done
