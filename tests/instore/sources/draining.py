"""A drain in a process of its own, which may be killed: connection string, ledger's URL, run, and the place to die at.

The place is a name of include/instore/fault_points.py and how often it is reached before, such as
``topic.between_completes:300``; empty: nowhere.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

from azure.servicebus import ServiceBusClient

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.model.settings import load_settings
from include.instore.sources.service_bus import drain
from tests.instore import given

RECEIVERS = 3


def main(connection: str, url: str, run_id: str, place: str) -> None:
    name, _, times = place.partition(":")
    reached = itertools.count(1)

    def die(point: str) -> None:
        if point == name and next(reached) == int(times):
            os.kill(os.getpid(), signal.SIGKILL)

    fault_points.watch(die)
    ledger = Ledger(url)
    open_run(ledger, given.run(run_id))
    clients = [ServiceBusClient.from_connection_string(connection) for _ in range(RECEIVERS)]
    settings = load_settings(topic="orders", subscription="s0", drain_block=20, drain_wait=0.2)
    drained = drain(clients, ledger, run_id, settings)
    ledger.close()
    sys.stdout.write(f"{drained.stopped_by} {drained.not_drained} {drained.settle_failed}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
