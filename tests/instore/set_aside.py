"""For every code by which something is set aside: a ledger in which run-1 has just done so."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from include.instore.customers.lookup import look_up_batch
from include.instore.ledger import Ledger
from include.instore.ledger.customers import CardAnswer
from include.instore.ledger.extract_files import note_left, note_waiting
from include.instore.ledger.runs import count_run
from include.instore.ledger.suppressions import suppress
from include.instore.ledger.tables import extracts
from include.instore.model.codes import CODES, Kind
from include.instore.model.settings import load_settings
from tests.instore import given
from tests.instore.destinations.test_delivery import Store

SET_ASIDE = (Kind.REFUSED, Kind.FILE, Kind.ORDER, Kind.EVENT)


def _collision(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.landed(ledger, given.document("S1", storeId="0505"))


def _twin(ledger: Ledger) -> None:
    given.landed(ledger, given.document("0100"))
    given.landed(ledger, given.document("100"))


def _refused(word: str) -> Callable[[Ledger], None]:
    def give(ledger: Ledger) -> None:
        given.landed(ledger, refusals=[given.refused(given.body("S1"), reason=word)])

    return give


def _unmatched(word: str) -> Callable[[Ledger], None]:
    def give(ledger: Ledger) -> None:
        card = None if word == "no_customer_key" else given.CARD
        given.landed(ledger, *(given.document(f"S{number}", loyaltyCardNumber=card) for number in range(5)))
        again = None if card is None else given.hours_ago(-1)
        given.set_orders(ledger, status="unmatched", reason=word, next_attempt=again, resolved_run="run-1")

    return give


def _left(ledger: Ledger) -> None:
    given.landed(ledger)
    note_left(ledger, "run-1", {"a.csv": ("1", "its marker, .done, is not there")})
    with ledger.write() as connection:
        connection.execute(sa.update(extracts).values(loaded_at=given.hours_ago(4)))


class _Member:
    def resolve(self, card: str) -> CardAnswer:
        return CardAnswer(card, "matched", "member@example.com")


def _suppressed(ledger: Ledger) -> None:
    suppress(ledger, [given.CARD], "a ticket")
    given.landed(ledger, given.document("S1"))
    given.planned(ledger)
    look_up_batch([_Member()], ledger, given.batch(), load_settings())


def _corrected(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    given.send(Store(ledger), ledger, given.batch(), load_settings())
    lines = [{"productCode": "947865", "quantity": "2", "total": "9.99"}]
    given.landed(ledger, given.document("S1", emailAddress="S1@example.com", total="9.99", lines=lines))


def _event(status: str, **changes: object) -> Callable[[Ledger], None]:
    def give(ledger: Ledger) -> None:
        given.ready(ledger, "S1")
        values = {"status": status, "sending_at": given.hours_ago(1), "outcome_run": "run-1", **changes}
        given.set_orders(ledger, **values)

    return give


GIVEN: dict[str, Callable[[Ledger], None]] = {
    **{code: _refused(code) for code in CODES.values() if code.kind is Kind.REFUSED},
    **{code: _unmatched(code) for code in CODES.values() if code.kind is Kind.ORDER},
    "collision": _collision,
    "suspected_twin": _twin,
    "unread_files": lambda ledger: (
        given.landed(ledger),
        note_waiting(ledger, "run-1", "a.csv", "1", 3, "line 4: cut"),
    )[1],
    "left_files": _left,
    "suppressed": _suppressed,
    "corrected_after_sent": _corrected,
    "held": _event("held"),
    "rejected": _event("rejected"),
    "in_doubt": _event("sending", received_at=given.hours_ago(7)),
}


def waiting(ledger: Ledger, word: str) -> int:
    """How many are set aside by this code, as the next report counts them."""
    given.landed(ledger, run=given.run("run-9"))
    orders = sum(row["reason"] == word and row["status"] != "matched" for row in given.rows(ledger, "orders"))
    return max(orders, count_run(ledger, "run-9").set_aside.get(word, 0))
