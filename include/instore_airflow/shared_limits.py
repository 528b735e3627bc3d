"""The limits that all tasks keep to when they call a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instore_provider.breaker import Breaker
    from instore_provider.hooks.loyalty import LoyaltyHook
    from instore_provider.hooks.profile_store import ProfileStoreHook

    from include.instore.ledger import Ledger
    from include.instore.model.settings import ServiceSettings


def share(hook: LoyaltyHook | ProfileStoreHook, conn_id: str, ledger: Ledger, settings: ServiceSettings) -> None:
    """Have all tasks, processes and workers keep to one rate limit, and hear of a service that is down."""
    from instore_provider.breaker import Breaker

    from include.instore.ledger.services import SharedCircuit, shared_turns

    def limiter(per_second: float) -> Callable[[], None]:
        return shared_turns(ledger, conn_id, per_second)

    def breaker(service: str) -> Breaker:
        return Breaker(
            failures=settings.breaker_failures,
            seconds=settings.breaker_seconds,
            storage=SharedCircuit(ledger, f"{conn_id}: {service}"),
        )

    hook.limiter, hook.breaker = limiter, breaker
