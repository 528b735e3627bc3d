"""
The customer behind a loyalty card.

No two loyalty providers ask alike, so nothing of a provider is coded: where the card goes, where the email is found,
what "not found" looks like and how keys travel are fields of the connection (contracts.md section 4 lists seven
providers). The default fields speak `GET /customers/by-loyalty-card/{card}` with `X-Api-Key`. There is no bulk
look-up: providers that have one agree on neither request nor answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import simplejson
from requests.auth import HTTPBasicAuth

from instore_provider.auth import HeaderAuth, NoAuth, QueryAuth
from instore_provider.connections import LoyaltyFields
from instore_provider.errors import (
    CardNotAnswered,
    ProviderError,
    ServiceUnavailable,
    said_of_this_connection,
)
from instore_provider.hooks.base import ServiceHook
from instore_provider.http import KEY_REFUSED, Answer, RetryBounds, Service
from instore_provider.oauth import ClientCredentials
from instore_provider.rate_limit import TakeTurn, rate_limit_of
from instore_provider.signs import unread_sign
from instore_provider.taken import by_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests
    from requests.auth import AuthBase

__all__ = ["LookUpOutcome", "LoyaltyAnswer", "LoyaltyHook", "plain_card"]

LookUpOutcome = Literal["matched", "not_found", "inactive", "no_email", "ambiguous", "suppressed"]

_IMPOSSIBLE_CARD = "no-such-card-connection-test"
_FAILURES = frozenset({"error", "fail", "failed", "failure"})
_TOTALS = ("total", "totalcount", "totalresults", "totalelements", "totalitems", "count")
_MORE = ("hasmore", "next", "nextpage", "nextpagetoken", "nextcursor", "nextlink", "nexturl")


@dataclass(frozen=True)
class LoyaltyAnswer:
    """
    What a loyalty provider knows about a card.

    :param outcome: `matched`; `not_found`; `inactive`, by its status; `no_email`; `ambiguous`, several members share
        the card; `suppressed`, erased or opted out.
    :param email: of a matched card, or of a suppressed one whose answer has it; never shown by repr.
    """

    outcome: LookUpOutcome
    email: str | None = field(default=None, repr=False)


def plain_card(card: object) -> str:
    """Return a card without blanks and dashes, as cards are compared unless the caller has its own rules."""
    return "".join(str(card).split()).replace("-", "")


class LoyaltyHook(ServiceHook[LoyaltyFields, tuple[Service, LoyaltyFields]]):
    """
    Look up the customer behind a loyalty card. One hook may be used by several threads at once.

    The fields of its connection are `instore_provider.connections.LoyaltyFields`.

    :param loyalty_conn_id: id of the connection.
    :param card_of: makes of a card the text by which two are the same; a ValueError says that it is no card.
    :param calling: how the provider is called, as `ServiceHook` takes it.
    """

    conn_name_attr = "loyalty_conn_id"
    default_conn_name = "loyalty_default"
    conn_type = "loyalty"
    hook_name = "Loyalty"
    fields = LoyaltyFields

    def __init__(
        self,
        loyalty_conn_id: str = default_conn_name,
        *,
        card_of: Callable[[Any], str | None] = plain_card,
        **calling: Any,
    ) -> None:
        super().__init__(loyalty_conn_id, **calling)
        self.loyalty_conn_id = loyalty_conn_id
        self._card_of = card_of

    def get_conn(self) -> requests.Session:
        """Return the session of the provider, with its credentials."""
        return self._load()[0].session

    def look_up(self, card: str) -> LoyaltyAnswer:
        """
        Ask the provider for the customer behind one card.

        :param card: as it should be asked for; it is percent-encoded into a URL, or escaped into a JSON body.
        :raises CardNotAnswered: what came is no answer about this card; ask for the others all the same.
        :raises ServiceUnavailable: otherwise, the provider cannot be asked now; this says nothing about the card.
        :raises ConfigurationError: the provider refuses the credentials, or a field is wrong. Stop.
        """
        return self._look_up(card, self._bounds)

    def test_connection(self) -> tuple[bool, str]:
        """Ask, once, for a card that cannot exist, and expect that it is not found; then for the card to test with."""
        once = RetryBounds(attempts=1)
        try:
            answer = self._look_up(_IMPOSSIBLE_CARD, once)
            test_card = self._load()[1].test_card
            tested = self._look_up(test_card, once) if test_card and answer.outcome == "not_found" else None
        except ProviderError as error:
            return False, said_of_this_connection(error, self.loyalty_conn_id)
        if answer.outcome != "not_found":
            return False, (
                f"The provider answered {answer.outcome!r} for a card that cannot exist, so check 'url_template', "
                "'members_path' and the not-found rule."
            )
        works = "The provider takes the key and does not find a card that cannot exist, as it should"
        if tested is None or tested.outcome == "matched":
            return True, f"{works}{', and finds the customer of the card to test with' if tested else ''}."
        fields = "'url_template', 'members_path'" if tested.outcome == "not_found" else "'email_path', 'status_path'"
        return False, (
            f"The provider answered {tested.outcome!r} for the card to test with, so check {fields}, or put the card "
            "of an active customer into 'test_card'."
        )

    def _look_up(self, card: str, bounds: RetryBounds) -> LoyaltyAnswer:
        service, rules = self._load()
        card = card.strip()
        if not card.strip("."):
            return LoyaltyAnswer("not_found")  # "." and ".." would ask for another path, "" for the list of everybody
        body = _filled_body(rules.body_template, card) if rules.body_template else None
        path = _filled_url(rules.url_template, "card", card)
        found = self._ask(service, rules, rules.asked_by, path, body, bounds)
        members, is_list = self._members(service, rules.members_path, found)
        if is_list and _has_more(found, len(members)):
            return LoyaltyAnswer("ambiguous")
        members, shown = self._with_card(service, rules, members, card, is_list=is_list)
        if rules.second_hop_template and len(members) == 1:
            member_id = rules.second_hop_id_path.search(members[0])
            if member_id is None or isinstance(member_id, (dict, list)) or not str(member_id).strip("."):
                raise _no_answer(service, "no_id", "second_hop_id_path", "finds no id in the provider's answer")
            path = _filled_url(rules.second_hop_template, "id", str(member_id))
            members, _ = self._members(service, None, self._ask(service, rules, "GET", path, None, bounds))
            members, shown_here = self._with_card(service, rules, members, card, is_list=False)
            shown = shown or shown_here
        if len(members) != 1:
            return LoyaltyAnswer("ambiguous" if members else "not_found")
        if rules.card_path is not None and not shown:
            raise _no_answer(service, "no_card", "card_path", "finds no card in the provider's answer")
        return self._read(service, rules, members[0])

    def _with_card(
        self, service: Service, rules: LoyaltyFields, members: list[Any], card: str, *, is_list: bool
    ) -> tuple[list[Any], bool]:
        """Return the members that have the card, or do not say which they have, and whether any says it."""
        cards = [_texts(rules.shown_card.search(member)) for member in members]
        mine = [
            m for m, has in zip(members, cards, strict=True) if not has or any(self._same(card, each) for each in has)
        ]
        if members and not mine and not is_list:
            what = "leads to a member with another card than the one asked for, by 'card_path'"
            raise _no_answer(service, "another_card", "url_template", what)
        return mine, any(cards)

    def _same(self, card: str, other: object) -> bool:
        if isinstance(other, int) and card.isdecimal():
            return int(card) == other  # a number has no leading zeros
        try:
            one, two = self._card_of(card), self._card_of(other)
        except ValueError:
            return False
        return one is not None and two is not None and one.casefold() == two.casefold()

    def _ask(
        self, service: Service, rules: LoyaltyFields, method: str, path: str, body: bytes | None, bounds: RetryBounds
    ) -> Any:
        """Return the JSON of an answer, or None when it says "not found"."""
        auth = service.session.auth
        token = auth.token() if isinstance(auth, ClientCredentials) else ""

        def not_found(answer: Answer) -> bool:
            said = answer.status in rules.not_found_statuses and _is_ours(answer)
            return said or _says_not_found(rules, answer)

        def read() -> Answer:
            try:
                return service.read(method, path, body, bounds, final=not_found)
            except ServiceUnavailable as error:
                if error.code == "circuit_open":
                    raise
                raise CardNotAnswered(
                    str(error), code=error.code, passing=True, retry_after=error.retry_after
                ) from None

        answer = read()
        if answer.status == 401 and isinstance(auth, ClientCredentials) and not not_found(answer):
            auth.forget(token)  # revoked before its time: once more, with a new one
            answer = read()
        if not_found(answer):
            return None
        if answer.status in KEY_REFUSED:
            service.check_door(answer.status)
        code = f"answered_{answer.status}"
        if answer.status in rules.not_found_statuses:
            raise _no_answer(
                service, f"{code}_not_json", "url_template", "leads to a page, not to an answer", passing=True
            )
        if not answer.taken:
            what = f"leads to an answer ({answer.status}) that is not this provider's not-found rule"
            raise _no_answer(service, code, "url_template", what)
        found = answer.json
        if found is None:
            raise _no_answer(service, "no_member", "url_template", "leads to null, which is not the not-found rule")
        if _tells_an_error(found):
            what = f"leads to an answer ({answer.status}) with an error in it"
            raise _no_answer(service, "error_in_answer", "url_template", what, passing=True)
        return found

    def _members(self, service: Service, members_path: Any, found: Any) -> tuple[list[Any], bool]:
        """Return the members in an answer, and whether it is a list: none when it says not found, one for an object."""
        if found is None:
            return [], False
        members = found if members_path is None else members_path.search(found)
        if isinstance(members, list):
            return [each for each in members if each is not None], True
        if isinstance(members, dict):
            return [members], False
        field = "members_path" if members_path is not None else "url_template"
        raise _no_answer(service, "unexpected_answer", field, "leads to neither a list nor an object in the answer")

    def _read(self, service: Service, rules: LoyaltyFields, member: Any) -> LoyaltyAnswer:
        if not any(_has(member, path) for path in (rules.email_path, rules.status_path, rules.shown_card) if path):
            raise _no_answer(service, "no_member", "email_path", "leads to nothing that looks like a member")
        status = rules.status_path.search(member) if rules.status_path else None
        if status is not None:  # a provider without a status has active members only
            word = str(status).strip().lower()
            if word in rules.suppressed_statuses:
                email = rules.email_path.search(member)
                return LoyaltyAnswer("suppressed", email.strip() if isinstance(email, str) else None)
            if word not in rules.active_statuses:
                return LoyaltyAnswer("inactive")
        email = rules.email_path.search(member)
        if email is not None and not isinstance(email, str):
            raise _no_answer(service, "unexpected_answer", "email_path", "leads to something other than a text")
        email = (email or "").strip()
        read = rules.status_path.expression if rules.status_path else ""
        if sign := unread_sign(member, read=read, ignored=rules.ignored_signs):
            what = f"does not read '{sign[:80]}', which may say that nothing may be sent for a member"
            raise _no_answer(service, "unread_sign", "status_path", f"{what}; 'ignored_signs' does not name it either")
        return LoyaltyAnswer("matched", email) if "@" in email else LoyaltyAnswer("no_email")

    def _loaded_from(self, fields: LoyaltyFields) -> tuple[Service, LoyaltyFields]:
        name = "the loyalty API"
        take_turn = rate_limit_of(self._conn_id, fields.host, fields.rate_limit, self.limiter)
        auth, breaker = self._auth_of(fields, take_turn), self._breaker_of(name)
        service = self._service(
            fields, name, fields.host, auth, take_turn, breaker=breaker, counts_questions=True, waits_out=True
        )
        return service, fields

    def _auth_of(self, fields: LoyaltyFields, take_turn: TakeTurn) -> AuthBase:
        key = fields.password
        if fields.auth == "none":
            return NoAuth()
        if fields.auth == "basic":
            return HTTPBasicAuth(fields.login, key)
        if fields.auth == "bearer":
            return HeaderAuth({"Authorization": f"Bearer {key}"})
        if fields.auth == "query":
            return QueryAuth(fields.key_parameter, key)
        if fields.auth == "oauth2":
            name, auth = "the token endpoint", HTTPBasicAuth(fields.login, key)
            endpoint = self._service(fields, name, fields.token_url, auth, take_turn, url_field="token_url", key=key)
            return ClientCredentials(endpoint, client_id=fields.login, scope=fields.oauth_scope, bounds=self._bounds)
        headers = {fields.key_header: f"{fields.key_prefix} {key}".strip()}
        if fields.login_header:
            headers[fields.login_header] = fields.login
        return HeaderAuth(headers)


def _says_not_found(rules: LoyaltyFields, answer: Answer) -> bool:
    """Whether the body says "not found" in the provider's own words, whatever the status (Leat: 400 with a code)."""
    if rules.not_found_body_path is None:
        return False
    try:
        value = rules.not_found_body_path.search(answer.json)
    except ValueError:
        return False
    return value is not None and str(value).strip().lower() == rules.not_found_body_value.lower()


def _no_answer(service: Service, code: str, field: str, what: str, *, passing: bool = False) -> CardNotAnswered:
    sentence = service.error(field, f"{what}, so check it; no card was marked unknown")
    return CardNotAnswered(str(sentence), code=code, passing=passing)


def _is_ours(answer: Answer) -> bool:
    """Whether an answer is one of an API: JSON or nothing, not a page or a text of something in between."""
    if not answer.body.strip():
        return answer.whole
    return answer.is_json


def _tells_an_error(found: Any) -> bool:
    """Whether an answer of status 200 says that there is none, or that it is not all of it."""
    if not isinstance(found, dict):
        return False
    named = by_name(found)
    if any(named.get(name) for name in ("error", "errors", "fault")):
        return True
    if any(str(named.get(name)).casefold() == "false" for name in ("success", "ok")):
        return True
    statuses = [named.get(name) for name in ("status", "statuscode")]
    return any(
        400 <= each <= 599 if isinstance(each, int) else str(each).strip().casefold() in _FAILURES for each in statuses
    )


def _has_more(found: Any, shown: int) -> bool:
    """Whether the page says that there are more results than it shows."""
    if not isinstance(found, dict):
        return False
    for part in (found, *(each for each in found.values() if isinstance(each, dict))):
        named = by_name(part)
        totals = [named.get(name) for name in _TOTALS]
        if any(isinstance(each, int) and each > shown for each in totals) or any(named.get(name) for name in _MORE):
            return True
    return False


def _texts(found: Any) -> list[Any]:
    """Return the cards at a path: one, several, or none where it does not lead to texts or numbers."""
    several = found if isinstance(found, list) else [found]
    return [each for each in several if each not in (None, "") and not isinstance(each, (dict, list, bool))]


def _has(member: Any, path: Any) -> bool:
    """Whether a member has what the path leads to, also where that is null."""
    if not isinstance(member, dict):
        return False
    return path.expression.partition(".")[0].strip() in member or path.search(member) is not None


def _filled_url(template: str, name: str, value: str) -> str:
    return template.replace(f"{{{name}}}", quote(value, safe=""))


def _filled_body(template: str, card: str) -> bytes:
    return template.replace("{card}", simplejson.dumps(card)[1:-1]).encode()
