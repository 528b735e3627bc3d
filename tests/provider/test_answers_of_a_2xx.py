"""What a 2xx says of the events: taken, not taken, each by itself, or something that nobody can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from instore_provider.errors import ConfigurationError
from instore_provider.events import EncodedEvent
from instore_provider.hooks.profile_store import ProfileStoreHook
from instore_provider.taken import read_answer

from tests.provider.wire import Reply, Wire

BULK_PATH = "/api/v1.0/TrackBulk"
MakeHook = Callable[..., ProfileStoreHook]
BULK = [EncodedEvent(index, f"t{index}", b"{}") for index in range(3)]


def events(count: int) -> list[dict[str, Any]]:
    return [{"trackId": f"t{index}", "eventType": "StorePurchase"} for index in range(count)]


@pytest.mark.parametrize(
    "body",
    ["", "  \r\n", "null", "{}", "[]", "true", '"queued"', '{"success": true}', '{"errors": [], "error": null}',
     '{"status": 202}', '{"status": "ok", "failed": 0, "failures": []}', '{"error": "none", "errorCode": 0}',
     '{"result": "queued"}', '{"items": [{"status": 200}, {"status": "201"}, {"status": 202}]}',
     '{"message": "3 events accepted, no errors"}', '{"accepted": 3, "rejected": 0, "default": 5}',
     '{"hasErrors": false, "processed": 3}', '{"id": "9f", "duration": 1}',
     '{"status": "200 OK", "data": {"ok": true}}'],
)  # fmt: skip
def test_nothing_and_json_without_a_sign_of_failure_is_taken(body: str) -> None:
    assert read_answer(body.encode(), BULK).state == "accepted"


@pytest.mark.parametrize(
    "body",
    ["false", '{"success": false}', '{"Ok": false}', '{"error": "scope"}', '{"errors": ["scope"]}',
     '{"Succeeded": false}', '{"status": 503}', '{"statusCode": "400"}', '{"success": "false"}', '{"ok": 0}',
     '{"status": "Error"}', '{"result": "FAILED"}', '{"error_code": 17}', '{"errorMessage": "scope"}',
     '{"fault": {"x": 1}}'],
)  # fmt: skip
def test_a_sign_of_failure_is_one(body: str) -> None:
    assert read_answer(body.encode(), BULK).state == "failed"


@pytest.mark.parametrize("body", ["OK", "<html>", '{"success": tr', '[{"status"', "Accepted 3"])
def test_text_a_page_and_cut_json_cannot_be_read(body: str) -> None:
    assert read_answer(body.encode(), BULK).state == "unreadable"
    assert read_answer(body.encode(), BULK, body).state == "accepted"


@pytest.mark.parametrize(
    ("items", "statuses"),
    [
        ([{"status": 200}, {"status": 400}, {"status": 200}], {1: 400}),
        ([{"trackId": "t2", "statusCode": 422}], {2: 422}),
        ([{"index": 0, "success": False}], {0: 0}),
        ([{"id": "t1", "errors": ["x"]}, {"id": "t0"}], {1: 0}),
    ],
)
@pytest.mark.parametrize("where", ["top", "items", "results"])
def test_items_speak_of_one_event_each(items: list[Any], statuses: dict[int, int], where: str) -> None:
    body = json.dumps(items if where == "top" else {where: items}).encode()
    answer = read_answer(body, BULK)
    assert (answer.state, answer.statuses) == ("by_item", statuses)


@pytest.mark.parametrize(
    "body", ['{"accepted": 2, "failed": 1}', '{"failures": [{"reason": "x"}]}', '{"rejected_count": 1}']
)
def test_of_a_bulk_that_failed_in_part_nobody_can_tell_which_were_taken(body: str) -> None:
    """Sent again in halves those that were would be there twice."""
    assert read_answer(body.encode(), BULK).state == "unreadable"


@pytest.mark.parametrize(
    "body",
    ['{"message": "An error has occurred."}', '{"isOk": false}', '{"ExceptionMessage": "x"}', '{"queued": false}',
     '{"status": "partial"}', '{"processed": 2, "total": 3}', '{"data": {"success": false}}',
     '{"d": {"error": {"x": 1}}}',
     '{"title": "Quota exceeded"}', '"Scope not found"', '{"state": "pending"}', '{"accepted_count": 2}',
     '[{"trackId": "t1"}]', '{"skipped": 1}', '{"valid": false}',
     '{"result": {"message": "Service is in maintenance"}}'],
)  # fmt: skip
def test_json_that_may_speak_of_a_failure_is_not_taken_for_a_success(body: str) -> None:
    assert read_answer(body.encode(), BULK).state == "unreadable"
    assert read_answer(body.encode(), BULK, body[:3] + "*").state == "accepted"


@pytest.mark.parametrize("body", ["", "{}", '{"ok": true}', '[{"status": 200}]'])
def test_a_multi_status_without_a_status_for_each_event_cannot_be_read(body: str) -> None:
    assert read_answer(body.encode(), BULK, status=207).state == "unreadable"


def test_a_failure_of_which_nobody_can_tell_whose_it_is_cannot_be_read() -> None:
    assert read_answer(b'[{"status": 400}]', BULK).state == "unreadable"


def test_events_that_are_refused_one_by_one_are_and_the_others_are_accepted(
    wire: Wire, profile_store: MakeHook
) -> None:
    wire.on(BULK_PATH, Reply(207, [{"status": 202}, {"status": 400}, {"status": 429}, {"status": 500}]))
    outcomes = list(profile_store().send_events(events(4)))
    assert [each.state for each in outcomes] == ["accepted", "refused", "unsent", "ambiguous"]
    assert outcomes[1].status_code == 400


def test_where_one_event_fails_it_alone_is_refused(wire: Wire, profile_store: MakeHook) -> None:
    failed, taken = Reply(200, {"success": False}), Reply(202)
    wire.on(
        BULK_PATH, failed, failed, failed, taken, taken
    )  # of four, of two, the first alone, the second, the other two
    outcomes = {each.track_id: each.state for each in profile_store().send_events(events(4))}
    assert outcomes == {"t0": "refused", "t1": "accepted", "t2": "accepted", "t3": "accepted"}


def test_where_all_fail_none_is_refused_and_the_sending_stops(wire: Wire, profile_store: MakeHook) -> None:
    wire.on(BULK_PATH, Reply(200, {"success": False, "message": "maintenance"}))
    outcomes = list(profile_store().send_events(events(40)))
    assert {each.state for each in outcomes} == {"unsent"}
    assert len(outcomes) == 40
    assert "says that it failed" in outcomes[0].detail
    assert len(wire.seen) < 12


def test_a_text_leaves_the_first_bulk_in_doubt_and_names_the_setting(wire: Wire, profile_store: MakeHook) -> None:
    wire.on(BULK_PATH, Reply(200, b"OK"))
    outcomes = []
    with pytest.raises(ConfigurationError, match="success_body"):
        outcomes.extend(profile_store().send_events(events(2)))
    wire.on(BULK_PATH, Reply(200, b"OK"))
    told = list(profile_store(extra={"success_body": "OK"}).send_events(events(2)))
    assert [each.state for each in told] == ["accepted", "accepted"]
