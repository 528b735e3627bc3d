"""What may say that nothing may be sent for a person is read or named, never passed over."""

from __future__ import annotations

from typing import Any

import pytest
from instore_provider.hooks.loyalty import LoyaltyHook
from instore_provider.signs import unread_sign

from tests.provider.wire import Reply, Wire

MEMBER = {"email": "ann@example.com", "loyaltyCardNumber": "12345", "status": "active"}


def sign_in(*, read: str = "status", ignored: str = "", **fields: Any) -> str | None:
    return unread_sign({**MEMBER, **fields}, read=read, ignored=frozenset(filter(None, ignored.split(","))))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"optOut": True}, "optOut"),
        ({"opt_out": "Y"}, "opt_out"),
        ({"unsubscribed": 1}, "unsubscribed"),
        ({"gdprErased": True}, "gdprErased"),
        ({"is-deleted": "true"}, "is-deleted"),
        ({"deletedAt": "2026-01-01T00:00:00Z"}, "deletedAt"),
        ({"anonymisedOn": 1764547200}, "anonymisedOn"),
        ({"doNotContact": True}, "doNotContact"),
        ({"isActive": False}, "isActive"),
        ({"active": "N"}, "active"),
        ({"marketingConsent": "false"}, "marketingConsent"),
        ({"emailOptIn": 0}, "emailOptIn"),
        ({"consents": {"profiling": False}}, "consents.profiling"),
        ({"consents": [{"type": "profiling", "granted": False}]}, "consents.granted"),
        ({"accepts_marketing": False}, "accepts_marketing"),
        ({"privacy": {"optOut": True}}, "privacy.optOut"),
        ({"memberStatus": "Deleted"}, "memberStatus"),
        ({"state": "opted_out"}, "state"),
    ],
    ids=str,
)
def test_a_sign_is_found(fields: dict[str, Any], path: str) -> None:
    assert sign_in(**fields) == path
    last = path.split(".")[-1]
    assert sign_in(**fields, read=f"{path} && 'opted_out' || status" if "-" not in path else '"is-deleted"') is None
    assert sign_in(**fields, ignored=last.casefold()) is None


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"optOut": False}, {"optOut": None}, {"deletedAt": None}, {"deletedAt": ""}, {"isActive": True},
        {"isActive": None}, {"consents": {"profiling": True}}, {"consents": []},
        {"address": {"state": "CA"}}, {"maritalStatus": "single"},
        {"cardStatus": "gold"}, {"points": 0}, {"vip": False}, {"closedCaptions": True}, {"lastActive": "2026-01-01"},
    ],
    ids=str,
)  # fmt: skip
def test_what_says_nothing_is_no_sign(fields: dict[str, Any]) -> None:
    assert sign_in(**fields) is None


def test_a_member_with_a_sign_that_nothing_reads_is_not_sent_and_the_sentence_names_it(
    wire: Wire, loyalty: Any
) -> None:
    wire.on("/customers/by-loyalty-card/12345", Reply(200, {**MEMBER, "deletedAt": "2026-01-01"}))
    hook: LoyaltyHook = loyalty()
    with pytest.raises(Exception, match=r"'status_path' does not read 'deletedAt'.*'ignored_signs'"):
        hook.look_up("12345")
    read = loyalty(status_path="deletedAt && 'erased' || status")
    assert read.look_up("12345").outcome == "suppressed"
    assert loyalty(ignored_signs="deletedAt").look_up("12345").outcome == "matched"
