"""What becomes of events that are sent: contracts.md section 2, rule by rule, over a real socket."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from instore_provider.errors import ConfigurationError
from instore_provider.events import EventOutcome

from tests.provider.conftest import TRACKING_KEY, patience
from tests.provider.wire import (
    BROKEN_BODY,
    HANG_UP,
    REFUSAL_WITH_BROKEN_BODY,
    RESET,
    STALL,
    Reply,
    Seen,
    Wire,
    deaf_port,
    free_port,
)

BULK = "/api/v1.0/TrackBulk"
ONE = "/api/v1.0/Track"


def events(count: int) -> list[dict[str, Any]]:
    return [
        {"trackId": f"t{n}", "eventType": "StorePurchase", "user": {"email": f"ann{n}@example.com"}}
        for n in range(count)
    ]


def states(outcomes: list[EventOutcome]) -> list[str]:
    return [each.state for each in sorted(outcomes, key=lambda each: each.index)]


def refusing(*bad: str, status: int = 400, body: Any = None) -> Callable[[Seen], Reply]:
    """A service that refuses a whole request when one of these events is in it."""

    def answer(seen: Seen) -> Reply:
        sent = seen.json if isinstance(seen.json, list) else [seen.json]
        return Reply(status, body or {"message": "no"}) if any(each["trackId"] in bad for each in sent) else Reply(202)

    return answer


def ids(seen: Seen) -> list[str]:
    return [each["trackId"] for each in seen.json]


def test_events_go_out_in_bulks_of_the_asked_size_in_their_order(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(200))
    outcomes = list(profile_store().send_events(events(7), bulk_size=3))
    assert [ids(each) for each in wire.seen] == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"]]
    assert outcomes == [EventOutcome(n, f"t{n}", "accepted", 200) for n in range(7)]


def test_a_bulk_stays_within_its_bytes_and_a_larger_event_travels_alone(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(200))
    given = events(5)
    given[2]["payload"] = "x" * 1000
    list(profile_store().send_events(given, max_bulk_bytes=300))
    assert Counter(each for seen in wire.seen for each in ids(seen)) == Counter(f"t{n}" for n in range(5))
    assert ["t2"] in [ids(seen) for seen in wire.seen]
    assert all(len(seen.body) <= 300 for seen in wire.seen if ids(seen) != ["t2"])
    assert len(wire.seen) < 5


@pytest.mark.parametrize("size", [0, 101])
def test_more_events_a_bulk_than_the_api_takes_are_not_sent(wire: Wire, profile_store: Any, size: int) -> None:
    with pytest.raises(ConfigurationError, match="bulk_size"):
        list(profile_store().send_events(events(1), bulk_size=size))
    assert wire.seen == []


def test_one_by_one_goes_to_track_with_one_object_each(wire: Wire, profile_store: Any) -> None:
    wire.on(ONE, Reply(202), Reply(400, {"message": "no scope"}), Reply(202))
    outcomes = list(profile_store().send_events(events(3), bulk_size=1))
    assert [seen.json["trackId"] for seen in wire.to(ONE)] == ["t0", "t1", "t2"]
    assert states(outcomes) == ["accepted", "refused", "accepted"]


def test_decimals_go_out_as_numbers_with_their_exact_digits(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(200))
    total = Decimal("12345678901234567.10")
    list(profile_store().send_events([{"trackId": "t", "payload": {"total": total, "name": "Zoë"}}]))
    assert b'"total":12345678901234567.10' in wire.seen[0].body
    assert json.loads(wire.seen[0].body)[0]["payload"]["name"] == "Zoë"


@pytest.mark.parametrize("value", [object(), float("nan"), Decimal("Infinity"), {1, 2}])
def test_an_event_that_is_no_json_is_refused_alone_and_its_value_is_not_told(
    wire: Wire, profile_store: Any, value: Any
) -> None:
    wire.on(BULK, Reply(200))
    outcomes = list(profile_store().send_events([*events(1), {"trackId": "odd", "payload": value}, *events(1)]))
    assert states(outcomes) == ["accepted", "refused", "accepted"]
    assert next(each for each in outcomes if each.track_id == "odd").detail.startswith("cannot be written as JSON (")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_of_nothing_is_accepted_but_for_a_multi_status(wire: Wire, profile_store: Any, status: int) -> None:
    wire.on(BULK, Reply(status, b"" if status in (202, 204) else {"said": "anything"}))
    assert states(list(profile_store().send_events(events(2)))) == ["accepted"] * 2


@pytest.mark.parametrize("page", [b"<!doctype html><h1>Please sign in</h1>", b"\n <html></html>"])
def test_a_2xx_with_a_page_from_something_in_between_is_ambiguous(wire: Wire, profile_store: Any, page: bytes) -> None:
    wire.on(BULK, Reply(200, page))
    assert states(list(profile_store().send_events(events(2)))) == ["ambiguous"] * 2


def test_a_2xx_whose_body_breaks_off_is_accepted_all_the_same(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, BROKEN_BODY)
    assert states(list(profile_store().send_events(events(2)))) == ["accepted"] * 2
    assert len(wire.seen) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_what_was_certainly_not_taken_is_sent_again(wire: Wire, profile_store: Any, status: int) -> None:
    wire.on(BULK, Reply(status), Reply(status), Reply(202))
    assert states(list(profile_store().send_events(events(2)))) == ["accepted"] * 2
    assert len(wire.seen) == 3


@pytest.mark.parametrize("status", [408, 425])
def test_what_may_have_been_taken_is_in_doubt_unless_the_connection_says_otherwise(
    wire: Wire, profile_store: Any, status: int
) -> None:
    wire.on(BULK, Reply(status), Reply(202))
    assert states(list(profile_store().send_events(events(2)))) == ["ambiguous"] * 2
    assert len(wire.seen) == 1
    wire.on(BULK, Reply(status), Reply(202))
    sure = profile_store(extra={"untaken_statuses": f"{status},429,503"})
    assert states(list(sure.send_events(events(2)))) == ["accepted"] * 2


@pytest.mark.parametrize("status", [408, 425])
def test_an_item_that_may_have_been_taken_is_in_doubt(wire: Wire, profile_store: Any, status: int) -> None:
    items = [{"trackId": "t0", "status": 200}, {"trackId": "t1", "status": status}]
    wire.on(BULK, Reply(200, {"items": items}))
    assert states(list(profile_store().send_events(events(2)))) == ["accepted", "ambiguous"]


def test_when_the_attempts_are_used_up_all_that_is_left_is_unsent_and_nobody_calls_again(
    wire: Wire, profile_store: Any
) -> None:
    wire.on(BULK, Reply(202), Reply(503, headers={"Retry-After": "0"}))
    outcomes = list(profile_store().send_events(events(6), bulk_size=2))
    assert states(outcomes) == ["accepted"] * 2 + ["unsent"] * 4
    assert [each.status_code for each in outcomes] == [202, 202, 503, 503, None, None]
    assert len(wire.seen) == 1 + 3
    assert "answered 503 in 3 attempt(s)" in outcomes[2].detail
    assert "not tried" in outcomes[4].detail
    assert outcomes[5].retry_after == 0


def test_a_refused_connection_is_retried_and_then_unsent(profile_store: Any) -> None:
    hook = profile_store(host=f"http://127.0.0.1:{free_port()}")
    outcomes = list(hook.send_events(events(3), bulk_size=1))
    assert states(outcomes) == ["unsent"] * 3
    assert "could not be reached" in outcomes[0].detail
    assert "3 attempt(s)" in outcomes[0].detail


def test_a_connection_that_never_stands_is_unsent(profile_store: Any) -> None:
    with deaf_port() as port:
        hook = profile_store(host=f"http://127.0.0.1:{port}", connect_timeout=0.1, max_attempts=2)
        outcomes = list(hook.send_events(events(1)))
    assert states(outcomes) == ["unsent"]
    assert "2 attempt(s)" in outcomes[0].detail


@pytest.mark.parametrize("fault", [Reply(500), Reply(502), Reply(504), Reply(520), HANG_UP, RESET, STALL], ids=str)
def test_what_may_have_been_taken_is_ambiguous_and_not_sent_again_and_the_next_bulk_goes_on(
    wire: Wire, profile_store: Any, fault: Any
) -> None:
    wire.on(BULK, fault, Reply(202))
    outcomes = list(profile_store(read_timeout=patience(fault)).send_events(events(4), bulk_size=2))
    assert states(outcomes) == ["ambiguous"] * 2 + ["accepted"] * 2
    assert [ids(seen) for seen in wire.seen] == [["t0", "t1"], ["t2", "t3"]]


def test_three_ambiguous_bulks_in_a_row_stop_the_sending(wire: Wire, profile_store: Any) -> None:
    wire.on(ONE, Reply(502), Reply(502), Reply(202), Reply(502), Reply(502), Reply(502), Reply(202))
    outcomes = list(profile_store().send_events(events(8), bulk_size=1))
    assert states(outcomes) == ["ambiguous"] * 2 + ["accepted"] + ["ambiguous"] * 3 + ["unsent"] * 2
    assert len(wire.seen) == 6


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_raises_and_the_outcomes_before_it_are_not_lost(
    wire: Wire, profile_store: Any, status: int
) -> None:
    wire.on(BULK, Reply(202), Reply(status, {"message": f"bad key {TRACKING_KEY}"}))
    outcomes: list[EventOutcome] = []
    with pytest.raises(ConfigurationError) as raised:
        outcomes.extend(profile_store().send_events(events(4), bulk_size=2))
    assert states(outcomes) == ["accepted"] * 2
    assert "'password'" in str(raised.value)
    assert "'test_profile_store'" in str(raised.value)
    assert len(wire.seen) == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
def test_a_redirect_is_not_followed_and_raises(wire: Wire, profile_store: Any, status: int) -> None:
    wire.on(BULK, Reply(status, headers={"Location": f"{wire.url}/elsewhere"})).on("/elsewhere", Reply(200))
    with pytest.raises(ConfigurationError, match=f"'host' leads to a redirect \\({status}\\)"):
        list(profile_store().send_events(events(1)))
    assert len(wire.seen) == 1


@pytest.mark.parametrize("status", [404, 405, 415])
def test_a_wrong_address_refuses_no_event(wire: Wire, profile_store: Any, status: int) -> None:
    wire.on(BULK, Reply(status))
    with pytest.raises(ConfigurationError, match="'host'"):
        list(profile_store().send_events(events(8)))
    assert len(wire.seen) == 1


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_refused_bulk_is_cut_down_to_the_refused_event(wire: Wire, profile_store: Any, status: int) -> None:
    wire.on(BULK, refusing("t5", status=status, body={"message": "eventTime is not a date"}))
    outcomes = list(profile_store().send_events(events(8)))
    assert states(outcomes) == ["accepted"] * 5 + ["refused"] + ["accepted"] * 2
    refused = next(each for each in outcomes if each.state == "refused")
    assert refused == EventOutcome(5, "t5", "refused", status, "eventTime is not a date")
    assert len(outcomes) == 8


def test_each_event_has_one_outcome_when_several_are_refused(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, refusing("t0", "t6", "t12"))
    outcomes = list(profile_store().send_events(events(13), bulk_size=5))
    assert Counter(each.index for each in outcomes) == Counter(range(13))
    assert [each.track_id for each in outcomes if each.state == "refused"] == ["t0", "t6", "t12"]


def test_outcomes_of_a_cut_bulk_before_an_outage_stand(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(400), Reply(202), Reply(503))
    outcomes = list(profile_store().send_events(events(6), bulk_size=4))
    assert states(outcomes) == ["accepted"] * 2 + ["unsent"] * 4


def test_what_is_left_of_a_cut_bulk_is_unsent_when_an_outage_comes(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(400), Reply(503))
    outcomes = list(profile_store().send_events(events(6), bulk_size=4))
    assert states(outcomes) == ["unsent"] * 6
    assert [ids(seen) for seen in wire.seen] == [["t0", "t1", "t2", "t3"], *[["t0", "t1"]] * 3]


def test_a_bulk_that_is_too_large_is_halved(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, lambda seen: Reply(413) if len(seen.json) > 2 else Reply(202))
    assert states(list(profile_store().send_events(events(8)))) == ["accepted"] * 8
    assert [len(seen.json) for seen in wire.seen] == [8, 4, 2, 2, 4, 2, 2]


def test_a_single_event_that_is_too_large_is_refused(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, lambda seen: Reply(413) if "t1" in ids(seen) else Reply(202))
    outcomes = list(profile_store().send_events(events(3)))
    assert states(outcomes) == ["accepted", "refused", "accepted"]
    assert outcomes[1].status_code == 413


def test_a_refusal_whose_body_breaks_off_is_still_a_refusal(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, REFUSAL_WITH_BROKEN_BODY)
    outcomes = list(profile_store().send_events(events(1)))
    assert (outcomes[0].state, outcomes[0].status_code) == ("refused", 400)


def test_a_refusals_detail_is_one_short_line_without_personal_data(wire: Wire, profile_store: Any) -> None:
    event = {
        "trackId": "t",
        "user": {"email": "ann@example.com", "name": "Ann Exemplar"},
        "payload": {"card": "AB-12 CD"},
    }
    text = (
        f"user ann@example.com (Ann Exemplar, ann%40example.com, bob@example.org)\r\nwith card ab-12 cd or "
        f"6012 3456-78901234, key {TRACKING_KEY}, is bad. " + "y" * 500
    )
    wire.on(BULK, Reply(400, {"errors": 1, "error": {"message": text}}))
    detail = next(profile_store().send_events([event])).detail
    assert detail.startswith("user *** (***, <email>, <email>) with card *** or <digits>, key ***, is bad.")
    assert len(detail) == 200


def test_every_single_request_is_asked_for_right_before_it_leaves(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(429), Reply(400), Reply(200))  # tried again, and cut in two
    asked: list[int] = []
    list(profile_store().send_events(events(2), before_leaving=lambda: asked.append(len(wire.seen))))
    assert asked == [0, 1, 2, 3]
    assert len(wire.seen) == 4


def test_a_request_that_must_not_leave_does_not(wire: Wire, profile_store: Any) -> None:
    def stop() -> None:
        raise RuntimeError("another try has them")

    wire.on(BULK, Reply(200))
    with pytest.raises(RuntimeError, match="another try"):
        list(profile_store().send_events(events(2), before_leaving=stop))
    assert wire.seen == []


def test_before_request_sees_the_indexes_before_they_leave_and_once_a_bulk(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(503), Reply(400), Reply(202))
    told: list[tuple[list[int], int]] = []
    hook = profile_store()
    list(
        hook.send_events(events(5), bulk_size=4, before_request=lambda part: told.append((list(part), len(wire.seen))))
    )
    assert told == [([0, 1, 2, 3], 0), ([4], 4)]


def test_a_bulk_leaves_only_when_the_outcomes_before_it_were_taken(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(202))
    outcomes = profile_store().send_events(events(4), bulk_size=2)
    assert wire.seen == []
    next(outcomes)
    next(outcomes)
    assert len(wire.seen) == 1
    next(outcomes)
    assert len(wire.seen) == 2


@pytest.mark.parametrize(
    ("extra", "header", "value"),
    [
        ({}, "Ocp-Apim-Subscription-Key", TRACKING_KEY),
        ({"auth_preset": "epi_single"}, "Authorization", f"epi-single {TRACKING_KEY}"),
        ({"auth_header": "X-Key"}, "X-Key", TRACKING_KEY),
        ({"auth_preset": "epi_single", "auth_prefix": "token"}, "Authorization", f"token {TRACKING_KEY}"),
        ({"auth_header": "X-Key", "auth_prefix": "Key"}, "X-Key", f"Key {TRACKING_KEY}"),
    ],
)
def test_the_key_travels_as_the_connection_says(
    wire: Wire, profile_store: Any, extra: dict[str, str], header: str, value: str
) -> None:
    wire.on(BULK, Reply(202))
    list(profile_store(extra=extra).send_events(events(1)))
    assert wire.seen[0].headers[header] == value
    assert wire.seen[0].headers["Content-Type"] == "application/json"


def test_one_connection_is_kept_alive_for_all_bulks(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(202), Reply(400), Reply(202))
    list(profile_store().send_events(events(6), bulk_size=2))
    assert len({seen.client for seen in wire.seen}) == 1


def test_cookies_and_netrc_are_left_alone(
    wire: Wire, profile_store: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    wire.on(ONE, Reply(202, headers={"Set-Cookie": "session=1"}))
    list(profile_store(extra={"auth_preset": "epi_single"}).send_events(events(2), bulk_size=1))
    assert all("Cookie" not in seen.headers for seen in wire.seen)
    assert wire.seen[1].headers["Authorization"] == f"epi-single {TRACKING_KEY}"


def test_retry_after_in_seconds_is_waited_for(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(429, headers={"Retry-After": "1"}), Reply(202))
    started = time.monotonic()
    assert states(list(profile_store().send_events(events(1)))) == ["accepted"]
    assert 1 <= time.monotonic() - started < 3


def test_a_long_retry_after_is_waited_for_only_up_to_the_bound(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(429, headers={"Retry-After": "3600"}), Reply(202))
    started = time.monotonic()
    assert states(list(profile_store(longest_retry_after=0.1).send_events(events(1)))) == ["accepted"]
    assert 0.1 <= time.monotonic() - started < 3


def test_no_attempt_starts_after_the_total_seconds(wire: Wire, profile_store: Any) -> None:
    wire.on(BULK, Reply(503, headers={"Retry-After": "30"}))
    started = time.monotonic()
    outcomes = list(profile_store(max_seconds=5).send_events(events(1)))
    assert time.monotonic() - started < 3
    assert (outcomes[0].state, outcomes[0].retry_after) == ("unsent", 30)
    assert len(wire.seen) == 1


def test_nothing_is_asked_for_no_events(wire: Wire, profile_store: Any) -> None:
    assert list(profile_store().send_events([])) == []
    assert wire.seen == []
