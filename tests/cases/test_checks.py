"""The harness itself: each form of a check can fail, a folder is read as the README says, and the stand-ins' knobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.loyalty import LoyaltyFaults, LoyaltyKeys, LoyaltyStandIn
from sandbox.profile_store import ProfileStoreFaults, ProfileStoreStandIn
from tests.cases.case import FILE, HERE, CaseRefused, delivered_name, find_cases, read_case
from tests.cases.checks import failing, in_words
from tests.cases.running import FIELDS, Tables
from tests.cases.words import read_words

A = {"order": "A", "total": 30.0, "email": "a@example.com", "lines": 2}
B = {"order": "B", "total": 60, "email": "a@example.com", "lines": 1}


def tables(**rows: list[dict[str, Any]]) -> Tables:
    empty: Tables = {name: [] for name in FIELDS}
    return empty | {name: [dict.fromkeys(FIELDS[name]) | row for row in some] for name, some in rows.items()}


GREEN = tables(runs=[{"state": "green"}], events=[A, B], alerts=[{"cause": "recovered"}])
RED = tables(runs=[{"state": "green"}, {"state": "red"}], alerts=[{"cause": "numbers"}])


@pytest.mark.parametrize(
    ("check", "holds", "fails"),
    [
        ("green", GREEN, RED),
        ("red", RED, GREEN),
        ("told", RED, GREEN),
        ({"rows": "events"}, GREEN, RED),
        ({"rows": "events", "is": 0}, RED, GREEN),
        ({"rows": "events", "at_least": 2}, GREEN, RED),
        ({"rows": "events", "at_most": 1}, RED, GREEN),
        ({"rows": "events", "distinct": "email", "is": 1}, GREEN, RED),
        ({"rows": "events", "distinct": "order", "is": 2}, GREEN, tables(events=[A, A])),
        ({"rows": "events", "where": {"order": "A", "lines": 2}, "is": 1}, GREEN, tables(events=[B])),
        ({"rows": "events", "where": {"total": 30}}, GREEN, tables(events=[B])),
        ({"rows": "events", "where": {"order": ["A", "C"]}}, GREEN, tables(events=[B])),
        ({"rows": "events", "where": {"order": {"matches": "^A"}}}, GREEN, tables(events=[B])),
        ({"rows": "events", "where": {"order": {"not": "A"}}}, GREEN, tables(events=[A])),
        ({"rows": "events", "where": {"order": {"not": ["A", "B"]}}}, tables(events=[{"order": "C"}]), GREEN),
        ({"never": ["green", {"rows": "events", "is": 0}]}, GREEN, tables(runs=[{"state": "green"}])),
        ({"any_of": ["red", {"rows": "events", "is": 2}]}, GREEN, tables(events=[A])),
        (["red", "told"], RED, tables(runs=[{"state": "red"}])),
    ],
)
def test_a_check_holds_where_it_should_and_fails_where_it_should(check: Any, holds: Tables, fails: Tables) -> None:
    assert failing([check], holds) == []
    assert failing([check], fails) == [check]


@pytest.mark.parametrize(
    "check",
    [
        "purple",
        [],
        {},
        {"rows": "sales"},
        {"rows": "events", "where": {"orders": "A"}, "is": 0},
        {"rows": "events", "distinct": "orders"},
        {"rows": "events", "exactly": 1},
        {"rows": "events", "is": "1"},
        {"rows": "events", "where": {"order": {"begins": "A"}}},
        {"never": {"rows": "events", "where": {"orders": "A"}}},
        {"any_of": ["green", "purple"]},
        {"any_of": []},
        {"never": "green", "any_of": ["red"]},
    ],
)
def test_a_check_that_could_never_fail_is_refused(check: Any) -> None:
    with pytest.raises(CaseRefused):
        failing([check], GREEN)


def test_a_check_is_said_in_words() -> None:
    rows = {"rows": "events", "where": {"order": ["A", "B"], "email": {"not": {"matches": "@"}}}, "distinct": "id"}
    assert in_words({"any_of": [["red", {"never": "told"}], rows]}) == (
        "((red and never told) or different ids of events with order A or B, email not matches @ at least 1)"
    )


def _case(folder: Path, document: Any, *files: str) -> Path:
    for name in files:
        (folder / name).touch()
    (folder / "case.json").write_text(json.dumps(document))
    return folder


def test_a_folder_in_words_alone_is_run_and_says_what_was_not_acted_out(tmp_path: Path) -> None:
    document = {"right": "all", "outside": ["the store is down"], "note": "at night", "weather": "rain"}
    case = read_case(_case(tmp_path, document, "1-a.csv", "2-a.csv", "3-b.msg"))
    assert case.deliveries == (("1-a.csv",), ("2-a.csv",), ("3-b.msg",))
    assert case.acted_out == ""
    assert case.not_acted_out == ("the store is down", "at night", "key weather")
    assert (case.checks, case.has_messages) == ((), True)


@pytest.mark.parametrize("folder", [each for each in find_cases(HERE) if "outside" in (each / FILE).read_text()])
def test_words_of_a_known_form_are_acted_out(folder: Path) -> None:
    document = json.loads((folder / FILE).read_text())
    assert read_words(document["outside"]) == (document["stand_ins"], [])


@pytest.mark.parametrize(
    "sentence",
    [
        "the loyalty API is slow",
        "Tracking API: 503 for the first three calls",
        "loyalty API: status 200 with {broken for every card",
        "loyalty API: status 200 with {broken} for every card",
        "Tracking API: 207 with a list of items, every second or third with status 400",
        "loyalty API: card 1001 is of an erased member, later not",
    ],
)
def test_words_of_which_a_part_is_not_known_are_not_acted_out(sentence: str) -> None:
    assert read_words([sentence]) == ({}, [sentence])


def test_several_sentences_are_acted_out_together() -> None:
    told, unknown = read_words(
        ["loyalty API: card 1001 is inactive, 1002 has no email", "loyalty API: cards 7 and 8 answer 503", "at night"]
    )
    members = {"1001": {"status": "inactive", "email": "m1001@example.com"}, "1002": {"status": "active", "email": ""}}
    given = {card: {"status": 503, "body": ""} for card in "78"}
    assert (told, unknown) == ({"loyalty": {"members": members, "given": given}}, ["at night"])


def test_a_setting_that_names_a_file_of_the_folder_means_that_file(tmp_path: Path) -> None:
    document = {"deliveries": [[]], "settings": {"INSTORE_MAPPING_FILE": "m.csv", "INSTORE_SCOPE": "shop"}}
    case = read_case(_case(tmp_path, document, "m.csv"))
    assert case.settings == {"INSTORE_MAPPING_FILE": str(tmp_path / "m.csv"), "INSTORE_SCOPE": "shop"}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"deliveries": [["1-gone.csv"]]},
        {"stand_ins": {"weather": {}}},
        {"stand_ins": {"bus": {"copy": 2}}},
    ],
)
def test_what_is_no_case_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(CaseRefused):
        read_case(_case(tmp_path, document))


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseRefused, match="no case"):
        find_cases(tmp_path)


def test_a_case_can_be_run_alone() -> None:
    assert find_cases(HERE / "sep-line") == [HERE / "sep-line"]


@pytest.mark.parametrize(
    ("name", "delivered"), [("1-a.csv", "a.csv"), ("12-3-b.msg", "3-b.msg"), ("a-1.csv", "a-1.csv")]
)
def test_the_number_of_the_run_is_not_part_of_the_name(name: str, delivered: str) -> None:
    assert delivered_name(name) == delivered


def test_the_loyalty_api_gives_the_answers_and_members_it_was_told() -> None:
    given = {"7": {"status": 400, "body": {"code": "X"}}, "8": {"body": "<p>hello</p>", "headers": {"x-a": "b"}}}
    members = {"1001": {"status": "erased"}, "110015": {"email": "c@example.com"}}
    faults = LoyaltyFaults.model_validate({"given": given, "members": members, "anybody": "m{card}@example.com"})
    with LoyaltyStandIn([], LoyaltyKeys("key", "id", "secret"), faults=faults) as api:

        def ask(path: str) -> requests.Response:
            return requests.get(f"{api.url}{path}", headers={"x-api-key": "key", "connection": "close"}, timeout=5)

        one = "/customers/by-loyalty-card/"
        assert (ask(f"{one}7").status_code, ask(f"{one}7").json()) == (400, {"code": "X"})
        page = ask(f"{one}8")
        assert (page.text, page.headers["content-type"], page.headers["x-a"]) == ("<p>hello</p>", "text/html", "b")
        assert ask(f"{one}9").json()["email"] == "m9@example.com"
        assert ask(f"{one}1001").json()["status"] == "erased"
        found = ask("/members?card=1001").json()["items"]
        assert [each["loyaltyCardNumber"] for each in found] == ["1001", "110015"]
        assert ask("/members?card=9").json() == {"items": []}


def test_the_profile_store_answers_per_item_and_a_proxy_resets_large_bodies() -> None:
    faults = ProfileStoreFaults(item_statuses=(200, 400), largest_body=1000)
    event = {"deviceId": "d", "eventType": "t", "value": "v", "user": {"email": "a@example.com"}}
    with ProfileStoreStandIn("key", faults=faults) as api:

        def send(events: list[dict[str, Any]]) -> requests.Response:
            headers = {"ocp-apim-subscription-key": "key", "connection": "close"}
            return requests.post(f"{api.url}/api/v1.0/TrackBulk", json=events, headers=headers, timeout=5)

        answer = send([{**event, "trackId": each} for each in ("one", "two", "three")])
        assert answer.status_code == 207
        assert [(each["trackId"], each["status"]) for each in answer.json()] == [
            ("one", 200),
            ("two", 400),
            ("three", 200),
        ]
        assert api.store.totals()["events"] == 2
        with pytest.raises(requests.ConnectionError):
            send([event] * 20)
        assert api.store.totals()["events"] == 2
