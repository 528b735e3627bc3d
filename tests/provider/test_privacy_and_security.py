"""No key, email, card or payload shows in a log, a repr or an error; TLS is verified and nothing is sent in clear."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk._shared.secrets_masker import redact as masked
from airflow.sdk.exceptions import AirflowFailException
from instore_provider.errors import ConfigurationError, EventRefused, ServiceUnavailable
from instore_provider.hooks.loyalty import LoyaltyHook
from instore_provider.hooks.profile_store import ProfileStoreHook
from instore_provider.redaction import redact

from tests.provider.conftest import LOYALTY_KEY, QUICK, READ_KEY, TRACKING_KEY
from tests.provider.wire import HANG_UP, RESET, STALLED_BODY, Reply, Seen, Wire, free_port

EMAIL = "canary.person@example.com"
CARD = "6012345678901234"
NAME = "Canary Person-Name"
ACCESS_TOKEN = "access-token-canary-9e1b"
SECRETS = (TRACKING_KEY, READ_KEY, LOYALTY_KEY, EMAIL, "canary.person", CARD, NAME, "%40", "/customers/", ACCESS_TOKEN)
EVENT = {"trackId": "t1", "user": {"email": EMAIL, "name": NAME}, "payload": {"loyaltyCardNumber": CARD}}

BULK = "/api/v1.0/TrackBulk"
READ = "/api/v1.0/trackevents/"


def echo(status: int) -> Callable[[Seen], Reply]:
    """A service that repeats all it was told, and knows the customer."""

    def answer(seen: Seen) -> Reply:
        return Reply(status, {"message": f"{EMAIL} {CARD} {NAME} {' '.join(seen.headers.values())} {seen.raw}"})

    answer.__name__ = f"echo {status}"
    return answer


def outcome_of(call: Callable[[], Any]) -> str:
    """Everything a call lets out, as a log would show it: its result's repr, or its error with the whole chain."""
    try:
        return repr(call())
    except Exception as error:
        chain, current = [], error
        while current is not None:
            chain += [repr(current), repr(vars(current))]
            current = current.__cause__ or current.__context__
        return "\n".join([*chain, *traceback.format_exception(error)])


@pytest.mark.parametrize(
    "step",
    [
        Reply(200, {"items": [], "email": EMAIL}),
        *[echo(status) for status in (200, 302, 400, 401, 403, 404, 413, 422, 429, 500, 503)],
        Reply(200, f"<html>{EMAIL} {CARD} {NAME}".encode()),
        HANG_UP,
        RESET,
        STALLED_BODY,
    ],
    ids=lambda step: getattr(step, "__name__", str(step)),
)
def test_canaries_show_nowhere(
    wire: Wire, profile_store: Any, loyalty: Any, caplog: pytest.LogCaptureFixture, step: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    wire.on(BULK, step).on(READ, step).on(f"/customers/by-loyalty-card/{CARD}", step)
    wire.on("/oauth/token", Reply(200, {"access_token": ACCESS_TOKEN, "token_type": "Bearer"}), step)
    store, provider = profile_store(read_timeout=0.1), loyalty(hook={"read_timeout": 0.1})
    let_out = [
        outcome_of(lambda: list(store.send_events([EVENT, EVENT]))),
        outcome_of(lambda: store.query_events(f"User.Email eq {EMAIL}") and None),
        outcome_of(lambda: store.look_for_events(["t1"])),
        outcome_of(store.test_connection),
        outcome_of(lambda: provider.look_up(CARD)),
        outcome_of(provider.test_connection),
        repr(store),
        repr(provider),
        repr(store._load()),
        repr(provider._load()[0]),
    ]
    by_oauth = loyalty(auth="oauth2", login="client", token_url=f"{wire.url}/oauth/token", hook={"read_timeout": 0.1})
    let_out.append(outcome_of(lambda: by_oauth.look_up(CARD)))
    by_query = loyalty(auth="query", hook={"read_timeout": 0.1})
    let_out.append(outcome_of(lambda: by_query.look_up(CARD)))
    everything = "\n".join([*let_out, caplog.text])
    assert [secret for secret in SECRETS if secret in everything] == []


def test_a_service_that_is_not_there_tells_no_canary_either(
    profile_store: Any, loyalty: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    nowhere = f"http://127.0.0.1:{free_port()}"
    store = profile_store(extra={"read_host": nowhere, "read_api_key": READ_KEY}, host=nowhere)
    provider = loyalty(host=nowhere, auth="query")
    everything = "\n".join(
        [
            outcome_of(lambda: list(store.send_events([EVENT]))),
            outcome_of(lambda: store.query_events(f"User.Email eq {EMAIL}")),
            outcome_of(lambda: provider.look_up(CARD)),
            caplog.text,
        ]
    )
    assert [secret for secret in SECRETS if secret in everything] == []


def test_other_codes_requests_are_logged_as_before(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    import requests

    caplog.set_level(logging.DEBUG)
    wire.on("/elsewhere", Reply(200))
    with requests.Session() as session:
        session.trust_env = False
        session.get(f"{wire.url}/elsewhere", timeout=1)
    assert "/elsewhere" in caplog.text


def test_airflow_masks_every_key(wire: Wire, connection: Callable[..., str], loyalty: Any) -> None:
    old_name = "read-key-under-its-old-name"
    conn_id = connection("profile_store", wire.url, "tracking-key-to-mask", read_host=wire.url, read_key=old_name)
    ProfileStoreHook(conn_id).get_conn()
    wire.on("/oauth/token", Reply(200, {"access_token": "access-token-to-mask", "token_type": "Bearer"}))
    wire.on("/customers/by-loyalty-card/1", Reply(404))
    loyalty(auth="oauth2", login="client", token_url=f"{wire.url}/oauth/token").look_up("1")
    told = masked(f"{old_name} tracking-key-to-mask {LOYALTY_KEY} access-token-to-mask")
    assert told == "*** *** *** ***"


def test_errors_are_fatal_or_retriable_for_airflow_as_they_say() -> None:
    assert issubclass(ConfigurationError, AirflowFailException)
    assert issubclass(EventRefused, AirflowFailException)
    assert not issubclass(ServiceUnavailable, AirflowFailException)
    assert ServiceUnavailable("later", retry_after=3).retry_after == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b.example and <c@d.example>", "<email> and <<email>>"),
        ("card 6012 3456 7890 or 6012-3456", "card <digits> or <digits>"),
        ("in 3 of 12 cases at 10:30", "in 3 of 12 cases at 10:30"),
        ("line\r\nbreak\x1b[31m\u2028", "line break [31m"),
    ],
)
def test_redaction_keeps_what_helps_and_drops_what_identifies(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://user:pass@api.example.com",
        "https://api.example.com/?key=1",
        "https://api.example.com/#x",
        "https://api example.com",
        "https://api.example.com:port",
        "http://api.example.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
    ],
)
@pytest.mark.parametrize("hook", [ProfileStoreHook, LoyaltyHook])
def test_a_base_url_that_is_none_or_sends_in_clear_is_a_wrong_field(
    connection: Callable[..., str], hook: Any, host: str | None
) -> None:
    conn_id = connection(hook.conn_type, host, "some-key")
    with pytest.raises(ConfigurationError, match=f"Connection '{conn_id}': its field 'host' must"):
        hook(conn_id).get_conn()


@pytest.mark.parametrize(
    "host", ["http://localhost:1", "http://127.8.8.8", "http://[::1]:8080", "https://api.example.com/v1/"]
)
def test_loopback_may_go_without_tls(connection: Callable[..., str], host: str) -> None:
    LoyaltyHook(connection("loyalty", host, "some-key")).get_conn()


@pytest.mark.parametrize("key", [None, "", "two\nlines", "schlüssel"])
def test_a_missing_or_mangled_key_is_a_wrong_field(connection: Callable[..., str], key: str | None) -> None:
    with pytest.raises(ConfigurationError, match="'password'"):
        ProfileStoreHook(connection("profile_store", "https://api.example.com", key)).get_conn()


def test_a_connection_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"^Connection 'nowhere' is not defined, so create it") as raised:
        LoyaltyHook("nowhere").get_conn()
    assert raised.value.__cause__ is None


def test_an_extra_that_is_no_object_is_a_wrong_field(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "loyalty", "host": "https://api.example.com", "password": "k", "extra": "[1]"}
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(fields))
    with pytest.raises(ConfigurationError, match="'extra' must be a JSON object"):
        LoyaltyHook("odd").get_conn()


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"auth_preset": "other"}, "auth_preset"),
        ({"auth_header": "X: Y"}, "auth_header"),
        ({"read_host": "https://read.example.com"}, "read_api_key"),
        ({"read_host": "http://read.example.com", "read_key": "k"}, "read_host"),
    ],
)
def test_a_wrong_field_of_the_profile_store_is_named(
    connection: Callable[..., str], extra: dict[str, str], field: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"'{field}'"):
        ProfileStoreHook(connection("profile_store", "https://api.example.com", "k", **extra)).get_conn()


def test_an_unknown_certificate_is_never_accepted_and_never_retried(tls_wire: Wire, profile_store: Any) -> None:
    tls_wire.on(BULK, Reply(202))
    with pytest.raises(ConfigurationError, match="TLS certificate could not be verified"):
        list(profile_store(host=tls_wire.url).send_events([EVENT]))
    assert tls_wire.seen == []


def test_a_private_authority_is_trusted_by_its_bundle(
    tls_wire: Wire, profile_store: Any, authority: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls_wire.on(BULK, Reply(202))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/hostname")  # would win over a session's setting
    hook = profile_store(host=tls_wire.url, extra={"ca_bundle": str(authority[0])})
    assert [each.state for each in hook.send_events([EVENT])] == ["accepted"]


def test_a_token_endpoint_with_an_unknown_certificate_gets_no_secret(tls_wire: Wire, wire: Wire, loyalty: Any) -> None:
    hook = loyalty(auth="oauth2", login="client", token_url=f"{tls_wire.url}/oauth/token")
    with pytest.raises(ConfigurationError, match="'token_url'"):
        hook.look_up("1")
    assert tls_wire.seen == wire.seen == []


def test_timeouts_are_fields_of_the_connection(wire: Wire, connection: Callable[..., str]) -> None:
    wire.on(READ, STALLED_BODY)
    conn_id = connection(
        "profile_store", wire.url, "k", read_host=wire.url, read_key="k", read_timeout="0.1", connect_timeout=1
    )
    hook = ProfileStoreHook(conn_id, **{**QUICK, "read_timeout": None, "connect_timeout": None})
    with pytest.raises(ServiceUnavailable):
        hook.query_events()
    hook.close()
