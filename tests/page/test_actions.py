"""What a person does on the page: first what it would do, then the effect, in the ledger, on the bus, in Airflow."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import sqlalchemy as sa
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue

from include.instore.ledger import Ledger
from include.instore.ledger.audit import done
from include.instore.ledger.quarantined import Wanted, find
from include.instore.ledger.resends import approved_list
from include.instore.ledger.tables import contents, deliveries, orders
from sandbox.servicebus import ServiceBusStandIn
from tests.instore import given
from tests.page.serving import EMAIL, Server


def _order(ledger: Ledger, *numbers: str, **changes: Any) -> list[str]:
    """Orders in a status; their event ids."""
    given.landed(ledger, *(given.document(number, emailAddress=EMAIL) for number in numbers))
    given.set_orders(ledger, orders.c.order_number.in_(numbers), attempts=1, outcome_run="run-1", **changes)
    return [str(given.row(ledger, number)["event_id"]) for number in numbers]


def _confirmed(server: Server, preview: str) -> str:
    """What the page says once the form of the preview is sent as it is."""
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', preview))
    return server.page("/confirm", "editor", **form)


def _last(ledger: Ledger) -> tuple[str, str, int, str]:
    (last,) = done(ledger, 1)
    return last.who, last.what, last.records, last.detail


SETTLED = {
    "send-again": ("held", "ready"), "sent": ("held", "sent"), "ask-again": ("held", "sending"),
    "give-up": ("rejected", "cancelled"),
}  # fmt: skip


@pytest.mark.parametrize("action", SETTLED)
def test_an_event_is_settled_as_the_preview_said_and_nothing_before(
    server: Server, ledger: Ledger, action: str
) -> None:
    before, after = SETTLED[action]
    mine, other = f"A-{action}", f"B-{action}"
    ids = _order(ledger, mine, status=before) + _order(ledger, other, status="suppressed")
    preview = server.page("/preview", "editor", action=action, ids=ids)
    assert f">{mine}<" in preview
    assert f">{other}<" not in preview
    assert "<strong>1</strong> records" in preview
    assert "1 of those chosen are not concerned" in preview
    assert given.statuses(ledger)[mine] == before
    assert "<strong>1</strong> records" in _confirmed(server, preview)
    assert (given.statuses(ledger)[mine], given.statuses(ledger)[other]) == (after, "suppressed")
    assert _last(ledger) == ("editor", "deliveries settle", 1, action)
    assert "deliveries settle" in server.page("/done")


def test_the_customer_of_chosen_orders_is_searched_again(server: Server, ledger: Ledger) -> None:
    given.landed(ledger, given.document("C1"), given.document("C2"))
    for number in ("C1", "C2"):
        given.set_orders(ledger, orders.c.order_number == number, status="unmatched", reason="not_found")
    (chosen,) = [str(given.row(ledger, "C1")["event_id"])]
    preview = server.page("/preview", "editor", action="search-again", ids=[chosen])
    assert given.statuses(ledger)["C1"] == "unmatched"
    _confirmed(server, preview)
    assert [given.statuses(ledger)[number] for number in ("C1", "C2")] == ["pending", "unmatched"]
    assert _last(ledger)[:3] == ("editor", "orders search-again", 1)


def test_one_event_is_sent_once_more_at_once_and_many_wait_for_approval(server: Server, ledger: Ledger) -> None:
    ids = _order(ledger, "D1", "D2", "D3", status="sent")
    preview = server.page("/preview", "editor", action="resend", ids=ids[:1])
    assert "<strong>1</strong> events to be sent" in preview
    _confirmed(server, preview)
    assert given.row(ledger, "D1")["edition"] == 2
    preview = server.page("/preview", "editor", action="resend", ids=ids[1:])
    assert "<strong>2</strong> events to be sent: more than 1 need approval before any is sent." in preview
    assert server.airflow("/dags/instore_resend/dagRuns")["dag_runs"] == []
    answer = _confirmed(server, preview)
    (run,) = server.airflow("/dags/instore_resend/dagRuns")["dag_runs"]
    assert f"/dags/instore_resend/runs/{run['dag_run_id'].split('__')[0]}" in answer
    assert run["triggering_user_name"] == "editor"
    found = approved_list(ledger, run["conf"]["resend_list"])
    assert (found.events, found.made_by) == (2, "editor")
    assert {given.row(ledger, number)["edition"] for number in ("D2", "D3")} == {1}


@pytest.mark.parametrize("action", ["resend-corrected", "keep"])
def test_a_correction_is_sent_or_left(server: Server, ledger: Ledger, action: str) -> None:
    number = f"E-{action}"
    (event,) = _order(ledger, number, status="sent", fingerprint="0" * 64)
    later = given.document(number, emailAddress=EMAIL, total="9.99")
    given.landed(ledger, later, run=given.run("run-2"))
    assert number in server.page("/undelivered?status=corrected_after_sent")
    _confirmed(server, server.page("/preview", "editor", action=action, ids=[event]))
    assert given.row(ledger, number)["edition"] == (2 if action == "resend-corrected" else 1)
    with ledger.read() as connection:
        key = given.row(ledger, number)["key"]
        states = connection.scalars(sa.select(contents.c.state).where(contents.c.key == key)).all()
    assert "after_sending" not in states


@pytest.mark.parametrize("action", ["redrive", "discard"])
def test_a_record_in_quarantine_is_redriven_or_discarded(server: Server, ledger: Ledger, action: str) -> None:
    number = f"Q-{action}"
    given.landed(ledger, refusals=[given.refused(given.body(number), f"m-{action}#1", "too_large")])
    (row,) = (each for each in find(ledger, Wanted(reason="too_large")) if each.reference == f"m-{action}#1")
    assert number in server.page("/quarantine?reason=too_large")
    preview = server.page("/preview", "editor", action=action, ids=[row.id])
    (same,) = find(ledger, Wanted(ids=(row.id,)))
    assert same.state == "quarantined"
    _confirmed(server, preview)
    (now,) = find(ledger, Wanted(ids=(row.id,)))
    assert now.state == {"redrive": "redriven", "discard": "discarded"}[action]
    assert (number in given.statuses(ledger)) == (action == "redrive")
    assert _last(ledger)[:3] == ("editor", f"quarantine {action}", 1)


@pytest.mark.parametrize("action", ["correction", "new-order"])
def test_a_collision_is_accepted_as_what_a_person_says(server: Server, ledger: Ledger, action: str) -> None:
    number = f"K-{action}"
    given.landed(ledger, given.document(number))
    given.landed(ledger, given.document(number, storeId="0505", total="9.99"))
    (row,) = find(ledger, Wanted(reason="collision"))
    preview = server.page("/preview", "editor", action=action, ids=[row.id])
    assert "accepted" in preview
    _confirmed(server, preview)
    (now,) = find(ledger, Wanted(ids=(row.id,)))
    assert now.state == "redriven"
    assert _last(ledger)[:3] == ("editor", f"quarantine accept-as {action}", 1)


def test_dead_letters_are_listed_and_redriven(server: Server, ledger: Ledger, bus: ServiceBusStandIn) -> None:
    with ServiceBusClient.from_connection_string(bus.connection_string) as client:
        with client.get_topic_sender("orders") as sender:
            sender.send_messages(ServiceBusMessage(given.body("L1"), message_id="letter-1", subject="0404"))
        with client.get_subscription_receiver("orders", "orderprocessing") as receiver:
            (message,) = receiver.receive_messages(1, max_wait_time=20)
            receiver.dead_letter_message(message, reason="bad_value", error_description="by another reader")
    shown = server.page("/dead-letters")
    assert "letter-1" in shown
    assert "by another reader" in shown
    preview = server.page("/preview", "editor", action="dead-letters")
    assert "letter-1" in preview
    assert "L1" not in given.statuses(ledger)
    _confirmed(server, preview)
    assert "L1" in given.statuses(ledger)
    with (
        ServiceBusClient.from_connection_string(bus.connection_string) as client,
        client.get_subscription_receiver(
            "orders", "orderprocessing", sub_queue=ServiceBusSubQueue.DEAD_LETTER
        ) as receiver,
    ):
        assert receiver.peek_messages(1) == []


def test_a_viewer_sees_and_is_offered_nothing_to_do(server: Server, ledger: Ledger) -> None:
    (event,) = _order(ledger, "V1", status="held")
    for path in ("/undelivered?status=held", "/quarantine", "/dead-letters"):
        assert "<button name=" in server.page(path, "editor"), path
        assert "<button name=" not in server.page(path, "viewer"), path
    assert "V1" in server.page("/undelivered?status=held", "viewer")
    for path in ("/preview", "/confirm"):
        form = {"action": "sent", "ids": event}
        assert server.call(path, "viewer", "POST", data=form).status_code == 403
    assert given.statuses(ledger)["V1"] == "held"


def test_cards_and_emails_are_shown_to_who_may_read_the_ledger_and_that_is_written_down(
    server: Server, ledger: Ledger
) -> None:
    (event,) = _order(ledger, "P1", status="sent")
    body = json.dumps({"orderNumber": "P2", "emailAddress": EMAIL, "who": ["Ann", 12], EMAIL: "x"}).encode()
    given.landed(ledger, refusals=[given.refused(body, "m-P2#1", "bad_value"), given.refused(b"Ann;12", "m-P3#1")])
    rows = {each.reference: each.id for each in find(ledger, Wanted())}
    masked = server.page(f"/quarantine/{rows['m-P2#1']}", "keeper")
    assert "&#34;xxx&#34;" in masked
    assert "&#34;emailAddress&#34;" in masked
    assert "xxx;99" in server.page(f"/quarantine/{rows['m-P3#1']}", "keeper")
    before = len(done(ledger, 1000))
    for path in (f"/orders/{event}", f"/quarantine/{rows['m-P2#1']}"):
        assert given.CANARY not in server.page(path, "keeper")
        assert server.call(path, "editor", "POST", data={"x": "x"}).status_code == 403
        assert "that is written down" not in server.page(path, "editor")
        assert given.CANARY in server.page(path, "keeper", x="x")
    assert len(done(ledger, 1000)) == before + 2
    assert _last(ledger) == ("keeper", "quarantine show --raw", 1, rows["m-P2#1"])


def test_all_that_match_can_be_chosen_at_once(server: Server, ledger: Ledger) -> None:
    _order(ledger, "W1", "W2", status="cancelled")
    with ledger.write() as connection:
        connection.execute(sa.update(deliveries).where(deliveries.c.status == "cancelled").values(status="rejected"))
    preview = server.page("/preview", "editor", action="give-up", every="yes", status="rejected")
    assert ">W1<" in preview
    assert ">W2<" in preview
    _confirmed(server, preview)
    assert {given.statuses(ledger)[number] for number in ("W1", "W2")} == {"cancelled"}
