"""The protocol between the ledger, its senders and a destination, as an executable model.

Plain Python that shares nothing with the product: a state is a value, and :func:`steps` gives every state that one
commit, one request or one misfortune leads to. :mod:`tests.protocol.explore` walks through all of them.

What the model takes for granted, and docs/reliability.md names:

* A *period* is at least ``verify_after`` long. A request that left before a period's end has arrived by then, or never
  will: ``Clock`` ends a period and drops what is still on its way.
* A destination shows its events in the order in which it accepted them, however late: ``Lag``.
* Asking the ledger whether a request may still leave, and its leaving, are one step: a process does not freeze in
  between for a whole period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

SAFEGUARDS = {
    "edition ids": "an edition has an event id of its own",
    "witness": "absence is proven by an event that is visible",
    "later witness": "that event left at least verify_after later",
    "asked after": "the doubtful event is asked for after its witness",
    "compared": "an event proven absent is given back only if it has not left once more meanwhile",
    "lease": "a sender asks the ledger before its request leaves whether it still may",
    "suppressions after locking": "suppressions are read after the rows are locked",
    "suppressions": "suppressions are read when an order is marked as sending",
    "frozen content": "the content of a delivery is frozen when it is first marked as sending",
    "editions per run": "a resend run makes one edition of an order, however often it is cleared",
    "sending first": "sending is committed before the request leaves",
}

ASSUMPTIONS = {
    "requests die": "a request has arrived, or never will, verify_after after it left",
    "shown in order": "what was accepted first is shown first",
}
"""What no pipeline can check. Taken away, orders are sent twice: verify_after has to be long enough."""


@dataclass(frozen=True)
class Scope:
    """The bounds within which everything is explored.

    :param senders: run and destination of each process that may send.
    :param already_sent: deliveries of edition 1 that were sent, and are shown, before anything begins.
    :param people: whose order it is, by order and content.
    :param without: safeguards taken away.
    """

    name: str
    orders: int
    senders: tuple[tuple[str, int], ...]
    destinations: int = 1
    periods: int = 2
    crashes: int = 0
    thought_dead: int = 0
    lost_answers: int = 1
    refusals: int = 0
    already_sent: tuple[int, ...] = ()
    resend: str = ""
    clears: int = 0
    corrected: tuple[int, ...] = ()
    suppressed: tuple[str, ...] = ()
    people: tuple[tuple[str, ...], ...] = (("ann", "ann"), ("bob", "bob"))
    without: frozenset[str] = frozenset()


class Key(NamedTuple):
    """One order at one destination in one edition."""

    order: int
    destination: int
    edition: int


class Delivery(NamedTuple):
    key: Key
    status: str  # ready, sending, sent, suppressed
    content: int
    made_by: str  # the run that ordered this edition
    holder: str = ""  # the run that claims it
    attempts: int = 0
    left: int = 0  # the period in which `sending` was last committed
    locked: int = -1  # the sender whose transaction is open on this row


class Sender(NamedTuple):
    """One process. Its step: gone, idle, read, locked, marked, waiting, unanswered, answered, refused,
    witnessed, absent."""

    step: str
    key: Key | None = None
    attempts: int = 0
    left: int = 0
    content: int = 0
    suppressed: frozenset[str] = frozenset()  # as this transaction read them
    before_mark: bool = False  # a suppression of this person was committed before the delivery was marked


class Event(NamedTuple):
    """What a destination took: its id, and whose request it was."""

    id: tuple[int, int]
    key: Key
    content: int


class State(NamedTuple):
    deliveries: tuple[Delivery, ...]
    senders: tuple[Sender, ...]
    current: tuple[int, ...]  # content of each order
    on_its_way: frozenset[Event]  # requests whose sender has given up on them
    accepted: tuple[tuple[Event, ...], ...]
    shown: tuple[frozenset[Key], ...]  # of the accepted events those that can be read back
    suppressed: frozenset[str]
    period: int = 0
    crashes: int = 0
    thought_dead: int = 0
    lost_answers: int = 0
    refusals: int = 0
    attempt: int = 0  # how often the resend run was cleared
    planned: tuple[tuple[int, str], ...] = ()  # attempts of the resend run that have planned
    broken: str = ""


def beginning(scope: Scope) -> State:
    deliveries, accepted = [], []
    for destination in range(scope.destinations):
        taken = []
        for order in range(scope.orders):
            key, sent = Key(order, destination, 1), order in scope.already_sent
            deliveries.append(Delivery(key, "sent" if sent else "ready", 0, "first", attempts=int(sent)))
            if sent:
                taken.append(Event((order, 1), key, 0))
        accepted.append(tuple(taken))
    return State(
        deliveries=tuple(deliveries),
        senders=(Sender("gone"),) * len(scope.senders),
        current=(0,) * scope.orders,
        on_its_way=frozenset(),
        accepted=tuple(accepted),
        shown=tuple(frozenset(event.key for event in taken) for taken in accepted),
        suppressed=frozenset(),
    )


def steps(state: State, scope: Scope) -> Iterator[tuple[str, State]]:
    """What can happen next: its name, and the state it leads to."""
    for index in range(len(state.senders)):
        yield from _sender_steps(state, scope, index)
    yield from _destination_steps(state, scope)
    yield from _people_steps(state, scope)


def _sender_steps(state: State, scope: Scope, index: int) -> Iterator[tuple[str, State]]:
    sender, (run, destination) = state.senders[index], scope.senders[index]
    name = f"{run}#{index}"
    if sender.step == "gone":
        living = [other for other, (of, at) in enumerate(scope.senders) if of == run and at == destination]
        if all(state.senders[other].step == "gone" for other in living):
            yield f"{name} begins", _with(state, index, Sender("idle"))
        elif state.thought_dead < scope.thought_dead:
            now = state._replace(thought_dead=state.thought_dead + 1)
            yield f"{name} begins, its living first try thought dead", _with(now, index, Sender("idle"))
        return
    if state.crashes < scope.crashes:
        yield f"{name} is killed", _killed(state, scope, index)
    if sender.step == "idle":
        yield from _claim(state, scope, index, name)
        for row in _held(state, run, destination):
            if row.status == "ready":
                yield from _mark(state, scope, index, name, row)
            elif row.status == "sending":
                yield from _ask(state, scope, index, name, row)
    elif sender.step == "read":
        row = _row(state, sender.key)
        if row.status == "ready" and row.holder == run and row.locked < 0:
            yield f"{name} marks {_short(row.key)}", _marked(state, scope, index, row, sender.suppressed)
        elif row.locked < 0:
            yield f"{name} finds {_short(row.key)} taken", _with(state, index, Sender("idle"))
    elif sender.step == "locked":
        row = _row(state, sender.key)
        yield f"{name} marks {_short(row.key)}", _marked(state, scope, index, row, state.suppressed)
    elif sender.step == "marked":
        yield from _leave(state, scope, index, name)
    elif sender.step == "waiting":
        event = _event(sender, scope)
        if state.lost_answers < scope.lost_answers:
            now = state._replace(on_its_way=state.on_its_way | {event}, lost_answers=state.lost_answers + 1)
            yield f"{name} gives up waiting for {_short(event.key)}", _with(now, index, Sender("idle"))
        yield f"{_short(event.key)} arrives", _with(_accept(state, event), index, sender._replace(step="answered"))
        if state.refusals < scope.refusals:
            now = state._replace(refusals=state.refusals + 1)
            yield f"{_short(event.key)} is not taken", _with(now, index, sender._replace(step="refused"))
    elif sender.step == "unanswered":
        yield f"{name} gives up waiting for {_short(sender.key)}", _with(state, index, Sender("idle"))
    elif sender.step == "answered":
        yield f"{name} commits that {_short(sender.key)} is sent", _sent(state, index, run, sender.key)
        if state.lost_answers < scope.lost_answers:
            now = state._replace(lost_answers=state.lost_answers + 1)
            yield f"the answer on {_short(sender.key)} is lost", _with(now, index, Sender("idle"))
    elif sender.step == "refused":
        row = _row(state, sender.key)
        if row.status == "sending" and row.holder == run and row.attempts == sender.attempts:
            state = _put(state, row._replace(status="ready"))
        yield f"{name} commits that {_short(row.key)} was not taken", _with(state, index, Sender("idle"))
    elif sender.step == "witnessed":
        if "asked after" not in scope.without and _shown(state, scope, sender.key):
            yield f"{name} sees {_short(sender.key)}", _sent(state, index, run, sender.key)
        else:
            yield f"{name} does not see {_short(sender.key)}", _with(state, index, sender._replace(step="absent"))
    elif sender.step == "absent":
        row = _row(state, sender.key)
        same = row.left == sender.left and row.attempts == sender.attempts
        if row.status == "sending" and row.holder == run and (same or "compared" in scope.without):
            state = _put(state, row._replace(status="ready"))
        yield f"{name} gives {_short(row.key)} back", _with(state, index, Sender("idle"))


def _claim(state: State, scope: Scope, index: int, name: str) -> Iterator[tuple[str, State]]:
    """Take what nobody holds, or whose holder gave no sign of life; a resend run orders its editions first."""
    run, destination = scope.senders[index]
    now = state
    if run == scope.resend:
        tag = run if "editions per run" not in scope.without else f"{run}.{state.attempt}"
        if (state.attempt, name) in state.planned:
            return
        for order in range(scope.orders):
            rows = [row for row in now.deliveries if row.key.order == order and row.key.destination == destination]
            if all(row.status == "sent" for row in rows) and all(row.made_by != tag for row in rows):
                key = Key(order, destination, len(rows) + 1)
                made = Delivery(key, "ready", now.current[order], tag, holder=run)
                now = now._replace(deliveries=tuple(sorted((*now.deliveries, made))))
        now = now._replace(planned=tuple(sorted((*now.planned, (state.attempt, name)))))
        yield f"{name} orders new editions", now
        return
    for row in state.deliveries:
        if row.key.destination != destination or row.status not in ("ready", "sending") or row.holder == run:
            continue
        alive = any(
            state.senders[other].step != "gone" for other, (of, _) in enumerate(scope.senders) if of == row.holder
        )
        if row.locked >= 0:
            continue
        if alive:
            if now.thought_dead == scope.thought_dead:
                continue
            now = now._replace(thought_dead=now.thought_dead + 1)
        now = _put(now, row._replace(holder=run))
    if now != state:
        yield f"{name} claims", now


def _mark(state: State, scope: Scope, index: int, name: str, row: Delivery) -> Iterator[tuple[str, State]]:
    if row.locked >= 0:
        return
    if not scope.suppressed:
        yield f"{name} marks {_short(row.key)}", _marked(state, scope, index, row, state.suppressed)
    elif "suppressions after locking" in scope.without:
        sender = Sender("read", row.key, suppressed=state.suppressed)
        yield f"{name} reads the suppressions", _with(state, index, sender)
    else:
        locked = _put(state, row._replace(locked=index))
        yield f"{name} locks {_short(row.key)}", _with(locked, index, Sender("locked", row.key))


def _marked(state: State, scope: Scope, index: int, row: Delivery, suppressed: frozenset[str]) -> State:
    """Commit `sending`, freezing the content, or that nothing may leave for this person."""
    person = scope.people[row.key.order][row.content]
    if person in suppressed and "suppressions" not in scope.without:
        return _with(_put(state, row._replace(status="suppressed", locked=-1)), index, Sender("idle"))
    sending = row._replace(status="sending", attempts=row.attempts + 1, left=state.period, locked=-1)
    if "sending first" in scope.without:
        sending = row._replace(attempts=row.attempts + 1, locked=-1)
    sender = Sender(
        "marked", row.key, sending.attempts, state.period, row.content, before_mark=person in state.suppressed
    )
    return _with(_put(state, sending), index, sender)


def _leave(state: State, scope: Scope, index: int, name: str) -> Iterator[tuple[str, State]]:
    """The request leaves, unless the ledger says that it must not any more."""
    sender, (run, _) = state.senders[index], scope.senders[index]
    row = _row(state, sender.key)
    now = state
    if "lease" not in scope.without:
        mine = row.holder == run and row.attempts == sender.attempts
        if not mine or (row.status != "sending" and "sending first" not in scope.without):
            yield f"{name} may not send {_short(row.key)} any more", _with(state, index, Sender("idle"))
            return
        person = scope.people[row.key.order][sender.content]
        if person in state.suppressed and not {"suppressions", "suppressions after locking"} & scope.without:
            stopped = _put(state, row._replace(status="suppressed"))
            yield f"{name} learns that {person} is suppressed", _with(stopped, index, Sender("idle"))
            return
        now = _put(state, row._replace(left=state.period))
    if sender.before_mark:
        now = _broken(now, f"8: {_short(row.key)} left for a person suppressed before it was marked")
    others = [
        other
        for other, (of, _) in enumerate(scope.senders)
        if of != run and state.senders[other].key == row.key and state.senders[other].step in ("waiting", "answered")
    ]
    if others:
        now = _broken(now, f"5: two runs send {_short(row.key)} at once")
    yield f"{name} sends {_short(row.key)}", _with(now, index, sender._replace(step="waiting"))


def _ask(state: State, scope: Scope, index: int, name: str, row: Delivery) -> Iterator[tuple[str, State]]:
    """What became of a request that nobody answered: read it back, or prove that it is absent."""
    run, destination = scope.senders[index]
    if _shown(state, scope, row.key):
        yield f"{name} sees {_short(row.key)}", _sent(state, index, run, row.key)
        return
    sender = Sender("witnessed", row.key, row.attempts, row.left)
    if "witness" in scope.without:
        yield f"{name} asks for {_short(row.key)}", _with(state, index, sender)
        return
    early = "asked after" in scope.without
    for other in state.deliveries:
        if other.key == row.key or other.key.destination != destination or other.status != "sent":
            continue
        later = other.left > row.left or "later witness" in scope.without
        if later and (early or _shown(state, scope, other.key)):
            yield f"{name} sees the witness {_short(other.key)}", _with(state, index, sender)
            return


def _destination_steps(state: State, scope: Scope) -> Iterator[tuple[str, State]]:
    for event in sorted(state.on_its_way):
        now = state._replace(on_its_way=state.on_its_way - {event})
        yield f"{_short(event.key)} arrives late", _accept(now, event)
    for destination, accepted in enumerate(state.accepted):
        hidden = [event.key for event in accepted if event.key not in state.shown[destination]]
        for key in hidden if "shown in order" in scope.without else hidden[:1]:
            shown = list(state.shown)
            shown[destination] |= {key}
            yield f"{_short(key)} is shown", state._replace(shown=tuple(shown))
    if state.period < scope.periods:
        senders = tuple(
            sender._replace(step="unanswered") if sender.step == "waiting" else sender for sender in state.senders
        )
        if "requests die" in scope.without:
            yield "a period ends", state._replace(period=state.period + 1)
            return
        now = state._replace(period=state.period + 1, on_its_way=frozenset(), senders=senders)
        yield "a period ends; what has not arrived by now never will", now


def _people_steps(state: State, scope: Scope) -> Iterator[tuple[str, State]]:
    for order in scope.corrected:
        if state.current[order] == 0:
            yield from _correct(state, scope, order)
    for person in scope.suppressed:
        rows = [row for row in state.deliveries if scope.people[row.key.order][row.content] == person]
        if person not in state.suppressed and all(row.locked < 0 for row in rows):
            now = state._replace(suppressed=state.suppressed | {person})
            for row in rows:
                if row.status == "ready" and "suppressions" not in scope.without:
                    now = _put(now, row._replace(status="suppressed"))
            yield f"{person} is suppressed", now
    if scope.resend and state.attempt < scope.clears and state.planned:
        yield f"{scope.resend} is cleared", state._replace(attempt=state.attempt + 1)


def _correct(state: State, scope: Scope, order: int) -> Iterator[tuple[str, State]]:
    rows = [row for row in state.deliveries if row.key.order == order]
    if any(row.locked >= 0 for row in rows):
        return
    now = state._replace(current=(*state.current[:order], 1, *state.current[order + 1 :]))
    for row in rows:
        frozen = row.attempts > 0 if "frozen content" not in scope.without else row.status == "sent"
        if not frozen and row.status != "suppressed":
            now = _put(now, row._replace(content=1))
    yield f"order {order} is corrected", now


def _accept(state: State, event: Event) -> State:
    taken = state.accepted[event.key.destination]
    if any(other.key == event.key for other in taken):
        state = _broken(state, f"4: {_short(event.key)} is there twice")
    accepted = list(state.accepted)
    accepted[event.key.destination] = (*taken, event)
    return state._replace(accepted=tuple(accepted))


def _sent(state: State, index: int, run: str, key: Key | None) -> State:
    row = _row(state, key)
    if row.holder == run and row.status in ("sending", "ready"):
        state = _put(state, row._replace(status="sent"))
    return _with(state, index, Sender("idle"))


def _killed(state: State, scope: Scope, index: int) -> State:
    """What had left may still arrive; an open transaction is rolled back."""
    sender = state.senders[index]
    now = state._replace(crashes=state.crashes + 1)
    if sender.step == "waiting":
        now = now._replace(on_its_way=now.on_its_way | {_event(sender, scope)})
    if sender.step == "locked":
        now = _put(now, _row(now, sender.key)._replace(locked=-1))
    return _with(now, index, Sender("gone"))


def faults_in(state: State) -> str:
    """The invariant that does not hold in this state, or nothing."""
    if state.broken:
        return state.broken
    taken = {event.key: event for events in state.accepted for event in events}
    for row in state.deliveries:
        event = taken.get(row.key)
        if row.status == "sent" and event is None:
            return f"3: {_short(row.key)} is said to be sent, and nothing of it left"
        if event is not None and event.content != row.content:
            return f"3: {_short(row.key)} was sent with another content than the ledger says"
    ordered = [(row.key.order, row.key.destination, row.made_by.split(".")[0]) for row in state.deliveries]
    if len(set(ordered)) < len(ordered):
        return "6: one run ordered two editions of an order"
    return ""


def left_behind(state: State) -> str:
    """In a state from which nothing leads on: what should have been sent, and was not."""
    ready = [_short(row.key) for row in state.deliveries if row.status == "ready"]
    return f"left behind: {', '.join(ready)}" if ready else ""


def _id(key: Key, scope: Scope) -> tuple[int, int]:
    return key.order, 1 if "edition ids" in scope.without else key.edition


def _event(sender: Sender, scope: Scope) -> Event:
    assert sender.key is not None
    return Event(_id(sender.key, scope), sender.key, sender.content)


def _shown(state: State, scope: Scope, key: Key | None) -> bool:
    assert key is not None
    return any(_id(key, scope) == _id(other, scope) for other in state.shown[key.destination])


def _held(state: State, run: str, destination: int) -> Iterator[Delivery]:
    for row in state.deliveries:
        if row.holder == run and row.key.destination == destination and row.locked < 0:
            yield row


def _row(state: State, key: Key | None) -> Delivery:
    return next(row for row in state.deliveries if row.key == key)


def _put(state: State, row: Delivery) -> State:
    rows = tuple(row if other.key == row.key else other for other in state.deliveries)
    return state._replace(deliveries=rows)


def _with(state: State, index: int, sender: Sender) -> State:
    return state._replace(senders=(*state.senders[:index], sender, *state.senders[index + 1 :]))


def _broken(state: State, why: str) -> State:
    return state._replace(broken=state.broken or why)


def _short(key: Key | None) -> str:
    assert key is not None
    return f"order {key.order} edition {key.edition} at destination {key.destination}"
