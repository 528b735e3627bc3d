"""The provider's hooks as the pipeline's destination and resolvers, under the limits that all tasks share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.instore.model.errors import ConfigurationError, RetriableError
from include.instore_airflow.connections import LOYALTY, PROFILE_STORE, get_connection

if TYPE_CHECKING:
    from instore_provider.hooks.loyalty import LoyaltyHook
    from instore_provider.hooks.profile_store import ProfileStoreHook

    from include.instore.customers.lookup import Resolver
    from include.instore.destinations.delivery import EventOutcome
    from include.instore.ledger import Ledger
    from include.instore.ledger.customers import CardAnswer
    from include.instore.model.settings import Settings


@contextlib.contextmanager
def profile_store(ledger: Ledger, settings: Settings) -> Iterator[ProfileStoreDestination]:
    """The Profile Store behind connection ``instore_profile_store``, under the limits that all tasks share."""
    from instore_provider.hooks.profile_store import ProfileStoreHook

    with contextlib.closing(ProfileStoreHook(PROFILE_STORE)) as hook:
        yield destination(hook, ledger, settings)


def destination(hook: ProfileStoreHook, ledger: Ledger, settings: Settings) -> ProfileStoreDestination:
    """The Profile Store behind this hook, under the limits that all tasks share."""
    get_connection(hook.profile_store_conn_id)  # a missing one is said in our sentence, not in Airflow's
    _share(hook, hook.profile_store_conn_id, ledger, settings)
    return ProfileStoreDestination(hook, settings)


def resolvers(settings: Settings, shared: Ledger, opened: contextlib.ExitStack) -> list[Resolver]:
    """Who answers for loyalty cards by the settings, in the order they are asked; ``opened`` closes them.

    :param shared: the ledger that holds the limits of all tasks.
    :raises ConfigurationError: nobody does.
    """
    from instore_provider.hooks.loyalty import LoyaltyHook

    from include.instore.customers.mapping_file import MappingFile

    found: list[Resolver] = []
    if settings.use_loyalty_api:
        get_connection(LOYALTY)
        hook = LoyaltyHook(LOYALTY)
        _share(hook, LOYALTY, shared, settings)
        opened.callback(hook.close)
        found.append(LoyaltyResolver(hook))
    if settings.mapping_file is not None:
        found.append(MappingFile(settings.mapping_file))
    if not found:
        raise ConfigurationError(
            "Nobody answers for loyalty cards; switch INSTORE_USE_LOYALTY_API on or set INSTORE_MAPPING_FILE."
        )
    return found


class ProfileStoreDestination:
    """The Profile Store as a destination of the pipeline: the hook's words in the pipeline's."""

    def __init__(self, hook: ProfileStoreHook, settings: Settings) -> None:
        self._hook = hook
        self._settings = settings

    def send_events(
        self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]
    ) -> Iterable[EventOutcome]:
        with _translated():
            yield from self._hook.send_events(
                events,
                bulk=self._settings.track_bulk,
                bulk_size=self._settings.bulk_events,
                max_bulk_bytes=self._settings.bulk_bytes,
                before_leaving=before_leaving,
            )

    @property
    def reads_back(self) -> bool:
        with _translated():
            return self._hook.reads_back

    def look_for(self, event_ids: Iterable[str]) -> Mapping[str, str]:
        with _translated():
            return self._hook.look_for_events(event_ids)


class LoyaltyResolver:
    """The loyalty API as a resolver of the pipeline."""

    def __init__(self, hook: LoyaltyHook) -> None:
        self._hook = hook

    def resolve(self, card: str) -> CardAnswer:
        from include.instore.ledger.customers import CardAnswer

        with _translated():
            answer = self._hook.look_up(card)
        return CardAnswer(card, answer.outcome, answer.email)


def _share(hook: LoyaltyHook | ProfileStoreHook, conn_id: str, ledger: Ledger, settings: Settings) -> None:
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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The provider's errors as the pipeline's."""
    from instore_provider import errors as provider

    try:
        yield
    except provider.ConfigurationError as error:
        raise ConfigurationError(str(error)) from None
    except provider.ServiceUnavailable as error:
        raise RetriableError(str(error), error.retry_after) from None
