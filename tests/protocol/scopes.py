"""The bounds in which the protocol is explored. Together: two tries and two runs, two orders, two destinations, two
crashes, a resend cleared, a correction, a suppression, any lag, a try thought dead, a request that arrives late."""

from __future__ import annotations

from dataclasses import replace

from tests.protocol.model import Scope

DOUBT = Scope(
    "a request in doubt, and a try thought dead",
    orders=2,
    senders=(("first", 0), ("first", 0)),
    periods=2,
    crashes=2,
    thought_dead=1,
    lost_answers=2,
    refusals=1,
)
TWO_RUNS = Scope(
    "two runs",
    orders=2,
    senders=(("first", 0), ("second", 0)),
    periods=2,
    crashes=2,
    thought_dead=1,
)
RESEND = Scope(
    "a resend beside an order that is new",
    orders=2,
    senders=(("first", 0), ("again", 0)),
    already_sent=(0,),
    resend="again",
    clears=1,
    periods=1,
    crashes=2,
    lost_answers=0,
)
CLEARED = Scope(
    "a resend cleared while its first try lives",
    orders=2,
    senders=(("again", 0), ("again", 0)),
    already_sent=(0, 1),
    resend="again",
    clears=1,
    periods=1,
    crashes=1,
    thought_dead=1,
)
PEOPLE = Scope(
    "a correction and a suppression",
    orders=2,
    senders=(("first", 0), ("first", 0)),
    people=(("bob", "ann"), ("ann", "ann")),
    corrected=(0,),
    suppressed=("ann",),
    periods=1,
    crashes=1,
    thought_dead=1,
    refusals=1,
)
DESTINATIONS = Scope(
    "two destinations",
    orders=1,
    destinations=2,
    senders=(("first", 0), ("first", 1)),
    people=(("bob", "ann"),),
    corrected=(0,),
    suppressed=("ann",),
    periods=1,
    crashes=2,
    refusals=1,
)

SAME_PEOPLE = replace(PEOPLE, people=(("ann", "ann"), ("bob", "bob")))
"""To the product a correction that names another customer is another order, or is looked up once more."""

SCOPES = (DOUBT, TWO_RUNS, RESEND, CLEARED, PEOPLE, DESTINATIONS)
