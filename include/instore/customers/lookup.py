"""Card to customer: the ledger's cache first, then a chain of resolvers, several cards at the same time."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from include.instore import fault_points
from include.instore.ledger import Ledger
from include.instore.ledger.claims import HeldBatch, hold
from include.instore.ledger.customers import CardAnswer, cards_to_ask, remember, settle_customers
from include.instore.model.customer_keys import Rules, card_of, email_of
from include.instore.model.errors import CardNotAnswered, ConfigurationError, InStoreError, RetriableError
from include.instore.model.settings import Settings
from include.instore.model.states import CardOutcome

_BLOCK = 100
_FIRST = 20
"""Where none of the first so many cards is answered, the others are not asked for (contracts.md section 4)."""

log = logging.getLogger(__name__)


class Resolver(Protocol):
    """Someone who may know the customer behind a card."""

    def resolve(self, card: str) -> CardAnswer:
        """What it knows of the card.

        :raises CardNotAnswered: there is no answer about this card; others may be answered.
        :raises ConfigurationError: asking is pointless until a person changes something.
        :raises RetriableError: nothing can be asked for now.
        """
        ...


@dataclass(frozen=True)
class LookedUp:
    """What one batch's look-ups came to, in cards; those that failed are not among those looked up."""

    looked_up: int
    cache_hits: int
    look_up_failed: int = 0


def look_up_batch(resolvers: Sequence[Resolver], ledger: Ledger, held: HeldBatch, settings: Settings) -> LookedUp:
    """Find the customers of one batch's pending orders and move those orders on.

    Answers are kept in blocks as they come, so a try that dies leaves nothing to be asked twice. Where a resolver
    fails, what was answered is used all the same before the error goes on. A card without an answer is set aside: its
    orders are asked for again later, unless there are so many that the fault is not the card's.

    :param resolvers: asked in order; the first answer that is not ``not_found`` holds.
    :raises ConfigurationError: a resolver cannot be asked until a person changes something.
    :raises RetriableError: a resolver or the ledger failed, or too many cards got no answer; the unanswered orders
        stay pending.
    """
    hold(ledger, held)
    begun = datetime.now(timezone.utc)
    asking = cards_to_ask(ledger, held)
    cache = timedelta(hours=settings.lookups.cache_hours)
    negative = timedelta(hours=settings.lookups.negative_cache_hours)
    error: BaseException | None = None
    answered = 0
    failed: dict[str, CardNotAnswered] = {}
    threads = ThreadPoolExecutor(settings.lookups.lookup_threads, thread_name_prefix="look-up")
    try:
        for cards in (asking.cards[:_FIRST], asking.cards[_FIRST:]):
            for answers, fault in _ask(threads, resolvers, cards, settings.orders, failed):
                remember(ledger, held, answers, cache=cache, negative=negative)
                fault_points.reach("lookup.remembered")
                answered, error = answered + len(answers), fault
            if error or (not answered and _too_many(failed, answered, "", settings)):
                break
    finally:
        threads.shutdown(cancel_futures=True)  # what has not begun is not asked where the ledger fails
    codes = ", ".join(f"{code} {count}" for code, count in sorted(Counter(e.code for e in failed.values()).items()))
    if error is None:
        error = _too_many(failed, answered, codes, settings)
    if error is None and failed:
        set_aside = [CardAnswer(card, CardOutcome.LOOK_UP_FAILED) for card in failed]
        remember(ledger, held, set_aside, cache=cache, negative=negative)
        log.warning(
            "batch %d: %d cards were not answered and are looked up again later: %s", held.batch, len(failed), codes
        )
    expiry = timedelta(days=settings.lookups.unmatched_expiry_days)
    own_email_after = settings.lookups.own_email_after.split(",")
    settle_customers(
        ledger, held,
        asked_after=begun, cache_hits=asking.cache_hits, expiry=expiry, own_email_after=own_email_after,
    )  # fmt: skip
    log.info(
        "batch %d: looked_up=%d cache_hits=%d look_up_failed=%d", held.batch, answered, asking.cache_hits, len(failed)
    )
    if error is not None:
        raise error
    return LookedUp(answered, asking.cache_hits, len(failed))


def _too_many(
    failed: Mapping[str, CardNotAnswered], answered: int, codes: str, settings: Settings
) -> InStoreError | None:
    """The error where the fault is not that of the cards without an answer.

    They are too many; or nobody else was answered, and what came may pass: then nothing says that the service is well.
    """
    asked, passing = len(failed) + answered, any(each.passing for each in failed.values())
    enough = len(failed) >= settings.runs.share_minimum
    too_many = enough and len(failed) > asked * settings.lookups.max_failed_look_ups
    if not too_many and (answered or not passing):
        return None
    *_, last = failed.values()
    sentence = f"{len(failed)} of {asked} cards were not answered ({codes}). The last one: {last}"
    return RetriableError(sentence) if passing else ConfigurationError(sentence)


def _ask(
    threads: ThreadPoolExecutor,
    resolvers: Sequence[Resolver],
    cards: Sequence[str],
    rules: Rules,
    failed: dict[str, CardNotAnswered],
) -> Iterator[tuple[list[CardAnswer], BaseException | None]]:
    """Blocks of answers as they come, the last one with the first error; meanwhile the threads ask on.

    After an error the cards not begun are not asked.

    :param failed: the cards without an answer are added to it.
    """
    asked = {threads.submit(_resolve, resolvers, card, rules): card for card in cards}
    answers: list[CardAnswer] = []
    error: BaseException | None = None
    for future in as_completed(asked):
        if future.cancelled():
            continue
        failure = future.exception()
        if failure is None:
            answers.append(future.result())
        elif isinstance(failure, CardNotAnswered):
            failed[asked[future]] = failure
        elif error is None:
            error = failure
            for each in asked:
                each.cancel()
        if len(answers) == _BLOCK:
            yield answers, None
            answers = []
    yield answers, error


def _resolve(resolvers: Sequence[Resolver], card: str, rules: Rules) -> CardAnswer:
    answer, asked = CardAnswer(card, CardOutcome.NOT_FOUND), card
    with contextlib.suppress(ValueError):  # of an order that came before this rule
        asked = card_of(card, rules) or card
    for resolver in resolvers:
        answer = resolver.resolve(asked)
        fault_points.reach("lookup.answered")
        if answer.outcome != CardOutcome.NOT_FOUND:
            break
    try:
        email = email_of(answer.email, rules)
    except ValueError:
        email = None
    without = answer.outcome == CardOutcome.MATCHED and email is None
    return CardAnswer(card, CardOutcome.NO_EMAIL if without else answer.outcome, email)
