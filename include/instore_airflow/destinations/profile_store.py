"""The Profile Store as a destination of the pipeline, through the provider's hook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.instore_airflow.connections import PROFILE_STORE, get_connection, translated
from include.instore_airflow.shared_limits import share

if TYPE_CHECKING:
    from instore_provider.hooks.profile_store import ProfileStoreHook

    from include.instore.destinations.delivery import EventOutcome
    from include.instore.ledger import Ledger
    from include.instore.ledger.deliveries import OutgoingOrder
    from include.instore.model.settings import Settings


@contextlib.contextmanager
def opened(ledger: Ledger, settings: Settings) -> Iterator[ProfileStoreDestination]:
    """The Profile Store behind connection ``instore_profile_store``, under the limits that all tasks share."""
    from instore_provider.hooks.profile_store import ProfileStoreHook

    get_connection(PROFILE_STORE)  # a missing one is said in our sentence, not in Airflow's
    with contextlib.closing(ProfileStoreHook(PROFILE_STORE)) as hook:
        share(hook, PROFILE_STORE, ledger, settings.services)
        yield ProfileStoreDestination(hook, settings)


class ProfileStoreDestination:
    """The Profile Store as a destination of the pipeline: the hook's words in the pipeline's."""

    def __init__(self, hook: ProfileStoreHook, settings: Settings) -> None:
        self._hook = hook
        self._settings = settings
        self.bulk_events = settings.sending.bulk_events

    def event(self, order: OutgoingOrder) -> tuple[dict[str, Any], bool]:
        from include.instore.destinations.profile_store import event_of

        return event_of(order, self._settings.events)

    def send_events(
        self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
    ) -> Iterable[EventOutcome]:
        sending = self._settings.sending
        with translated():
            yield from self._hook.send_events(
                events,
                bulk_size=sending.bulk_events if sending.track_bulk else 1,
                max_bulk_bytes=sending.bulk_bytes,
                before_leaving=before_leaving,
            )

    @property
    def reads_back(self) -> bool:
        with translated():
            return self._hook.reads_back

    def look_for(self, event_ids: Iterable[str]) -> Mapping[str, str]:
        with translated():
            return self._hook.look_for_events(event_ids)
