"""Redriving and discarding quarantined records, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.ledger import Ledger
from include.instore.ledger.claims import open_run
from include.instore.ledger.extract_files import move_waiting
from include.instore.ledger.intake import land
from include.instore.ledger.quarantined import NotInQuarantine, Wanted, find, move, note_reason, of_message
from include.instore.ledger.tables import quarantine
from include.instore.model.codes import CUT_ORDER
from include.instore.model.errors import RecordRefused
from include.instore.model.settings import Settings
from include.instore.model.states import ExtractState
from include.instore.sources.extracts import Storage, load_extracts
from include.instore.sources.quarantine import discard, order_numbers, redrive
from tests.instore import given

MakeSettings = Callable[..., Settings]
CSV = """order_number,order_date,store_id,currency,order_total,loyalty_card,product_code,quantity,line_total
S1,2017-06-05T10:00:00Z,1,USD,3.50,6035770741165744,A,1,1.50
S1,2017-06-05T10:00:00Z,1,USD,3.50,6035770741165744,B,1,2.00
S2,2017-06-05T11:00:00Z,1,USD,1.00,6035770741165744,A,1,1.00
"""


def refused_message(ledger: Ledger, body: bytes, reference: str = "m1#1", reason: str = "too_large") -> str:
    """A message refused by the settings of that day; the id of its row."""
    open_run(ledger, given.run())
    item = given.set_aside(RecordRefused(reason, "a detail"), body, reference)
    land(ledger, "run-1", [], [item])
    return item.id


def refused_extract(
    ledger: Ledger, folder: Path, text: str, settings: Settings, name: str = "week.csv", *, released: bool = False
) -> None:
    (folder / name).write_bytes(text.encode(settings.extracts.extract_encoding))
    run = given.run()
    open_run(ledger, run)
    load_extracts(Storage.local(folder), ledger, run, settings)
    if released:
        move_waiting(ledger, [name], ExtractState.RELEASED)
        load_extracts(Storage.local(folder), ledger, run, settings)


def states(ledger: Ledger) -> dict[str, str]:
    return {row["reference"]: row["state"] for row in given.rows(ledger, "quarantine")}


def outcomes(found: Any) -> list[str]:
    return [each.outcome for each in found]


def test_a_message_that_is_an_order_by_today_s_settings_lands_and_its_row_says_so(
    ledger: Ledger, settings: MakeSettings
) -> None:
    refused_message(ledger, given.body("S1"))
    (outcome,) = redrive(ledger, Wanted(), settings())
    assert outcome.outcome == "landed"
    assert given.statuses(ledger) == {"S1": "pending"}
    assert states(ledger) == {"m1#1": "redriven"}
    assert given.row(ledger, "S1")["reference"] == "m1#1"


def test_a_redrive_is_a_run_of_its_own_whose_numbers_add_up(ledger: Ledger, settings: MakeSettings) -> None:
    refused_message(ledger, given.body("S1"))
    redrive(ledger, Wanted(), settings())
    (run,) = (row for row in given.rows(ledger, "runs") if row["kind"] == "redrive")
    assert run["run_id"].startswith("redrive__")
    assert run["received"] == 1
    assert run["ended_at"] is not None
    assert '"red": []' in run["counts"]
    given.assert_every_record_is_in_one_place(ledger)


def test_of_a_message_with_several_orders_each_refused_one_stays_alone(ledger: Ledger, settings: MakeSettings) -> None:
    refused_message(ledger, json.dumps([given.document("S1"), {"orderNumber": "S2"}, given.document("S3")]).encode())
    (outcome,) = redrive(ledger, Wanted(), settings())
    assert outcome.outcome == "landed"
    assert sorted(given.statuses(ledger)) == ["S1", "S3"]
    assert states(ledger) == {"m1#1": "redriven", "m1#1[1]": "quarantined"}
    (again,) = redrive(ledger, Wanted(), settings())
    assert (again.outcome, again.reason) == ("refused", "missing_field")


def test_a_message_with_nothing_but_refused_orders_is_not_told_as_known(ledger: Ledger, settings: MakeSettings) -> None:
    refused_message(ledger, json.dumps([{"orderNumber": "S1"}, {"orderNumber": "S2"}]).encode())
    (outcome,) = redrive(ledger, Wanted(), settings())
    assert (outcome.outcome, outcome.reason) == ("refused", "missing_field")
    assert states(ledger) == {"m1#1": "redriven", "m1#1[0]": "quarantined", "m1#1[1]": "quarantined"}
    given.assert_every_record_is_in_one_place(ledger)


def test_a_kept_heading_without_a_row_has_no_number(ledger: Ledger, settings: MakeSettings) -> None:
    open_run(ledger, given.run())
    error = RecordRefused("bad_value", "a detail")
    rows = [(b"order_number,x\n", b""), (b"\n", b"")]
    items = [
        given.set_aside(error, raw, f"a.csv:{at}", "extract", heading=heading) for at, (heading, raw) in enumerate(rows)
    ]
    land(ledger, "run-1", [], items)
    assert order_numbers(ledger, find(ledger, Wanted()), settings()) == {}


def test_the_next_scheduled_run_claims_a_redriven_order(ledger: Ledger, settings: MakeSettings) -> None:
    refused_message(ledger, given.body("S1"))
    redrive(ledger, Wanted(), settings())
    assert [batch.orders for batch in given.planned(ledger, given.run("run-2"))] == [1]


def test_what_is_still_refused_stays_with_the_reason_of_today(ledger: Ledger, settings: MakeSettings) -> None:
    refused_message(ledger, b'{"orderNumber": "S1"}')
    (outcome,) = redrive(ledger, Wanted(), settings())
    assert (outcome.outcome, outcome.reason) == ("refused", "missing_field")
    (row,) = given.rows(ledger, "quarantine")
    assert (row["state"], row["reason"]) == ("quarantined", "missing_field")
    assert given.statuses(ledger) == {}
    assert [row["kind"] for row in given.rows(ledger, "runs")] == ["scheduled"]


def test_a_dry_run_says_what_would_happen_and_writes_nothing(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S3"))
    refused_message(ledger, given.body("S1"), "m1#1")
    refused_message(ledger, b"{}", "m2#2")
    refused_message(ledger, given.body("S3"), "m3#3")
    before = {table: given.rows(ledger, table) for table in given.TABLES}
    done = redrive(ledger, Wanted(), settings(), dry_run=True)
    assert {each.reference: each.outcome for each in done} == {"m1#1": "landed", "m2#2": "refused", "m3#3": "known"}
    assert {table: given.rows(ledger, table) for table in given.TABLES} == before


def test_a_second_redrive_of_the_same_record_lands_nothing(ledger: Ledger, settings: MakeSettings) -> None:
    id = refused_message(ledger, given.body("S1"))
    redrive(ledger, Wanted(ids=(id,)), settings())
    assert outcomes(redrive(ledger, Wanted(ids=(id[:8],)), settings())) == ["unchanged"]
    assert len(given.on_the_way(ledger)) == 1
    given.assert_every_record_is_in_one_place(ledger)


def test_a_record_that_came_before_the_order_s_content_does_not_replace_it(
    ledger: Ledger, settings: MakeSettings
) -> None:
    refused_message(ledger, given.body("S1", total="1.00"))
    given.landed(ledger, given.document("S1", total="2.00"))
    assert outcomes(redrive(ledger, Wanted(), settings())) == ["known"]
    assert '"total":2.00' in given.row(ledger, "S1")["payload"]


def test_a_record_that_came_between_two_contents_replaces_neither(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1", total="1.00"))
    refused_message(ledger, given.body("S1", total="2.00"))
    given.landed(ledger, given.document("S1", total="3.00"))
    redrive(ledger, Wanted(), settings())
    assert '"total":3.00' in given.row(ledger, "S1")["payload"]


def test_a_correction_that_was_set_aside_replaces_the_order_it_corrects(ledger: Ledger, settings: MakeSettings) -> None:
    given.landed(ledger, given.document("S1", total="1.00"))
    refused_message(ledger, given.body("S1", total="2.00"))
    assert outcomes(redrive(ledger, Wanted(), settings())) == ["known"]
    assert '"total":2.00' in given.row(ledger, "S1")["payload"]
    assert given.tally(ledger, given.rows(ledger, "runs")[0]["run_id"])["corrections"] == 1


def test_the_rows_of_an_extract_are_read_again_under_their_file_s_heading(
    ledger: Ledger, settings: MakeSettings, tmp_path: Path
) -> None:
    text = CSV.replace("3.50,", '"3.50 USD",')
    refused_extract(ledger, tmp_path, text, settings())
    assert states(ledger) == {"week.csv:2": "quarantined"}
    with ledger.engine.begin() as connection:  # as if the parser of that day had not known how to read it
        raw = connection.scalars(sa.select(quarantine.c.raw)).one()
        connection.execute(sa.update(quarantine).values(raw=bytes(raw).replace(b'"3.50 USD"', b"3.50")))
    assert outcomes(redrive(ledger, Wanted(), settings())) == ["landed"]
    assert '"productCode":"B"' in given.row(ledger, "S1")["payload"]
    assert given.statuses(ledger) == {"S1": "pending", "S2": "pending"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_rows_of_an_extract_are_read_again_in_its_encoding(
    encoding: str, ledger: Ledger, settings: MakeSettings, tmp_path: Path
) -> None:
    text = CSV.replace(",A,", ",Ä,").replace("2017-06-05T10", "9999-12-31T23").replace("00:00Z", "59:59-10:00")
    refused_extract(ledger, tmp_path, text, settings(extract_encoding=encoding))
    refused = [row["reference"] for row in given.rows(ledger, "quarantine")]
    assert refused == ["week.csv:2"]
    with ledger.engine.begin() as connection:  # as if the rule of that day had been another
        raw = bytes(connection.scalars(sa.select(quarantine.c.raw)).one())
        unmarked = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(encoding, encoding)
        mended = raw.decode(unmarked).replace("9999", "2017").encode(unmarked)
        connection.execute(sa.update(quarantine).values(raw=mended))
    assert outcomes(redrive(ledger, Wanted(), settings(extract_encoding=encoding))) == ["landed"]
    assert '"productCode":"Ä"' in given.row(ledger, "S1")["payload"]
    assert '"productCode":"B"' in given.row(ledger, "S1")["payload"]


def test_a_line_of_json_lines_is_read_again(ledger: Ledger, settings: MakeSettings, tmp_path: Path) -> None:
    line = json.dumps(given.document("S1", currency="EURO"))
    refused_extract(ledger, tmp_path, f"{line}\n", settings(), "a.jsonl")
    with ledger.engine.begin() as connection:  # as if the rule of that day had been another
        connection.execute(sa.update(quarantine).values(raw=line.replace("EURO", "EUR").encode()))
    assert outcomes(redrive(ledger, Wanted(), settings())) == ["landed"]


def test_an_extract_order_that_was_too_large_is_not_redriven_because_only_its_beginning_was_kept(
    ledger: Ledger, settings: MakeSettings, tmp_path: Path
) -> None:
    lines = "".join(f"S1,2017-06-05T10:00:00Z,1,USD,3.50,6035770741165744,A{n},1,1.00\n" for n in range(40))
    refused_extract(ledger, tmp_path, f"{CSV.partition(chr(10))[0]}\n{lines}", settings(max_message_bytes=1500))
    (outcome,) = redrive(ledger, Wanted(), settings())
    assert (outcome.outcome, outcome.reason) == ("impossible", "too_large")
    assert "INSTORE_MAX_MESSAGE_BYTES" in outcome.detail
    assert given.statuses(ledger) == {}


def test_a_broken_file_is_not_redriven_and_the_text_says_what_to_do(
    ledger: Ledger, settings: MakeSettings, tmp_path: Path
) -> None:
    refused_extract(ledger, tmp_path, CSV + "S3,2017-06-05T1", settings(), released=True)
    (outcome,) = redrive(ledger, Wanted(reason="broken_file"), settings())
    assert outcome.outcome == "impossible"
    assert "deliver it whole again" in outcome.detail
    assert set(states(ledger).values()) == {"quarantined"}


def test_what_may_be_half_an_order_is_redriven_by_its_id_alone(ledger: Ledger, settings: MakeSettings) -> None:
    heading, one, other, _ = CSV.encode().splitlines(keepends=True)
    error = RecordRefused(CUT_ORDER, "the last of its file")
    item = given.set_aside(error, one + other, "week.csv:2", "extract", heading=heading)
    open_run(ledger, given.run())
    land(ledger, "run-1", [], [item])
    assert outcomes(redrive(ledger, Wanted(), settings())) == ["impossible"]
    assert (given.statuses(ledger), states(ledger)) == ({}, {"week.csv:2": "quarantined"})
    assert outcomes(redrive(ledger, Wanted(ids=(item.id,)), settings())) == ["landed"]


def test_discarded_records_are_kept_and_never_redriven(ledger: Ledger, settings: MakeSettings) -> None:
    id = refused_message(ledger, given.body("S1"))
    assert outcomes(discard(ledger, Wanted(ids=(id,)), dry_run=True)) == ["discarded"]
    assert states(ledger) == {"m1#1": "quarantined"}
    assert outcomes(discard(ledger, Wanted(ids=(id,)))) == ["discarded"]
    assert states(ledger) == {"m1#1": "discarded"}
    assert outcomes(redrive(ledger, Wanted(ids=(id,)), settings())) == ["unchanged"]
    assert outcomes(discard(ledger, Wanted(ids=(id,)))) == ["unchanged"]
    assert given.statuses(ledger) == {}


def test_what_was_decided_about_a_record_stays(ledger: Ledger) -> None:
    id = refused_message(ledger, b"a")
    assert move(ledger, [id], "discarded") == [id]
    assert move(ledger, [id], "redriven") == []
    note_reason(ledger, id, "not_json", "another detail")
    (row,) = given.rows(ledger, "quarantine")
    assert (row["state"], row["reason"], row["detail"]) == ("discarded", "too_large", "a detail")


def test_a_message_s_rows_are_found_by_its_number_or_else_by_its_id_and_bytes(ledger: Ledger) -> None:
    refused_message(ledger, b"a", "m_1#1")
    refused_message(ledger, b"b", "mx1#2")
    refused_message(ledger, b"c", "-#3")

    def rows(message_id: str | None, reference: str, raw: bytes) -> list[str]:
        return [row.reference for row in of_message(ledger, message_id, reference, raw)]

    assert rows("m_1", "m_1#1", b"whatever") == ["m_1#1"]
    assert rows("m_1", "m_1#99", b"a") == ["m_1#1"]
    assert rows("m_1", "m_1#99", b"b") == []
    assert rows(None, "-#99", b"c") == ["-#3"]


def test_records_are_found_by_reason_source_run_and_state(ledger: Ledger) -> None:
    refused_message(ledger, b"a", "m1#1", "not_json")
    id = refused_message(ledger, b"b", "m2#2", "too_large")
    discard(ledger, Wanted(reason="too_large"))
    assert [row.reference for row in find(ledger, Wanted())] == ["m1#1"]
    assert [row.reference for row in find(ledger, Wanted(state="discarded"))] == ["m2#2"]
    assert [row.reference for row in find(ledger, Wanted(state=None, source="topic", run="run-1", limit=1))] == ["m1#1"]
    assert find(ledger, Wanted(source="extract")) == []
    assert [row.size for row in find(ledger, Wanted(ids=(id[:10],)))] == [1]


@pytest.mark.parametrize("id", ["abc", "0000000000", "%%%%%%%%", "______", "zz\x00zzzzzz"])
def test_an_id_that_fits_no_record_is_named(id: str, ledger: Ledger) -> None:
    refused_message(ledger, b"a")
    with pytest.raises(NotInQuarantine, match="id"):
        find(ledger, Wanted(ids=(id,)))


def test_an_id_that_fits_several_records_is_named(ledger: Ledger) -> None:
    for number, ending in enumerate("ab"):
        id = refused_message(ledger, ending.encode(), f"m{number}#{number}")
        with ledger.engine.begin() as connection:
            connection.execute(sa.update(quarantine).where(quarantine.c.id == id).values(id=f"012345{ending}"))
    with pytest.raises(NotInQuarantine, match="Several quarantined records have an id beginning with '012345'"):
        find(ledger, Wanted(ids=("012345",)))
    assert [row.id for row in find(ledger, Wanted(ids=("012345b",)))] == ["012345b"]


def test_neither_record_nor_heading_is_in_the_repr_of_a_row(ledger: Ledger) -> None:
    id = refused_message(ledger, given.body("S1", emailAddress=f"{given.CANARY}@example.com"))
    (row,) = find(ledger, Wanted(ids=(id,)), with_raw=True)
    assert given.CANARY in row.raw.decode()
    assert given.CANARY not in repr(row)
