"""Reading events back: contracts.md section 3, over a real socket."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest
from instore_provider.errors import ConfigurationError, ServiceUnavailable

from tests.provider.conftest import READ_KEY, TRACKING_KEY, patience
from tests.provider.wire import BROKEN_BODY, HANG_UP, RESET, STALL, STALLED_BODY, Reply, Seen, Wire, free_port

READ = "/api/v1.0/trackevents/"
BULK = "/api/v1.0/TrackBulk"


def store_with(*track_ids: str) -> Any:
    """A Profile Store which holds these events and understands the one filter."""

    def answer(seen: Seen) -> Reply:
        asked = seen.query["$filter"][0].removeprefix("TrackId eq ")
        items = [{"TrackId": each} for each in track_ids if each == asked]
        return Reply(200, {"items": items, "total": len(items), "count": len(items)})

    return answer


def test_the_track_ids_that_show_are_returned(wire: Wire, profile_store: Any) -> None:
    wire.on(READ, store_with("t1", "t3"))
    assert profile_store().look_for_events(["t1", "t2", "t3", "t1"]) == {"t1": "shown", "t2": "absent", "t3": "shown"}
    assert sorted(seen.query["$filter"][0] for seen in wire.seen) == [f"TrackId eq t{n}" for n in (1, 2, 3)]
    assert wire.seen[0].headers["Ocp-Apim-Subscription-Key"] == READ_KEY


def test_no_ids_ask_nothing(wire: Wire, profile_store: Any) -> None:
    assert profile_store().look_for_events([]) == {}
    assert wire.seen == []


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ({"items": [{"TrackId": "another"}, {}], "total": 2}, "ignored_filter"),
        ({"items": [], "total": 7}, "empty_pages"),
        ({"items": []}, "empty_pages"),
        ({"items": [], "total": "0"}, "empty_pages"),
        ({"items": [{"TrackId": "t10"}], "total": 1}, "ignored_filter"),
    ],
    ids=["the filter is ignored", "empty pages", "no total", "a total that is no number", "contains instead of equals"],
)
def test_an_answer_to_another_question_says_nothing_of_the_event(
    wire: Wire, profile_store: Any, answer: dict[str, Any], word: str
) -> None:
    wire.on(READ, Reply(200, answer))
    assert profile_store().look_for_events(["t1"]) == {"t1": word}


def test_an_event_is_shown_however_its_id_is_spelt(wire: Wire, profile_store: Any) -> None:
    wire.on(READ, Reply(200, {"items": [{"TrackId": "T1"}], "total": 1}))
    assert profile_store().look_for_events(["t1"]) == {"t1": "shown"}


def test_without_a_reading_side_nothing_is_read_back(profile_store: Any) -> None:
    assert profile_store().reads_back
    assert not profile_store(extra={}).reads_back


def test_an_id_that_would_change_the_filter_is_not_asked(wire: Wire, profile_store: Any) -> None:
    with pytest.raises(ConfigurationError):
        profile_store().look_for_events(["t1", "t1 or TrackId ne t1"])
    assert wire.seen == []


def test_at_most_four_ids_are_asked_for_at_once(wire: Wire, profile_store: Any) -> None:
    together, most = [0], [0]
    lock = threading.Lock()

    def answer(_: Seen) -> Reply:
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        threading.Event().wait(0.1)  # long enough for all who may come
        with lock:
            together[0] -= 1
        return Reply(200, {"items": []})

    wire.on(READ, answer)
    profile_store().look_for_events(f"t{n}" for n in range(12))
    assert 1 < most[0] <= 4


def test_a_query_is_fully_percent_encoded_and_its_items_come_with_exact_numbers(wire: Wire, profile_store: Any) -> None:
    wire.on(
        READ, Reply(200, b'{"items":[{"TrackId":"t","Payload":{"total":12345678901234567.10}}],"total":1,"count":1}')
    )
    found = profile_store().query_events(
        "User.Email eq a+b@example.com and Payload.orderNumber eq S/1&2", skip=5, top=7, order_by="EventTime desc"
    )
    assert found == [{"TrackId": "t", "Payload": {"total": Decimal("12345678901234567.10")}}]
    seen = wire.seen[0]
    assert "%24filter=User.Email%20eq%20a%2Bb%40example.com" in seen.raw.replace("$", "%24")
    assert "S%2F1%262" in seen.raw
    assert seen.query["$filter"] == ["User.Email eq a+b@example.com and Payload.orderNumber eq S/1&2"]
    assert (seen.query["$skip"], seen.query["$top"], seen.query["$orderBy"]) == (["5"], ["7"], ["EventTime desc"])


@pytest.mark.parametrize(("skip", "top"), [(0, 10_000), (9_999, 1), (-1, 1), (0, 0)])
def test_a_window_that_the_api_does_not_serve_is_not_asked_for(
    wire: Wire, profile_store: Any, skip: int, top: int
) -> None:
    with pytest.raises(ConfigurationError, match="10000"):
        profile_store().query_events(skip=skip, top=top)
    assert wire.seen == []


FAULTS = [Reply(status) for status in (408, 425, 429, 500, 502, 503, 504)] + [
    HANG_UP,
    RESET,
    STALL,
    STALLED_BODY,
    BROKEN_BODY,
    Reply(200, b"<html>"),
    Reply(200, b""),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_question_is_asked_again_whatever_happened_to_it(wire: Wire, profile_store: Any, fault: Any) -> None:
    wire.on(READ, fault, Reply(200, {"items": []}))
    assert profile_store(read_timeout=patience(fault)).query_events() == []
    assert len(wire.seen) == 2


def test_an_api_that_stays_away_is_unavailable_and_its_wish_is_handed_on(wire: Wire, profile_store: Any) -> None:
    wire.on(READ, Reply(503, headers={"Retry-After": "90"}))
    with pytest.raises(ServiceUnavailable, match=r"'test_profile_store': the Profile Store API answered 503") as raised:
        profile_store(longest_retry_after=0.01).look_for_events(["t1", "t2"])
    assert raised.value.retry_after == 90


def test_an_api_that_is_not_there_is_unavailable(wire: Wire, profile_store: Any) -> None:
    hook = profile_store(extra={"read_host": f"http://127.0.0.1:{free_port()}", "read_api_key": READ_KEY})
    with pytest.raises(ServiceUnavailable, match="could not be reached"):
        hook.query_events()


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (Reply(401), "read_api_key"),
        (Reply(403), "read_api_key"),
        (Reply(302, headers={"Location": "/x"}), "read_host"),
        (Reply(400), "read_host"),
        (Reply(404), "read_host"),
        (Reply(200, []), "read_host"),
        (Reply(200, {"items": None}), "read_host"),
    ],
    ids=str,
)
def test_what_no_retry_heals_names_the_field_to_mend(wire: Wire, profile_store: Any, reply: Reply, field: str) -> None:
    wire.on(READ, reply)
    with pytest.raises(ConfigurationError, match=f"'{field}'"):
        profile_store().query_events()
    assert len(wire.seen) == 1


def test_reading_needs_its_own_url(profile_store: Any) -> None:
    with pytest.raises(ConfigurationError, match="'read_host' is empty"):
        profile_store(extra={}).query_events()


def test_the_connection_test_calls_both_services(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(400)).on(READ, Reply(200, {"items": []}))
    works, told = profile_store().test_connection()
    assert works, told
    assert [(seen.method, seen.path, seen.body) for seen in wire.seen] == [("POST", BULK, b"[]"), ("GET", READ, b"")]
    assert wire.seen[0].headers["Ocp-Apim-Subscription-Key"] == TRACKING_KEY


def test_the_connection_test_says_what_it_did_not_check(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(202))
    works, told = profile_store(extra={}).test_connection()
    assert works
    assert "was not asked, because read_host is empty" in told


@pytest.mark.parametrize(
    ("reply", "word"), [(Reply(401), "'password'"), (Reply(503), "answered 503"), (Reply(404), "'host'")]
)
def test_the_connection_test_tells_what_is_wrong(wire: Wire, profile_store: Any, reply: Reply, word: str) -> None:
    wire.on(BULK, reply)
    works, told = profile_store().test_connection()
    assert not works
    assert word in told
    assert told.startswith("This connection: "), "the id is one that Airflow made up for the test"
    assert len(wire.seen) == 1
