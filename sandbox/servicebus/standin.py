"""The two ways to run the broker: in a thread of a test or a script, or in the foreground of a process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sandbox.servicebus.auth import DEFAULT_KEY, DEFAULT_KEY_NAME
from sandbox.servicebus.broker import DEFAULT_HOST, Broker, Settings
from sandbox.servicebus.config import DEFAULT_CONFIG, DEFAULT_CONFIG_PATH
from sandbox.servicebus.errors import ConfigRefused
from sandbox.servicebus.faults import Faults

T = TypeVar("T")


def connection_string(
    port: int, host: str = DEFAULT_HOST, key_name: str = DEFAULT_KEY_NAME, key: str = DEFAULT_KEY
) -> str:
    """What a client needs to connect: plain TCP, as to Microsoft's emulator (service-bus.md, point 1)."""
    return (
        f"Endpoint=sb://{host}:{port};SharedAccessKeyName={key_name};SharedAccessKey={key};UseDevelopmentEmulator=true;"
    )


class ServiceBusStandIn:
    """A local Azure Service Bus in a background thread, on a loopback port, from construction until `stop`.

    Usage:
        with ServiceBusStandIn() as bus:
            client = ServiceBusClient.from_connection_string(bus.connection_string)

    Args:
        config: a Config.json of Microsoft's emulator, read; None for topic `orders`, subscription `orderprocessing`.
        state: the state file, so that the next one goes on where this one ended; None to forget.
        port: 0 for any free one.
        faults: fault knobs by name (see `Faults`).
        host: a loopback address.
        key_name: name of the shared access key.
        key: the shared access key.

    Raises:
        ConfigRefused, StateRefused, PortInUse, FaultRefused: with one sentence; nothing is left running.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        state: Path | None = None,
        port: int = 0,
        faults: Faults | Mapping[str, Any] | None = None,
        *,
        host: str = DEFAULT_HOST,
        key_name: str = DEFAULT_KEY_NAME,
        key: str = DEFAULT_KEY,
    ) -> None:
        self._settings = Settings(
            DEFAULT_CONFIG if config is None else config, state, port, Faults.of(faults), host, key_name, key
        )
        self._loop: asyncio.AbstractEventLoop
        self._broker: Broker
        self._stop: asyncio.Event
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="servicebus-stand-in", daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            raise

    def __enter__(self) -> ServiceBusStandIn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._broker.port

    @property
    def connection_string(self) -> str:
        """For `ServiceBusClient.from_connection_string`."""
        return connection_string(self.port, self._settings.host, self._settings.key_name, self._settings.key)

    def state(self) -> dict[str, Any]:
        """Counts by entity; the same as `GET /sandbox/state`."""
        return self._ask(self._broker.desk.state)

    def faults(self) -> dict[str, Any]:
        """The fault knobs as they stand; the same as `GET /sandbox/faults`."""
        return self._ask(self._broker.faults)

    def set_faults(self, **knobs: Any) -> None:
        """Set all fault knobs; those not named are off. The same as `PUT /sandbox/faults`. Raises FaultRefused."""
        self._ask(lambda: self._broker.change_faults(knobs))

    def drop_connections(self) -> None:
        """Cut every AMQP connection now."""
        self._ask(self._broker.drop_connections)

    def stop(self) -> None:
        """Stop the broker and wait for its end; everything is on disk then. A second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _ask(self, question: Callable[[], T]) -> T:
        async def ask() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def _run(self, started: Future[None]) -> None:
        asyncio.run(self._serve(started))

    async def _serve(self, started: Future[None]) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            self._broker = Broker(self._settings, self._loop)
            await self._broker.listen()
        except BaseException as problem:
            started.set_exception(problem)
            return
        started.set_result(None)
        await self._stop.wait()
        await self._broker.close()
        if self._broker.failed.done():
            self._broker.failed.exception()


def run(
    config_path: Path | None = None,
    state_path: Path | None = None,
    port: int = 5672,
    host: str = DEFAULT_HOST,
    *,
    faults: Mapping[str, Any] | None = None,
    key_name: str = DEFAULT_KEY_NAME,
    key: str = DEFAULT_KEY,
) -> None:
    """Run the broker in the foreground until SIGTERM or SIGINT.

    When it listens it writes one line of JSON to standard output: `{"ready": true, "host": …, "port": …}`.

    Args:
        config_path: a Config.json of Microsoft's emulator; None for the one that comes with the stand-in.
        state_path: the state file; None to forget everything at the end.
        port: 0 for any free one.
        host: a loopback address.
        faults: fault knobs by name.
        key_name: name of the shared access key.
        key: the shared access key.

    Raises:
        ConfigRefused, StateRefused, PortInUse, FaultRefused: with one sentence.
        StandInError: if the state file cannot be written any more; what was confirmed is on disk.
    """
    path = DEFAULT_CONFIG_PATH if config_path is None else config_path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigRefused(f"{path} cannot be read as JSON: {problem}.") from None
    settings = Settings(config, state_path, port, Faults.of(faults), host, key_name, key)
    asyncio.run(_foreground(settings))


async def _foreground(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    broker = Broker(settings, loop)
    await broker.listen()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopped = asyncio.ensure_future(stop.wait())
    sys.stdout.write(json.dumps({"ready": True, "host": settings.host, "port": broker.port}) + "\n")
    sys.stdout.flush()
    await asyncio.wait((stopped, broker.failed), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    await broker.close()
    if broker.failed.done():
        broker.failed.result()
