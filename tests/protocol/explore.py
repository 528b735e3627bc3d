"""Walking through every state that the protocol can reach within a scope, the shortest ways first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from tests.protocol.model import Scope, State, beginning, faults_in, left_behind, steps


@dataclass(frozen=True)
class Explored:
    """What a scope holds.

    :param fault: the first invariant found broken; empty: all hold in every state.
    :param way: the shortest way to it, a step a line.
    :param ends: states from which nothing leads on, and of these: all sent or suppressed, some in doubt.
    """

    scope: Scope
    states: int
    transitions: int
    ends: int
    settled: int
    in_doubt: int
    fault: str = ""
    way: tuple[str, ...] = ()


def explore(scope: Scope) -> Explored:
    """All states of the scope, or those up to the first fault."""
    first = beginning(scope)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    waiting = deque([first])
    transitions = ends = settled = in_doubt = 0
    while waiting:
        state = waiting.popleft()
        fault = faults_in(state)
        leads_on = False
        if not fault:
            for name, after in steps(state, scope):
                leads_on = True
                transitions += 1
                if after not in came_from:
                    came_from[after] = state, name
                    waiting.append(after)
            if not leads_on:
                fault = left_behind(state)
                ends += 1
                doubt = any(row.status == "sending" for row in state.deliveries)
                in_doubt += doubt
                settled += not doubt
        if fault:
            way = _way(came_from, state)
            return Explored(scope, len(came_from), transitions, ends, settled, in_doubt, fault, way)
    return Explored(scope, len(came_from), transitions, ends, settled, in_doubt)


@cache
def without(scope: Scope, safeguard: str) -> Explored:
    """The same scope with one safeguard taken away."""
    return explore(replace(scope, without=scope.without | {safeguard}))


def _way(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    way: list[str] = []
    while (step := came_from[state]) is not None:
        state, name = step
        way.append(name)
    return tuple(reversed(way))


def walked(scope: Scope, way: Iterable[str]) -> Iterator[tuple[str, State, State]]:
    """The steps of a way, each with the state before and after it."""
    state = beginning(scope)
    for name in way:
        before, state = state, next(after for each, after in steps(state, scope) if each == name)
        yield name, before, state
