"""
What the fields of a connection are made of: each is declared once, in a model per connection type.

A model gives the form (`form`), parsing (`of`), the sentence of an error, and the table of the type's page. Every field
arrives as stripped text; null, blank and missing ones are the default, which is text as in the form.

Airflow reads the forms in processes that need nothing else of this package: what is heavy is imported where it is used.
"""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from pydantic import ValidationInfo

_STANDARD_FIELDS = ("host", "login", "password", "port", "schema", "extra")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def field(
    title: str,
    description: str = "",
    default: str | float = "",
    *,
    example: str = "",
    choices: tuple[str, ...] = (),
    secret: bool = False,
    alias: str | None = None,
) -> Any:
    """
    Declare a field.

    :param title: its label. :param description: its help text, whole sentences.
    :param default: as text, or seconds; "" is none.
    :param example: what an empty standard field shows.
    :param choices: all values it may have.
    :param secret: whether it is a key: masked in the form, and never in a repr.
    :param alias: the standard field of a connection that it is.
    """
    schema: dict[str, Any] = {"enum": list(choices)} if choices else {}
    if secret:
        schema["format"] = "password"
    return Field(
        default=default,
        alias=alias,
        title=title,
        description=description,
        examples=[example] if example else None,
        json_schema_extra=schema,
        repr=not secret,
    )


def wrong(name: str, remedy: str) -> NoReturn:
    """Refuse a field; `remedy` completes the sentence "its field X ..."."""
    raise PydanticCustomError("wrong_field", "{remedy}", {"field": name, "remedy": remedy})


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise ValueError("must be a number greater than 0")
    return number


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip().lower() for word in text.split(",") if word.strip())


def _statuses(text: str) -> frozenset[int]:
    words = _words(text)
    if not all(word.isascii() and word.isdigit() and 100 <= int(word) <= 599 for word in words):
        raise ValueError("must be HTTP status codes with commas between them, such as 404,410")
    return frozenset(int(word) for word in words)


def _path(text: str) -> Any:
    import jmespath

    if not text:
        return None
    try:
        return jmespath.compile(text)
    except jmespath.exceptions.JMESPathError:
        # Its message repeats the expression with a drawing of several lines.
        raise ValueError("must be a JMESPath expression, such as member.email") from None


def _key(text: str) -> str:
    from airflow.sdk.log import mask_secret

    _header_text(text, "so paste the key again")
    if text:
        mask_secret(text)  # Airflow masks extras by their names only, and a name such as read_key is not on its list
    return text


def _header_text(text: str, remedy: str = "so correct it") -> str:
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"holds characters that no HTTP header carries, {remedy}")
    return text


def _header_name(text: str) -> str:
    if text and not _HEADER_NAME.fullmatch(text):
        raise ValueError("must be the name of an HTTP header")
    return text


def _url(text: str) -> str:
    """Refuse what is no URL, names a user, has a query, or would send keys unencrypted over a network."""
    if not text:
        return text
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        host = None
    if not host or url.scheme not in {"https", "http"} or any(ord(each) <= 32 for each in text):
        raise ValueError("must be a URL, such as https://api.example.com")
    if url.username or url.password or url.query or url.fragment:
        raise ValueError("must be a URL without user, query and fragment")
    if url.scheme == "http" and not _is_loopback(host):
        raise ValueError("must start with https://, since http:// is allowed for loopback hosts only")
    return text


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _ca_bundle(path: str) -> str | None:
    if not path:
        return None
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):  # SSLError is an OSError
        raise ValueError("must be the path of a readable PEM file with CA certificates") from None
    return path


Number = Annotated[float | None, BeforeValidator(_number)]
Words = Annotated[frozenset[str], BeforeValidator(_words)]
Statuses = Annotated[frozenset[int], BeforeValidator(_statuses)]
JmesPath = Annotated[Any, BeforeValidator(_path)]
Key = Annotated[str, BeforeValidator(_key)]
HeaderName = Annotated[str, BeforeValidator(_header_name)]
HeaderText = Annotated[str, BeforeValidator(_header_text)]
BaseUrl = Annotated[str, BeforeValidator(lambda text: _url(text).rstrip("/"))]
Url = Annotated[str, BeforeValidator(_url)]
CaBundle = Annotated[str | None, BeforeValidator(_ca_bundle)]


class ConnectionFields(BaseModel):
    """What the fields of every connection have in common."""

    model_config = ConfigDict(frozen=True, validate_default=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _extra_is_an_object(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "extra" in given:
            wrong("extra", "must be a JSON object")
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _as_text(cls, value: Any, info: ValidationInfo) -> str:
        """Every field begins as stripped text; one with choices is one of them, in any case."""
        text = str(value).strip()
        extra = cls.model_fields[str(info.field_name)].json_schema_extra
        choices = extra.get("enum") if isinstance(extra, dict) else None
        if not text or not isinstance(choices, list):
            return text
        found = next((str(each) for each in choices if str(each).lower() == text.lower()), None)
        if found is None:
            raise ValueError(f"must be one of {', '.join(sorted(map(str, choices)))}")
        return found

    @classmethod
    def of(cls, conn_id: str) -> Self:
        """
        Read the connection of this id.

        :raises ConfigurationError: there is none, or a field of it is wrong; the sentence names the field.
        """
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        from instore_provider.errors import ConfigurationError

        sentence = f"Connection {conn_id!r} is not defined, so create it or name another one."
        try:
            return cls.model_validate(_given(BaseHook.get_connection(conn_id)))
        except AirflowNotFoundException:
            pass  # raised below, so that no context is chained to it
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = first.get("ctx", {}).get("field") or ".".join(map(str, first["loc"]))
            sentence = f"Connection {conn_id!r}: its field {name!r} {first['msg'].removeprefix('Value error, ')}."
        raise ConfigurationError(sentence)

    @classmethod
    def form(cls) -> dict[str, Any]:
        """Return the form in the shape of airflow/provider.yaml.schema.json."""
        last = ServiceFields.model_fields if issubclass(cls, ServiceFields) else {}
        fields = {each.alias or name: each for name, each in cls.model_fields.items() if name not in last} | last
        standard = {name: each for name, each in fields.items() if name in _STANDARD_FIELDS}
        return {
            "ui-field-behaviour": {
                "hidden-fields": [name for name in _STANDARD_FIELDS if name not in standard],
                "relabeling": {name: each.title for name, each in standard.items()},
                "placeholders": {name: each.examples[0] for name, each in standard.items() if each.examples},
            },
            "conn-fields": {
                name: {"label": each.title, "description": each.description, "schema": _schema(each)}
                for name, each in fields.items()
                if name not in standard
            },
        }


class ServiceFields(ConnectionFields):
    """The fields that every connection to an HTTP service has; a type adds its own."""

    rate_limit: Number = field(
        "Calls per second",
        "At most, to all APIs of the connection together; empty is no limit. The in-store DAG's tasks share it, "
        "elsewhere it is for each worker process.",
    )
    connect_timeout: Number = field("Connect timeout", "Seconds until the connection must stand.", 5)
    read_timeout: Number = field("Read timeout", "Seconds until an answer must begin.", 30)
    ca_bundle: CaBundle = field(
        "CA bundle",
        "Path of a PEM file on the workers, for a service whose certificate is signed by a private authority. "
        "TLS is always verified.",
    )


def _schema(declared: Any) -> dict[str, Any]:
    kind: dict[str, Any] = {"type": ["string", "null"]}
    if declared.annotation == float | None:
        kind = {"type": ["number", "null"], "minimum": 0}
    default = {} if declared.default == "" else {"default": declared.default}
    return kind | dict(declared.json_schema_extra) | default


def _given(connection: Connection) -> dict[str, Any]:
    """Return the fields that hold something: the standard ones by their names, all others from the extra."""
    extra = connection.extra_dejson if connection.extra else {}
    if not isinstance(extra, dict) or (connection.extra and not extra and connection.extra.strip() != "{}"):
        return {"extra": connection.extra}
    standard = {name: getattr(connection, name) for name in ("host", "login", "password", "schema")}
    return {name: value for name, value in (extra | standard).items() if value is not None and str(value).strip()}
