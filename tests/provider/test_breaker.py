"""The hooks' breaker and limiter: optional, one per service, and each HTTP call counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from instore_provider.breaker import Breaker
from instore_provider.errors import ServiceUnavailable

from tests.provider.wire import Reply, Wire, free_port

CARD = "/customers/by-loyalty-card/1"
FOUND = Reply(200, {"email": "ann@example.com", "status": "active"})
DOWN = Reply(503)


def breaker(failures: int = 4, seconds: float = 60) -> Callable[[str], Breaker]:
    return lambda _service: Breaker(failures=failures, seconds=seconds)


def event(number: int) -> dict[str, Any]:
    return {"trackId": f"t{number}", "eventType": "StorePurchase", "payload": {"orderNumber": f"S{number}"}}


def test_a_service_that_fails_so_many_times_in_a_row_is_left_alone(loyalty: Callable[..., Any], wire: Wire) -> None:
    wire.on(CARD, DOWN)
    hook = loyalty(hook={"breaker": breaker(4, seconds=0.3)})
    for _ in range(3):
        with pytest.raises(ServiceUnavailable, match="answered 503 in 3 attempt"):
            hook.look_up("1")
    # Three questions of three calls each, and the first call of a fourth: each question counts once.
    begun = time.monotonic()
    with pytest.raises(ServiceUnavailable) as error:
        hook.look_up("1")
    # Waited out, for twice as long: in that time it is tried once more, or twice.
    assert 0.5 < time.monotonic() - begun < 2
    assert 10 < len(wire.to(CARD)) <= 13
    assert str(error.value) == (
        "Connection 'test_loyalty': the loyalty API was not called: circuit open after 4 failures in a row (the last "
        "one answered 503), so try again later or check its field 'host'."
    )


def test_a_question_waits_an_open_breaker_out_and_none_of_its_attempts_is_used_up(
    loyalty: Callable[..., Any], wire: Wire
) -> None:
    shared = Breaker(failures=1, seconds=0.5)
    wire.on(CARD, DOWN, FOUND)
    hook = loyalty(hook={"breaker": lambda _service: shared, "max_attempts": 2})
    assert hook.look_up("1").outcome == "matched"
    assert len(wire.to(CARD)) == 2


def test_questions_of_several_threads_wait_together(loyalty: Callable[..., Any], wire: Wire) -> None:
    shared = Breaker(failures=1, seconds=0.5)
    shared.last_answer = "answered 503"
    shared.watch(lambda: None, lambda _: False)
    wire.on(CARD, FOUND)
    hook = loyalty(hook={"breaker": lambda _service: shared})
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: hook.look_up("1"), range(8)))
    assert {answer.outcome for answer in answers} == {"matched"}
    assert 0.4 < time.monotonic() - begun < 2


def test_the_error_says_for_how_long_it_is_left_alone(loyalty: Callable[..., Any], wire: Wire) -> None:
    wire.on(CARD, DOWN)
    hook = loyalty(hook={"breaker": breaker(1, seconds=1)})
    with pytest.raises(ServiceUnavailable) as error:
        hook.look_up("1")
    assert error.value.retry_after is None or 0 < error.value.retry_after <= 1


def test_without_a_breaker_each_question_is_asked_to_its_own_bounds(loyalty: Callable[..., Any], wire: Wire) -> None:
    wire.on(CARD, DOWN)
    hook = loyalty()
    for _ in range(4):
        with pytest.raises(ServiceUnavailable):
            hook.look_up("1")
    assert len(wire.to(CARD)) == 12


def test_answers_that_say_no_such_card_are_those_of_a_service_in_health(
    loyalty: Callable[..., Any], wire: Wire
) -> None:
    wire.on(CARD, DOWN, Reply(404), DOWN, Reply(404), DOWN, Reply(404))
    hook = loyalty(hook={"breaker": breaker(2)})
    assert [hook.look_up("1").outcome for _ in range(3)] == ["not_found"] * 3


def test_after_its_time_one_call_is_made_and_the_breaker_closes(loyalty: Callable[..., Any], wire: Wire) -> None:
    wire.on(CARD, DOWN, FOUND)
    hook = loyalty(hook={"breaker": breaker(1, seconds=0.2)})
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: hook.look_up("1"), range(8)))
    assert {answer.outcome for answer in answers} == {"matched"}


def test_an_open_breaker_ends_the_waiting_of_all_threads(loyalty: Callable[..., Any], wire: Wire) -> None:
    wire.on(CARD, Reply(503, headers={"Retry-After": "30"}))
    hook = loyalty(hook={"breaker": breaker(4, seconds=2)})
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(hook.look_up, "1") for _ in range(4)]
    assert all(isinstance(each.exception(), ServiceUnavailable) for each in asked)
    assert time.monotonic() - begun < 10
    assert 4 <= len(wire.to(CARD)) <= 8


def test_a_call_whose_turn_comes_when_the_breaker_is_open_is_not_made(loyalty: Callable[..., Any], wire: Wire) -> None:
    shared = Breaker(failures=1, seconds=0.2)

    def turn_after_another_call_has_failed() -> None:
        shared.watch(lambda: None, lambda _: False)

    wire.on(CARD, FOUND)
    hook = loyalty(
        hook={"breaker": lambda _service: shared, "limiter": lambda _per_second: turn_after_another_call_has_failed},
        rate_limit=1,
    )
    with pytest.raises(ServiceUnavailable):
        hook.look_up("1")
    assert wire.seen == []


def test_calls_of_several_threads_are_made_side_by_side_while_the_breaker_is_closed(
    loyalty: Callable[..., Any], wire: Wire
) -> None:
    def slow(_seen: object) -> Reply:
        time.sleep(0.3)
        return FOUND

    wire.on(CARD, slow)
    hook = loyalty(hook={"breaker": breaker()})
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: hook.look_up("1"), range(8)))
    assert time.monotonic() - begun < 1.5


def test_events_that_an_open_breaker_kept_back_are_unsent_each_with_the_reason(
    profile_store: Callable[..., Any], wire: Wire
) -> None:
    wire.on("/api/v1.0/Track", Reply(200), Reply(429))
    hook = profile_store(breaker=breaker(2))
    outcomes = list(hook.send_events([event(number) for number in range(5)], bulk_size=1))
    assert [outcome.state for outcome in outcomes] == ["accepted"] + ["unsent"] * 4
    assert outcomes[1].detail == (
        "the Tracking API was not called: circuit open after 2 failures in a row (the last one answered 429)"
    )
    assert 50 < outcomes[1].retry_after <= 60
    assert len(wire.to("/api/v1.0/Track")) == 3


def test_the_two_apis_of_the_profile_store_have_breakers_of_their_own(
    profile_store: Callable[..., Any], wire: Wire
) -> None:
    named: list[str] = []

    def make(service: str) -> Breaker:
        named.append(service)
        return Breaker(failures=1)

    wire.on("/api/v1.0/trackevents/", DOWN).on("/api/v1.0/Track", Reply(200))
    hook = profile_store(breaker=make)
    with pytest.raises(ServiceUnavailable, match="Profile Store API was not called"):
        hook.look_for_events(["t1"])
    assert [outcome.state for outcome in hook.send_events([event(1)], bulk_size=1)] == ["accepted"]
    assert sorted(named) == ["the Profile Store API", "the Tracking API"]


def test_when_one_query_fails_the_others_are_not_made(profile_store: Callable[..., Any], wire: Wire) -> None:
    wire.on("/api/v1.0/trackevents/", DOWN)
    hook = profile_store()
    with pytest.raises(ServiceUnavailable):
        hook.look_for_events([f"t{number}" for number in range(100)])
    assert len(wire.to("/api/v1.0/trackevents/")) <= 4 * 3 + 4 * 3


def test_a_given_limiter_is_asked_before_each_call_retries_and_tokens_included(
    loyalty: Callable[..., Any], wire: Wire
) -> None:
    turns: list[float] = []

    def limiter(per_second: float) -> Callable[[], None]:
        return lambda: turns.append(per_second)

    wire.on("/oauth/token", Reply(200, {"access_token": "a", "token_type": "Bearer"})).on(CARD, DOWN, DOWN, FOUND)
    hook = loyalty(
        hook={"limiter": limiter}, login="id", auth="oauth2", token_url=f"{wire.url}/oauth/token", rate_limit=3
    )
    assert hook.look_up("1").outcome == "matched"
    assert turns == [3.0] * len(wire.seen)
    assert len(wire.seen) == 4


def test_a_given_limiter_is_asked_before_writes_and_reads_of_the_profile_store(
    profile_store: Callable[..., Any], wire: Wire
) -> None:
    turns: list[float] = []
    wire.on("/api/v1.0/Track", Reply(200)).on("/api/v1.0/trackevents/", Reply(200, {"items": []}))
    hook = profile_store(
        limiter=lambda per_second: lambda: turns.append(per_second),
        extra={"read_host": wire.url, "read_api_key": "k", "rate_limit": 2.5},
    )
    list(hook.send_events([event(1), event(2)], bulk_size=1))
    hook.look_for_events(["t1"])
    assert turns == [2.5] * 3


def test_the_profile_store_s_own_limit_spaces_the_calls_of_a_process(
    profile_store: Callable[..., Any], wire: Wire
) -> None:
    wire.on("/api/v1.0/Track", Reply(200))
    hook = profile_store(extra={"rate_limit": 10})
    begun = time.monotonic()
    list(hook.send_events([event(number) for number in range(4)], bulk_size=1))
    assert time.monotonic() - begun >= 0.29


def test_a_port_that_nobody_listens_on_counts_as_failing(loyalty: Callable[..., Any]) -> None:
    hook = loyalty(host=f"http://127.0.0.1:{free_port()}", hook={"breaker": breaker(1, seconds=0.2)})
    with pytest.raises(ServiceUnavailable, match=r"circuit open after 1 failures in a row \(the last one could not be"):
        hook.look_up("1")
