"""What is an answer about the card that was asked for, and what is none: HTML, errors in a 200, another's member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from instore_provider.errors import CardNotAnswered, ConfigurationError, ServiceUnavailable

from tests.provider.conftest import patience
from tests.provider.wire import HANG_UP, STALL, Reply, Wire

CARD = "/customers/by-loyalty-card/12345"
ANN = {"loyaltyCardNumber": "12345", "email": "ann@example.com", "status": "active"}
MAINTENANCE = b"<!doctype html><title>We will be back soon</title>"

Loyalty = Callable[..., Any]


def not_answered(hook: Any, card: str = "12345") -> CardNotAnswered:
    with pytest.raises(CardNotAnswered) as error:
        hook.look_up(card)
    assert card not in str(error.value)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize(
    ("reply", "code", "passing"),
    [
        (Reply(404, MAINTENANCE), "answered_404_not_json", True),
        (Reply(404, b"Not Found"), "answered_404_not_json", True),
        (Reply(200, MAINTENANCE), "answered_200_not_json", True),
        (Reply(200, b"OK"), "answered_200_not_json", True),
        (Reply(200, b""), "answered_200_not_json", True),
        (Reply(200, b'{"email": "ann@exam'), "answered_200_not_json", True),
        (Reply(200, {"success": False, "error": {"code": "RATE_LIMIT"}}), "error_in_answer", True),
        (Reply(200, {"Success": False}), "error_in_answer", True),
        (Reply(200, {"ok": False, "description": "later"}), "error_in_answer", True),
        (Reply(200, {"error": "too many requests"}), "error_in_answer", True),
        (Reply(200, {"errors": [{"message": "timeout"}], "data": None}), "error_in_answer", True),
        (Reply(200, {**ANN, "errors": [{"message": "partial"}]}), "error_in_answer", True),
        (Reply(200, {"status": "error", "message": "down"}), "error_in_answer", True),
        (Reply(200, {"status": 503, "message": "down"}), "error_in_answer", True),
        (Reply(200, {"statusCode": 500}), "error_in_answer", True),
        (Reply(200, {"fault": {"faultstring": "Spike arrest"}}), "error_in_answer", True),
        (Reply(200, {"code": "RATE_LIMIT", "message": "slow down"}), "no_member", False),
        (Reply(200, {}), "no_member", False),
        (Reply(200, b"null"), "no_member", False),
        (Reply(200, ["12345"]), "no_member", False),
        (Reply(200, "maintenance"), "unexpected_answer", False),
        (Reply(200, {**ANN, "email": {"home": "a@x.org"}}), "unexpected_answer", False),
        (Reply(200, {**ANN, "loyaltyCardNumber": "10012345"}), "another_card", False),
        (Reply(200, {"cardNumber": "10012345", "email": "bo@example.com"}), "another_card", False),
        (Reply(200, {**ANN, "optOut": True}), "unread_sign", False),
        (Reply(400, {"code": "INVALID_CARD_NUMBER"}), "answered_400", False),
        (Reply(422, {}), "answered_422", False),
        (Reply(402, {}), "answered_402", False),
        (Reply(301, headers={"Location": "/elsewhere"}), "answered_301", False),
        (Reply(500), "answered_500", True),
        (Reply(429), "answered_429", True),
        (HANG_UP, "no_answer", True),
        (STALL, "no_answer", True),
    ],
    ids=str,
)
def test_what_is_no_answer_about_the_card_is_told_by_its_code(
    wire: Wire, loyalty: Loyalty, reply: Any, code: str, passing: bool
) -> None:
    wire.on(CARD, reply)
    error = not_answered(loyalty(hook={"read_timeout": patience(reply), "max_attempts": 2}))
    assert (error.code, error.passing) == (code, passing)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_not_the_cards_fault(wire: Wire, loyalty: Loyalty, status: int) -> None:
    wire.on(CARD, Reply(status))
    with pytest.raises(ConfigurationError, match="'password' was refused"):
        loyalty().look_up("12345")


@pytest.mark.parametrize("body", [b"", b" ", {}, {"code": "customer_not_found"}, {"error": {"code": "no_such_card"}}])
def test_a_404_without_a_body_or_in_json_is_not_found(wire: Wire, loyalty: Loyalty, body: Any) -> None:
    wire.on(CARD, Reply(404, body))
    assert loyalty().look_up("12345").outcome == "not_found"


@pytest.mark.parametrize(
    "change",
    [{"error": None}, {"errors": []}, {"error": ""}, {"success": True}, {"ok": 1}, {"error": False}, {"code": 400}],
)
def test_an_answer_that_says_it_is_well_is_an_answer(wire: Wire, loyalty: Loyalty, change: dict[str, Any]) -> None:
    wire.on(CARD, Reply(200, {**ANN, **change}))
    assert loyalty().look_up("12345").outcome == "matched"


def test_the_not_found_rule_goes_before_an_error_in_the_answer(wire: Wire, loyalty: Loyalty) -> None:
    wire.on(CARD, Reply(200, {"success": False, "error": {"code": 55012}}))
    hook = loyalty(not_found_body_path="error.code", not_found_body_value="55012")
    assert hook.look_up("12345").outcome == "not_found"


@pytest.mark.parametrize(
    "member", [{"email": None}, {"email": "", "id": 7}, {"loyaltyCardNumber": "12345"}, {"status": "active"}]
)
def test_a_member_without_an_email_is_no_email(wire: Wire, loyalty: Loyalty, member: dict[str, Any]) -> None:
    wire.on(CARD, Reply(200, member))
    assert loyalty().look_up("12345").outcome == "no_email"


class TestASearch:
    """`/members?card=` of a provider that answers with every member whose card contains the text."""

    def hook(self, loyalty: Loyalty, **more: Any) -> Any:
        return loyalty(url_template="/members?card={card}", members_path="items", **more)

    @staticmethod
    def member(card: Any, **more: Any) -> dict[str, Any]:
        return {"loyaltyCardNumber": card, "email": f"m{card}@example.com", "status": "active", **more}

    @pytest.mark.parametrize(
        ("cards", "outcome"),
        [
            (["10012345"], "not_found"),
            (["10012345", "12345"], "matched"),
            (["10012345", "123456"], "not_found"),
            (["12345", "12345"], "ambiguous"),
            (["1-2345 "], "matched"),
            ([12345], "matched"),
            ([None], "matched"),
            ([], "not_found"),
        ],
    )
    def test_only_members_with_the_card_that_was_asked_for_count(
        self, wire: Wire, loyalty: Loyalty, cards: list[Any], outcome: str
    ) -> None:
        wire.on("/members", Reply(200, {"items": [self.member(card) for card in cards]}))
        assert self.hook(loyalty).look_up("12345").outcome == outcome

    @pytest.mark.parametrize(
        ("path", "member"),
        [
            ("cards[].number", {"cards": [{"number": "777"}, {"number": "12345"}], "email": "a@x.org"}),
            ("identity.value", {"identity": {"value": "12345"}, "email": "a@x.org"}),
        ],
    )
    def test_the_path_to_the_card_is_a_field(
        self, wire: Wire, loyalty: Loyalty, path: str, member: dict[str, Any]
    ) -> None:
        other = {"cards": [{"number": "99"}], "identity": {"value": "99"}, "email": "b@x.org"}
        wire.on("/members", Reply(200, {"items": [other, member]}))
        assert self.hook(loyalty, card_path=path).look_up("12345").email == "a@x.org"

    def test_a_path_that_finds_no_card_is_no_answer(self, wire: Wire, loyalty: Loyalty) -> None:
        wire.on("/members", Reply(200, {"items": [self.member("12345")]}))
        error = not_answered(self.hook(loyalty, card_path="no.such"))
        assert error.code == "no_card"
        assert "'card_path'" in str(error)

    def test_cards_are_compared_as_the_caller_reads_them(self, wire: Wire, loyalty: Loyalty) -> None:
        wire.on("/members", Reply(200, {"items": [self.member("12345"), self.member("99")]}))
        hook = self.hook(loyalty, hook={"card_of": lambda card: str(card).zfill(8)})
        assert hook.look_up("00012345").outcome == "matched"

    def test_a_card_that_cannot_be_read_is_another_one(self, wire: Wire, loyalty: Loyalty) -> None:
        def refuse(card: Any) -> str | None:
            if card != "12345":
                raise ValueError(card)
            return "12345"

        wire.on("/members", Reply(200, {"items": [self.member("6.0E+15"), self.member("12345")]}))
        assert self.hook(loyalty, hook={"card_of": refuse}).look_up("12345").outcome == "matched"

    @pytest.mark.parametrize(
        "page",
        [
            {"total": 2},
            {"totalCount": 2},
            {"total_results": 30},
            {"meta": {"total": 2}},
            {"hasMore": True},
            {"has_more": True},
            {"next": "/members?page=2"},
            {"links": {"next": "/members?page=2"}},
            {"paging": {"nextPageToken": "x"}},
        ],
    )
    @pytest.mark.parametrize("card", ["12345", "10012345"])
    def test_a_page_with_more_behind_it_is_ambiguous(
        self, wire: Wire, loyalty: Loyalty, page: dict[str, Any], card: str
    ) -> None:
        wire.on("/members", Reply(200, {"items": [self.member(card)], **page}))
        assert self.hook(loyalty).look_up("12345").outcome == "ambiguous"

    @pytest.mark.parametrize("page", [{"total": 1}, {"count": 1, "next": None}, {"has_more": False}, {"links": {}}])
    def test_a_page_that_is_whole_is_an_answer(self, wire: Wire, loyalty: Loyalty, page: dict[str, Any]) -> None:
        wire.on("/members", Reply(200, {"items": [self.member("12345")], **page}))
        assert self.hook(loyalty).look_up("12345").outcome == "matched"

    def test_the_card_may_be_found_at_the_second_hop_alone(self, wire: Wire, loyalty: Loyalty) -> None:
        wire.on("/members", Reply(200, {"items": [{"id": 7}]})).on("/customers/7", Reply(200, self.member("10012345")))
        hook = self.hook(loyalty, second_hop_template="/customers/{id}")
        assert not_answered(hook).code == "another_card"


class TestTheTestButton:
    NOBODY = "/customers/by-loyalty-card/no-such-card-connection-test"

    @pytest.mark.parametrize(
        ("reply", "works", "told"),
        [
            (Reply(200, ANN), True, "finds the customer of the card to test with"),
            (Reply(404), False, "'not_found' for the card to test with, so check 'url_template'"),
            (Reply(200, {**ANN, "email": None}), False, "'email_path'"),
            (Reply(200, {**ANN, "status": "gold"}), False, "'inactive'"),
            (Reply(200, {**ANN, "loyaltyCardNumber": "9"}), False, "'card_path'"),
            (Reply(400), False, "(400)"),
        ],
        ids=str,
    )
    def test_a_card_to_test_with_tells_a_wrong_path_from_an_unknown_card(
        self, wire: Wire, loyalty: Loyalty, reply: Reply, works: bool, told: str
    ) -> None:
        wire.on(self.NOBODY, Reply(404)).on(CARD, reply)
        result, sentence = loyalty(test_card="12345").test_connection()
        assert (result, told in sentence) == (works, True), sentence
        assert "12345" not in sentence


def test_a_card_that_fails_alone_does_not_open_the_breaker(wire: Wire, loyalty: Loyalty) -> None:
    from instore_provider.breaker import Breaker

    wire.on(CARD, Reply(500)).on("/customers/by-loyalty-card/2", Reply(200, {"email": "bo@example.com"}))
    hook = loyalty(hook={"breaker": lambda _: Breaker(failures=3, seconds=60), "max_attempts": 5})
    for _ in range(2):
        assert not_answered(hook).code == "answered_500"
    assert hook.look_up("2").outcome == "matched"
    assert len(wire.to(CARD)) == 10


def test_cards_that_fail_one_after_the_other_open_the_breaker_and_that_is_no_cards_fault(
    wire: Wire, loyalty: Loyalty
) -> None:
    from instore_provider.breaker import Breaker

    wire.on(CARD, Reply(500))
    hook = loyalty(hook={"breaker": lambda _: Breaker(failures=3, seconds=0.5), "max_attempts": 2})
    codes = [not_answered(hook).code for _ in range(2)]
    with pytest.raises(ServiceUnavailable) as error:
        hook.look_up("12345")
    assert codes == ["answered_500"] * 2
    assert not isinstance(error.value, CardNotAnswered)
