"""The protocol holds in every state within its scopes, and each of its safeguards is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from include.instore.ledger import Ledger
from tests.protocol.explore import Explored, explore, walked, without
from tests.protocol.model import ASSUMPTIONS, SAFEGUARDS, Scope, faults_in
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


ONE, OTHER = "order 0 edition 1 at destination 0", "order 1 edition 1 at destination 0"
WITNESS_LEAVES = (
    f"first#0 marks {OTHER}", f"first#0 sends {OTHER}", f"{OTHER} arrives", f"first#0 commits that {OTHER} is sent",
    f"{OTHER} is shown",
)  # fmt: skip
PERIOD = "a period ends; what has not arrived by now never will"
THOUGHT_DEAD = "first#1 begins, its living first try thought dead"
PROVEN = tuple(f"first#1 {step}" for step in (f"sees the witness {OTHER}", f"does not see {ONE}", f"gives {ONE} back"))
ATTACKS = {
    "lease": (
        DOUBT,
        ("first#0 begins", "first#0 claims", f"first#0 marks {ONE}", THOUGHT_DEAD, PERIOD,
         *(step.replace("#0", "#1") for step in WITNESS_LEAVES), *PROVEN,
         f"first#1 marks {ONE}", f"first#1 sends {ONE}", f"{ONE} arrives", f"first#0 sends {ONE}", f"{ONE} arrives"),
    ),
    "compared": (
        DOUBT,
        ("first#0 begins", "first#0 claims", f"first#0 marks {ONE}", f"first#0 sends {ONE}",
         f"first#0 gives up waiting for {ONE}", PERIOD, *WITNESS_LEAVES, f"first#0 sees the witness {OTHER}",
         f"first#0 does not see {ONE}", THOUGHT_DEAD, *PROVEN, f"first#1 marks {ONE}", f"first#1 sends {ONE}",
         f"first#0 gives {ONE} back", f"first#0 marks {ONE}", f"first#0 sends {ONE}",
         f"{ONE} arrives", f"{ONE} arrives"),
    ),
    "suppressions after locking": (SAME_PEOPLE, ()),
}  # fmt: skip
"""By the safeguard that is missing: a way to a broken invariant that the product can follow up to there; the shortest
one that the model finds, where none is given."""


@pytest.mark.parametrize("safeguard", ATTACKS)
def test_what_breaks_a_model_without_a_safeguard_is_refused_by_the_product(
    safeguard: str, fresh: Callable[[], Ledger]
) -> None:
    scope, way = ATTACKS[safeguard]
    weaker = replace(scope, without=frozenset({safeguard}))
    states = list(walked(weaker, way or without(scope, safeguard).way))
    assert faults_in(states[-1][2])
    for late_requests_arrive in (True, False):
        real = Real(fresh(), scope, strict=False)
        for name, before, after in states:
            real.take(name, before, after)
        assert real.refused, "the product went all the way"
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
