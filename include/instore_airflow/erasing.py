"""The dead letters of a person who wants to be forgotten, on the bus of connection ``instore_service_bus``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from include.instore_airflow.connections import service_bus_client

if TYPE_CHECKING:
    from include.instore.customers.erasing import EraseOnBus
    from include.instore.ledger import Ledger
    from include.instore.model.settings import Settings


def eraser_on_bus(ledger: Ledger, settings: Settings) -> EraseOnBus | None:
    """Who completes them; None where no topic is used."""

    def erase(is_theirs: Callable[[bytes], bool]) -> int:
        from include.instore.sources.dead_letters import erase_dead_letters

        return erase_dead_letters(service_bus_client(), ledger, settings, is_theirs)

    return erase if settings.runs.use_topic else None
