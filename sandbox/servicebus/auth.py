"""Shared access signatures (service-bus.md, point 3).

The token is `SharedAccessSignature sr=…&sig=…&se=…&skn=…`; `sig` is the HMAC-SHA256 over `sr`, a newline and `se`,
with `sr` still encoded as it stands.
"""

from __future__ import annotations

import base64
import hmac
import time
from urllib.parse import unquote, unquote_plus, urlsplit

DEFAULT_KEY_NAME = "RootManageSharedAccessKey"
DEFAULT_KEY = "SAS_KEY_VALUE"


class SharedKey:
    """The one key of the namespace."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key

    def check(self, token: str) -> str | None:
        """The path a valid token is for, lower case and without slashes around it; None for any other token."""
        prefix, _, rest = token.partition(" ")
        parts = dict(each.partition("=")[::2] for each in rest.split("&"))
        if prefix != "SharedAccessSignature" or not {"sr", "sig", "se", "skn"} <= parts.keys():
            return None
        signed = hmac.digest(self.key.encode(), f"{parts['sr']}\n{parts['se']}".encode(), "sha256")
        expected = base64.b64encode(signed).decode()
        given = unquote(parts["sig"])
        if not hmac.compare_digest(expected.encode(), given.encode()) or unquote_plus(parts["skn"]) != self.name:
            return None
        if not parts["se"].isdigit() or int(parts["se"]) <= time.time():
            return None
        return urlsplit(unquote_plus(parts["sr"])).path.strip("/").lower()


class Permits:
    """What one connection may open, after the tokens it has put."""

    def __init__(self) -> None:
        self._paths: set[str] = set()

    def grant(self, path: str) -> None:
        self._paths.add(path)

    def allows(self, address: str) -> bool:
        """Whether a granted path is the address or above it."""
        wanted = address.lower()
        return any(not path or wanted == path or wanted.startswith(path + "/") for path in self._paths)
