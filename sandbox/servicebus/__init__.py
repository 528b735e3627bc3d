"""A local stand-in for Azure Service Bus: an AMQP 1.0 broker that the unmodified azure-servicebus SDK talks to.

`ServiceBusStandIn` runs it in a thread, `run` in the foreground; `python -m sandbox.servicebus` is `run` for a
shell. What it must do and why is in service-bus.md, "The stand-in"; what it does not do: rule actions, which are
refused at start, the state of sessions, and TLS.
"""

from __future__ import annotations

from sandbox.servicebus.config import DEFAULT_CONFIG, DEFAULT_CONFIG_PATH
from sandbox.servicebus.errors import ConfigRefused, FaultRefused, PortInUse, StandInError, StateRefused
from sandbox.servicebus.faults import Faults
from sandbox.servicebus.standin import ServiceBusStandIn, connection_string, run

__all__ = [
    "DEFAULT_CONFIG",
    "DEFAULT_CONFIG_PATH",
    "ConfigRefused",
    "FaultRefused",
    "Faults",
    "PortInUse",
    "ServiceBusStandIn",
    "StandInError",
    "StateRefused",
    "connection_string",
    "run",
]
