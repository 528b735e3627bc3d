"""What people ask of the ledger: right answers, and none by reading all orders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.many_orders import fill, number_of
from benchmarks.plans import reads_all
from include.instore.ledger import Ledger, read_figures, read_orders
from include.instore.ledger.alerts import remember
from include.instore.ledger.customers import CardAnswer
from include.instore.ledger.customers import remember as remember_answers
from include.instore.ledger.extract_files import note_waiting
from include.instore.ledger.intake import Refusal, land
from include.instore.ledger.quarantined import Wanted, find
from include.instore.ledger.read_figures import (
    By,
    list_files,
    list_runs,
    report,
    total,
    undelivered,
    wrong_now,
)
from include.instore.ledger.read_orders import FEW, Order, find_orders, known_of_person, life, list_orders
from include.instore.ledger.tables import orders, origin_of
from include.instore.model.errors import FatalError
from include.instore.model.states import DeliveryStatus, Status
from include.instore.runs.report import Failure, report_run
from include.instore.sources.quarantine import order_numbers, quarantined_as
from tests.instore import given

SETTINGS = given.SETTINGS
MANY = 20_000
NOW = datetime.now(timezone.utc)
FIRST, LAST = (NOW - timedelta(days=1)).date(), NOW.date()
RUN = f"run-{MANY * 24 // 2500 - 30}"

ASKED: dict[str, Callable[[Ledger], Any]] = {
    "number": lambda ledger: find_orders(ledger, SETTINGS.orders, number=number_of(7, MANY)),
    "card": lambda ledger: find_orders(ledger, SETTINGS.orders, card=f"60{7:014d}"),
    "person": lambda ledger: known_of_person(ledger, SETTINGS.orders, card=f"60{7:014d}"),
    "email": lambda ledger: find_orders(ledger, SETTINGS.orders, email="c7@example.com"),
    "event": lambda ledger: find_orders(ledger, SETTINGS.orders, event_id=f"{7:036d}"),
    "event of nobody": lambda ledger: find_orders(ledger, SETTINGS.orders, event_id=f"{78:036d}"),
    "message": lambda ledger: find_orders(ledger, SETTINGS.orders, origin="m7"),
    "file": lambda ledger: find_orders(ledger, SETTINGS.orders, origin="day-3.csv"),
    "life": lambda ledger: life(ledger, *find_orders(ledger, SETTINGS.orders, event_id=f"{7:036d}"), SETTINGS),
    "set aside": lambda ledger: quarantined_as(ledger, "Q7", SETTINGS),
    "day": lambda ledger: list_orders(ledger, day=f"{LAST}"),
    "day, store and status": lambda ledger: list_orders(ledger, day=f"{LAST}", store="0007", status="sent"),
    "run": lambda ledger: list_orders(ledger, run=RUN),
    "run and reason": lambda ledger: list_orders(ledger, run=RUN, reason="not_found"),
    **{f"status {each}": lambda ledger, each=each: list_orders(ledger, status=each) for each in sorted(FEW)},
    **{f"report by {by.value}": lambda ledger, by=by: report(ledger, by, FIRST, LAST) for by in By},
    "undelivered": lambda ledger: undelivered(ledger, SETTINGS),
    "runs": list_runs,
    "files": list_files,
    "wrong": wrong_now,
}  # fmt: skip


@pytest.fixture(scope="module")
def large_ledger(databases: Any) -> Iterator[Ledger]:
    url = databases.migrated()
    ledger = Ledger(url)
    fill(ledger, MANY, NOW)
    yield ledger
    ledger.close()
    databases.drop(url)


@pytest.fixture(scope="module")
def larger_sqlite(each_database: dict[str, Any]) -> Iterator[Ledger]:
    with closing(Ledger(each_database["sqlite"].migrated())) as ledger:
        fill(ledger, 3 * MANY, NOW)
        yield ledger


@pytest.fixture(scope="module")
def large_sqlite(each_database: dict[str, Any]) -> Iterator[Ledger]:
    with closing(Ledger(each_database["sqlite"].migrated())) as ledger:
        fill(ledger, MANY, NOW)
        yield ledger


@pytest.mark.parametrize("asked", ASKED)
def test_nothing_is_found_by_reading_all_orders(large_ledger: Ledger, asked: str) -> None:
    assert reads_all(large_ledger, ASKED[asked], as_if_large=True) == []


def _work(ledger: Ledger, asked: str) -> int:
    """Hundreds of instructions that SQLite carries out for what is asked."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    with ledger.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.set_progress_handler(count, 100)
    try:
        ASKED[asked](ledger)  # by the same connection: the pool has one that is free
    finally:
        driver.set_progress_handler(None, 0)
    return done


@pytest.mark.parametrize("asked", [each for each in ASKED if each.startswith(("report", "day"))])
def test_the_work_does_not_grow_with_the_ledger(large_sqlite: Ledger, larger_sqlite: Ledger, asked: str) -> None:
    """A plan does not say whether an index is one of a status that most orders have."""
    less, more = _work(large_sqlite, asked), _work(larger_sqlite, asked)
    assert less > 1
    assert more < less * 1.3


def test_each_question_is_planned_for_its_own_values(large_ledger: Ledger) -> None:
    """A plan for all values of a prepared statement took eight times as long for a report, from the tenth time on."""
    if large_ledger.engine.dialect.name != "postgresql":
        return
    for _ in range(12):
        report(large_ledger, By.DAY, FIRST, LAST)
    with large_ledger.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements")) == 0


def test_orders_that_stay_without_a_customer_are_listed_for_a_month(ledger: Ledger) -> None:
    given.landed(ledger, *(given.document(f"S{n}") for n in range(3)))
    stays = {"status": "unmatched", "reason": "not_found", "next_attempt": None}
    given.set_orders(ledger, **stays)
    given.set_orders(ledger, orders.c.order_number == "S0", received_at=NOW - timedelta(days=31))
    (cause,) = undelivered(ledger, SETTINGS)
    assert (cause["count"], cause["gone"].endswith("those of the last 30 days")) == (2, True)
    given.set_orders(ledger, next_attempt=NOW)
    (cause,) = undelivered(ledger, SETTINGS)
    assert cause["count"] == 3


def _numbers(found: list[Order]) -> set[str]:
    return {each.row["order_number"] for each in found}


def test_a_report_has_each_order_in_one_place(large_ledger: Ledger) -> None:
    """The delivered are told from the others without reading them: here all are counted one by one."""
    with large_ledger.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT o.day, o.store_id, o.source, o.status, o.reason, d.status AS delivery FROM orders o"
                " LEFT JOIN deliveries d ON d.key = o.key AND d.is_latest"
            )
        ).all()
    for by, column in ((By.DAY, 0), (By.STORE, 1), (By.SOURCE, 2)):
        first = FIRST if by is By.DAY else NOW.date() - timedelta(days=5)
        mine = [row for row in rows if str(first) <= row.day <= str(LAST)]
        lines = {line.group: line for line in report(large_ledger, by, first, LAST)}
        assert set(lines) >= {row[column] for row in mine}
        for name, line in lines.items():
            its = [row for row in mine if row[column] == name]
            assert line.received == len(its)
            assert line.delivered == sum(row.delivery == "sent" for row in its)
            assert line.waiting == sum(row.delivery in ("ready", "sending") for row in its)
            assert line.set_aside == sum(row.delivery in ("held", "rejected", "cancelled") for row in its)
            assert line.unmatched == sum(line.unmatched_by.values()) == sum(row.status == "unmatched" for row in its)
            assert line.delivered + line.waiting + line.suppressed + line.set_aside + line.unmatched == line.received
        whole = total(lines.values())
        assert (whole.received, whole.shown()["match_rate"]) == (len(mine), pytest.approx(0.79, abs=0.02))


def test_an_order_is_found_by_whatever_of_it_is_known(ledger: Ledger) -> None:
    given.landed(ledger, given.document("00123", emailAddress="ann@example.com"), given.document("S2"))
    for asked in (
        {"number": "00123"}, {"number": "123"}, {"email": "Ann@Example.com"}, {"origin": "ref-0"},
        {"event_id": given.row(ledger, "00123")["event_id"]},
    ):  # fmt: skip
        (found,) = find_orders(ledger, SETTINGS.orders, **asked)
        assert (found.row["order_number"], found.status) == ("00123", "pending")
    assert _numbers(find_orders(ledger, SETTINGS.orders, card=f" {given.CARD[:4]}-{given.CARD[4:]} ")) == {
        "00123",
        "S2",
    }
    assert find_orders(ledger, SETTINGS.orders, number="S3") == find_orders(ledger, SETTINGS.orders, number="S\0") == []
    with pytest.raises(FatalError, match="not an email"):
        find_orders(ledger, SETTINGS.orders, email="a@b@c")


def test_a_message_and_a_file_find_the_orders_they_brought(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2"), given.document("S3"))
    with ledger.engine.begin() as connection:
        for number, reference in (("S1", "a:b#17"), ("S2", "2017/06/x.csv:2"), ("S3", "2017/06/x.csv:40")):
            moved = {"reference": reference, "origin": origin_of(reference)}
            connection.execute(sa.update(orders).where(orders.c.order_number == number).values(moved))
    assert _numbers(find_orders(ledger, SETTINGS.orders, origin="a:b")) == {"S1"}
    assert _numbers(find_orders(ledger, SETTINGS.orders, origin="2017/06/x.csv")) == {"S2", "S3"}


def test_a_correction_is_found_by_the_message_that_brought_it(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    (later,) = given.arrivals(given.document("S1", total="4.50"))
    later.row.update(reference="m9#1", origin="m9")
    land(ledger, "run-1", [later], [])
    assert given.row(ledger, "S1")["reference"] == "m9#1"
    assert _numbers(find_orders(ledger, SETTINGS.orders, origin="m9")) == {"S1"}
    assert find_orders(ledger, SETTINGS.orders, origin="ref-0") == []


def test_the_life_of_an_order_that_was_sent(ledger: Ledger) -> None:
    given.ready(ledger, "S1")
    (order,) = find_orders(ledger, SETTINGS.orders, number="S1")
    assert life(ledger, order, SETTINGS)["next"] == "Run run-1 is at work on it and sends it to profile_store."
    given.alive_hours_ago(ledger, 5)
    assert life(ledger, order, SETTINGS)["next"] == "The next run sends it to profile_store."
    now = given.hours_ago(0)
    given.set_orders(ledger, status="sent", attempts=2, sending_at=now, sent_at=now, outcome_run="run-1")
    (order,) = find_orders(ledger, SETTINGS.orders, number="S1")
    whole = life(ledger, order, SETTINGS)
    assert [step["what"] for step in whole["steps"]] == ["planned", "received", "left", "sent"]
    assert "attempt 2" in whole["steps"][2]["detail"]
    assert (order.status, whole["next"]) == ("sent", "Nothing: profile_store has it.")
    for told in (repr(order), repr(order.shown() | whole)):
        assert "S1@example.com" not in told
        assert given.CARD not in told
    assert (order.shown()["card"], order.shown()["email"]) == ("…5744", "S…@example.com")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"status": "held", "reason": "no witness"}, "A person: nobody can tell whether profile_store took it"),
        ({"status": "rejected", "reason": "400"}, "A person: profile_store refuses it"),
        ({"status": "cancelled"}, "profile_store was switched off"),
        ({"status": "sending"}, "finds out whether profile_store took it; after 24 hours in doubt it is held"),
        ({"status": "unmatched", "reason": "not_found", "next_attempt": None}, "not searched again (not_found)"),
        ({"status": "unmatched", "next_attempt": given.hours_ago(0)}, "searched again by the first run after"),
        ({"status": "suppressed"}, "nothing may be sent for this customer"),
        ({"status": "pending"}, "searches its customer"),
    ],
    ids=lambda value: value.get("status", "") + ("-" * ("reason" in value)) if isinstance(value, dict) else "",
)
def test_what_happens_next_is_said_of_every_state(ledger: Ledger, values: dict[str, Any], told: str) -> None:
    given.ready(ledger, "S1")
    given.set_orders(ledger, **values)
    (order,) = find_orders(ledger, SETTINGS.orders, number="S1")
    assert order.status == values["status"]
    assert told in life(ledger, order, SETTINGS)["next"]


def test_every_status_has_its_place() -> None:
    """One that is forgotten would count as delivered."""
    sent = DeliveryStatus.SENT.value
    assert set(read_figures._NOT_SENT) == {each.value for each in DeliveryStatus} - {sent}
    assert set(read_figures._PLACE) == {each.value for each in (*Status, *DeliveryStatus)} - {sent}
    assert set(read_orders._NEXT) == {each.value for each in DeliveryStatus}


def test_orders_are_listed_by_day_run_and_status_and_never_all(ledger: Ledger) -> None:
    given.ready(ledger, "S1", "S2", storeId="7")
    given.landed(ledger, given.document("S3", loyaltyCardNumber=None), run=given.run("run-2"))
    given.set_orders(ledger, orders.c.order_number == "S2", status="held", reason="why")

    def listed(**asked: str) -> set[str]:
        return _numbers(list_orders(ledger, **asked))

    assert listed(day="2017-06-05") == {"S1", "S2", "S3"}
    assert listed(day="2017-06-05", store="7") == listed(run="run-1") == {"S1", "S2"}
    assert listed(day="2017-06-05", status="unmatched") == listed(run="run-2", reason="no_customer_key") == {"S3"}
    assert listed(status="held") == listed(status="held", reason="why") == listed(run="run-1", reason="why") == {"S2"}
    assert listed(status="ready") == {"S1"}
    for asked in ({}, {"status": "sent"}, {"status": "unmatched"}, {"store": "7"}):
        with pytest.raises(FatalError, match="Give --day or --run"):
            listed(**asked)


def test_what_is_known_of_a_person(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.planned(ledger)
    answer = CardAnswer(given.CARD, "suppressed", "ann@example.com")
    remember_answers(ledger, given.batch("run-1", 0), [answer], cache=timedelta(hours=1), negative=timedelta(hours=1))
    known = known_of_person(ledger, SETTINGS.orders, card=given.CARD)
    assert known["answer"]["outcome"] == "suppressed"
    assert [each["source"] for each in known["suppressed"]] == ["loyalty"]
    assert [each.status for each in find_orders(ledger, SETTINGS.orders, card=given.CARD)] == ["suppressed"]
    of_address = known_of_person(ledger, SETTINGS.orders, email="ann@example.com")
    assert (of_address["answer"], len(of_address["suppressed"])) == (None, 1)
    with pytest.raises(FatalError, match="is a placeholder"):
        known_of_person(ledger, SETTINGS.orders, card="0")


def test_what_is_undelivered_says_how_much_since_when_and_who(ledger: Ledger) -> None:
    given.ready(ledger, "S1", "S2", "S3")
    given.set_orders(ledger, orders.c.order_number == "S2", status="held", reason="no witness")
    given.set_orders(ledger, orders.c.order_number == "S3", status="sending", sending_at=given.hours_ago(1))
    given.landed(
        ledger, given.document("S4"), given.document("S5", loyaltyCardNumber=None), run=given.run("run-2"),
        refusals=[given.refused()],
    )  # fmt: skip
    causes = {(each["cause"], each["reason"] or ""): each for each in undelivered(ledger, SETTINGS)}
    assert {name: each["count"] for name, each in causes.items()} == {
        ("ready", "profile_store"): 1, ("held", "profile_store: no witness"): 1, ("sending", "profile_store"): 1,
        ("pending", ""): 1, ("unmatched", "no_customer_key"): 1, ("quarantined", "not_json"): 1,
    }  # fmt: skip
    assert "no run of the last 24 hours" in causes["pending", ""]["gone"]
    assert "a person" in causes["held", "profile_store: no witness"]["gone"]
    given.set_orders(ledger, orders.c.order_number == "S1", status="sent", sent_at=NOW, outcome_run="run-1")
    report_run(ledger, given.run(), [], SETTINGS)
    gone = {each["cause"]: each["gone"] for each in undelivered(ledger, SETTINGS)}
    assert re.fullmatch("after 1 min of sending, at [01][.][0-9] a second as the last day's best", gone["pending"])


def test_runs_files_and_what_is_wrong(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"))
    given.landed(ledger, given.document("S2"), run=given.run("run-2"))
    report_run(ledger, given.run("run-2"), [Failure("drain_topic")], SETTINGS)
    states = {each["run"]: (each["state"], each["received"]) for each in list_runs(ledger)}
    assert states == {"run-1": ("under way", 0), "run-2": ("red", 1)}
    assert [each["run"] for each in list_runs(ledger, run="run-1")] == ["run-1"]
    note_waiting(ledger, "run-1", "x.csv", "1", 3, "breaks off")
    assert [(each["path"], each["state"]) for each in list_files(ledger)] == [("x.csv", "waiting")]
    for run in ("run-1", "run-2"):
        remember(ledger, given.run(run), red={"task_failed:drain_topic": (f"title {run}", "text")})
    (wrong,) = wrong_now(ledger)
    assert (wrong["cause"], wrong["title"], wrong["runs"]) == ("task_failed:drain_topic", "title run-2", 2)


def test_the_number_in_a_record_that_is_no_order_is_read_where_it_can_be(ledger: Ledger) -> None:
    heading = b"order_number;order_date\n"
    raws = {"a": given.body("S1"), "b": b"not JSON: S1", "c": b"[1]", "ö": given.body('"ö')}
    given.landed(ledger, refusals=[given.refused(raw, reference) for reference, raw in raws.items()])
    row = Refusal("extract", "x.csv:2", "bad_value", "a detail", b"00S7;never\n", heading)
    land(ledger, "run-1", [], [row])
    found = find(ledger, Wanted())
    numbers = order_numbers(ledger, found, SETTINGS)
    read = {each.reference: numbers[each.id] for each in found if each.id in numbers}
    assert read == {"a": "S1", "ö": '"ö', "x.csv:2": "00S7"}
    assert [each.reference for each in quarantined_as(ledger, '"ö', SETTINGS)] == ["ö"]
    assert [each.reference for each in quarantined_as(ledger, "S1", SETTINGS)] == ["a"]
    assert [each.reference for each in quarantined_as(ledger, "S7", SETTINGS)] == ["x.csv:2"]
    assert quarantined_as(ledger, "%", SETTINGS) == quarantined_as(ledger, "S", SETTINGS) == []


def test_a_day_is_the_stores_and_an_hour_is_of_utc(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S1"), given.document("S2", date="2017-06-05T23:30:00Z"))
    day = date(2017, 6, 5)
    assert [(line.group, line.waiting) for line in report(ledger, By.HOUR, day, day)] == [
        ("2017-06-05 10", 1), ("2017-06-05 23", 1),
    ]  # fmt: skip
