"""Credentials on a request, one tiny class each; HTTP Basic is the one of requests."""

from __future__ import annotations

from collections.abc import Mapping

import requests
from requests.auth import AuthBase


class NoAuth(AuthBase):
    """Sends no credentials. Without an auth object, requests would look for some in ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class HeaderAuth(AuthBase):
    """Sends credentials in headers of any name."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


class QueryAuth(AuthBase):
    """Sends a key as a query parameter."""

    def __init__(self, name: str, key: str) -> None:
        self._parameter = {name: key}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.prepare_url(request.url, self._parameter)
        return request
