"""When the DAG runs: by its timetable, and by setting also when messages or extracts wait.

What looks for them runs in the triggerer, as :mod:`include.instore_airflow.alerting.callbacks` does in part.
"""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from instore_provider.triggers.service_bus import ServiceBusWaitingMessagesTrigger
from instore_provider.triggers.watching import WatchingTrigger

from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import load_settings
from include.instore.model.windows import Run
from include.instore_airflow.connections import SERVICE_BUS, extracts, get_connection, translated

if TYPE_CHECKING:
    from airflow.sdk import CronDataIntervalTimetable

    from include.instore.sources.extracts import Storage

_FILES_EVERY = 15.0
"""Seconds: each look is a request for each folder, or page of names, of the storage."""


def or_woken(hourly: CronDataIntervalTimetable) -> Any:
    """The timetable; where ``INSTORE_WAKE_UP`` is on, also what waits: one run takes all that woke it."""
    try:
        settings = load_settings()
    except ConfigurationError:  # which every task tells
        return hourly
    if not settings.runs.wake_up:
        return hourly
    from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher

    topic, subscription = settings.bus.topic, settings.bus.subscription
    watched: dict[str, WatchingTrigger] = {}
    if settings.runs.use_topic:
        watched[f"messages on {topic}/{subscription}"] = MessagesWait(topic=topic, subscription=subscription)
    if settings.runs.use_extracts:
        watched["extracts that are due"] = ExtractsWait(poll_interval=_FILES_EVERY)
    assets: list[Any] = [
        Asset(name, watchers=[AssetWatcher(name=type(trigger).__name__, trigger=trigger)])
        for name, trigger in watched.items()
    ]
    return AssetOrTimeSchedule(timetable=hourly, assets=reduce(or_, assets)) if assets else hourly


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
