"""The loyalty provider's API: who is behind a loyalty card (contracts.md, section 4, default contract and variants).

    GET  /customers/by-loyalty-card/{card}   the default contract: 200 one customer, 404 unknown
    GET  /customers?membership_id={card}     two hops, first: a list of {"id"}, empty when unknown
    GET  /customers/{id}                     two hops, second: the customer
    GET  /members?card={text}                a sloppy search: {"items": every member whose card contains the text}
    POST /oauth/token                        OAuth2 client credentials: a Bearer token instead of the key

Two members with one card are both returned, as a list: to the caller the card is ambiguous.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hmac
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Scope

from .control import with_sandbox_controls
from .faults import Faults, FaultSettings
from .serving import StandIn

BY_CARD = "/customers/by-loyalty-card/{card:path}"
BY_ID = "/customers/{id}"
SEARCH = "/customers"
MEMBERS = "/members"
TOKEN = "/oauth/token"  # noqa: S105 - a path


@dataclass(frozen=True)
class Member:
    """One member of the loyalty programme. `status` is active or inactive; `email` may be empty."""

    id: str
    card: str
    email: str
    first_name: str
    last_name: str
    status: str

    def as_json(self) -> dict[str, str | None]:
        """Return the member as the default contract shows it. No email is null, as a JSON API would have it."""
        return {
            "loyaltyCardNumber": self.card,
            "email": self.email or None,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "status": self.status,
        }


def read_members(path: Path) -> list[Member]:
    """Return the members of a members.csv (loyaltyCardNumber, email, firstName, lastName, status)."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Member(
                f"C{number:06d}",
                *(row[name] for name in ("loyaltyCardNumber", "email", "firstName", "lastName", "status")),
            )
            for number, row in enumerate(csv.DictReader(file), start=1)
        ]


class OrderedMember(BaseModel):
    """A member that a test orders, by the card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: str = ""
    status: str = "active"


class LoyaltyFaults(FaultSettings):
    """The loyalty API's knobs: those of every stand-in, and who is a member.

    members: members by card, before those of the file.
    anybody: email of whoever has a card that no member has, such as "m{card}@example.com"; empty: 404.
    """

    members: dict[str, OrderedMember] = Field(default={})
    anybody: str = ""


@dataclass(frozen=True)
class LoyaltyKeys:
    """What callers must show: the API key, or the OAuth2 client. `token_seconds` is how long a token is good."""

    api_key: str
    client_id: str
    client_secret: str
    token_seconds: float = 3600


class _Gate:
    """Tells whether a request may come in. Tokens live in memory: after a restart the caller must ask for a new one."""

    def __init__(self, keys: LoyaltyKeys) -> None:
        self._keys = keys
        self._api_key = keys.api_key.encode()
        self._tokens: dict[str, float] = {}

    def admits(self, request: Request) -> bool:
        headers = request.headers
        key = headers.get("x-api-key")
        if key is not None:
            return hmac.compare_digest(key.encode("latin-1"), self._api_key)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._tokens.get(token, 0.0) > time.monotonic()

    def knows_client(self, client_id: str, client_secret: str) -> bool:
        return hmac.compare_digest(client_id.encode(), self._keys.client_id.encode()) and hmac.compare_digest(
            client_secret.encode(), self._keys.client_secret.encode()
        )

    def new_token(self) -> str:
        token = secrets.token_urlsafe(24)
        self._tokens[token] = time.monotonic() + self._keys.token_seconds
        return token


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, status_code=status)


def _basic_credentials(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, client_secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return client_id, client_secret


def loyalty_app(members: Iterable[Member], keys: LoyaltyKeys, faults: LoyaltyFaults | None = None) -> ASGIApp:
    """Return the loyalty API over these members."""
    by_card: dict[str, list[Member]] = {}
    by_id: dict[str, Member] = {}
    for member in members:
        by_card.setdefault(member.card, []).append(member)
        by_id[member.id] = member
    gate = _Gate(keys)
    asked: set[str] = set()
    trouble = Faults(faults or LoyaltyFaults())
    service = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def ordered(card: str) -> list[Member]:
        settings = trouble.settings
        if not isinstance(settings, LoyaltyFaults):  # a test gave the knobs of every stand-in
            return []
        member = settings.members.get(card)
        if member is None and (not settings.anybody or card in by_card):
            return []
        email = member.email if member else settings.anybody.replace("{card}", card)
        return [Member(f"O{card}", card, email, "Ordered", "Member", member.status if member else "active")]

    def denied(request: Request, card: str | None = None) -> Response | None:
        if not gate.admits(request):
            return _error(401, "unauthorized", "The API key or token is not valid.")
        if card is not None:
            asked.add(card)
            if trouble.refuses((card,)):
                return _error(400, "bad_request", "The request is not valid.")
        return None

    @service.get(BY_CARD)
    async def by_loyalty_card(request: Request, card: str) -> Response:
        if denial := denied(request, card):
            return denial
        found = ordered(card) or by_card.get(card)
        if not found:
            return _error(404, "customer_not_found", "No customer has this loyalty card.")
        return JSONResponse(found[0].as_json() if len(found) == 1 else [member.as_json() for member in found])

    @service.get(SEARCH)
    async def search(request: Request) -> Response:
        card = request.query_params.get("membership_id")
        if denial := denied(request, card):
            return denial
        if card is None:
            return _error(400, "bad_request", "The query needs membership_id.")
        return JSONResponse([{"id": member.id} for member in by_card.get(card, ())])

    @service.get(MEMBERS)
    async def search_by_contains(request: Request, card: str = "") -> Response:
        if denial := denied(request, card):
            return denial
        settings = trouble.settings
        known = {*by_card, *(settings.members if isinstance(settings, LoyaltyFaults) else ())}
        cards = sorted(each for each in known if card in each)
        found = [member for each in cards for member in ordered(each) or by_card[each]]
        return JSONResponse({"items": [member.as_json() for member in found]})

    @service.get(BY_ID)
    async def by_customer_id(request: Request, id: str) -> Response:
        if denial := denied(request):
            return denial
        member = by_id.get(id)
        if member is None:
            return _error(404, "customer_not_found", "No customer has this id.")
        return JSONResponse({"id": member.id, **member.as_json()})

    @service.post(TOKEN)
    async def token(request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()}
        if form.get("grant_type") != "client_credentials":
            return JSONResponse({"error": "unsupported_grant_type"}, status_code=400)
        credentials = _basic_credentials(request.headers.get("authorization", ""))
        if credentials is None:
            credentials = form.get("client_id", ""), form.get("client_secret", "")
        if not gate.knows_client(*credentials):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        return JSONResponse(
            {"access_token": gate.new_token(), "token_type": "Bearer", "expires_in": int(keys.token_seconds)},
            headers={"Cache-Control": "no-store"},
        )

    return with_sandbox_controls(
        service,
        faults=trouble,
        templates=(BY_CARD, SEARCH, BY_ID, MEMBERS, TOKEN),
        subjects=_card_of,
        state=lambda: {"members": len(by_id), "cards": len(by_card), "cards_asked": len(asked)},
    )


def _card_of(scope: Scope, _body: bytes) -> Sequence[str]:
    front, found, card = scope["path"].partition("/by-loyalty-card/")
    if found and front == SEARCH:
        return (card,)
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return [card for name in ("membership_id", "card") for card in query.get(name, ())]


class LoyaltyStandIn(StandIn):
    """The loyalty API in a thread of this process, for tests.

    members: a members.csv, or the members themselves. port: 0 picks a free one.
    """

    def __init__(
        self,
        members: Path | Iterable[Member],
        keys: LoyaltyKeys,
        port: int = 0,
        faults: LoyaltyFaults | None = None,
    ) -> None:
        known = read_members(members) if isinstance(members, Path) else members
        super().__init__(loyalty_app(known, keys, faults), port)
