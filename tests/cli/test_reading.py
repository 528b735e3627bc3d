"""The commands that only look: an order's life, lists, reports, and what is masked in them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from include.instore.ledger import Ledger
from include.instore.ledger.audit import done
from include.instore.ledger.resends import approved_list
from include.instore.ledger.tables import orders
from include.instore.runs.report import Failure, report_run
from include.instore_airflow.cli import app
from tests.instore import given

ROOT = Path(__file__).parents[2]
EMAIL = f"{given.CANARY}@example.com"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Three orders of one customer, sent, held and pending; one of nobody; and a record that is no order."""
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_INSTORE_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
    with closing(Ledger(f"sqlite:///{path}", hash_key="the-hash-key-of-the-tests")) as opened:
        opened.migrate()
        run = given.run()
        whose = [given.document(number, emailAddress=EMAIL, storeId="7") for number in ("S1", "S2", "S3")]
        refused = given.refused(given.body("S9", emailAddress=EMAIL), "m9#1", "bad_value")
        nobody = given.document("=S4", loyaltyCardNumber=None)
        given.landed(opened, *whose, nobody, run=run, refusals=[refused])
        now = given.hours_ago(0)
        sent = {"attempts": 1, "sending_at": now, "outcome_run": "run-1"}
        given.set_orders(opened, orders.c.order_number == "S1", status="sent", sent_at=now, **sent)
        given.set_orders(opened, orders.c.order_number == "S2", status="held", reason="no witness", **sent)
        report_run(opened, run, [], given.SETTINGS)
        yield opened


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def printed(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def table(*arguments: str) -> list[dict[str, str]]:
    result = run(*arguments, "--csv")
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_an_order_s_whole_life_is_shown(ledger: Ledger) -> None:
    (order,) = printed("orders", "show", "s1")["orders"]
    assert (order["status"], order["reference"], order["received_run"]) == ("sent", "ref-0", "run-1")
    assert [step["what"] for step in order["steps"]] == ["received", "left", "sent"]
    assert order["next"] == "Nothing: profile_store has it."
    told = run("orders", "show", order["event_id"]).output
    assert "Next: Nothing: profile_store has it." in told
    assert [row["what"] for row in table("orders", "show", "S1")] == ["received", "left", "sent"]
    held = printed("orders", "show", "S2")["orders"][0]
    assert f"deliveries settle --sent {held['event_id']} or " in held["next"]


def test_an_order_that_is_none_yet_is_found_in_quarantine(ledger: Ledger) -> None:
    found = printed("orders", "show", "S9")
    assert (found["orders"], [each["reason"] for each in found["quarantined"]]) == ([], ["bad_value"])
    assert "In quarantine" in run("orders", "show", "S9").output
    unknown = run("orders", "show", "S8")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "No order and no record in quarantine has the number S8." in unknown.stderr


def test_cards_and_emails_are_masked_and_who_looks_at_them_is_written_down(ledger: Ledger) -> None:
    looked = [
        run(*arguments, *form)
        for arguments in (
            ("orders", "show", "S1"), ("customers", "show", "--email", EMAIL), ("orders", "list", "--run", "run-1"),
            ("quarantine", "list"), ("orders", "undelivered"), ("report", "--from", "2017-06-05", "--to", "2017-06-05"),
            ("runs", "show", "run-1"), ("orders", "show", "S9"),
        )
        for form in ((), ("--json",), ("--csv",))
    ]  # fmt: skip
    for each in looked:
        assert each.exit_code == 0, each.output
        assert given.CANARY not in each.output
        assert given.CARD not in each.output
    assert printed("ledger", "audit") == []
    assert printed("orders", "show", "S1", "--unmask")["orders"][0]["email"] == EMAIL
    assert given.CARD in run("customers", "show", "--card", given.CARD, "--unmask").output
    audited = [(each["what"], each["records"]) for each in printed("ledger", "audit")]
    assert audited == [("customers show --unmask", 3), ("orders show --unmask", 1)]
    assert given.CANARY not in json.dumps(printed("ledger", "audit"))


def test_what_was_sent_for_a_person_is_found_by_card_and_by_email(ledger: Ledger) -> None:
    for named in (("--card", given.CARD), ("--email", EMAIL.upper())):
        found = printed("customers", "show", *named)
        assert {each["order_number"]: each["status"] for each in found["orders"]} == {
            "S1": "sent", "S2": "held", "S3": "pending",
        }  # fmt: skip
    for wrong in ((), ("--card", "1", "--email", EMAIL)):
        refused = run("customers", "show", *wrong)
        assert (refused.exit_code, "one of the two" in refused.stderr) == (2, True)


def test_orders_are_listed_as_a_table_that_no_spreadsheet_runs(ledger: Ledger) -> None:
    rows = table("orders", "list", "--day", "2017-06-05")
    assert {row["order_number"]: row["status"] for row in rows} == {
        "S1": "sent", "S2": "held", "S3": "pending", "'=S4": "unmatched",
    }  # fmt: skip
    assert [row["order_number"] for row in printed("orders", "list", "--status", "held")] == ["S2"]
    refused = run("orders", "list", "--store", "7")
    assert (refused.exit_code, "Give --day or --run" in refused.stderr) == (2, True)


def test_what_is_undelivered_by_cause(ledger: Ledger) -> None:
    rows = {row["cause"]: (row["count"], row["reason"]) for row in table("orders", "undelivered")}
    assert rows == {
        "held": ("1", "profile_store: no witness"), "pending": ("1", ""), "unmatched": ("1", "no_customer_key"),
        "quarantined": ("1", "bad_value"),
    }  # fmt: skip


def test_the_report_adds_up_by_whatever_it_is_asked(ledger: Ledger) -> None:
    days = ("--from", "2017-06-05", "--to", "2017-06-05")
    for by, groups in (("day", ["2017-06-05"]), ("store", ["0404", "7"]), ("source", ["topic"]), ("hour", None)):
        rows = printed("report", "--by", by, *days)
        assert groups is None or [row["group"] for row in rows] == groups
        assert sum(row["received"] for row in rows) == 4
        for row in rows:
            parts = ("delivered", "waiting", "unmatched", "suppressed", "set_aside")
            assert row["received"] == sum(row[part] for part in parts)
    (day,) = printed("report", *days)
    assert (day["delivered"], day["set_aside"], day["waiting"], day["unmatched_by"]) == (
        1,
        1,
        1,
        {"no_customer_key": 1},
    )
    assert run("report", *days).output.splitlines()[-1].startswith("total")
    wrong = run("report", "--from", "yesterday")
    assert (wrong.exit_code, "'yesterday' is not a day" in wrong.stderr) == (2, True)
    # Of the last days by itself: the record that was refused just now.
    assert [row["quarantined"] for row in printed("report", "--by", "source")] == [1]


def test_runs_are_listed_added_up_and_shown(ledger: Ledger) -> None:
    given.landed(ledger, given.document("S5"), run=given.run("run-2", kind="backfill"))
    report_run(ledger, given.run("run-2", kind="backfill"), [Failure("load_extracts")], given.SETTINGS)
    assert [(row["run"], row["state"], row["received"]) for row in printed("runs", "list")] == [
        ("run-2", "red", 1), ("run-1", "red", 5),
    ]  # fmt: skip
    assert run("runs", "list").output.splitlines()[-1].split()[:2] == ["total", "6"]
    assert [row["run"] for row in table("runs", "list", "--kind", "backfill")] == ["run-2"]
    assert "task load_extracts failed" in run("runs", "show", "run-2").output
    unknown = run("runs", "show", "run-9")
    assert (unknown.exit_code, "has no run 'run-9'" in unknown.stderr) == (2, True)


def test_the_usage_names_the_command_as_it_is_called() -> None:
    words = [sys.executable, "-m", "include.instore", "orders", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage: python -m include.instore orders" in done.stdout


def test_a_day_s_orders_are_sent_again_at_once_or_listed_for_approval(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("orders", "resend").exit_code == 2
    assert printed("orders", "resend", "--day", "2017-06-05", "--store", "8")["counts"] == {"resent": 0}
    assert printed("orders", "resend", "--day", "2017-06-05", "--dry-run")["counts"] == {"resent": 1}
    monkeypatch.setenv("INSTORE_RESEND_APPROVAL", "0")
    listed = printed("orders", "resend", "--run", "run-1")
    assert listed["counts"] == {"listed": 1}
    assert approved_list(ledger, listed["list"]).events == 1
    assert given.row(ledger, "S1")["edition"] == 1
    told = run("orders", "resend", "--day", "2017-06-05").stdout
    assert 'airflow dags trigger instore_resend --conf \'{"resend_list": ' in told
    monkeypatch.setenv("INSTORE_RESEND_APPROVAL", "1")
    assert printed("orders", "resend", "--day", "2017-06-05", "--store", "7")["counts"] == {"resent": 1}
    assert given.row(ledger, "S1")["edition"] == 2
    assert done(ledger, 1)[0].what == "orders resend"
