"""Reading the fields of an Airflow connection, with errors which say which field to mend and how."""

from __future__ import annotations

import ssl
from collections.abc import Collection
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jmespath
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from instore_provider.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Connection

_STANDARD_FIELDS = frozenset({"host", "login", "password", "schema"})


class Fields:
    """
    The fields of one connection: the standard ones by their names, all others from its extra.

    :param connection: the connection, as Airflow resolved it.
    :raises ConfigurationError: the extra is not a JSON object.
    """

    def __init__(self, connection: Connection) -> None:
        self.conn_id = connection.conn_id
        self._connection = connection
        extra = connection.extra_dejson if connection.extra else {}
        if not isinstance(extra, dict) or (connection.extra and not extra and connection.extra.strip() != "{}"):
            raise self.error("extra", "must be a JSON object")
        self._extra: dict[str, Any] = extra

    @classmethod
    def of(cls, conn_id: str) -> Fields:
        """
        Resolve a connection by its id.

        :raises ConfigurationError: there is no such connection.
        """
        try:
            return cls(BaseHook.get_connection(conn_id))
        except AirflowNotFoundException:
            pass  # raised below, so that no context is chained to it
        raise ConfigurationError(f"Connection {conn_id!r} is not defined, so create it or name another one.")

    def error(self, field: str, remedy: str) -> ConfigurationError:
        """Return the error for a field; `remedy` completes the sentence "its field X ..."."""
        return ConfigurationError(f"Connection {self.conn_id!r}: its field {field!r} {remedy}.")

    def text(self, field: str, default: str = "") -> str:
        """Return a field as stripped text; missing, null and blank are the default."""
        value = getattr(self._connection, field) if field in _STANDARD_FIELDS else self._extra.get(field)
        text = "" if value is None else str(value).strip()
        return text or default

    def choice(self, field: str, allowed: Collection[str], default: str) -> str:
        """Return a field that must be one of `allowed`."""
        value = self.text(field, default).lower()
        if value not in allowed:
            raise self.error(field, f"must be one of {', '.join(sorted(allowed))}")
        return value

    def number(self, field: str, default: float, *, above: float = 0.0) -> float:
        """Return a field as a number greater than `above`."""
        text = self.text(field)
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not above < number < float("inf"):
            raise self.error(field, f"must be a number greater than {above:g}")
        return number

    def words(self, field: str, default: str) -> frozenset[str]:
        """Return a comma-separated field as its words, in lower case."""
        return frozenset(word.strip().lower() for word in self.text(field, default).split(",") if word.strip())

    def statuses(self, field: str, default: str) -> frozenset[int]:
        """Return a comma-separated field of HTTP status codes."""
        words = self.words(field, default)
        if not all(word.isascii() and word.isdigit() and 100 <= int(word) <= 599 for word in words):
            raise self.error(field, "must be HTTP status codes with commas between them, such as 404,410")
        return frozenset(int(word) for word in words)

    def path(self, field: str, default: str = "") -> Any:
        """Return a JMESPath field, compiled, or None when it is empty."""
        text = self.text(field, default)
        if not text:
            return None
        try:
            return jmespath.compile(text)
        except jmespath.exceptions.JMESPathError:
            pass  # its message repeats the expression with a drawing of several lines
        raise self.error(field, "must be a JMESPath expression, such as member.email")

    def secret(self, *fields: str) -> str:
        """
        Return the first of the fields that holds a key, and have Airflow mask it wherever it would show.

        Airflow masks extras by their names only, and a name such as read_key is not on its list.

        :raises ConfigurationError: no field holds one, or it has characters that no HTTP header carries.
        """
        for field in fields:
            if value := self.text(field):
                if not (value.isascii() and value.isprintable()):
                    raise self.error(field, "holds characters that no HTTP header carries, so paste the key again")
                mask_secret(value)
                return value
        raise self.error(fields[0], "is empty, so put the key into it")

    def base_url(self, field: str) -> str:
        """Return a URL to which paths are added, without its trailing slash; raises like `url`."""
        return self.url(field).rstrip("/")

    def url(self, field: str) -> str:
        """
        Return a URL.

        :raises ConfigurationError: it is missing or no URL, names a user, has a query, or would send keys and
            personal data unencrypted over a network: http:// is for loopback hosts only.
        """
        text = self.text(field)
        try:
            url = urlsplit(text)
            host, _ = url.hostname, url.port
        except ValueError:
            host = None
        if not host or url.scheme not in {"https", "http"} or any(ord(each) <= 32 for each in text):
            raise self.error(field, "must be a URL, such as https://api.example.com")
        if url.username or url.password or url.query or url.fragment:
            raise self.error(field, "must be a URL without user, query and fragment")
        if url.scheme == "http" and not _is_loopback(host):
            raise self.error(field, "must start with https://, since http:// is allowed for loopback hosts only")
        return text

    def ca_bundle(self) -> str | None:
        """Return the path of the CA bundle to verify TLS with, or None for the system's."""
        path = self.text("ca_bundle")
        if not path:
            return None
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ValueError):
            pass  # SSLError is an OSError; raised below without a context
        else:
            return path
        raise self.error("ca_bundle", "must be the path of a readable PEM file with CA certificates")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
