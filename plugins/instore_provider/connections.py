"""The connection types, field by field: their forms, how they are read, what may be wrong, and their pages."""

from __future__ import annotations

from typing import Any

import jmespath
import simplejson
from pydantic import model_validator
from typing_extensions import Self

from instore_provider.fields import (
    BaseUrl,
    ConnectionFields,
    HeaderName,
    HeaderText,
    JmesPath,
    Key,
    ServiceFields,
    Statuses,
    Url,
    Words,
    field,
    wrong,
)

AUTH_PRESETS: dict[str, tuple[str, str]] = {
    # The original design's API management, and what every later document and public client sends.
    "subscription_key": ("Ocp-Apim-Subscription-Key", ""),
    "epi_single": ("Authorization", "epi-single"),
}
"""Name of a preset: its header and the word before the key."""

_USUAL_CARD_PATH = jmespath.compile("loyaltyCardNumber || cardNumber")
_NO_URL = "must be a URL, such as https://api.example.com"
_EMPTY_KEY = "is empty, so put the key into it"


class ProfileStoreFields(ServiceFields):
    """A connection of type `profile_store`."""

    host: BaseUrl = field("Tracking API URL", example="https://track-emea01.profilestore.episerver.net")
    password: Key = field("Tracking key", secret=True)
    auth_preset: str = field(
        "Key is sent as",
        "subscription_key: Ocp-Apim-Subscription-Key: KEY. epi_single: Authorization: epi-single KEY.",
        "subscription_key",
        choices=tuple(AUTH_PRESETS),
    )
    read_host: BaseUrl = field(
        "Profile Store API URL",
        "Such as https://profilesapi-emea01.profilestore.episerver.net. Needed only to read events back, which is "
        "how an event whose fate is unclear is verified.",
    )
    read_api_key: Key = field("Profile Store key", "The key of the Profile Store API.", secret=True)
    events_page: str = field(
        "Page of the events",
        "Where a person sees the events or profiles, such as the Profile Store's own page; the send task gets a "
        "button that leads there.",
    )
    success_body: str = field(
        "Answer that means taken",
        "Only for a service whose 2xx has a body that is not empty and is not known to mean success: that text, such "
        "as OK, with * for any characters.",
    )
    untaken_statuses: Statuses = field(
        "Answers that mean not taken",
        "HTTP statuses of the Tracking API after which the same events may simply be sent again. Add 408 or 425 only "
        "where the service never takes what it answers so; otherwise such events are read back first.",
        "429,503",
    )
    auth_header: HeaderName = field("Own header name", "Instead of the preset's header.")
    auth_prefix: HeaderText = field("Own word before the key", "Instead of the preset's, with a space after it.")

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"read_api_key": given["read_key"], **given} if "read_key" in given else given

    @model_validator(mode="after")
    def _keys_are_there(self) -> Self:
        if not self.host:
            wrong("host", _NO_URL)
        if not self.password:
            wrong("password", _EMPTY_KEY)
        if self.read_host and not self.read_api_key:
            wrong("read_api_key", _EMPTY_KEY)
        return self

    def header(self, key: str) -> dict[str, str]:
        """Return the header that carries a key."""
        name, word = AUTH_PRESETS[self.auth_preset]
        if self.auth_header:
            name, word = self.auth_header, ""
        return {name: f"{self.auth_prefix or word} {key}".strip()}


class LoyaltyFields(ServiceFields):
    """A connection of type `loyalty`."""

    host: BaseUrl = field("Loyalty API URL", example="https://api.loyalty.example.com")
    login: str = field("User or client id", example="for basic, oauth2, or a second key header")
    password: Key = field("Key, token or secret", secret=True)
    auth: str = field(
        "Authentication",
        "api_key: a header. query: a query parameter. basic: user and password. bearer: a fixed token. "
        "oauth2: client credentials.",
        "api_key",
        choices=("api_key", "query", "basic", "bearer", "oauth2", "none"),
    )
    key_header: HeaderName = field("Key header", "For api_key.", "X-Api-Key")
    key_prefix: HeaderText = field("Word before the key", "For api_key, such as ManagementKey-v1.")
    login_header: HeaderName = field(
        "Second header", "For api_key: sends the user or client id in this header as well."
    )
    key_parameter: str = field("Key parameter", "For query.", "api_key")
    token_url: Url = field("Token URL", "For oauth2: the token endpoint.")
    oauth_scope: str = field("Scopes", "For oauth2, with spaces between them.")
    url_template: str = field(
        "Path of the look-up",
        "Added to the URL; {card} is replaced by the card, percent-encoded. It may stand in a query.",
        "/customers/by-loyalty-card/{card}",
    )
    method: str = field("Method", "GET, or POST, which is the default with a body.", choices=("GET", "POST"))
    body_template: str = field("JSON body", 'For POST, such as {"card": "{card}"}; the card is escaped.')
    members_path: JmesPath = field(
        "Path to the members",
        "JMESPath to the list of members, inside the answer: none is not found, several are ambiguous.",
    )
    second_hop_template: str = field("Path of a second look-up", "Such as /customers/{id}, always GET.")
    second_hop_id_path: JmesPath = field("Path to the id", "JMESPath to the {id} of the second look-up.", "id")
    email_path: JmesPath = field("Path to the email", "JMESPath in the member.", "email")
    card_path: JmesPath = field(
        "Path to the card",
        "JMESPath in the member to its card, or cards: a member with another card than the one asked for is "
        "somebody else. Without it loyaltyCardNumber or cardNumber is compared, where the member has one.",
    )
    status_path: JmesPath = field("Path to the status", "JMESPath in the member; no status means active.", "status")
    active_statuses: Words = field("Active statuses", "With commas between them; others are inactive.", "active")
    suppressed_statuses: Words = field(
        "Suppressed statuses", "Erased or opted out: nothing may be sent for these.", "erased,opted_out"
    )
    ignored_signs: Words = field(
        "Signs that do not matter",
        "Names of fields of a member that look as if nothing may be sent for her, such as emailOptIn, and do not mean "
        "it. A member with such a field that neither this nor the path to the status names is not sent.",
    )
    not_found_statuses: Statuses = field("Not-found statuses", "HTTP statuses that mean: no such card.", "404")
    not_found_body_path: JmesPath = field(
        "Not-found path", "JMESPath in an answer of any status, for APIs that say it in the body, such as code."
    )
    not_found_body_value: str = field("Not-found value", "What is found there when there is no such card.")
    test_card: str = field("Card to test with", "Of an active customer with an email; the Test button looks for it.")

    @property
    def asked_by(self) -> str:
        """The method of the look-up."""
        return self.method or ("POST" if self.body_template else "GET")

    @property
    def shown_card(self) -> Any:
        """The path to a member's card, also where none is set."""
        return self.card_path or _USUAL_CARD_PATH

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.host:
            wrong("host", _NO_URL)
        if self.auth != "none" and not self.password:
            wrong("password", _EMPTY_KEY)
        if self.auth == "oauth2" and not self.login:
            wrong("login", "is empty, so put the OAuth2 client id into it")
        if self.auth == "oauth2" and not self.token_url:
            wrong("token_url", _NO_URL)
        if self.login_header and not (self.login.isascii() and self.login.isprintable()):
            wrong("login", "holds characters that no HTTP header carries, so correct it")
        for name in ("url_template", "second_hop_template"):
            if not (getattr(self, name) or "/").startswith("/"):
                wrong(name, "must start with a slash, since it is added to 'host'")
        if "{card}" not in self.url_template + self.body_template:
            wrong("url_template", "must have {card} in it, unless 'body_template' has")
        if self.second_hop_template and "{id}" not in self.second_hop_template:
            wrong("second_hop_template", "must have {id} in it")
        if not _is_json(self.body_template):
            wrong("body_template", 'must be JSON with {card} inside a text, such as {"card": "{card}"}')
        if (self.not_found_body_path is None) != (not self.not_found_body_value):
            wrong("not_found_body_path", "and 'not_found_body_value' belong together, so set both or none")
        return self


class ServiceBusFields(ConnectionFields):
    """A connection of type `service_bus`."""

    # Where Airflow's own type keeps it, so that Airflow's hooks read it as well.
    connection_string: str = field(
        "Connection string",
        secret=True,
        alias="schema",
        example="Endpoint=sb://NAME.servicebus.windows.net/;SharedAccessKeyName=...; empty for a managed identity",
    )
    fully_qualified_namespace: str = field(
        "Namespace", "Instead of a connection string, for a managed identity: NAME.servicebus.windows.net."
    )
    topic: str = field("Topic to test with", "Only the Test button uses it.", "orders")
    subscription: str = field(
        "Subscription to test with",
        "Of that topic; the button looks at one message and takes none.",
        "orderprocessing",
    )

    @model_validator(mode="after")
    def _names_a_namespace(self) -> Self:
        if not (self.connection_string or self.fully_qualified_namespace):
            wrong("schema", "is empty, so put a connection string into it, or fill in 'fully_qualified_namespace'")
        return self


class AlertFields(ConnectionFields):
    """A connection of type `alerts`."""

    password: str = field(
        "Apprise URLs", secret=True, example="mailtos://... msteams://... slack://... with spaces between them"
    )

    @model_validator(mode="before")
    @classmethod
    def _older_place(cls, given: dict[str, Any]) -> dict[str, Any]:
        more = given.get("urls") or []
        texts = [given.get("password") or "", *([more] if isinstance(more, str) else map(str, more))]
        return {**given, "password": " ".join(texts)}

    @property
    def urls(self) -> list[str]:
        """The URLs; each has a token or a password in it."""
        return self.password.split()

    @model_validator(mode="after")
    def _names_a_channel(self) -> Self:
        if not self.urls:
            wrong("password", "has no URL, so put one or several Apprise URLs into it, with spaces between them")
        return self


def _is_json(template: str) -> bool:
    try:
        simplejson.loads(template.replace("{card}", "0") or "0")
    except ValueError:
        return False
    return True
