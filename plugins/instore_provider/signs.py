"""Signs in a loyalty member that nothing may be sent for this person, where the connection does not read them.

No two providers say it alike, and what a field means is the retailer's to declare. So nobody is suppressed by a sign:
her card stays without an answer until `status_path` reads the field or `ignored_signs` names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_OUT = re.compile(
    r"(?:is|has|was|gdpr|marked)*(?:optout|optedout|unsubscribed|donotcontact|donottrack|donotsell|erased|erasure|forgotten|"
    r"anonymi[sz]ed|pseudonymi[sz]ed|deleted|removed|closed|deceased|suppressed|withdrawn|blocked|restricted)"
    r"(?:for)?(?:all|gdpr|account|member|customer)?(?P<moment>at|on|date|time|timestamp)?"
)
_IN = re.compile(
    r"(?:is)?(?:active|enabled)|accepts.*|.*(?:consent|optin|optedin|permission|allowed)(?:s|given|granted)?"
)
_STATUS = re.compile(r".*(?:status|state)")
_GONE = (
    "deleted", "erased", "anonymized", "anonymised", "forgotten", "optedout", "unsubscribed", "deceased", "closed",
    "inactive", "blocked", "suspended", "terminated", "cancelled", "canceled", "merged", "withdrawn",
)  # fmt: skip
_YES, _NO = ("true", "yes", "y", "1"), ("false", "no", "n", "0", "denied", "withdrawn", "revoked")
_DEPTH = 4


def unread_sign(member: Mapping[str, Any], *, read: str, ignored: frozenset[str]) -> str | None:
    """
    The path of a field that says that this person is out, or None.

    :param read: JMESPath of the status; what it names is read.
    :param ignored: names of fields, in lower case, that say nothing about it.
    """
    known = {each.casefold() for each in re.findall(r"[\w-]+", read)} | ignored
    return next(
        (path for path in _signs(member, (), consents=False) if not known & set(path.casefold().split("."))), None
    )


def _signs(member: Mapping[str, Any], above: tuple[str, ...], *, consents: bool) -> Iterator[str]:
    for name, value in member.items():
        plain = re.sub(r"[\W_]", "", name.casefold())
        path = (*above, name)
        if isinstance(value, Mapping | list):
            several = value if isinstance(value, list) else [value]
            for each in several if len(path) < _DEPTH else ():
                if isinstance(each, Mapping):
                    yield from _signs(each, path, consents=consents or _IN.fullmatch(plain) is not None)
        elif value is not None and _says_out(plain, str(value).strip().casefold(), consents):
            yield ".".join(path)


def _says_out(name: str, value: str, consents: bool) -> bool:
    if found := _OUT.fullmatch(name):
        return value in _YES or (bool(found["moment"]) and value not in ("", *_NO))
    if consents or _IN.fullmatch(name):
        return value in _NO
    return _STATUS.fullmatch(name) is not None and re.sub(r"[\W_]", "", value) in _GONE
