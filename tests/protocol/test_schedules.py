"""Schedules of the model drive the real functions: step by step they come to what the model comes to.

Each ends with the next hour's run of the real sender, after which every order is there once.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from include.instore.ledger import Ledger
from tests.protocol.model import Scope, State, beginning, steps
from tests.protocol.real import MoreCareful, Real
from tests.protocol.scopes import DOUBT, SAME_PEOPLE, TWO_RUNS

SCHEDULES = 12
LONGEST = 40
UNDER_WAY = ("ready", "sending")
SCOPES = (DOUBT, TWO_RUNS, SAME_PEOPLE)


def _schedule(scope: Scope, chance: random.Random) -> Iterator[tuple[str, State, State]]:
    """A way through the model; what is rare among the steps of a state is as likely as what is frequent."""
    state = beginning(scope)
    for _ in range(LONGEST):
        kinds: dict[str, list[tuple[str, State]]] = {}
        for name, after in steps(state, scope):
            if _takes_half_a_batch(state, after):
                continue
            kinds.setdefault(_kind(name), []).append((name, after))
        if not kinds:
            return
        name, after = chance.choice(kinds[chance.choice(sorted(kinds))])
        yield name, state, after
        state = after


def _takes_half_a_batch(before: State, after: State) -> bool:
    """A run is thought dead with all that it holds; the model counts that by the order."""
    pairs = list(zip(before.deliveries, after.deliveries, strict=True))
    robbed = {old.holder for old, new in pairs if old.holder not in ("", new.holder)}
    return any(old.holder in robbed and old.holder == new.holder and new.status in UNDER_WAY for old, new in pairs)


def _kind(name: str) -> str:
    return re.sub(r"order \d edition \d at destination \d|\w+#\d|\d", "-", name)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.name)
def test_the_ledger_says_what_the_model_says(
    scope: Scope, fresh: Callable[[], Ledger], record_property: Callable[[str, object], None]
) -> None:
    done: Counter[str] = Counter()
    careful = 0
    for seed in range(SCHEDULES):
        real, taken = Real(fresh(), scope, strict=True), []
        try:
            for name, before, after in _schedule(scope, random.Random(seed)):
                taken.append(name)
                real.take(name, before, after)
                done[_kind(name)] += 1
        except MoreCareful:
            careful += 1
        except AssertionError as error:
            raise AssertionError("\n".join([f"seed {seed}: {error}", *taken])) from error
        real.finish(late_requests_arrive=bool(seed % 2))
    record_property("schedules", f"{scope.name}: {SCHEDULES} of {done.total()} steps, {careful} ended early")
    for needed in ("- is killed", "- marks -", "- arrives late", "- commits that - is sent"):
        assert done[needed], f"no schedule has the step {needed}: {sorted(done)}"
