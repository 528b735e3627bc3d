"""Each fault happens on the wire, on the call it should, and leaves the store in the state it promises."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from sandbox.faults import Faults, FaultSettings

from .conftest import Service, event

CARD = "/customers/by-loyalty-card/"


def _statuses(service: Service, calls: int, path: str = CARD + "0012") -> list[int]:
    return [service.get(path).status_code for _ in range(calls)]


def test_a_share_picks_exactly_every_nth_call_and_rotates_the_answers(loyalty: Service) -> None:
    loyalty.set_faults(share=0.25, answers=[500, 429])
    assert _statuses(loyalty, 8) == [200, 200, 200, 500, 200, 200, 200, 429]


@pytest.mark.parametrize(("share", "calls", "faulty"), [(0.29, 100, 29), (0.1, 1000, 100), (1, 7, 7), (0, 50, 0)])
def test_a_share_is_exact(share: float, calls: int, faulty: int) -> None:
    faults = Faults(FaultSettings(share=share))
    assert sum(faults.next_answer("GET /", ()) is not None for _ in range(calls)) == faulty


@pytest.mark.parametrize(("given", "sent"), [(2, "2"), ("soon", "soon"), ("Wed, 21 Oct 2015 07:28:00 GMT",) * 2])
def test_retry_after_is_sent_as_given_with_the_statuses_it_belongs_to(loyalty: Service, given: Any, sent: str) -> None:
    loyalty.set_faults(share=1, answers=[429, 500], retry_after=given)
    assert loyalty.get(CARD + "0012").headers["Retry-After"] == sent
    assert "Retry-After" not in loyalty.get(CARD + "0012").headers


def test_retry_after_can_be_a_date_ahead(loyalty: Service) -> None:
    loyalty.set_faults(share=1, retry_after="date+60")
    when = parsedate_to_datetime(loyalty.get(CARD + "0012").headers["Retry-After"])
    assert 50 < (when - datetime.now(timezone.utc)).total_seconds() <= 60


def test_a_script_answers_one_card_step_by_step_and_leaves_the_others(loyalty: Service) -> None:
    loyalty.set_faults(script={"0012": [503, 429, 200, 500]})
    assert _statuses(loyalty, 1, CARD + "77") == [200]
    assert _statuses(loyalty, 6) == [503, 429, 200, 500, 200, 200]


def test_a_script_finds_its_card_in_the_query_too(loyalty: Service) -> None:
    loyalty.set_faults(script={"0012": [503]})
    assert _statuses(loyalty, 2, "/customers?membership_id=0012") == [503, 200]


def test_a_script_finds_its_order_in_single_and_bulk_calls(store: Service) -> None:
    store.set_faults(script={"S1": [503, 429, 200], "S9": ["lost"]})
    assert store.post("/api/v1.0/Track", json=event("S1")).status_code == 503
    assert store.track_bulk(event("S2"), event("S1")).status_code == 429
    assert store.track_bulk(event("S2")).status_code == 200
    assert store.track_bulk(event("S1")).status_code == 200
    assert store.state()["events"] == 2


def test_a_refused_order_makes_its_bulk_400_and_stores_none_of_it(store: Service) -> None:
    store.set_faults(refuse=["S2"])
    answer = store.track_bulk(event("S1"), event("S2"), event("S3"))
    assert answer.status_code == 400
    assert "S2" not in answer.text
    assert store.state()["events"] == 0
    assert store.post("/api/v1.0/Track", json=event("S2")).status_code == 400
    assert store.track_bulk(event("S1"), event("S3")).status_code == 200


def test_a_refused_card_is_400(loyalty: Service) -> None:
    loyalty.set_faults(refuse=["0012"])
    assert _statuses(loyalty, 2) == [400, 400]
    assert _statuses(loyalty, 1, CARD + "77") == [200]


def test_a_lost_answer_leaves_the_event_stored(store: Service) -> None:
    store.set_faults(script={"S1": ["lost"]})
    with pytest.raises(requests.ConnectionError):
        store.track_bulk(event("S1"))
    assert [item["TrackId"] for item in store.events()["items"]] == ["track-S1"]
    assert store.state()["calls"]["POST /api/v1.0/TrackBulk"] == {"lost": 1}


def test_a_reset_comes_before_the_request_is_processed(store: Service) -> None:
    store.set_faults(share=1, answers=["reset"], only=["POST "])
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        store.track_bulk(event("S1"))
    assert store.state()["events"] == 0


@pytest.mark.parametrize(("word", "stored"), [("html", 0), ("accepted_html", 1)])
def test_html_comes_with_200_and_says_nothing_about_the_event(store: Service, word: str, stored: int) -> None:
    store.set_faults(script={"S1": [word]})
    answer = store.track_bulk(event("S1"))
    assert (answer.status_code, answer.text[:15]) == (200, "<!doctype html>")
    assert store.state()["events"] == stored


def test_a_truncated_answer_is_good_http_and_bad_json(loyalty: Service) -> None:
    whole = loyalty.get(CARD + "0012").text
    loyalty.set_faults(share=1, answers=["truncated"])
    answer = loyalty.get(CARD + "0012")
    assert (answer.status_code, answer.text) == (200, whole[: len(whole) // 2])
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_a_cut_answer_ends_before_its_promised_length(loyalty: Service) -> None:
    loyalty.set_faults(share=1, answers=["cut"])
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        loyalty.get(CARD + "0012")


def test_a_slow_answer_dribbles_and_is_whole(loyalty: Service) -> None:
    loyalty.set_faults(share=1, answers=["slow"], slow_seconds=0.3)
    started = time.monotonic()
    answer = loyalty.get(CARD + "0012")
    assert time.monotonic() - started >= 0.29
    assert answer.json()["firstName"] == "Ann"


def test_latency_delays_each_call_but_not_one_after_the_other(loyalty: Service) -> None:
    loyalty.set_faults(latency=0.3)
    headers = {"X-Api-Key": "loyalty-key"}

    def look_up(_: int) -> int:
        return requests.get(loyalty.url + CARD + "0012", headers=headers, timeout=5).status_code

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look_up, range(8))) == {200}
    assert 0.3 <= time.monotonic() - started < 1.5


def test_only_limits_the_faults_to_some_operations(store: Service) -> None:
    store.set_faults(share=1, only=["POST /api/v1.0/TrackBulk"])
    assert store.post("/api/v1.0/Track", json=event()).status_code == 200
    assert store.get("/api/v1.0/trackevents/").status_code == 200
    assert store.track_bulk(event()).status_code == 503


def test_setting_the_faults_starts_the_counting_anew(loyalty: Service) -> None:
    for _ in range(2):
        loyalty.set_faults(share=0.5, script={"77": [500]})
        assert _statuses(loyalty, 1) == [200]
        assert _statuses(loyalty, 1, CARD + "77") == [500]
    loyalty.set_faults()
    assert set(_statuses(loyalty, 5)) == {200}


def test_the_knobs_are_shown_as_they_were_set(store: Service) -> None:
    store.set_faults(share=0.5, ingest_delay=2, blacklist=["a@example.com"])
    shown = store.get("/sandbox/faults").json()
    assert (shown["share"], shown["ingest_delay"], shown["blacklist"], shown["answers"]) == (
        *(0.5, 2, ["a@example.com"], [503]),
    )


@pytest.mark.parametrize(
    "settings", ['{"shares": 1}', '{"share": 2}', '{"answers": ["explode"]}', '{"answers": []}', "{"]
)
def test_a_knob_that_does_not_exist_is_refused_and_nothing_changes(loyalty: Service, settings: str) -> None:
    before = loyalty.get("/sandbox/faults").json()
    answer = loyalty.put("/sandbox/faults", data=settings)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_faults")
    assert loyalty.get("/sandbox/faults").json() == before


def test_a_connection_lives_on_after_a_status_fault(loyalty: Service) -> None:
    loyalty.set_faults(share=0.5)
    connection = http.client.HTTPConnection(loyalty.url.removeprefix("http://"), timeout=5)
    try:
        for status in (200, 503, 200, 503):
            connection.request("GET", CARD + "0012", headers={"X-Api-Key": "loyalty-key"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            assert connection.sock is not None
    finally:
        connection.close()


def test_faults_apply_before_the_key_is_looked_at_as_a_gateway_would(store: Service) -> None:
    store.set_faults(share=1)
    assert requests.post(store.url + "/api/v1.0/Track", data=json.dumps(event()), timeout=5).status_code == 503


def test_no_thread_is_left_behind_by_a_stopped_stand_in(loyalty: Service) -> None:
    # The fixture's own thread is the only one with this name.
    assert sum(thread.name.startswith("stand-in-") for thread in threading.enumerate()) == 1
