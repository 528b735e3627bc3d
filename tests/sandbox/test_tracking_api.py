"""The Tracking API takes what the contract says and keeps it exactly (contracts.md, section 2)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from .conftest import STORE_KEY, Service, event

JSON = {"Content-Type": "application/json"}


def _stored(store: Service) -> list[dict[str, Any]]:
    return [row["event"] for row in store.get("/sandbox/events").json()]


def test_one_event_is_accepted_and_remembered(store: Service) -> None:
    assert store.post("/api/v1.0/Track", json=event()).status_code == 200
    assert _stored(store) == [event()]


def test_a_bulk_of_100_is_accepted_and_101_are_refused(store: Service) -> None:
    assert store.track_bulk(*(event(f"S{n}") for n in range(100))).status_code == 200
    refused = store.track_bulk(*(event(f"S{n}") for n in range(101)))
    assert (refused.status_code, refused.json()["code"]) == (400, "too_many")
    assert store.state()["events"] == 100


def test_an_event_of_256_kb_is_accepted_and_a_byte_more_is_413(store: Service) -> None:
    frame = len(json.dumps(event(payload={"x": ""})))
    fits = json.dumps(event(payload={"x": "a" * (256 * 1024 - frame)}))
    assert len(fits) == 256 * 1024
    assert store.post("/api/v1.0/Track", data=fits, headers=JSON).status_code == 200
    bigger = fits.replace('"a', '"aa', 1)
    assert store.post("/api/v1.0/Track", data=bigger, headers=JSON).status_code == 413
    assert store.post("/api/v1.0/TrackBulk", data=f"[{fits},{bigger}]", headers=JSON).status_code == 413
    assert store.state()["events"] == 1


@pytest.mark.parametrize("header", ["Ocp-Apim-Subscription-Key", "Authorization"])
def test_both_documented_headers_carry_the_key(store: Service, header: str) -> None:
    prefix = "epi-single " if header == "Authorization" else ""
    for key, status in ((STORE_KEY, 200), ("wrong", 401)):
        answer = requests.post(store.url + "/api/v1.0/Track", json=event(), headers={header: prefix + key}, timeout=5)
        assert answer.status_code == status


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {STORE_KEY}"}, {"Authorization": "epi-single"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1.0/Track"),
        ("POST", "/api/v1.0/TrackBulk"),
        ("GET", "/api/v1.0/trackevents/"),
        ("GET", "/api/v1.0/Profiles"),
        ("GET", "/api/v1.0/profiles/Default/x"),
        ("DELETE", "/api/v1.0/trackingevents/Default/x"),
    ],
)
def test_without_the_key_every_path_is_401(
    untouched_store: Service, method: str, path: str, headers: dict[str, str]
) -> None:
    assert requests.request(method, untouched_store.url + path, headers=headers, timeout=5).status_code == 401


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"deviceId": None}, "deviceId"),
        ({"eventType": ""}, "eventType"),
        ({"value": None}, "value"),
        ({"value": 7}, "value"),
        ({"scope": "s" * 65}, "scope"),
        ({"eventTime": "yesterday"}, "eventTime"),
        ({"payload": [1]}, "payload"),
        ({"user": "ann"}, "user"),
        ({"user": {"email": 1}}, "user.email"),
    ],
)
def test_a_bad_event_is_400_and_the_bulk_around_it_stores_nothing(
    untouched_store: Service, changes: dict[str, Any], field: str
) -> None:
    answer = untouched_store.track_bulk(event("S1"), event("S2", **changes))
    assert answer.status_code == 400
    assert [(error["index"], error["field"]) for error in answer.json()["errors"]] == [(1, field)]
    assert untouched_store.state()["events"] == 0


def test_a_scope_of_64_characters_is_accepted(store: Service) -> None:
    assert store.post("/api/v1.0/Track", json=event(scope="s" * 64)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[{}", b"[{},]", b'{"a":1}', b"[1]", b"[{}]x", b'[{"a":NaN}]', b"[{\xff}]", b'[{"a":' + b"[" * 99999],
)
def test_a_broken_body_is_400_with_a_json_error(untouched_store: Service, body: bytes) -> None:
    answer = untouched_store.post("/api/v1.0/TrackBulk", data=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")


def test_a_body_that_is_not_declared_json_is_415(untouched_store: Service) -> None:
    assert untouched_store.post("/api/v1.0/Track", data=json.dumps(event())).status_code == 415


def test_the_exact_text_of_an_event_is_kept_decimals_and_all(store: Service) -> None:
    text = json.dumps(event(), ensure_ascii=False).replace(
        "3.5", '1.10, "Fuel" : 123456789012345678.90,  "é":"\\u00e9€"'
    )
    body = f" [ {text} ,\n{text}]".encode()
    assert store.post("/api/v1.0/TrackBulk", data=body, headers=JSON).status_code == 200
    assert text in store.get("/sandbox/events").text
    payload = text[text.index('{"orderNumber"') : -1]
    assert store.get("/api/v1.0/trackevents/").text.count(payload) == 2


def test_nothing_is_deduplicated(store: Service) -> None:
    for _ in range(3):
        store.track_bulk(event("S1"), event("S1"))
    state = store.state()
    assert (state["events"], state["track_ids"], state["emails"]) == (6, 1, 1)


def test_emails_are_counted_without_regard_to_case(store: Service) -> None:
    store.track_bulk(event("S1", user={"email": "A@example.com"}), event("S2", user={"email": "a@example.com"}))
    assert store.state()["emails"] == 1


def test_an_event_without_a_track_id_gets_one_of_its_own(store: Service) -> None:
    store.track_bulk(event("S1", trackId=None), event("S2", trackId=None))
    assert store.state()["track_ids"] == 2


def test_a_blacklisted_email_is_accepted_and_silently_ignored(store: Service) -> None:
    store.set_faults(blacklist=["ANN@example.com"])
    assert store.track_bulk(event("S1"), event("S2", user={"email": "b@example.com"})).status_code == 200
    state = store.state()
    assert (state["events"], state["ignored"]) == (1, 1)
    assert store.events("Payload.orderNumber eq S1")["total"] == 0


def test_concurrent_bulks_are_all_kept(store: Service) -> None:
    headers = {"Ocp-Apim-Subscription-Key": STORE_KEY}

    def post(thread: int) -> int:
        events = [event(f"S{thread}-{n}") for n in range(50)]
        return requests.post(store.url + "/api/v1.0/TrackBulk", json=events, headers=headers, timeout=20).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(16))) == {200}
    assert store.state()["track_ids"] == 800
