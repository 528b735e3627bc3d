"""`check`: what files would become, without ledger and Airflow database, and no personal data unasked."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from typer.testing import CliRunner, Result

from adapters.new import main
from docs import adapters_docs
from include.instore.model.declarations import load_declaration
from include.instore_airflow.cli import app
from sandbox.servicebus import ServiceBusStandIn
from tests.instore import given
from tests.instore.sources.extracts.rows import csv_text, orders_text, row

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "adapters").glob("*/*.yaml"))


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_orders_are_shown_with_their_lines_and_the_exit_code_is_0(tmp_path: Path) -> None:
    text = csv_text(row("S1"), row("S2", order_total="-1.00"), row("S3", loyalty_card="", email=""))
    told = check(put(tmp_path, "a.csv", text))
    assert told.exit_code == 0
    lines = [line.split() for line in told.stdout.splitlines()]
    assert lines[0] == ["a.csv,", "without", "an", "adapter"]
    assert lines[2][:7] == ["2", "S1", "sale", "0404", "2017-06-05T10:04:12Z", "3.50", "USD"]
    assert (lines[2][-1], lines[3][2], lines[4][-1]) == ("card", "return", "nobody")
    assert lines[3][7:11] == ["1,", "do", "not", "add"]
    assert lines[-1] == ["3", "orders,", "0", "refused"]


def test_what_is_refused_is_said_with_line_and_code_and_the_exit_code_is_1(tmp_path: Path) -> None:
    text = csv_text(row("S1"), row("S2", currency=given.CANARY), row("S3", order_date="1753-01-01T00:00:00Z"))
    told = check(put(tmp_path, "a.csv", text))
    assert told.exit_code == 1
    refused = [line for line in told.stdout.splitlines() if line.startswith("refused")]
    assert refused[0].startswith("refused: line 3: bad_value: currency: ")
    assert refused[1].startswith("refused: line 4 (order S3): bad_value: date is before 2000-01-01")
    assert given.CANARY not in told.stdout


def test_personal_data_is_shown_on_demand_only(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", given.body("S1", emailAddress=f"{given.CANARY}@example.com"))
    for arguments in ([path], [path, "--json"]):
        assert given.CANARY not in check(*arguments).stdout
        assert given.CARD not in check(*arguments).stdout
        assert given.CANARY in check(*arguments, "--show").stdout


def test_a_file_that_breaks_off_says_where(tmp_path: Path) -> None:
    whole = gzip.compress(orders_text(*(f"S{n * 7919}" for n in range(2000))).encode(), mtime=0)
    told = check(put(tmp_path, "a.csv.gz", whole[: len(whole) // 2]), "--max", "10000")
    assert told.exit_code == 1
    (broken,) = (line for line in told.stdout.splitlines() if line.startswith("refused"))
    assert "broken_file: line " in broken
    assert "unreadable from here (EOFError)" in broken
    assert "A run loads nothing of this file until it is delivered whole, or a person releases it." in told.stdout
    assert "orders, 1 refused" in told.stdout.splitlines()[-1]


def test_a_file_that_seems_cut_says_so(tmp_path: Path) -> None:
    text = csv_text(row("S1", order_total="7.00"), row("S1", 2, order_total="7.00"), row("S2", order_total="7.00"))
    told = check(put(tmp_path, "a.csv", text))
    assert told.exit_code == 1
    assert "refused: line 4: broken_file: line 4: the file seems cut: its last order" in told.stdout
    assert "A run loads nothing of this file" in told.stdout


@pytest.mark.parametrize("content", [b"%PDF", b""])
def test_a_file_that_nobody_reads_is_refused(tmp_path: Path, content: bytes) -> None:
    told = check(put(tmp_path, "orders.pdf", content))
    assert (told.exit_code, "is that of no extract" in told.stdout) == (1, True)


def test_json_is_for_a_program(tmp_path: Path) -> None:
    text = csv_text(row("S1"), row("S2"), row("S3", currency="?"), row("S4", currency="?"))
    told = check(put(tmp_path, "a.csv", text), "--json", "--max", "1")
    (found,) = json.loads(told.stdout)
    assert (found["file"], found["adapter"], found["orders"], found["refused"]) == ("a.csv", "", 2, 2)
    assert [(each["line"], each["becomes"]) for each in found["records"]] == [("2", "sale"), ("4", "refused")]
    assert told.exit_code == 1


def test_a_message_s_body_is_checked_as_one(tmp_path: Path) -> None:
    body = json.dumps([given.document("S1"), {"orderNumber": "S2"}])
    told = check(put(tmp_path, "body.bin", gzip.compress(body.encode())), "--message")
    assert told.exit_code == 1
    assert "refused: body[1]: missing_field: date is required" in told.stdout
    assert "1 orders, 1 refused" in told.stdout


@pytest.mark.parametrize("sessions", [False, True])
def test_what_is_on_the_topic_is_checked_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sessions: bool
) -> None:
    subscription = {"Name": "s", "Properties": {"RequiresSession": sessions}}
    topic = {"Name": "t", "Properties": {}, "Subscriptions": [subscription]}
    entities = {"UserConfig": {"Namespaces": [{"Name": "ns", "Topics": [topic]}]}}
    for name, value in {"INSTORE_TOPIC": "t", "INSTORE_SUBSCRIPTION": "s", "_AIRFLOW_PROCESS_CONTEXT": ""}.items():
        monkeypatch.setenv(name, value)
    mail = f"{given.CANARY}@example.com"
    bodies = [given.body("S1", emailAddress=mail), given.body("S2", currency=given.CANARY), json.dumps({"o": {}})]
    with ServiceBusStandIn(entities) as bus:
        connection = {"conn_type": "azure_service_bus", "schema": bus.connection_string}
        monkeypatch.setenv("AIRFLOW_CONN_INSTORE_SERVICE_BUS", json.dumps(connection))
        client = ServiceBusClient.from_connection_string(bus.connection_string)
        with client, client.get_topic_sender("t") as sender:
            for number, body in enumerate(bodies):
                sender.send_messages(ServiceBusMessage(body, message_id=f"m:{number}", session_id="a"))
        told = check("--topic")
        assert told.exit_code == 1, told.output
        assert told.stdout.splitlines()[0] == "s, without an adapter"
        assert "m:0#1" in told.stdout
        assert "refused: m:1#2: bad_value: currency" in told.stdout
        assert told.stdout.splitlines()[-1] == "1 orders, 2 refused"
        assert given.CANARY not in told.stdout
        assert mail in check("--topic", "--show").stdout
        declared = put(tmp_path, "acme.yaml", "format: json\norders: o\norder: {orderNumber: n}\ncode: a.py\n")
        put(tmp_path, "a.py", "def order_of(document):\n    return document\n")
        (found,) = json.loads(check("--topic", "--adapter", declared, "--json").stdout)
        assert (found["adapter"], found["orders"], found["refused"]) == ("acme", 0, 3)
        counts = bus.state()["entities"]["t/Subscriptions/s"]
        assert (counts["active"], counts["max_delivery_count_seen"], set(counts["settled"].values())) == (3, 0, {0})
        declared = put(tmp_path, "claim.yaml", "format: json\nblob: o.at\n")
        (tmp_path / "blobs").mkdir()
        put(tmp_path, "blobs/1.json", given.body("S7"))
        monkeypatch.setenv("INSTORE_EXTRACTS_URL", f"file://{tmp_path}/blobs")
        with client, client.get_topic_sender("t") as sender:
            sender.send_messages(ServiceBusMessage(json.dumps({"o": {"at": "1.json"}}), session_id="a"))
        told = check("--topic", "--adapter", declared)
        assert "S7" in told.stdout
        assert told.stdout.splitlines()[-1] == "1 orders, 3 refused"
    monkeypatch.setenv("INSTORE_SUBSCRIPTION", "")
    assert check("--topic").exit_code == 2


def test_files_or_the_topic_have_to_be_named(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", orders_text("S1"))
    for arguments in ([], [path, "--topic"], ["--topic", "--suggest"]):
        assert check(*arguments).exit_code == 2


def test_a_path_that_finds_nothing_is_told(tmp_path: Path) -> None:
    declared = put(
        tmp_path, "acme.yaml",
        "format: json\norder: {orderNumber: orderNumber, date: date, storeId: storeId, currency: currency, total: "
        "total, loyaltyCardNumber: customer.card}\n",
    )  # fmt: skip
    told = check(put(tmp_path, "a.json", given.body("S1")), "--adapter", declared)
    assert (told.exit_code, "never found: order.loyaltyCardNumber" in told.stdout) == (0, True)


def test_a_wrong_declaration_is_one_sentence(tmp_path: Path) -> None:
    declared = put(tmp_path, "acme.yaml", "format: csv\ntitle_line: 1\n")
    told = check(put(tmp_path, "a.csv", orders_text("S1")), "--adapter", declared)
    assert told.exit_code == 2
    assert told.stderr.startswith("The adapter is wrong: acme.yaml: title_line is not known; did you mean title_lines?")


def test_no_ledger_is_asked_for(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", orders_text("S1"))
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "include.instore", "check", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 orders, 0 refused"), done.stderr


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_each_example_is_all_orders_and_maps_nothing_in_vain(folder: Path) -> None:
    (sample,) = (each for each in folder.glob("*.*") if each.suffix not in (".yaml", ".py") and each.stem != "expected")
    told = check(sample, "--adapter", folder / f"{folder.name}.yaml", "--json")
    (found,) = json.loads(told.stdout)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert (told.exit_code, found["orders"], found["refused"]) == (0, len(expected), 0)
    assert found["never_found"] == []


def suggested(path: Path) -> dict[str, dict[str, str]]:
    ((*guesses,),) = json.loads(check(path, "--suggest", "--json").stdout)
    return {each["name"]: each for each in guesses}


GERMAN = """Umsatz je Filiale

Bonnr.;Datum;Filiale;Karte;Währung;Summe;Artikelnr.;Menge;Betrag
7;24.11.2026 10:15;Köln;6035770741165744;EUR;1.250,00-;A;1;1.000,00-
;;;;;;B;1;250,00-
8;25.11.2026 09:00;Bonn;;EUR;3,50;A;1;3,50
"""


def test_a_declaration_is_proposed_for_an_unknown_file(tmp_path: Path) -> None:
    found = suggested(put(tmp_path, "a.txt", GERMAN.encode("cp1252")))
    assert {name: (each["is_what"], each["sure"]) for name, each in found.items()} == {
        "format": ("csv", "sure"),
        "encoding": ("cp1252", "unsure"),
        "delimiter": (";", "sure"),
        "title_lines": (2, "likely"),
        "first_row_only": (True, "likely"),
        "order.orderNumber": ("Bonnr.", "sure"),
        "order.date": ("Datum", "sure"),
        "order.storeId": ("Filiale", "sure"),
        "order.loyaltyCardNumber": ("Karte", "sure"),
        "order.currency": ("Währung", "sure"),
        "order.total": ("Summe", "sure"),
        "lines.productCode": ("Artikelnr.", "sure"),
        "lines.quantity": ("Menge", "sure"),
        "lines.total": ("Betrag", "sure"),
        "numbers.decimal": (",", "sure"),
        "numbers.thousands": (".", "sure"),
        "numbers.negative": (["minus", "trailing_minus"], "sure"),
        "dates.formats": (["%d.%m.%Y %H:%M"], "sure"),
        "dates.zone": ("", "unsure"),
    }
    proposal = put(tmp_path, "acme.yaml", check(tmp_path / "a.txt", "--suggest").stdout)
    told = check(tmp_path / "a.txt", "--adapter", proposal, "--json")
    (read,) = json.loads(told.stdout)
    assert [(each["number"], each["total"], each["lines"]) for each in read["records"]] == [
        ("7", "-1250.00 EUR", "2"),
        ("8", "3.50 EUR", "1"),
    ]


def test_what_may_mean_two_things_is_never_sure(tmp_path: Path) -> None:
    text = "Order No,Date,Store,Currency,Total,Receipt No,Card\n"
    rows = "1,05/06/2026,S1,EUR,150.000,9,\n2,07/08/2026,S1,EUR,99.500,8,\n"
    found = suggested(put(tmp_path, "a.csv", text + rows))
    assert (found["dates.formats"]["sure"], found["numbers.decimal"]["sure"]) == ("unsure", "unsure")
    assert (found["dates.formats"]["is_what"], found["numbers.decimal"]["is_what"]) == ("", "")
    assert '"%d/%m/%Y", "%m/%d/%Y" would all fit' in found["dates.formats"]["why"]
    assert (found["order.orderNumber"]["sure"], found["order.loyaltyCardNumber"]["sure"]) == ("likely", "likely")
    assert "as Receipt No: ask" in found["order.orderNumber"]["why"]


def test_what_differs_within_an_order_is_its_lines_whatever_it_is_called(tmp_path: Path) -> None:
    text = (
        "Transaktion;Zeitpunkt;Filiale;Kundenkarte;Artikel;Menge;Summe;Bon-Summe;Währung\n"
        "4711-1;24.11.2026 10:15;0042;6035770741165744;Milch;2;2,38;7,37;EUR\n"
        "4711-1;24.11.2026 10:15;0042;6035770741165744;Brot;1;4,99;7,37;EUR\n"
        "4711-2;24.11.2026 10:17;0042;;Käse;1;3,50;3,50;EUR\n"
    )
    found = suggested(put(tmp_path, "a.csv", text))
    assert (found["order.total"]["is_what"], found["lines.total"]["is_what"]) == ("Bon-Summe", "Summe")


def test_an_order_is_known_by_its_rows_and_its_total_by_their_sum(tmp_path: Path) -> None:
    text = (
        "TXN_REF,TXN_TS,OUTLET,MEMBER,SKU,QTY,NET,TAX,GROSS,TXN_GROSS,CCY\n"
        "R-100,2026-11-24T10:15:00Z,L01,9001234567,A-1,2,8.00,2.00,10.00,15.00,GBP\n"
        "R-100,2026-11-24T10:15:00Z,L01,9001234567,B-7,1,4.00,1.00,5.00,15.00,GBP\n"
        "R-101,2026-11-24T10:25:00Z,L02,,A-1,1,4.00,1.00,5.00,5.00,GBP\n"
    )
    found = suggested(put(tmp_path, "a.csv", text))
    assert (found["order.total"]["is_what"], found["lines.total"]["is_what"]) == ("TXN_GROSS", "GROSS")
    assert {found[name]["sure"] for name in ("order.total", "lines.total")} == {"likely"}
    assert not found["order.orderNumber"]["is_what"]
    assert "the rows of one TXN_REF stand together" in found["order.orderNumber"]["why"]


def test_a_proposal_has_no_values_of_the_file(tmp_path: Path) -> None:
    rows = "".join(f"{n},2026-11-24,S1,EUR,1.00,{given.CARD},{given.CANARY}@example.com\n" for n in range(3))
    path = put(tmp_path, "a.csv", f"id,when,where,cur,sum,x,y\n{rows}")
    told = check(path, "--suggest").stdout
    assert given.CANARY not in told
    assert given.CARD not in told
    found = suggested(path)
    assert (found["order.emailAddress"]["is_what"], found["order.emailAddress"]["sure"]) == ("y", "unsure")
    assert (found["order.loyaltyCardNumber"]["is_what"], found["order.date"]["is_what"]) == ("x", "when")
    assert (found["order.orderNumber"]["sure"], found["order.storeId"]["is_what"]) == ("unsure", "")


def test_a_unicode_export_of_sql_server_is_proposed_as_what_it_is(tmp_path: Path) -> None:
    rows = ["OrderNo", "OrderDate", "StoreNo", "Currency", "Total", "Email"], ["7", "2026-11-24 10:15:00", "Köln"]
    text = "\r\n".join("\t".join(each) for each in (rows[0], [*rows[1], "EUR", "3.50", "a@example.com"], []))
    path = put(tmp_path, "a.txt", text.encode("utf-16"))
    found = suggested(path)
    assert (found["encoding"]["is_what"], found["encoding"]["sure"]) == ("utf-16", "sure")
    assert found["delimiter"]["is_what"] == "\t"
    told = check(path, "--adapter", put(tmp_path, "acme.yaml", check(path, "--suggest").stdout))
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (0, "1 orders, 0 refused")
    json_path = put(tmp_path, "a.json", json.dumps([given.document("S1")]).encode("utf-16"))
    told = check(json_path, "--adapter", put(tmp_path, "j.yaml", check(json_path, "--suggest").stdout))
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (0, "1 orders, 0 refused")


@pytest.mark.parametrize("envelope", ["{0}", "[{0}]", '{{"data": {0}}}', '{{"a": 1, "value": [{0}, {0}]}}'])
def test_a_proposal_for_json_finds_the_orders(tmp_path: Path, envelope: str) -> None:
    path = put(tmp_path, "a.json", envelope.format(given.body("S1").decode()))
    proposal = put(tmp_path, "acme.yaml", check(path, "--suggest").stdout)
    told = check(path, "--adapter", proposal)
    assert (told.exit_code, told.stdout.splitlines()[-1]) == (0, f"{envelope.count('{0}')} orders, 0 refused")


@pytest.mark.parametrize("raw", [b"", b"\0\1\2", b"{", b"<a>", b"<a/>", b"\x1f\x8b\x08", b"[]", b"\n\n", b"[1]", b"7"])
def test_a_file_of_which_nothing_can_be_told_is_one_sentence_or_no_field(tmp_path: Path, raw: bytes) -> None:
    for name in ("a.csv", "a.csv.gz"):
        told = check(put(tmp_path, name, raw), "--suggest", "--json")
        assert told.exit_code in (0, 2), told.exception
        if told.exit_code:
            assert len(told.stderr.strip().splitlines()) == 1
        else:
            found = {each["name"]: each["is_what"] for each in json.loads(told.stdout)[0]}
            assert not any(found[name] for name in found if name.startswith("order"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_each_example_s_proposal_names_what_the_example_names(folder: Path) -> None:
    (sample,) = (each for each in folder.glob("*.*") if each.suffix not in (".yaml", ".py") and each.stem != "expected")
    found = suggested(sample)
    declared = load_declaration(str(folder / f"{folder.name}.yaml"))
    assert found["format"]["is_what"] == declared.format
    wrong = [
        name
        for name, each in found.items()
        if name.startswith("order.") and each["sure"] == "sure" and declared.order.get(name[6:]) != each["is_what"]
    ]
    # What it is sure of is what the example says, but for a path that the example writes otherwise.
    assert wrong in ([], ["order.loyaltyCardNumber"])


def test_the_page_of_adapters_has_what_the_commands_print() -> None:
    assert adapters_docs.main([]) == 0


def test_a_new_adapter_reads_its_sample_as_it_is_to_be(tmp_path: Path) -> None:
    assert main("acme", tmp_path) == 0
    folder = tmp_path / "acme"
    told = check(folder / "sample.json", "--adapter", folder / "acme.yaml", "--json", "--show")
    (found,) = json.loads(told.stdout)
    payloads = [json.loads(each["payload"]) for each in found["records"]]
    assert (told.exit_code, payloads) == (0, json.loads((folder / "expected.json").read_text()))
    assert main("acme", tmp_path) == 2
    for name in ("", "Acme", "../acme", "acme/x"):
        assert main(name, tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["acme"]
