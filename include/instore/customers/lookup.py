"""Card to customer: the ledger's cache first, then a chain of resolvers, several cards at the same time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.claims import hold
from include.instore.ledger.customers import CardAnswer, cards_to_ask, remember, settle_customers
from include.instore.model.customer_keys import Rules, email_of
from include.instore.model.settings import Settings

NOT_FOUND = "not_found"
_BLOCK = 100

log = logging.getLogger(__name__)


class Resolver(Protocol):
    """Someone who may know the customer behind a card."""

    def resolve(self, card: str) -> CardAnswer:
        """The outcome: matched (with an email), not_found, inactive, no_email, ambiguous or suppressed.

        :raises ConfigurationError: asking is pointless until a person changes something.
        :raises RetriableError: it cannot be asked for now.
        """
        ...


@dataclass(frozen=True)
class LookedUp:
    """What one batch's look-ups came to, in cards."""

    looked_up: int
    cache_hits: int


def look_up_batch(
    resolvers: Sequence[Resolver], ledger: Ledger, run_id: str, batch: int, settings: Settings
) -> LookedUp:
    """Find the customers of one batch's pending orders and move those orders on.

    Answers are kept in blocks as they come, so a try that dies leaves nothing to be asked twice. Where a resolver
    fails, what was answered is used all the same before the error goes on.

    :param resolvers: asked in order; the first answer that is not ``not_found`` holds.
    :raises ConfigurationError: a resolver cannot be asked until a person changes something.
    :raises RetriableError: a resolver or the ledger failed; the unanswered orders stay pending.
    """
    hold(ledger, run_id, batch)
    begun = datetime.now(timezone.utc)
    asking = cards_to_ask(ledger, run_id, batch)
    cache, negative = timedelta(hours=settings.cache_hours), timedelta(hours=settings.negative_cache_hours)
    error: BaseException | None = None
    answered = 0
    with ThreadPoolExecutor(settings.lookup_threads, thread_name_prefix="look-up") as threads:
        for block in (asking.cards[start : start + _BLOCK] for start in range(0, len(asking.cards), _BLOCK)):
            answers, error = _ask(threads, resolvers, block, settings)
            remember(ledger, run_id, batch, answers, cache=cache, negative=negative)
            fault_points.reach("lookup.remembered")
            answered += len(answers)
            if error is not None:
                break
    expiry = timedelta(days=settings.unmatched_expiry_days)
    own_email_after = settings.own_email_after.split(",")
    settle_customers(
        ledger, run_id, batch,
        asked_after=begun, cache_hits=asking.cache_hits, expiry=expiry, own_email_after=own_email_after,
    )  # fmt: skip
    log.info("batch %d: looked_up=%d cache_hits=%d", batch, answered, asking.cache_hits)
    if error is not None:
        raise error
    return LookedUp(answered, asking.cache_hits)


def _ask(
    threads: ThreadPoolExecutor, resolvers: Sequence[Resolver], cards: Sequence[str], rules: Rules
) -> tuple[list[CardAnswer], BaseException | None]:
    """The answers of one block, and the first error; after an error the cards not begun are not asked."""
    asked: list[Future[CardAnswer]] = [threads.submit(_resolve, resolvers, card, rules) for card in cards]
    _, waiting = wait(asked, return_when="FIRST_EXCEPTION")
    for future in waiting:
        future.cancel()
    wait(asked)
    answers: list[CardAnswer] = []
    error: BaseException | None = None
    for future in asked:
        if future.cancelled():
            continue
        if failure := future.exception():
            error = error or failure
        else:
            answers.append(future.result())
    return answers, error


def _resolve(resolvers: Sequence[Resolver], card: str, rules: Rules) -> CardAnswer:
    answer = CardAnswer(card, NOT_FOUND)
    for resolver in resolvers:
        answer = resolver.resolve(card)
        fault_points.reach("lookup.answered")
        if answer.outcome != NOT_FOUND:
            break
    try:
        email = email_of(answer.email, rules)
    except ValueError:
        email = None
    outcome = "no_email" if answer.outcome == "matched" and email is None else answer.outcome
    return CardAnswer(card, outcome, email)
