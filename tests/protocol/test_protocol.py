"""The protocol holds in every state within its scopes, and each of its safeguards is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from include.instore.ledger import Ledger
from tests.protocol.explore import Explored, explore, walked, without
from tests.protocol.model import ASSUMPTIONS, SAFEGUARDS, Scope
from tests.protocol.real import Real
from tests.protocol.scopes import CLEARED, DOUBT, PEOPLE, RESEND, SAME_PEOPLE, SCOPES, TWO_RUNS

NEEDED = [
    ("edition ids", RESEND, "3: order 0 edition 2 at destination 0 is said to be sent, and nothing of it left"),
    ("witness", DOUBT, "4:"),
    ("later witness", DOUBT, "4:"),
    ("asked after", DOUBT, "4:"),
    ("compared", DOUBT, "4:"),
    ("lease", DOUBT, "4:"),
    ("lease", TWO_RUNS, "4:"),
    ("suppressions", PEOPLE, "8:"),
    ("suppressions after locking", PEOPLE, "8:"),
    ("frozen content", PEOPLE, "3: order 0 edition 1 at destination 0 was sent with another content"),
    ("editions per run", CLEARED, "6:"),
    ("sending first", TWO_RUNS, "5:"),
    ("requests die", DOUBT, "4:"),
    ("shown in order", DOUBT, "4:"),
]


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_every_invariant_holds_in_every_state(scope: Scope, record_property: Callable[[str, str], None]) -> None:
    explored = explore(scope)
    record_property("explored", said(explored))
    assert not explored.fault, "\n".join((explored.fault, *explored.way))
    # Where nothing is ever sent, or no request is ever in doubt, every invariant would hold.
    assert explored.settled
    assert explored.in_doubt


@pytest.mark.parametrize(
    ("safeguard", "scope", "fault"), NEEDED, ids=[f"{name}-{scope.name}" for name, scope, _ in NEEDED]
)
def test_without_this_safeguard_an_invariant_breaks(safeguard: str, scope: Scope, fault: str) -> None:
    explored = without(scope, safeguard)
    assert explored.fault.startswith(fault), f"{explored.states} states, {explored.fault or 'nothing found'}"


def test_each_safeguard_and_each_assumption_is_taken_away_once() -> None:
    assert {name for name, _, _ in NEEDED} == SAFEGUARDS.keys() | ASSUMPTIONS.keys()


ATTACKS = [
    ("compared", DOUBT),
    ("lease", DOUBT),
    ("lease", TWO_RUNS),
    ("suppressions", SAME_PEOPLE),
    ("suppressions after locking", SAME_PEOPLE),
]


@pytest.mark.parametrize(("safeguard", "scope"), ATTACKS, ids=[f"{name}-{scope.name}" for name, scope in ATTACKS])
def test_what_breaks_a_model_without_a_safeguard_is_refused_by_the_product(
    safeguard: str, scope: Scope, fresh: Callable[[], Ledger]
) -> None:
    """The shortest way to a broken invariant, taken with the real functions."""
    weaker, explored = replace(scope, without=frozenset({safeguard})), without(scope, safeguard)
    assert explored.fault
    for late_requests_arrive in (True, False):
        real = Real(fresh(), scope, strict=False)
        for name, before, after in walked(weaker, explored.way):
            real.take(name, before, after)
        assert real.refused, "\n".join(explored.way)
        real.finish(late_requests_arrive=late_requests_arrive)


def said(explored: Explored) -> str:
    """One line: the bounds and what they hold."""
    bounds = explored.scope
    return (
        f"{bounds.name}: {bounds.orders} orders, {bounds.destinations} destinations, {len(bounds.senders)} senders, "
        f"{bounds.crashes} crashes, {bounds.thought_dead} thought dead, {bounds.lost_answers} answers lost, "
        f"{bounds.refusals} refusals, {bounds.periods + 1} periods, {bounds.clears} clears, "
        f"{len(bounds.corrected)} corrections, {len(bounds.suppressed)} suppressions: "
        f"{explored.states} states, {explored.transitions} steps"
    )
