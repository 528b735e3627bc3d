"""What both hooks are: a connection read once, and the services behind it, called with the same patience."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow.sdk import BaseHook

from instore_provider.fields import ServiceFields
from instore_provider.http import RetryBounds, Service
from instore_provider.rate_limit import LimiterMaker, TakeTurn

if TYPE_CHECKING:
    from requests.auth import AuthBase

    from instore_provider.breaker import Breaker

Connected = TypeVar("Connected", bound=ServiceFields)
"""The fields of a hook's connection."""

Loaded = TypeVar("Loaded")
"""What a hook makes of its connection."""


class ServiceHook(BaseHook, Generic[Connected, Loaded]):
    """
    A hook of HTTP services. One may be used by several threads at once.

    :param conn_id: id of the connection.
    :param connect_timeout: seconds; overrides the connection's.
    :param read_timeout: seconds; overrides the connection's.
    :param max_attempts: calls per request at most, the first included.
    :param max_seconds: no attempt of a request starts later than this after its first one.
    :param first_wait: seconds; window of the random first wait between attempts, doubled each time.
    :param longest_wait: seconds; the widest such window.
    :param longest_retry_after: seconds; a Retry-After above it is waited for only this long.
    :param limiter: makes what waits for a turn before each call, retries and token calls included, from the
        connection's `rate_limit`; None: the hooks of this process share the turns. May be set until the first call.
    :param breaker: makes the breaker of a service from its name; None: there is none. May be set until the first call.
    """

    conn_name_attr: str
    fields: type[Connected]

    def __init__(
        self,
        conn_id: str,
        *,
        connect_timeout: float | None = None,
        read_timeout: float | None = None,
        max_attempts: int = 5,
        max_seconds: float = 120.0,
        first_wait: float = 0.5,
        longest_wait: float = 30.0,
        longest_retry_after: float = 60.0,
        limiter: LimiterMaker | None = None,
        breaker: Callable[[str], Breaker] | None = None,
    ) -> None:
        super().__init__()
        self.limiter = limiter
        self.breaker = breaker
        self._conn_id = conn_id
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._bounds = RetryBounds(max_attempts, max_seconds, first_wait, longest_wait, longest_retry_after)
        self._lock = Lock()
        self._services: list[Service] = []
        self._loaded: Loaded | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.conn_name_attr}={self._conn_id!r}>"

    def close(self) -> None:
        """Close the kept-alive connections; the hook may be used again afterwards."""
        with self._lock:
            for service in self._services:
                service.close()
            self._services, self._loaded = [], None

    def _load(self) -> Loaded:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._loaded_from(self.fields.of(self._conn_id))
            return self._loaded

    @abstractmethod
    def _loaded_from(self, fields: Connected) -> Loaded: ...

    def _service(
        self, fields: Connected, name: str, base_url: str, auth: AuthBase, take_turn: TakeTurn, **more: Any
    ) -> Service:
        service = Service(
            conn_id=self._conn_id,
            name=name,
            base_url=base_url,
            auth=auth,
            connect_timeout=self._connect_timeout or fields.connect_timeout or 0,
            read_timeout=self._read_timeout or fields.read_timeout or 0,
            ca_bundle=fields.ca_bundle,
            before_attempt=take_turn,
            **more,
        )
        self._services.append(service)
        return service

    def _breaker_of(self, name: str) -> Breaker | None:
        return None if self.breaker is None else self.breaker(name)
