"""The loyalty API keeps the default contract and its variants (contracts.md, section 4)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import requests

from sandbox.loyalty import LoyaltyKeys, LoyaltyStandIn, read_members
from sandbox.week import MEMBERS as WEEK_MEMBERS

from .conftest import MEMBERS, Service, serve_loyalty


@pytest.fixture(scope="module")
def loyalty() -> Iterator[Service]:
    """One for all: nothing here changes it."""
    with serve_loyalty() as service:
        yield service


def test_a_known_card_answers_with_the_customer(loyalty: Service) -> None:
    answer = loyalty.get("/customers/by-loyalty-card/0012")
    assert answer.status_code == 200
    assert answer.json() == {
        "loyaltyCardNumber": "0012",
        "email": "ann@example.com",
        "firstName": "Ann",
        "lastName": "Example",
        "status": "active",
    }


def test_an_unknown_card_is_404_and_leading_zeros_count(loyalty: Service) -> None:
    assert loyalty.get("/customers/by-loyalty-card/12").status_code == 404


def test_a_member_without_email_has_null_and_the_status_is_told(loyalty: Service) -> None:
    customer = loyalty.get("/customers/by-loyalty-card/77").json()
    assert (customer["email"], customer["status"]) == (None, "inactive")


def test_two_members_on_one_card_are_both_returned(loyalty: Service) -> None:
    answer = loyalty.get("/customers/by-loyalty-card/88")
    assert answer.status_code == 200
    assert [customer["firstName"] for customer in answer.json()] == ["Cy", "Di"]


def test_a_card_is_percent_decoded(loyalty: Service) -> None:
    assert loyalty.get("/customers/by-loyalty-card/" + quote("9/9 a", safe="")).json()["firstName"] == "Ed"


@pytest.mark.parametrize("headers", [{}, {"X-Api-Key": "wrong"}, {"Authorization": "Bearer wrong"}])
@pytest.mark.parametrize("path", ["/customers/by-loyalty-card/0012", "/customers?membership_id=0012", "/customers/C1"])
def test_without_the_right_key_every_path_is_401(loyalty: Service, path: str, headers: dict[str, str]) -> None:
    assert requests.get(loyalty.url + path, headers=headers, timeout=5).status_code == 401


def test_two_hops_lead_to_the_same_customer(loyalty: Service) -> None:
    found = loyalty.get("/customers", params={"membership_id": "0012"}).json()
    assert found == [{"id": "C1"}]
    assert loyalty.get(f"/customers/{found[0]['id']}").json()["email"] == "ann@example.com"


def test_two_hops_end_at_an_empty_list_for_an_unknown_card(loyalty: Service) -> None:
    answer = loyalty.get("/customers", params={"membership_id": "nobody"})
    assert (answer.status_code, answer.json()) == (200, [])
    assert loyalty.get("/customers/nobody").status_code == 404


@pytest.mark.parametrize("in_header", [True, False])
def test_a_token_from_client_credentials_opens_the_door(loyalty: Service, in_header: bool) -> None:
    form = {"grant_type": "client_credentials"}
    headers = {}
    if in_header:
        headers["Authorization"] = "Basic " + base64.b64encode(b"client:client-secret").decode()
    else:
        form.update(client_id="client", client_secret="client-secret")
    answer = requests.post(loyalty.url + "/oauth/token", data=form, headers=headers, timeout=5)
    token = answer.json()
    assert (answer.status_code, token["token_type"], token["expires_in"]) == (200, "Bearer", 3600)
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    answer = requests.get(loyalty.url + "/customers/by-loyalty-card/0012", headers=bearer, timeout=5)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "client_credentials", "client_id": "client", "client_secret": "no"}, 401, "invalid_client"),
    ],
)
def test_a_bad_token_request_says_why(loyalty: Service, form: dict[str, str], status: int, error: str) -> None:
    answer = requests.post(loyalty.url + "/oauth/token", data=form, timeout=5)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_a_token_expires() -> None:
    keys = LoyaltyKeys("key", "client", "client-secret", token_seconds=0)
    with LoyaltyStandIn(MEMBERS, keys) as stand_in:
        form = {"grant_type": "client_credentials", "client_id": "client", "client_secret": "client-secret"}
        token = requests.post(stand_in.url + "/oauth/token", data=form, timeout=5).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        answer = requests.get(stand_in.url + "/customers/by-loyalty-card/0012", headers=bearer, timeout=5)
        assert answer.status_code == 401


def test_calls_are_counted_by_template_and_status_and_never_name_a_card() -> None:
    with serve_loyalty() as loyalty:
        for card in ("0012", "0012", "12"):
            loyalty.get(f"/customers/by-loyalty-card/{card}")
        loyalty.get("/elsewhere/0012")
        state = loyalty.state()
    assert state == {
        "members": 5,
        "cards": 4,
        "cards_asked": 2,
        "calls": {
            "GET (unknown path)": {"404": 1},
            "GET /customers/by-loyalty-card/{card}": {"200": 2, "404": 1},
        },
    }


def test_the_week_has_its_members() -> None:
    members = read_members(WEEK_MEMBERS)
    assert len(members) == 2344
    assert sum(member.status == "inactive" for member in members) == 14
