"""OAuth2 client credentials (RFC 6749, 4.4): oauthlib speaks the protocol, `instore_provider.http` makes the call."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Lock
from typing import Any

import requests
from airflow.sdk.log import mask_secret
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error  # type: ignore[import-untyped]
from requests.auth import AuthBase

from instore_provider.http import RetryBounds, Service

_FORM = "application/x-www-form-urlencoded"
_DEFAULT_LIFETIME = 3600.0
_RENEW_BEFORE_EXPIRY = 30.0


class ClientCredentials(AuthBase):
    """
    Sends a bearer token, fetched when there is none and renewed before it expires. Threads may share it.

    :param service: the token endpoint, with client id and secret as HTTP Basic, which every server must support
        (RFC 6749, 2.3.1).
    :param scope: space-separated scopes, or "".
    :param bounds: how long the endpoint is tried.
    """

    def __init__(self, service: Service, *, client_id: str, scope: str, bounds: RetryBounds) -> None:
        self._service = service
        self._client = BackendApplicationClient(client_id, scope=scope.split() or None)
        self._bounds = bounds
        self._lock = Lock()
        self._token = ""
        self._renew_at = 0.0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token()}"
        return request

    def token(self) -> str:
        """
        Return a token that is still good.

        :raises ServiceUnavailable: the token endpoint cannot be asked now.
        :raises ConfigurationError: it refuses the client, or is none.
        """
        with self._lock:
            if not self._token or time.monotonic() >= self._renew_at:
                self._fetch()
            return self._token

    def forget(self, token: str) -> None:
        """Have the next call fetch a token, unless another thread has done so since `token` was refused."""
        with self._lock:
            if self._token == token:
                self._token = ""

    def _fetch(self) -> None:
        form = self._client.prepare_request_body(include_client_id=False)
        answer = self._service.read("POST", "", form.encode(), self._bounds, content_type=_FORM)
        self._service.check_door(answer.status)
        found: dict[str, Any] = {}
        try:
            found = self._client.parse_request_body_response(answer.body.decode("utf-8", "replace"))
        except Warning as granted_otherwise:
            # oauthlib's way to say that the server granted other scopes than were asked for.
            found = getattr(granted_otherwise, "token", {})
        except (OAuth2Error, ValueError, TypeError, AttributeError):
            pass  # an error or no token in the answer; raised below without its text
        token = found.get("access_token")
        if not token or not answer.taken:
            raise self._service.error(
                "login", f"or 'password' was refused by {self._service.name}, so put a valid client id and secret there"
            )
        self._token = str(token)
        mask_secret(self._token)
        lifetime = _DEFAULT_LIFETIME
        with suppress(TypeError, ValueError):
            lifetime = float(found["expires_in"]) if "expires_in" in found else lifetime
        self._renew_at = time.monotonic() + max(lifetime - _RENEW_BEFORE_EXPIRY, lifetime / 2)
