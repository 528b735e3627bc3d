"""What looks for messages and extracts that wait. It runs in the triggerer, as a part of
:mod:`include.instore_airflow.alerting.callbacks` does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from instore_provider.triggers.service_bus import ServiceBusWaitingMessagesTrigger
from instore_provider.triggers.watching import WatchingTrigger

from include.instore.model.settings import load_settings
from include.instore.model.windows import Run
from include.instore_airflow.connections import SERVICE_BUS, extracts, get_connection, translated

if TYPE_CHECKING:
    from include.instore.sources.extracts import Storage


class _Alerting(WatchingTrigger):
    what = ""

    async def tell(self, error: Exception | None) -> bool:
        """Alert, and say that it has ended: the hourly runs, which still come, would not."""
        return await asyncio.to_thread(self._tell, error)

    def _tell(self, error: Exception | None) -> bool:
        from include.instore.model.codes import RECOVERED
        from include.instore_airflow.alerting.channels import deliver_unremembered, harmless

        if error is None:
            text = f"The triggerer sees {self.what} again, so they start runs within seconds."
            return deliver_unremembered(("In-store orders: runs are woken again", text), RECOVERED)
        text = (
            f"The triggerer has not been able to look for {self.what} for 5 minutes: {harmless(error).rstrip('.')}.\n"
            "Nothing is lost: they wait for the hourly run.\nRunbook: No run is woken\n"
        )
        return deliver_unremembered(("In-store orders: no run is woken", text))


class MessagesWait(_Alerting, ServiceBusWaitingMessagesTrigger):
    """Fires for messages on the subscription."""

    what = "messages"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"service_bus_conn_id": SERVICE_BUS, **arguments})

    def look(self) -> int:
        """Look as the provider's trigger does. :raises InStoreError: as a drain."""
        from include.instore.sources.bus import bus_errors

        with translated(), bus_errors(load_settings().bus):
            if self._receiver is None:
                get_connection(SERVICE_BUS)
            return super().look()


class ExtractsWait(_Alerting):
    """Fires for files below the root that the next run would read, or find to be none."""

    what = "extracts"

    def __init__(self, **times: float) -> None:
        super().__init__(**times)
        self._seen: dict[str, str] = {}
        self._storage: Storage | None = None

    def look(self) -> int:
        """Look at every file, as a run does, which also knows what was loaded. :raises InStoreError: as a run's."""
        from include.instore.sources.extracts.discovery import find_extracts

        settings = load_settings()
        self._storage = self._storage or extracts(settings)
        run = Run("", "woken", None, False, True, "due")
        found = find_extracts(self._storage, run, lambda _names: self._seen, settings)
        new = {file.name: file.version for file in (*found.due, *found.unread)}
        self._seen |= new
        return len(new)

    def hang_up(self) -> None:
        """Open the storage again: its connection may have been corrected."""
        self._storage = None
