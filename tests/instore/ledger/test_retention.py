"""What is kept no longer: pruned without anything being landed, or sent, a second time; on both databases."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.intake import land
from include.instore.ledger.keys import check_key, rekey
from include.instore.ledger.records import Arrival
from include.instore.ledger.retention import Pruned, prune
from include.instore.ledger.tables import (
    alerts,
    contents,
    customers,
    deliveries,
    extracts,
    metadata,
    orders,
    quarantine,
    runs,
)
from include.instore.model.forgotten import without_person
from include.instore.model.settings import Settings
from tests.instore import given

MakeSettings = Callable[..., Settings]
DAYS = 30
KEEP = {f"retention_days_{name}": DAYS for name in ("payloads", "customers", "quarantine", "reports", "alerts")}
NONE = Pruned(0, 0, 0, 0, 0, 0, 0)


def age(ledger: Ledger, days: float = DAYS + 1) -> None:
    """Everything in the ledger is so many days older than it says."""
    moments = [
        *((orders, name) for name in ("received_at",)), (contents, "received_at"), (quarantine, "received_at"),
        (customers, "expires_at"), (runs, "started_at"), (runs, "ended_at"), (alerts, "begun_at"),
    ]  # fmt: skip
    at = datetime.now(timezone.utc) - timedelta(days=days)
    with ledger.engine.begin() as connection:
        for table, name in moments:
            connection.execute(sa.update(table).where(table.c[name].is_not(None)).values({name: at}))


def canaries(ledger: Ledger, canary: str = given.CANARY) -> set[str]:
    """Tables, with the column, that have the text."""
    found = set()
    with ledger.engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                found |= {f"{table.name}.{name}" for name, value in row.items() if _holds(value, canary)}
    return found


def _holds(value: Any, canary: str) -> bool:
    text = bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else str(value)
    return canary.casefold().replace("-", "") in text.casefold().replace("-", "")  # a card has no dashes


def personal(number: str, **changes: Any) -> dict[str, Any]:
    """An order with a canary wherever a person can be in it, and a till's number."""
    email = f"{given.CANARY}@example.com"
    return given.document(
        number, loyaltyCardNumber=given.CANARY, emailAddress=email, customerName=given.CANARY, tillId="T7", **changes
    )


def sent(ledger: Ledger, *documents: dict[str, Any]) -> None:
    """Orders that were sent, in a run that has ended."""
    given.landed(ledger, *documents)
    given.planned(ledger)
    given.set_orders(ledger, status="sent", email=f"{given.CANARY}@example.com")
    release(ledger, "run-1")


def test_an_order_that_is_done_with_keeps_nothing_of_its_person(ledger: Ledger, settings: MakeSettings) -> None:
    sent(ledger, personal("S1"), personal("S2"))
    given.landed(ledger, personal("S1", total="4.00"))  # corrected after it was sent
    assert canaries(ledger) >= {"orders.payload", "orders.email", "contents.payload", "deliveries.email"}
    assert prune(ledger, settings(**KEEP).retention) == NONE, "they are young"
    age(ledger)
    assert prune(ledger, settings().retention) == NONE, "they are younger than two years"
    done = prune(ledger, settings(**KEEP).retention)
    assert (done.orders, done.contents) == (2, 0), "contents go with their order"
    assert canaries(ledger) == set()
    assert given.statuses(ledger) == {"S1": "sent", "S2": "sent"}
    assert prune(ledger, settings(**KEEP).retention).orders == 0


def test_a_pruned_order_is_known_again(ledger: Ledger, settings: MakeSettings) -> None:
    sent(ledger, personal("S1"), personal("S2"))
    given.landed(ledger, personal("S2", total="4.00"))
    age(ledger)
    prune(ledger, settings(**KEEP).retention)
    again = given.landed(ledger, personal("S1"), personal("S2"), personal("S2", total="4.00"), run=given.run("later"))
    assert (again.orders, again.duplicates, again.corrections) == (0, 3, 0)
    assert canaries(ledger) == set()
    assert given.planned(ledger, given.run("later")) == []


def test_what_comes_late_for_a_pruned_order_is_pruned_in_its_turn(ledger: Ledger, settings: MakeSettings) -> None:
    sent(ledger, personal("S1"))
    age(ledger)
    prune(ledger, settings(**KEEP).retention)
    assert given.landed(ledger, personal("S1", total="4.00"), run=given.run("later")).corrections == 1
    assert canaries(ledger) == {f"contents.{name}" for name in ("payload", "email", "loyalty_card")}
    assert given.tally(ledger, "later")["corrected_after_sent"] == 1
    age(ledger)
    assert prune(ledger, settings(**KEEP).retention).contents == 1
    assert canaries(ledger) == set()


def test_no_run_sends_a_pruned_order_again(ledger: Ledger, settings: MakeSettings) -> None:
    """A resend, a backfill to a new destination and what was rejected: its content is gone."""
    sent(ledger, personal("S1"), personal("S2"))
    given.set_orders(ledger, orders.c.order_number == "S2", status="rejected")
    age(ledger)
    assert prune(ledger, settings(**KEEP).retention).orders == 2
    window = given.window("2017-06-05", "2017-06-06")
    for number, changes in enumerate(({"resend": True}, {}, {"destination": "archive"})):
        run = given.run(f"again-{number}", "manual", window=window, claims="in_window", **changes)
        assert given.planned(ledger, run) == []
    assert given.statuses(ledger) == {"S1": "sent", "S2": "rejected"}
    with ledger.engine.connect() as connection:
        assert set(connection.scalars(sa.select(deliveries.c.status))) == {"sent", "rejected"}


@pytest.mark.parametrize("status", ["pending", "ready", "sending", "held"])
def test_what_still_waits_is_never_too_old(ledger: Ledger, settings: MakeSettings, status: str) -> None:
    sent(ledger, personal("S1"))
    given.set_orders(ledger, status=status)
    age(ledger)
    assert prune(ledger, settings(**KEEP).retention).orders == 0


def test_an_order_that_is_asked_for_again_is_not_pruned(ledger: Ledger, settings: MakeSettings) -> None:
    sent(ledger, personal("S1"), personal("S2"))
    given.set_orders(ledger, orders.c.order_number == "S1", status="unmatched", next_attempt=datetime.now(timezone.utc))
    given.set_orders(ledger, orders.c.order_number == "S2", status="unmatched")
    age(ledger)
    assert prune(ledger, settings(**KEEP).retention).orders == 1


def test_a_pruned_order_that_comes_corrected_before_it_was_sent_is_whole_again(
    ledger: Ledger, settings: MakeSettings
) -> None:
    given.landed(ledger, given.document("S1", loyaltyCardNumber=None, tillId="T7"))  # nobody's
    age(ledger)
    assert prune(ledger, settings(**KEEP).retention).orders == 1
    assert given.landed(ledger, personal("S1"), run=given.run("later")).corrections == 1
    row = given.row(ledger, "S1")
    assert (row["status"], row["pruned_at"], row["loyalty_card"]) == ("pending", None, "canary7f3a")


def test_a_rekey_works_on_pruned_orders(ledger: Ledger, settings: MakeSettings) -> None:
    sent(ledger, personal("S1"), given.document("S2", tillId="T8"))
    check_key(ledger, settings())
    age(ledger)
    assert prune(ledger, settings(**KEEP).retention).orders == 2
    by_till = settings(order_key="store_id,day,tillId,order_number")
    assert rekey(ledger, by_till).orders == 2
    assert {row["key"] for row in given.rows(ledger, "orders")} == {
        '["0404", "2017-06-05", "t7", "s1", "sale"]', '["0404", "2017-06-05", "t8", "s2", "sale"]',
    }  # fmt: skip
    arrived = [
        Arrival({**each.row}, each.raw) for each in given.arrivals(personal("S1"), personal("S3"), settings=by_till)
    ]
    again = land(ledger, "run-1", arrived, [])
    assert (again.duplicates, again.orders) == (1, 1)


def test_the_fields_of_the_key_are_kept_whatever_they_are_called() -> None:
    line = {"cashbox": "C1", "gift": "x", "total": 1}
    document = (
        '{"orderNumber":"1","customerName":"Jane","kiosk":"K9","receiptEmail":"a@b.c","total":1.50,"lines":[%s,%s]}'
    )
    kept = without_person(document % (json.dumps(line), json.dumps(line | {"gift": "y"})), ["kiosk", "cashbox"])
    assert kept == '{"cashbox":"C1","total":1.50,"orderNumber":"1","kiosk":"K9"}'


def test_a_record_that_nobody_settled_is_given_up_and_counted(ledger: Ledger, settings: MakeSettings) -> None:
    raw = given.CANARY.encode()
    given.landed(ledger, refusals=[given.refused(raw), given.refused(raw, "other")])
    with ledger.engine.begin() as connection:
        connection.execute(sa.update(quarantine).where(quarantine.c.reference == "other").values(state="redriven"))
    age(ledger)
    done = prune(ledger, settings(**KEEP).retention)
    assert (done.quarantine, done.given_up) == (2, 1)
    assert canaries(ledger) == set()
    assert {row["state"] for row in given.rows(ledger, "quarantine")} == {"redriven", "discarded"}
    again = given.landed(ledger, run=given.run("later"), refusals=[given.refused(raw)])
    assert (again.quarantined, again.duplicates) == (0, 1), "a second copy is known still"
    assert prune(ledger, settings(**KEEP).retention).quarantine == 0


def test_answers_reports_and_alerts_are_removed_and_open_alerts_stay(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1"))
    now = datetime.now(timezone.utc)
    alert = {"begun_at": now, "ordinary": True, "title": "t", "text": "t", "state": "told"}
    with ledger.engine.begin() as connection:
        card = {"loyalty_card": "1", "outcome": "matched", "email": "a@example.com", "asked_at": now, "expires_at": now}
        connection.execute(sa.insert(customers).values(card))
        for run, cause, ended in (("r1", "numbers", "r2"), ("r2", "dead_letters", "r3"), ("r3", "dead_letters", None)):
            connection.execute(sa.insert(alerts).values(run=run, cause=cause, ended_run=ended, **alert))
    age(ledger)
    done = prune(ledger, settings(**KEEP).retention)
    assert (done.customers, done.reports, done.alerts) == (1, 1, 2)
    with ledger.engine.connect() as connection:
        assert connection.scalars(sa.select(alerts.c.run)).all() == ["r3"]


def test_it_works_in_chunks_and_nothing_is_left_out(ledger: Ledger, settings: MakeSettings) -> None:
    documents = [given.document(f"S{number}", loyaltyCardNumber=None) for number in range(1203)]
    given.landed(ledger, *documents)
    age(ledger)
    assert prune(ledger, settings(**KEEP).retention).orders == 1203
    with ledger.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(orders.c.pruned_at.is_(None))) == 0


def test_a_chunk_is_found_in_the_order_of_its_key(ledger: Ledger, settings: MakeSettings) -> None:
    """By another index all that is left would be read and sorted for each: a million orders were never done with."""
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "LIMIT" in statement:
            asked.append((statement, parameters))

    sa.event.listen(ledger.engine, "before_cursor_execute", note)
    prune(ledger, settings(**KEEP).retention)
    sa.event.remove(ledger.engine, "before_cursor_execute", note)
    assert len(asked) == 6
    is_sqlite = ledger.engine.dialect.name == "sqlite"
    with ledger.engine.connect() as connection:
        for statement in () if is_sqlite else ("SET LOCAL enable_seqscan = off", "SET LOCAL enable_sort = off"):
            connection.execute(sa.text(statement))
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' * is_sqlite}{statement}", parameters).all()
            assert not re.search(r"TEMP B-TREE|\bSort\b", str(plan)), plan


def test_a_file_that_was_loaded_stays_known(ledger: Ledger, settings: MakeSettings) -> None:
    with ledger.engine.begin() as connection:
        at = datetime.now(timezone.utc) - timedelta(days=3650)
        row = {"path": "a.csv", "version": "1", "orders": 1, "bad_rows": 0, "state": "loaded", "run": "r"}
        connection.execute(sa.insert(extracts).values(**row, loaded_at=at))
    prune(ledger, settings(**KEEP).retention)
    assert [row["path"] for row in given.rows(ledger, "extracts")] == ["a.csv"]
