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
    hook = loyalty(hook={"breaker": breaker(4)})
    errors = []
    for _ in range(10):
        with pytest.raises(ServiceUnavailable) as error:
            hook.look_up("1")
        errors.append(str(error.value))
    # Three questions of three calls each, and the first call of a fourth: each question counts once.
    assert len(wire.to(CARD)) == 10
    assert errors[-1] == (
        "Connection 'test_loyalty': the loyalty API is left alone, since 4 calls in a row failed, so try again later "
        "or check its field 'host'."
    )


def test_the_error_says_for_how_long_it_is_left_alone(loyalty: Callable[..., Any], wire: Wire) -> None:
    wire.on(CARD, DOWN)
    hook = loyalty(hook={"breaker": breaker(1, seconds=60)})
    with pytest.raises(ServiceUnavailable) as error:
        hook.look_up("1")
    assert 50 < error.value.retry_after <= 60


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
    with pytest.raises(ServiceUnavailable):
        hook.look_up("1")
    time.sleep(0.25)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: hook.look_up("1"), range(8)))
    assert {answer.outcome for answer in answers} == {"matched"}


def test_an_open_breaker_ends_the_waiting_of_all_threads(loyalty: Callable[..., Any], wire: Wire) -> None:
    wire.on(CARD, Reply(503, headers={"Retry-After": "30"}))
    hook = loyalty(hook={"breaker": breaker(4)})
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(hook.look_up, "1") for _ in range(4)]
    assert all(isinstance(each.exception(), ServiceUnavailable) for each in asked)
    assert time.monotonic() - begun < 10
    assert len(wire.to(CARD)) == 4


def test_a_call_whose_turn_comes_when_the_breaker_is_open_is_not_made(loyalty: Callable[..., Any], wire: Wire) -> None:
    shared = Breaker(failures=1)

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
    outcomes = list(hook.send_events([event(number) for number in range(5)], bulk=False))
    assert [outcome.state for outcome in outcomes] == ["accepted"] + ["unsent"] * 4
    assert outcomes[1].detail == "the Tracking API is left alone, since 2 calls in a row failed"
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
    with pytest.raises(ServiceUnavailable, match="Profile Store API is left alone"):
        hook.look_for_events(["t1"])
    assert [outcome.state for outcome in hook.send_events([event(1)], bulk=False)] == ["accepted"]
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
    list(hook.send_events([event(1), event(2)], bulk=False))
    hook.look_for_events(["t1"])
    assert turns == [2.5] * 3


def test_the_profile_store_s_own_limit_spaces_the_calls_of_a_process(
    profile_store: Callable[..., Any], wire: Wire
) -> None:
    wire.on("/api/v1.0/Track", Reply(200))
    hook = profile_store(extra={"rate_limit": 10})
    begun = time.monotonic()
    list(hook.send_events([event(number) for number in range(4)], bulk=False))
    assert time.monotonic() - begun >= 0.29


def test_a_port_that_nobody_listens_on_counts_as_failing(loyalty: Callable[..., Any]) -> None:
    hook = loyalty(host=f"http://127.0.0.1:{free_port()}", hook={"breaker": breaker(1)})
    with pytest.raises(ServiceUnavailable, match="is left alone, since 1 calls in a row failed"):
        hook.look_up("1")
