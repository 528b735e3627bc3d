"""The provider's loyalty hook, and the mapping file, as the pipeline's resolvers."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from include.instore.model.customer_keys import card_of
from include.instore.model.errors import ConfigurationError
from include.instore_airflow.connections import LOYALTY, get_connection, translated
from include.instore_airflow.shared_limits import share

if TYPE_CHECKING:
    from instore_provider.hooks.loyalty import LoyaltyHook

    from include.instore.customers.lookup import Resolver
    from include.instore.ledger import Ledger
    from include.instore.ledger.customers import CardAnswer
    from include.instore.model.settings import Settings


def resolvers(settings: Settings, shared: Ledger, opened: contextlib.ExitStack) -> list[Resolver]:
    """Who answers for loyalty cards by the settings, in the order they are asked; ``opened`` closes them.

    :param shared: the ledger that holds the limits of all tasks.
    :raises ConfigurationError: there are none.
    """
    from instore_provider.hooks.loyalty import LoyaltyHook

    from include.instore.customers.mapping_file import MappingFile

    found: list[Resolver] = []
    if settings.lookups.use_loyalty_api:
        get_connection(LOYALTY)
        hook = LoyaltyHook(LOYALTY, card_of=partial(card_of, rules=settings.orders))
        share(hook, LOYALTY, shared, settings.services)
        opened.callback(hook.close)
        found.append(LoyaltyResolver(hook))
    if settings.lookups.mapping_file is not None:
        found.append(MappingFile(settings.lookups.mapping_file, settings.orders))
    if not found:
        raise ConfigurationError(
            "There is nothing that answers for loyalty cards; switch INSTORE_USE_LOYALTY_API on or set "
            "INSTORE_MAPPING_FILE."
        )
    return found


class LoyaltyResolver:
    """The loyalty API as a resolver of the pipeline."""

    def __init__(self, hook: LoyaltyHook) -> None:
        self._hook = hook

    def resolve(self, card: str) -> CardAnswer:
        from include.instore.ledger.customers import CardAnswer
        from include.instore.model.states import CardOutcome

        with translated():
            answer = self._hook.look_up(card)
        return CardAnswer(card, CardOutcome(answer.outcome), answer.email)
