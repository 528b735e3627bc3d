"""The real ledger, led through a schedule of the model: each transition is the function that the product calls for it.

Nothing runs at the same time and nothing waits: a process that is killed at a fault point is one that takes no further
step, and a request that is late is one that arrives when the schedule says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import simplejson
import sqlalchemy as sa

from include.instore.destinations.delivery import send_batch
from include.instore.ledger import Ledger
from include.instore.ledger.claims import hold, release
from include.instore.ledger.customers import settle_customers
from include.instore.ledger.deliveries import (
    Doubt,
    OutgoingBatch,
    OutgoingOrder,
    Renewed,
    give_back,
    in_doubt,
    left_later,
    mark_sending,
    record_outcomes,
    renew_sending,
    waited_for,
)
from include.instore.ledger.destinations import switch_destinations
from include.instore.ledger.suppressions import learn_from_answers
from include.instore.ledger.tables import claims, contents, deliveries, orders
from include.instore.model.settings import load_settings
from tests.instore import given
from tests.protocol.model import Key, Scope, State

_DESTINATION = given.PROFILE_STORE
_SETTINGS = load_settings(verify_after=0.02)
_LATER = ("later-0", "later-1", "later-2")


class MoreCareful(Exception):
    """The product does not take a step that the model permits: nothing further can be compared."""


@dataclass
class Process:
    """One sender; what it holds in its memory."""

    held: OutgoingBatch
    order: OutgoingOrder | None = None
    doubt: Doubt | None = None
    may_leave: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one event."""

    track_id: str
    state: str = "accepted"
    status_code: int | None = 200
    detail: str = ""
    retry_after: float | None = None


class Real(given.Events):
    """The ledger, its senders and one destination.

    :param strict: after each step the ledger must say what the model says. Otherwise the schedule is of a model that
        lacks a safeguard, and what the product refuses is counted.
    """

    settings = _SETTINGS
    reads_back = True

    def __init__(self, ledger: Ledger, scope: Scope, *, strict: bool) -> None:
        self._ledger = ledger
        self._scope = scope
        self._strict = strict
        self._processes: dict[int, Process] = {}
        self._suppressed: set[str] = set()
        self._corrected = 0
        self._on_their_way: dict[Key, OutgoingOrder] = {}
        self.accepted: dict[str, str] = {}
        """Event id to the payload it came with."""
        self.refused = 0
        switch_destinations(ledger, [_DESTINATION])
        self._make_ready("before", [self._document(order) for order in range(scope.orders)])
        release(ledger, "before")

    # What a schedule consists of -------------------------------------------------------------------------------

    def take(self, name: str, before: State, after: State) -> None:
        """One transition of the model. :raises MoreCareful: the product does not take it."""
        changed = (n for n, pair in enumerate(zip(before.senders, after.senders, strict=True)) if pair[0] != pair[1])
        named = re.match(r"\w+#(\d+) ", name)
        index = int(named[1]) if named else next(changed, 0)
        for pattern, step in _STEPS:
            if pattern.search(name):
                step(self, name, index, before, after)
                break
        else:
            raise AssertionError(f"the model has a step that nobody has thought of: {name}")
        self._hold_the_invariants()
        if self._strict:
            self._is_as_in_the_model(after)

    def _begins(self, _: str, index: int, __: State, ___: State) -> None:
        held = OutgoingBatch(self._scope.senders[index][0], 0, _DESTINATION)
        hold(self._ledger, held)
        self._processes[index] = Process(held)

    def _claims(self, name: str, _: int, before: State, after: State) -> None:
        run = name.partition("#")[0]
        taken_from = {
            old.holder
            for old, new in zip(before.deliveries, after.deliveries, strict=True)
            if old.holder not in ("", new.holder)
        }
        for each in taken_from:
            self._alive_at(each, given.hours_ago(3))
        given.planned(self._ledger, given.run(run))
        for each in taken_from & {process.held.run_id for process in self._processes.values()}:
            self._alive_at(each, _now())  # it was only thought dead

    def _marks(self, name: str, index: int, before: State, after: State) -> None:
        process, key = self._processes[index], _key(name)
        person = self._scope.people[key.order][before.deliveries[key.order].content]
        marked = mark_sending(self._ledger, process.held, [self._row(key)["key"]])
        assert not (marked and person in self._suppressed), f"{person} is suppressed, and her order was marked"
        process.order, process.may_leave = (marked[0], False) if marked else (None, False)
        self._refuses(not marked and after.senders[index].step == "marked")
        if marked and self._strict:
            carries = int("corrected" in marked[0].payload)
            assert carries == after.senders[index].content, "it leaves with another content than in the model"

    def _sends(self, _: str, index: int, __: State, ___: State) -> None:
        process = self._processes[index]
        if process.order is None:
            return
        said = renew_sending(self._ledger, process.held, {process.order.event_id: process.order.attempts})
        process.may_leave = said is Renewed.YES
        self._refuses(said is not Renewed.YES)

    def _may_not(self, _: str, index: int, __: State, ___: State) -> None:
        process = self._processes[index]
        assert process.order is not None
        said = renew_sending(self._ledger, process.held, {process.order.event_id: process.order.attempts})
        assert said is Renewed.TAKEN_OVER
        process.order = None

    def _learns(self, _: str, index: int, __: State, ___: State) -> None:
        process = self._processes[index]
        assert process.order is not None
        said = renew_sending(self._ledger, process.held, {process.order.event_id: process.order.attempts})
        assert said is Renewed.SUPPRESSED
        # The model knows that nothing had left and sets it aside; the product finds out by asking.
        raise MoreCareful

    def _arrives(self, name: str, index: int, before: State, after: State) -> None:
        process = self._processes[index]
        if process.order is not None and process.may_leave:
            self._accept(process.order)

    def _arrives_late(self, name: str, _: int, __: State, ___: State) -> None:
        if order := self._on_their_way.pop(_key(name), None):
            self._accept(order)

    def _gives_up(self, name: str, index: int, before: State, after: State) -> None:
        process = self._processes[index]
        if process.order is not None and process.may_leave and after.on_its_way != before.on_its_way:
            self._on_their_way[_key(name)] = process.order
        process.order = None

    def _is_killed(self, _: str, index: int, before: State, after: State) -> None:
        process = self._processes.pop(index)
        key = before.senders[index].key
        if before.senders[index].step == "waiting" and process.order is not None and process.may_leave:
            assert key is not None
            self._on_their_way[key] = process.order

    def _commits_sent(self, name: str, index: int, _: State, __: State) -> None:
        process = self._processes[index]
        if process.order is not None and process.may_leave:
            mine = {process.order.event_id: process.order.attempts}
            record_outcomes(self._ledger, process.held, sent=[*mine], attempts=mine)

    def _commits_unsent(self, name: str, index: int, _: State, __: State) -> None:
        process = self._processes[index]
        if process.order is not None and process.may_leave:
            mine = {process.order.event_id: process.order.attempts}
            record_outcomes(self._ledger, process.held, unsent=[*mine], attempts=mine)

    def _sees_the_witness(self, name: str, index: int, before: State, _: State) -> None:
        process = self._processes[index]
        witness = self._row(_key(name))["event_id"]
        key = _.senders[index].key
        assert key is not None
        doubts = {each.event_id: each for each in in_doubt(self._ledger, process.held)}
        process.doubt = doubts.get(self._row(key)["event_id"])
        waited = process.doubt.waited if process.doubt else None
        if waited is not None and witness in left_later(self._ledger, _DESTINATION, waited, 50):
            return
        # To the product the place of a witness is that of its first leaving, to the model that of its last.
        raise MoreCareful

    def _sees(self, name: str, index: int, _: State, __: State) -> None:
        record_outcomes(self._ledger, self._processes[index].held, sent=[self._row(_key(name))["event_id"]])

    def _gives_back(self, name: str, index: int, before: State, after: State) -> None:
        process = self._processes[index]
        if process.doubt is None:
            return
        was = self._row(_key(name))["status"]
        give_back(self._ledger, process.held, [process.doubt])
        self._refuses(
            before != after and was == self._row(_key(name))["status"] and before.deliveries != after.deliveries
        )
        process.doubt = None

    def _a_period_ends(self, _: str, __: int, ___: State, ____: State) -> None:
        for run in dict.fromkeys(run for run, _ in self._scope.senders):
            held = OutgoingBatch(run, 0, _DESTINATION)
            waited_for(self._ledger, held, [each for each in in_doubt(self._ledger, held) if each.waited is None])
        self._on_their_way.clear()

    def _is_corrected(self, name: str, _: int, __: State, ___: State) -> None:
        order = int(name.split()[1])
        self._corrected += 1
        run = given.run(f"correction-{self._corrected}")
        landed = given.landed(self._ledger, self._document(order, note="corrected"), run=run)
        assert landed.corrections == 1

    def _is_suppressed(self, name: str, _: int, __: State, ___: State) -> None:
        person = name.split()[0]
        with self._ledger.write() as connection:
            learn_from_answers(
                self._ledger, connection, "before", [(_card(person), f"{person}@example.com")], [], _now()
            )
        self._suppressed.add(person)

    def _nothing(self, *_: Any) -> None:
        """A step that is none of the product's: something is shown, an answer is lost, a row is locked."""

    def _forgets(self, _: str, index: int, __: State, ___: State) -> None:
        self._processes[index].order = None

    # The end of a schedule -------------------------------------------------------------------------------------

    def finish(self, *, late_requests_arrive: bool) -> None:
        """All processes are gone; the next hours' runs, which have new orders, do the rest."""
        for order in self._on_their_way.values() if late_requests_arrive else ():
            self._accept(order)
        self._on_their_way.clear()
        self._processes.clear()
        for run, _ in self._scope.senders:
            self._alive_at(run, given.hours_ago(3))
        new = [
            given.document(number, loyaltyCardNumber=None, emailAddress=f"{number}@example.com") for number in _LATER
        ]
        run_id = "next-hour"
        self._make_ready(run_id, new)
        send_batch(self, self._ledger, OutgoingBatch(run_id, 0, _DESTINATION), _SETTINGS.sending)
        self._hold_the_invariants()
        said = {row["order_number"]: row["status"] for row in given.on_the_way(self._ledger)}
        for order in range(self._scope.orders):
            person = self._scope.people[order][0]
            allowed = {"sent", "suppressed"} if person in self._suppressed else {"sent"}
            assert said[_number(order)] in allowed, said
        assert all(said[number] == "sent" for number in _LATER)

    def send_events(self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]) -> Iterator[Outcome]:
        before_leaving()
        for event in events:
            assert event["trackId"] not in self.accepted, "an event is there twice"
            self.accepted[event["trackId"]] = simplejson.dumps(event["payload"], use_decimal=True)
            yield Outcome(event["trackId"])

    def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
        return {each: "shown" if each in self.accepted else "absent" for each in event_ids}

    # What is compared ------------------------------------------------------------------------------------------

    def _hold_the_invariants(self) -> None:
        """What is said to be sent is there, with the content that the ledger says it carries (invariant 3)."""
        with self._ledger.read() as connection:
            rows = connection.execute(
                sa.select(
                    deliveries.c.event_id,
                    sa.func.coalesce(contents.c.payload, orders.c.payload),
                    deliveries.c.fingerprint,
                    orders.c.fingerprint,
                    orders.c.payload,
                )
                .join(orders, orders.c.key == deliveries.c.key)
                .outerjoin(
                    contents,
                    sa.and_(contents.c.key == deliveries.c.key, contents.c.fingerprint == deliveries.c.fingerprint),
                )
                .where(deliveries.c.status == "sent")
            ).all()
        for event_id, other, carried, current, payload in rows:
            assert event_id in self.accepted, "an event is said to be sent, and nothing of it left"
            wanted = simplejson.loads(payload if carried == current else other, use_decimal=True)
            told = simplejson.loads(self.accepted[event_id], use_decimal=True)
            assert told == wanted, "an event was sent with another content than the ledger says"

    def _is_as_in_the_model(self, state: State) -> None:
        for row in state.deliveries:
            real = self._row(row.key)
            assert real["status"] == row.status, f"{row.key}: {real['status']}, in the model {row.status}"
            assert real["attempts"] == row.attempts, f"{row.key}: {real['attempts']} attempts"
            if row.status in ("ready", "sending"):
                assert (real["claim_run"] or "") == row.holder, f"{row.key}: held by {real['claim_run']}"
        taken = {self._row(event.key)["event_id"] for events in state.accepted for event in events}
        assert taken == self.accepted.keys(), f"the model says {len(taken)} are there, {len(self.accepted)} are"

    def _refuses(self, refused: bool) -> None:
        assert not (refused and self._strict), "the product refuses a step of the model"
        self.refused += refused

    # Small things ----------------------------------------------------------------------------------------------

    def _accept(self, order: OutgoingOrder) -> None:
        assert order.event_id not in self.accepted, "an event is there twice"
        self.accepted[order.event_id] = order.payload

    def _row(self, key: Key) -> dict[str, Any]:
        return given.row(self._ledger, _number(key.order))

    def _document(self, order: int, **changes: Any) -> dict[str, Any]:
        person = self._scope.people[order][0]
        # Without a card, which would have to be asked for first.
        return given.document(_number(order), loyaltyCardNumber=None, emailAddress=f"{person}@example.com", **changes)

    def _make_ready(self, run_id: str, documents: Sequence[Mapping[str, Any]]) -> None:
        run = given.run(run_id)
        given.landed(self._ledger, *documents, run=run)
        given.planned(self._ledger, run)
        settle_customers(
            self._ledger,
            given.batch(run_id),
            asked_after=_now(),
            cache_hits=0,
            expiry=given.moment("2017-01-02") - _BEGINNING,
        )

    def _alive_at(self, run: str, moment: datetime) -> None:
        with self._ledger.write() as connection:
            connection.execute(sa.update(claims).where(claims.c.run == run).values(alive_at=moment))


def _key(name: str) -> Key:
    """The last delivery that a step names."""
    order, edition, destination = re.findall(r"order (\d+) edition (\d+) at destination (\d+)", name)[-1]
    return Key(int(order), int(destination), int(edition))


def _number(order: int) -> str:
    return f"order-{order}"


def _card(person: str) -> str:
    return f"77340000000{len(person)}{ord(person[0])}"


def _now() -> datetime:
    return datetime.now(timezone.utc)


_BEGINNING = given.moment("2017-01-01")
_STEPS: list[tuple[re.Pattern[str], Callable[..., None]]] = [
    (re.compile(pattern), step)
    for pattern, step in (
        (r" begins", Real._begins),
        (r" is killed", Real._is_killed),
        (r" claims$", Real._claims),
        (r" locks | reads the suppressions", Real._nothing),
        (r" marks ", Real._marks),
        (r" finds .* taken", Real._nothing),
        (r" may not send ", Real._may_not),
        (r" learns that ", Real._learns),
        (r" sends ", Real._sends),
        (r" gives up waiting ", Real._gives_up),
        (r" arrives late", Real._arrives_late),
        (r" arrives$", Real._arrives),
        (r" is not taken", Real._nothing),
        (r" commits that .* is sent", Real._commits_sent),
        (r"the answer on .* is lost", Real._forgets),
        (r" commits that .* was not taken", Real._commits_unsent),
        (r" sees the witness ", Real._sees_the_witness),
        (r" does not see ", Real._nothing),
        (r" sees ", Real._sees),
        (r" gives .* back", Real._gives_back),
        (r" is shown", Real._nothing),
        (r"^a period ends", Real._a_period_ends),
        (r" is corrected", Real._is_corrected),
        (r" is suppressed", Real._is_suppressed),
    )
]
