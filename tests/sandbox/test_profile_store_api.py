"""The Profile Store API answers queries in the documented shape (contracts.md, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Service, event, eventually, serve_store


@pytest.fixture(scope="module")
def filled() -> Iterator[Service]:
    """Three events that nothing here changes."""
    with serve_store() as store:
        _fill(store)
        yield store


def _fill(store: Service) -> None:
    store.track_bulk(
        event("S1", eventTime="2017-06-05T10:00:00Z", payload={"orderNumber": "S1", "total": 1.10, "gift": True}),
        event("S2", eventTime="2017-06-06T10:00:00+02:00", eventType="StoreReturn", user={"email": "b+c@example.com"}),
        event("S3", eventTime="2017-06-07", scope="web", deviceId="d3", payload={"orderNumber": "S3", "a": {"b": "c"}}),
    )


def _numbers(store: Service, filter: str, **query: Any) -> list[str]:
    return [item["Payload"]["orderNumber"] for item in store.events(filter, **query)["items"]]


def test_the_reply_has_a_lower_case_envelope_and_pascal_case_items(filled: Service) -> None:
    assert filled.events("TrackId eq track-S2") == {
        "items": [
            {
                "TrackId": "track-S2",
                "DeviceId": "InStoreDevice",
                "EventType": "StoreReturn",
                "EventTime": "2017-06-06T10:00:00+02:00",
                "Value": "StorePurchase",
                "Scope": "Default",
                "User": {"Name": None, "Email": "b+c@example.com"},
                "Payload": {"orderNumber": "S2", "storeId": "0404", "total": 3.5},
            }
        ],
        "total": 1,
        "count": 1,
    }


@pytest.mark.parametrize(
    ("filter", "numbers"),
    [
        ("", ["S1", "S2", "S3"]),
        ("TrackId eq track-S1", ["S1"]),
        ("EventType eq StoreReturn", ["S2"]),
        ("Scope eq web", ["S3"]),
        ("Scope eq Web", []),
        ("DeviceId eq d3", ["S3"]),
        ("User.Email eq ann@example.com", ["S1", "S3"]),
        ("User.Email eq b+c@example.com", ["S2"]),
        ("User.Email eq ann@example.com and EventTime ge 2017-06-06", ["S3"]),
        ("User.Email eq ann@example.com AND Scope eq Default and EventType eq StorePurchase", ["S1"]),
        ("EventTime eq 2017-06-06T08:00:00.000Z", ["S2"]),
        ("EventTime gt 2017-06-05T10:00:00Z and EventTime lt 2017-06-07", ["S2"]),
        ("EventTime ge 2017-06-05T10:00:00Z and EventTime le 2017-06-07", ["S1", "S2", "S3"]),
        ("Payload.orderNumber eq S1", ["S1"]),
        ("Payload.orderNumber eq 'S1'", []),
        ("Payload.ordernumber eq S1", []),
        ("Payload.orderNumber ge S2", ["S2", "S3"]),
        ("Payload.total eq 1.1", ["S1"]),
        ("Payload.total gt 1.1", ["S2"]),
        ("Payload.gift eq true", ["S1"]),
        ("Payload.a.b eq c", ["S3"]),
        ("TrackId eq a' OR '1'='1", []),
    ],
)
def test_a_filter_finds(filled: Service, filter: str, numbers: list[str]) -> None:
    assert _numbers(filled, filter) == numbers


@pytest.mark.parametrize(
    "query",
    [
        {"$filter": "Nonsense eq 1"},
        {"$filter": "payload) eq 1"},
        {"$filter": "EventType like x"},
        {"$filter": "EventType eq"},
        {"$filter": "EventTime ge yesterday"},
        {"$top": "many"},
        {"$top": "-1"},
        {"$skip": "9900", "$top": "100"},
        {"$skip": "9900"},
        {"$orderBy": "Payload.total"},
        {"$orderBy": "EventTime sideways"},
    ],
)
def test_a_query_the_service_does_not_know_is_400(filled: Service, query: dict[str, str]) -> None:
    answer = filled.get("/api/v1.0/trackevents/", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_query")


def test_the_window_ends_just_below_10000(filled: Service) -> None:
    assert filled.events(**{"$skip": "9899", "$top": "100"})["items"] == []


def test_events_are_ordered_and_paged(store: Service) -> None:
    for start in (0, 100):
        store.track_bulk(
            *(event(f"S{n:03}", eventTime=f"2017-06-05T10:00:00.{999 - n}Z") for n in range(start, start + 100))
        )
    first = store.events()
    assert (first["total"], first["count"], len(first["items"])) == (200, 100, 100)
    assert _numbers(store, "", **{"$orderBy": "EventTime", "$top": 2}) == ["S199", "S198"]
    assert _numbers(store, "", **{"$orderBy": "Scope, EventTime desc", "$skip": 198}) == ["S198", "S199"]


def test_an_event_is_seen_only_after_the_ingest_delay(store: Service) -> None:
    store.set_faults(ingest_delay=0.3)
    store.track_bulk(event("S1"))
    assert store.state()["events"] == 1
    assert store.events("Payload.orderNumber eq S1")["total"] == 0
    assert eventually(lambda: store.events("Payload.orderNumber eq S1")["total"] == 1, seconds=5)


def test_a_profile_is_found_by_email_and_scope_and_read_by_id(filled: Service) -> None:
    found = filled.get(
        "/api/v1.0/Profiles", params={"$filter": "Info.Email eq ann@example.com and Scope eq web"}
    ).json()
    assert (found["total"], found["count"]) == (1, 1)
    profile = found["items"][0]
    assert (profile["Info"], profile["Scope"]) == ({"Email": "ann@example.com"}, "web")
    assert filled.get(f"/api/v1.0/profiles/web/{profile['ProfileId']}").json() == profile
    assert filled.get(f"/api/v1.0/profiles/Default/{profile['ProfileId']}").status_code == 404


def test_profiles_are_one_per_scope_and_email(filled: Service) -> None:
    assert filled.get("/api/v1.0/Profiles").json()["total"] == 3
    assert filled.get("/api/v1.0/Profiles", params={"$filter": "Payload.total eq 1"}).status_code == 400


def test_deleting_removes_an_event_from_its_scope_only(store: Service) -> None:
    _fill(store)
    assert store.delete("/api/v1.0/trackingevents/web/track-S1").status_code == 404
    assert store.delete("/api/v1.0/trackingevents/Default/track-S1").status_code == 204
    assert _numbers(store, "") == ["S2", "S3"]


def test_the_path_works_without_its_last_slash(filled: Service) -> None:
    assert filled.get("/api/v1.0/trackevents?$filter=TrackId%20eq%20track-S1").json()["total"] == 1
