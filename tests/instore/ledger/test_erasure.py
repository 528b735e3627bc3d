"""Fifty people are forgotten: found in every table before, nowhere after, and not brought back; on both databases."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from include.instore.customers.erasing import Forgotten, forget_person, look_after
from include.instore.ledger import Ledger
from include.instore.ledger.claims import release
from include.instore.ledger.customers import CardAnswer, remember
from include.instore.ledger.deliveries import mark_sending
from include.instore.ledger.dry_runs import scratch
from include.instore.ledger.held import Decision, decide
from include.instore.ledger.quarantined import Wanted
from include.instore.ledger.tables import customers, metadata, orders, suppressions
from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import Settings
from include.instore.sources.quarantine import redrive
from tests.instore import given

MakeSettings = Callable[..., Settings]
PEOPLE = 50


def card(person: int) -> str:
    return f"60357707411{person:05d}"


def email(person: int) -> str:
    return f"canary-{person:03d}@example.com"


def order(number: str, person: int, **changes: Any) -> dict[str, Any]:
    whole = {"loyaltyCardNumber": card(person), "customerName": f"name-canary-{person:03d}"}
    return given.document(number, **{**whole, **changes})


def texts_of(person: int) -> tuple[str, ...]:
    return card(person), f"canary-{person:03d}"


def places(ledger: Ledger, people: range, files: bool = True) -> dict[str, int]:
    """Where these people are found: table and column, or file, with how many of them."""
    found: dict[str, set[int]] = {}

    def note(place: str, value: Any) -> None:
        text = bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else str(value)
        text = text.casefold().translate({0: None, ord("-"): None, ord(" "): None})  # as each of them may be written
        for person in people:
            if any(each in text for each in (card(person), f"canary{person:03d}")):
                found.setdefault(place, set()).add(person)

    with ledger.engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                for name, value in row.items():
                    note(f"{table.name}.{name}", value)
    if files and ledger.engine.dialect.name == "sqlite":
        path = Path(str(ledger.engine.url.database))
        for each in path.parent.glob(f"{path.name}*"):
            note(f"file {each.name.removeprefix(path.name)}", each.read_bytes())
    return {place: len(who) for place, who in sorted(found.items())}


@pytest.fixture
def receipts(tmp_path: Path) -> Path:
    folder = tmp_path / "receipts"
    folder.mkdir()
    return folder


@pytest.fixture
def everywhere(ledger: Ledger) -> Ledger:
    """Fifty people and fifty others in every table, each with a sent, a corrected, a waiting and a refused order."""
    given.landed(ledger, *(order(f"A{person}", person) for person in range(2 * PEOPLE)))
    given.planned(ledger)
    now = datetime.now(timezone.utc)
    answers = [CardAnswer(card(person), "matched", email(person)) for person in range(2 * PEOPLE)]
    remember(ledger, given.batch(), answers, cache=timedelta(1), negative=timedelta(1))
    for person in range(2 * PEOPLE):
        hashed = {"email": email(person), "email_hash": ledger.keyed_hash(email(person))}
        given.set_orders(ledger, orders.c.order_number == f"A{person}", status="sent", sent_at=now, **hashed)
    release(ledger, "run-1")
    later = given.run("run-2")
    refusals = [
        given.refused(
            f"{person};{email(person).upper()};{card(person)[:8]} {card(person)[8:]}\n".encode("utf-16"), f"r{person}"
        )
        for person in range(2 * PEOPLE)
    ]
    given.landed(
        ledger,
        *(order(f"A{person}", person, total="9.00") for person in range(2 * PEOPLE)),
        *(
            order(f"B{person}", person, loyaltyCardNumber=None, emailAddress=email(person))
            for person in range(2 * PEOPLE)
        ),
        run=later,
        refusals=refusals,
    )
    given.planned(ledger, later)
    given.set_orders(ledger, orders.c.order_number.startswith("B"), status="ready")
    return ledger


def forget(ledger: Ledger, settings: Settings, people: range) -> Forgotten:
    """By card or by email, every other one."""
    return forget_person(
        ledger,
        settings,
        cards=[card(person) for person in people if person % 2],
        emails=[email(person).title() for person in people if not person % 2],
        on_bus=None,
    )


HERE = ["contents.loyalty_card", "contents.payload", "customers.email", "customers.loyalty_card", "deliveries.email",
        "orders.email", "orders.loyalty_card", "orders.payload", "quarantine.raw"]  # fmt: skip


def test_fifty_people_are_found_everywhere_before_and_nowhere_after(
    everywhere: Ledger, settings: MakeSettings, receipts: Path
) -> None:
    mine = settings(erasure_receipts=receipts)
    them, others = range(PEOPLE), range(PEOPLE, 2 * PEOPLE)
    before = places(everywhere, them)
    assert {place for place in before if not place.startswith("file")} == set(HERE)
    assert set(before.values()) == {PEOPLE} or before.pop("file -shm", 0) == 0
    of_others = places(everywhere, others, files=False)
    dry = forget_person(everywhere, mine, cards=[card(1)], emails=[], on_bus=None, dry_run=True)
    assert (dry.orders, dry.customers, dry.quarantine, dry.receipt) == (2, 1, 1, "")
    assert places(everywhere, them) == before, "a dry run changes nothing"

    done = forget(everywhere, mine, them)
    assert (done.orders, done.customers, done.quarantine) == (2 * PEOPLE, PEOPLE, PEOPLE)
    assert places(everywhere, them) == {}
    assert places(everywhere, others, files=False) == of_others
    receipt = (receipts / done.receipt).read_text()
    assert not [person for person in range(2 * PEOPLE) if any(text in receipt for text in texts_of(person))]
    assert json.loads(receipt)["counts"]["orders"] == 2 * PEOPLE
    found = given.statuses(everywhere)
    assert {found[f"A{person}"] for person in them} == {"sent"}
    assert {found[f"B{person}"] for person in them} == {"suppressed"}
    assert {found[f"B{person}"] for person in others} == {"ready"}
    given.assert_every_record_is_in_one_place(everywhere)


def test_nothing_brings_them_back(everywhere: Ledger, settings: MakeSettings, receipts: Path) -> None:
    """The same again, corrected, new ones, refused ones, a resend, a backfill, and a look-up's answer."""
    mine, them = settings(erasure_receipts=receipts), range(PEOPLE)
    forget(everywhere, mine, them)
    again = given.run("again")
    line = f"1;{email(2)};{card(2)}\n".encode()
    landed = given.landed(
        everywhere,
        *(order(f"A{person}", person) for person in them),
        *(order(f"A{person}", person, total="11.00") for person in them),
        *(order(f"C{person}", person) for person in them),
        *(order(f"D{person}", 99, loyaltyCardNumber=None, emailAddress=email(person)) for person in them),
        order("A1", 1, storeId="0999"),
        run=again,
        refusals=[given.refused(line)],
    )
    assert (landed.duplicates, landed.corrections, landed.orders, landed.quarantined) == (50, 50, 100, 2)
    assert places(everywhere, them) == {}
    window = given.window("2017-06-05", "2017-06-06")
    release(everywhere, "run-2")
    resend = given.run("resend", "backfill", window=window, claims="in_window", resend=True)
    assert sum(batch.orders for batch in given.planned(everywhere, resend)) == 2 * PEOPLE, "those of the others"
    found = given.statuses(everywhere)
    assert {found[f"{letter}{person}"] for letter in "BCD" for person in them} == {"suppressed"}
    assert {found[f"A{person}"] for person in them} == {"sent"}
    assert places(everywhere, them) == {}
    given.assert_every_record_is_in_one_place(everywhere)


def test_a_restored_backup_is_erased_again_by_the_receipts(
    everywhere: Ledger, settings: MakeSettings, receipts: Path
) -> None:
    mine, them = settings(erasure_receipts=receipts), range(PEOPLE)
    with everywhere.engine.connect() as connection:
        backup = {
            table: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            for table in metadata.sorted_tables
        }
    forget(everywhere, mine, them)
    with everywhere.engine.begin() as connection:
        for table, rows in backup.items():
            connection.execute(sa.delete(table))
            if rows:
                connection.execute(sa.insert(table), rows)
    assert set(places(everywhere, them, files=False)) == set(HERE)
    assert look_after(everywhere, mine) == 1
    assert places(everywhere, them) == {}
    assert look_after(everywhere, mine) == 0
    assert given.statuses(everywhere)["B1"] == "suppressed"


def test_an_event_in_doubt_is_not_sent_again(everywhere: Ledger, settings: MakeSettings, receipts: Path) -> None:
    """Its order carries another address than its customer's: only the payload says that it is hers."""
    given.landed(everywhere, order("E1", 98, emailAddress=email(3)), run=given.run("run-2"))
    batches = given.planned(everywhere, given.run("run-2"))
    given.set_orders(everywhere, orders.c.order_number == "E1", status="held", email=email(98), attempts=1)
    forget(everywhere, settings(erasure_receipts=receipts), range(PEOPLE))
    row = given.row(everywhere, "E1")
    assert (row["status"], row["loyalty_card"], row["email"]) == ("held", None, None)
    assert decide(everywhere, [row["event_id"]], Decision.SEND_AGAIN) == 1
    given.planned(everywhere, given.run("run-3"))
    for batch in range(len(batches) + 1):
        assert row["key"] not in [
            each.key for each in mark_sending(everywhere, given.batch("run-3", batch), [row["key"]])
        ]
    assert given.statuses(everywhere)["E1"] == "suppressed"


def test_an_address_that_many_cards_have_erases_nobody_else(
    ledger: Ledger, settings: MakeSettings, receipts: Path
) -> None:
    till = "till@example.com"
    given.landed(ledger, *(order(f"A{person}", person, emailAddress=till) for person in range(7)))
    mine = settings(erasure_receipts=receipts)
    assert forget_person(ledger, mine, cards=[card(0)], emails=[], on_bus=None).orders == 1
    assert sum(row["pruned_at"] is not None for row in given.rows(ledger, "orders")) == 1
    with ledger.engine.connect() as connection:
        assert ledger.keyed_hash(till) not in connection.scalars(sa.select(suppressions.c.hash)).all()


def test_her_other_cards_and_addresses_are_found(ledger: Ledger, settings: MakeSettings, receipts: Path) -> None:
    now = datetime.now(timezone.utc)
    given.landed(ledger, order("A1", 1, emailAddress=email(1)), order("A2", 2), order("A3", 3))
    with ledger.engine.begin() as connection:
        row = {"outcome": "matched", "asked_at": now, "expires_at": now}
        connection.execute(sa.insert(customers), [{**row, "loyalty_card": card(2), "email": email(1)}])
    done = forget_person(ledger, settings(erasure_receipts=receipts), cards=[card(1)], emails=[], on_bus=None)
    assert (done.orders, done.customers) == (2, 1)
    assert places(ledger, range(1, 3)) == {}
    assert given.row(ledger, "A3")["loyalty_card"] == card(3)


def test_a_record_in_gzip_is_looked_into(ledger: Ledger, settings: MakeSettings, receipts: Path) -> None:
    bodies = [gzip.compress(json.dumps(order(f"S{person}", person)).encode()) for person in (1, 2)]
    broken = bodies[0][:-12]
    given.landed(ledger, refusals=[given.refused(raw, f"r{n}") for n, raw in enumerate([*bodies, broken])])
    done = forget_person(ledger, settings(erasure_receipts=receipts), cards=[card(1)], emails=[], on_bus=None)
    kept = {row["reference"]: bytes(row["raw"]) for row in given.rows(ledger, "quarantine")}
    assert (done.quarantine, kept) == (2, {"r0": b"", "r1": bodies[1], "r2": b""})


HEADING = b"order_number,store_id,order_date,currency,order_total,loyalty_card,email,customer\n"
HERS, HIS, ANONYMOUS = order("S1", 1), order("S2", 2), order("S3", 3, loyaltyCardNumber=None, customerName="Theirs")


def _row(number: str, person: int) -> bytes:
    return f"{number},0404,2017-06-05,USD,3.50,{card(person)},{email(person)},name-canary-{person:03d}\n".encode()


def _xml(number: str, person: int) -> str:
    lines = "<Line>1</Line><Line>2</Line>"
    return f"<Order><No>{number}</No><Name>canary-{person:03d}</Name><Card>{card(person)}</Card>{lines}</Order>"


def _several(*documents: dict[str, Any]) -> str:
    return ", ".join(json.dumps(each) for each in documents)


SEVERAL_PEOPLE = {
    "an array that is cut": f'[{_several(HERS, HIS, ANONYMOUS)}, {{"orderNumber": "S4", "lines": ['.encode(),
    "hers is the one that is cut": f"[{_several(HIS, ANONYMOUS)}, {json.dumps(HERS)[:-40]}".encode(),
    "an envelope": json.dumps({"store": "0404", "orders": [HIS, HERS, ANONYMOUS]}).encode(),
    "an envelope of envelopes": json.dumps({"stores": [{"orders": [HIS, HERS]}, {"orders": [ANONYMOUS]}]}).encode(),
    "its card in a list of its own": _several(
        HIS,
        {**order("S1", 1, loyaltyCardNumber=None), "ids": [{"type": "card", "id": card(1)}, {"type": "till"}]},
        ANONYMOUS,
    ).encode(),
    "serialised twice": json.dumps(f"[{_several(HERS, HIS, ANONYMOUS)}]").encode(),
    "in UTF-16": f"[{_several(HERS, HIS, ANONYMOUS)}]".encode("utf-16"),
    "in gzip": gzip.compress(f"[{_several(HERS, HIS, ANONYMOUS)}".encode()),
    "a body in bytes of AMQP": b"\x00\x53\x75\xb0\x00\x00\x01\x00" + f"[{_several(HERS, HIS, ANONYMOUS)}]".encode(),
    "XML": f"<Batch>{_xml('S2', 2)}{_xml('S1', 1)}<Order><No>S3</No><Line>3</Line></Order></Batch>".encode(),
    "lines": b"S2;" + card(2).encode() + b"\nS1;" + email(1).encode() + b"\nS3;\n",
    "the rest of a broken file": _row("S2", 2) + _row("S1", 1) + b"S3,0404,2017-06-05,USD,3.50,,,\n",
    "its text in another encoding": f"S2;Gr\xf6\xdfe\nS1;{card(1)}\nS3;\xe9\n".encode("latin-1"),
}


@pytest.mark.parametrize("arrives", ["before", "after"])
@pytest.mark.parametrize("raw", SEVERAL_PEOPLE.values(), ids=SEVERAL_PEOPLE)
def test_of_a_record_of_several_people_only_hers_goes(
    raw: bytes, arrives: str, ledger: Ledger, settings: MakeSettings, receipts: Path
) -> None:
    of_a_file = raw in (SEVERAL_PEOPLE["the rest of a broken file"],)
    record = given.refused(raw, reason="broken_file" if of_a_file else "not_json")
    if of_a_file:
        record = dataclasses.replace(record, source="extract", reference="a.csv:7", heading=HEADING)
    mine = settings(erasure_receipts=receipts)
    given.landed(ledger, *([order("S9", 1)] if arrives == "after" else []), refusals=[record][: arrives == "before"])
    done = forget_person(ledger, mine, cards=[card(1)], emails=[email(1)], on_bus=None)
    given.landed(ledger, refusals=[record], run=given.run("run-2"))  # again, or for the first time
    assert done.quarantine == (arrives == "before")
    (kept,) = given.rows(ledger, "quarantine")
    assert (kept["state"], kept["id"], kept["heading"]) == ("quarantined", record.id, record.heading or None)
    assert places(ledger, range(1, 2)) == {}
    text = bytes(kept["raw"]).decode(errors="replace")
    assert "S2" in text
    assert "S3" in text
    assert '"S1"' not in text.replace("\\", "")
    given.assert_every_record_is_in_one_place(ledger)


def test_what_is_left_of_an_array_lands(ledger: Ledger, settings: MakeSettings, receipts: Path) -> None:
    mine = settings(erasure_receipts=receipts, max_message_bytes=1024)
    whole = f"[{_several(HERS, HIS, ANONYMOUS)}]".encode()
    given.landed(ledger, refusals=[given.refused(whole, reason="too_large")])
    forget_person(ledger, mine, cards=[card(1)], emails=[], on_bus=None)
    (row,) = given.rows(ledger, "quarantine")
    assert [each.outcome for each in redrive(ledger, Wanted(ids=(row["id"],)), settings())] == ["landed"]
    assert set(given.statuses(ledger)) == {"S2", "S3"}


def test_the_rows_of_one_order_go_as_a_whole_though_one_alone_has_her_card(
    ledger: Ledger, settings: MakeSettings, receipts: Path
) -> None:
    rows = _row("S1", 1) + b"S1,,,,,,,half an order\n"
    record = dataclasses.replace(given.refused(rows, reason="bad_value"), source="extract", heading=HEADING)
    given.landed(ledger, refusals=[record])
    forget_person(ledger, settings(erasure_receipts=receipts), cards=[card(1)], emails=[], on_bus=None)
    (row,) = given.rows(ledger, "quarantine")
    assert (bytes(row["raw"]), row["state"]) == (b"", "discarded")


def test_a_dry_run_s_ledger_is_removed(everywhere: Ledger, settings: MakeSettings, receipts: Path) -> None:
    scratch(everywhere, given.run("dry", dry_run=True)).close()
    if everywhere.engine.dialect.name == "sqlite":
        assert any(place.startswith("file .dry_") for place in places(everywhere, range(PEOPLE)))
    assert forget(everywhere, settings(erasure_receipts=receipts), range(PEOPLE)).dry_runs == 1
    assert places(everywhere, range(PEOPLE)) == {}


def test_nobody_is_erased_without_a_place_for_the_receipt_or_a_name(
    everywhere: Ledger, settings: MakeSettings, receipts: Path, tmp_path: Path
) -> None:
    before = places(everywhere, range(PEOPLE), files=False)

    def refused(words: str, receipts: Path | None, **who: Any) -> None:
        with pytest.raises(ConfigurationError, match=words):
            forget_person(
                everywhere, settings(erasure_receipts=receipts), **{"cards": [], "emails": [], **who}, on_bus=None
            )

    refused("set INSTORE_ERASURE_RECEIPTS to an existing folder", None, cards=[card(1)])
    refused("set INSTORE_ERASURE_RECEIPTS to an existing folder", tmp_path / "nowhere", cards=[card(1)])
    refused("No person is given", receipts)
    refused("is not valid", receipts, emails=["jane.example.com"])
    assert places(everywhere, range(PEOPLE), files=False) == before


def test_a_receipt_that_cannot_be_followed_stops_the_run(
    ledger: Ledger, settings: MakeSettings, receipts: Path
) -> None:
    (receipts / "erased-1.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"erased-1\.json .* cannot be read"):
        look_after(ledger, settings(erasure_receipts=receipts))
    (receipts / "erased-1.json").write_text(json.dumps({"hash_key": "x", "persons": [], "event_ids": []}))
    with pytest.raises(ConfigurationError, match=r"another key than that of connection\s+instore_hash_key"):
        look_after(ledger, settings(erasure_receipts=receipts))
