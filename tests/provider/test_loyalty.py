"""Looking a card up: contracts.md section 4, with the answers of the providers named there, over a real socket."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from instore_provider.errors import CardNotAnswered, ConfigurationError, ServiceUnavailable
from instore_provider.hooks.loyalty import LoyaltyAnswer

from tests.provider.conftest import LOYALTY_KEY, patience
from tests.provider.wire import HANG_UP, RESET, STALL, STALLED_BODY, Reply, Seen, Wire

CARD = "/customers/by-loyalty-card/0012345"
ANN = {"loyaltyCardNumber": "0012345", "email": "ann@example.com", "firstName": "Ann", "status": "active"}


def test_the_default_contract_finds_the_customer(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(200, ANN))
    assert loyalty().look_up("0012345") == LoyaltyAnswer("matched", "ann@example.com")
    assert wire.seen[0].headers["X-Api-Key"] == LOYALTY_KEY


def test_an_answer_does_not_show_its_email() -> None:
    assert "ann" not in repr(LoyaltyAnswer("matched", "ann@example.com"))


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"status": "ACTIVE "}, "matched"),
        ({"status": None}, "matched"),
        ({"status": "blocked"}, "inactive"),
        ({"status": "erased"}, "suppressed"),
        ({"status": "opted_out", "email": None}, "suppressed"),
        ({"email": None}, "no_email"),
        ({"email": "  "}, "no_email"),
        ({"email": "not an address"}, "no_email"),
    ],
)
def test_status_and_email_decide_the_outcome(wire: Wire, loyalty: Any, change: dict[str, Any], outcome: str) -> None:
    wire.on(CARD, Reply(200, {**ANN, **change}))
    answer = loyalty().look_up("0012345")
    assert answer.outcome == outcome
    # Whom nothing may be sent for is known by the address as well.
    told = outcome == "matched" or change == {"status": "erased"}
    assert answer.email == ("ann@example.com" if told else None)


def test_statuses_are_settings(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(200, {"member": {"state": "Gold", "mail": "a@b.example"}}))
    hook = loyalty(email_path="member.mail", status_path="member.state", active_statuses="silver, gold")
    assert hook.look_up("0012345") == LoyaltyAnswer("matched", "a@b.example")


@pytest.mark.parametrize("card", ["a/b c+d?e#f%é&=", "00 12", "../../admin", "{card}"])
def test_a_card_is_percent_encoded_into_the_path(wire: Wire, loyalty: Any, card: str) -> None:
    hook = loyalty()
    with pytest.raises(ServiceUnavailable):
        hook.look_up(card)  # the wire has no script for it and answers 599
    path = wire.seen[0].path
    assert path.startswith("/customers/by-loyalty-card/")
    assert unquote(path.removeprefix("/customers/by-loyalty-card/")) == card
    assert path.count("/") == 3


@pytest.mark.parametrize("card", ["", "  ", ".", ".."])
def test_a_card_that_would_ask_for_something_else_is_not_asked_for(wire: Wire, loyalty: Any, card: str) -> None:
    assert loyalty().look_up(card).outcome == "not_found"
    assert wire.seen == []


def test_a_card_may_stand_in_a_query(wire: Wire, loyalty: Any) -> None:
    wire.on("/wallet", Reply(200, {**ANN, "loyaltyCardNumber": "a&b=c+d"}))
    loyalty(url_template="/wallet?identity-value={card}").look_up("a&b=c+d")
    assert wire.seen[0].query == {"identity-value": ["a&b=c+d"]}


def test_a_card_may_stand_in_a_json_body(wire: Wire, loyalty: Any) -> None:
    wire.on("/search", Reply(200, {**ANN, "loyaltyCardNumber": '0"1\\2'}))
    hook = loyalty(url_template="/search", body_template='{"filter": {"card": "{card}"}}')
    assert hook.look_up('0"1\\2').outcome == "matched"
    assert wire.seen[0].method == "POST"
    assert wire.seen[0].json == {"filter": {"card": '0"1\\2'}}


def test_a_second_hop_asks_for_the_customer_by_id(wire: Wire, loyalty: Any) -> None:
    wire.on("/members/0012345", Reply(200, {"customer": {"id": "c/7"}})).on("/customers/c%2F7", Reply(200, ANN))
    hook = loyalty(
        url_template="/members/{card}", second_hop_template="/customers/{id}", second_hop_id_path="customer.id"
    )
    assert hook.look_up("0012345").outcome == "matched"
    assert [seen.path for seen in wire.seen] == ["/members/0012345", "/customers/c%2F7"]


def test_a_customer_who_is_gone_at_the_second_hop_is_not_found(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(200, {"id": 7})).on("/customers/7", Reply(404))
    assert loyalty(second_hop_template="/customers/{id}").look_up("0012345").outcome == "not_found"


def test_a_second_hop_without_an_id_is_no_answer(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(200, ANN))
    with pytest.raises(CardNotAnswered, match="'second_hop_id_path'"):
        loyalty(second_hop_template="/customers/{id}").look_up("0012345")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"data": []}, "not_found"),
        ({"data": [ANN]}, "matched"),
        ({"data": [ANN, ANN]}, "ambiguous"),
        ({"data": ANN}, "matched"),
    ],
)
def test_members_in_a_list_are_counted(wire: Wire, loyalty: Any, answer: Any, outcome: str) -> None:
    wire.on(CARD, Reply(200, answer))
    assert loyalty(members_path="data").look_up("0012345").outcome == outcome


@pytest.mark.parametrize(("answer", "outcome"), [([], "not_found"), ([ANN], "matched"), ([ANN, ANN], "ambiguous")])
def test_an_answer_that_is_a_list_needs_no_path(wire: Wire, loyalty: Any, answer: Any, outcome: str) -> None:
    wire.on(CARD, Reply(200, answer))
    assert loyalty().look_up("0012345").outcome == outcome


@pytest.mark.parametrize(
    ("extra", "answer", "field"),
    [
        ({"members_path": "data"}, {"items": []}, "members_path"),
        ({}, "a text", "url_template"),
        ({"email_path": "email"}, {"email": {"home": "a@b.example"}}, "email_path"),
    ],
)
def test_an_answer_that_does_not_fit_the_paths_marks_no_card_unknown(
    wire: Wire, loyalty: Any, extra: dict[str, str], answer: Any, field: str
) -> None:
    wire.on(CARD, Reply(200, answer))
    with pytest.raises(CardNotAnswered, match=f"'{field}'"):
        loyalty(**extra).look_up("0012345")


def test_not_found_is_404_unless_set_otherwise(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(404))
    assert loyalty().look_up("0012345").outcome == "not_found"


def test_other_statuses_can_mean_not_found(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(410), Reply(404))
    hook = loyalty(not_found_statuses="204, 410")
    assert hook.look_up("0012345").outcome == "not_found"
    with pytest.raises(CardNotAnswered, match="404"):
        hook.look_up("0012345")


def test_a_code_in_the_body_can_mean_not_found_whatever_the_status(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(400, {"error": {"code": 55012}}), Reply(200, {"error": {"code": "55012"}}), Reply(400, {}))
    hook = loyalty(not_found_body_path="error.code", not_found_body_value="55012")
    assert hook.look_up("0012345").outcome == "not_found"
    assert hook.look_up("0012345").outcome == "not_found"
    with pytest.raises(CardNotAnswered, match="not-found rule"):
        hook.look_up("0012345")


@pytest.mark.parametrize(
    ("status", "field", "error"),
    [
        (400, "url_template", CardNotAnswered),
        (402, "url_template", CardNotAnswered),
        (302, "url_template", CardNotAnswered),
        (401, "password", ConfigurationError),
        (403, "password", ConfigurationError),
    ],
)
def test_another_status_is_asked_once_and_marks_no_card_unknown(
    wire: Wire, loyalty: Any, status: int, field: str, error: type[Exception]
) -> None:
    wire.on(CARD, Reply(status))
    with pytest.raises(error, match=f"'test_loyalty': its field '{field}'"):
        loyalty().look_up("0012345")
    assert len(wire.seen) == 1


FAULTS = [Reply(status) for status in (408, 425, 429, 500, 502, 503, 504)] + [
    HANG_UP,
    RESET,
    STALL,
    STALLED_BODY,
    Reply(200, b"<html>"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_look_up_is_tried_again_whatever_happened_to_it(wire: Wire, loyalty: Any, fault: Any) -> None:
    wire.on(CARD, fault, Reply(200, ANN))
    assert loyalty(hook={"read_timeout": patience(fault)}).look_up("0012345").outcome == "matched"
    assert len(wire.seen) == 2


@pytest.mark.parametrize("fault", [Reply(500), Reply(200, b"<html>")], ids=str)
def test_a_provider_that_stays_away_is_unavailable(wire: Wire, loyalty: Any, fault: Any) -> None:
    wire.on(CARD, fault)
    with pytest.raises(ServiceUnavailable, match=r"in 3 attempt\(s\)"):
        loyalty().look_up("0012345")
    assert len(wire.seen) == 3


@pytest.mark.parametrize(
    ("extra", "header", "value"),
    [
        (
            {"key_header": "Authorization", "key_prefix": "ManagementKey-v1"},
            "Authorization",
            f"ManagementKey-v1 {LOYALTY_KEY}",
        ),
        ({"key_header": "X-App-Token", "login_header": "X-App-Id", "login": "app"}, "X-App-Id", "app"),
        ({"auth": "bearer"}, "Authorization", f"Bearer {LOYALTY_KEY}"),
        (
            {"auth": "basic", "login": "me"},
            "Authorization",
            "Basic " + base64.b64encode(f"me:{LOYALTY_KEY}".encode()).decode(),
        ),
    ],
)
def test_the_key_travels_in_a_header(wire: Wire, loyalty: Any, extra: dict[str, str], header: str, value: str) -> None:
    wire.on(CARD, Reply(200, ANN))
    loyalty(**extra).look_up("0012345")
    assert wire.seen[0].headers[header] == value


def test_the_key_travels_in_the_query(wire: Wire, loyalty: Any) -> None:
    wire.on("/find", Reply(200, {**ANN, "loyaltyCardNumber": "1+2"}))
    loyalty(auth="query", key_parameter="apiKey", url_template="/find?card={card}").look_up("1+2")
    assert wire.seen[0].query == {"card": ["1+2"], "apiKey": [LOYALTY_KEY]}


def test_no_key_at_all_is_possible(wire: Wire, loyalty: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wire.on(CARD, Reply(200, ANN))
    assert loyalty(auth="none").look_up("0012345").outcome == "matched"
    assert not {"X-Api-Key", "Authorization"} & wire.seen[0].headers.keys()


class TestClientCredentials:
    def hook(self, wire: Wire, loyalty: Any, **extra: Any) -> Any:
        return loyalty(auth="oauth2", login="client", token_url=f"{wire.url}/oauth/token", **extra)

    @pytest.fixture(autouse=True)
    def _customer(self, wire: Wire) -> None:
        wire.on(
            CARD, lambda seen: Reply(200, ANN) if seen.headers.get("Authorization") == "Bearer fresh" else Reply(401)
        )

    def test_a_token_is_fetched_once_and_sent(self, wire: Wire, loyalty: Any) -> None:
        wire.on("/oauth/token", Reply(200, {"access_token": "fresh", "token_type": "Bearer", "expires_in": 3600}))
        hook = self.hook(wire, loyalty, oauth_scope="read cards")
        assert [hook.look_up("0012345").outcome for _ in range(3)] == ["matched"] * 3
        (asked,) = wire.to("/oauth/token")
        assert asked.headers["Authorization"] == "Basic " + base64.b64encode(f"client:{LOYALTY_KEY}".encode()).decode()
        assert asked.body == b"grant_type=client_credentials&scope=read+cards"

    def test_threads_share_one_token(self, wire: Wire, loyalty: Any) -> None:
        wire.on("/oauth/token", Reply(200, {"access_token": "fresh", "token_type": "Bearer"}))
        hook = self.hook(wire, loyalty)
        with ThreadPoolExecutor(8) as pool:
            assert {each.outcome for each in pool.map(hook.look_up, ["0012345"] * 24)} == {"matched"}
        assert len(wire.to("/oauth/token")) == 1

    def test_an_expired_token_is_renewed(self, wire: Wire, loyalty: Any) -> None:
        wire.on("/oauth/token", Reply(200, {"access_token": "fresh", "token_type": "Bearer", "expires_in": -1}))
        hook = self.hook(wire, loyalty)
        hook.look_up("0012345")
        before = len(wire.to("/oauth/token"))
        hook.look_up("0012345")
        assert len(wire.to("/oauth/token")) > before

    def test_a_revoked_token_is_renewed_once(self, wire: Wire, loyalty: Any) -> None:
        stale, fresh = ({"access_token": each, "token_type": "Bearer"} for each in ("stale", "fresh"))
        wire.on("/oauth/token", Reply(200, stale), Reply(200, fresh))
        assert self.hook(wire, loyalty).look_up("0012345").outcome == "matched"

    def test_a_token_that_stays_refused_is_a_wrong_key(self, wire: Wire, loyalty: Any) -> None:
        wire.on("/oauth/token", Reply(200, {"access_token": "stale", "token_type": "Bearer"}))
        with pytest.raises(ConfigurationError, match="'password' was refused by the loyalty API"):
            self.hook(wire, loyalty).look_up("0012345")
        assert len(wire.to(CARD)) == 2

    def test_other_scopes_than_asked_for_are_no_error(self, wire: Wire, loyalty: Any) -> None:
        token = {"access_token": "fresh", "token_type": "Bearer", "scope": "read"}
        wire.on("/oauth/token", Reply(200, token))
        assert self.hook(wire, loyalty, oauth_scope="read write").look_up("0012345").outcome == "matched"

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(401, {"error": "invalid_client"}),
            Reply(400, {"error": "invalid_client"}),
            Reply(200, {"no": "token"}),
            Reply(200, []),
            Reply(302, headers={"Location": "/elsewhere"}),
        ],
        ids=str,
    )
    def test_a_refused_client_is_a_wrong_setting(self, wire: Wire, loyalty: Any, reply: Reply) -> None:
        wire.on("/oauth/token", reply)
        with pytest.raises(ConfigurationError, match="the token endpoint"):
            self.hook(wire, loyalty).look_up("0012345")
        assert {seen.path for seen in wire.seen} == {"/oauth/token"}

    @pytest.mark.parametrize("fault", [Reply(503), Reply(200, b"<html>"), HANG_UP], ids=str)
    def test_a_token_endpoint_is_tried_again_and_then_unavailable(self, wire: Wire, loyalty: Any, fault: Any) -> None:
        wire.on("/oauth/token", fault)
        with pytest.raises(ServiceUnavailable, match="the token endpoint"):
            self.hook(wire, loyalty).look_up("0012345")
        assert len(wire.seen) == 3


def test_threads_share_one_hook(wire: Wire, loyalty: Any) -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(200, {"email": f"{seen.path.rsplit('/', 1)[1]}@example.com"})

    cards = [f"{n:04}" for n in range(100)]
    for card in cards:
        wire.on(f"/customers/by-loyalty-card/{card}", answer)
    hook = loyalty()
    with ThreadPoolExecutor(16) as pool:
        assert [each.email for each in pool.map(hook.look_up, cards)] == [f"{card}@example.com" for card in cards]


def test_the_rate_limit_holds_over_threads_hooks_and_retries(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(503), Reply(200, ANN))
    hooks = [loyalty(rate_limit="20") for _ in range(2)]
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: hooks[n % 2].look_up("0012345"), range(10)))
    assert len(wire.seen) == 11
    assert 10 / 20 <= time.monotonic() - started < 3


def test_a_rate_below_one_a_second_is_possible(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(200, ANN))
    started = time.monotonic()
    hook = loyalty(rate_limit=0.8)
    hook.look_up("0012345")
    assert time.monotonic() - started < 1
    hook.look_up("0012345")
    assert 1.25 <= time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"url_template": "/customers"}, "url_template"),
        ({"url_template": "customers/{card}"}, "url_template"),
        ({"second_hop_template": "/customers"}, "second_hop_template"),
        ({"body_template": '{"card": {card}'}, "body_template"),
        ({"body_template": "card={card}"}, "body_template"),
        ({"email_path": "a.["}, "email_path"),
        ({"not_found_statuses": "404;410"}, "not_found_statuses"),
        ({"not_found_body_path": "code"}, "not_found_body_path"),
        ({"method": "DELETE"}, "method"),
        ({"auth": "digest"}, "auth"),
        ({"auth": "oauth2", "token_url": "https://login.example.com/token"}, "login"),
        ({"auth": "oauth2", "login": "client"}, "token_url"),
        ({"key_header": "X Key"}, "key_header"),
        ({"rate_limit": "fast"}, "rate_limit"),
        ({"rate_limit": 0}, "rate_limit"),
        ({"read_timeout": -1}, "read_timeout"),
        ({"ca_bundle": "/no/such/file.pem"}, "ca_bundle"),
    ],
)
def test_a_wrong_field_is_named_before_anything_is_asked(
    wire: Wire, loyalty: Any, extra: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"Connection 'test_loyalty': its field '{field}' "):
        loyalty(hook={"read_timeout": None}, **extra).look_up("0012345")
    assert wire.seen == []


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"auth": "digest"}, "its field 'auth' must be one of api_key, basic, bearer, none, oauth2, query."),
        ({"method": "DELETE"}, "its field 'method' must be one of GET, POST."),
        ({"rate_limit": "fast"}, "its field 'rate_limit' must be a number greater than 0."),
        ({"email_path": "a.["}, "its field 'email_path' must be a JMESPath expression, such as member.email."),
    ],
)
def test_a_wrong_field_is_one_sentence_that_says_what_it_may_be(
    loyalty: Any, extra: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        loyalty(**extra).get_conn()
    assert str(raised.value) == f"Connection 'test_loyalty': {sentence}"
    assert raised.value.__context__ is None


def test_the_connection_test_asks_for_a_card_that_cannot_exist(wire: Wire, loyalty: Any) -> None:
    wire.on(
        "/customers/by-loyalty-card/no-such-card-connection-test", Reply(404), Reply(200, ANN), Reply(401), Reply(503)
    )
    hook = loyalty()
    assert hook.test_connection()[0]
    for word in ("'url_template'", "'password'", "answered 503 in 1 attempt"):
        works, told = hook.test_connection()
        assert not works
        assert word in told
        assert "'test_loyalty'" not in told, "the id is one that Airflow made up for the test"
    assert len(wire.seen) == 4


def test_numbers_in_an_answer_are_exact_ids(wire: Wire, loyalty: Any) -> None:
    wire.on(CARD, Reply(200, b'{"id": 12345678901234567890}')).on("/customers/12345678901234567890", Reply(200, ANN))
    assert loyalty(second_hop_template="/customers/{id}").look_up("0012345").outcome == "matched"
