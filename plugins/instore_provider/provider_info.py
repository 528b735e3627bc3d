"""
What Airflow's providers manager is told: the connection types with their forms, the hooks and the operators.

The shape is airflow/provider.yaml.schema.json. The form of a type comes from here alone: `conn-fields` are its extras
and `ui-field-behaviour` the standard fields, without any import of the hooks. Secrets have the format "password".
"""

from __future__ import annotations

from typing import Any

PACKAGE_NAME = "instore-provider"  # must equal the name of the distribution, or Airflow refuses to start


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata; the entry point `apache_airflow_provider` leads here."""
    return {
        "package-name": PACKAGE_NAME,
        "name": "In-store orders",
        "description": "Profile Store tracking and loyalty look-ups for in-store orders.",
        "integrations": [
            {"integration-name": "Profile Store", "tags": ["service"]},
            {"integration-name": "Loyalty", "tags": ["service"]},
        ],
        "hooks": [
            {"integration-name": "Profile Store", "python-modules": ["instore_provider.hooks.profile_store"]},
            {"integration-name": "Loyalty", "python-modules": ["instore_provider.hooks.loyalty"]},
        ],
        "operators": [
            {"integration-name": "Profile Store", "python-modules": ["instore_provider.operators.profile_store"]},
        ],
        "extra-links": ["instore_provider.links.EventsPageLink"],
        "connection-types": [
            {
                "connection-type": "profile_store",
                "hook-class-name": "instore_provider.hooks.profile_store.ProfileStoreHook",
                "hook-name": "Profile Store",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port", "extra"],
                    "relabeling": {"host": "Tracking API URL", "password": "Tracking key"},
                    "placeholders": {"host": "https://track-emea01.profilestore.episerver.net"},
                },
                "conn-fields": _profile_store_fields(),
            },
            {
                "connection-type": "loyalty",
                "hook-class-name": "instore_provider.hooks.loyalty.LoyaltyHook",
                "hook-name": "Loyalty",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port", "extra"],
                    "relabeling": {
                        "host": "Loyalty API URL",
                        "login": "User or client id",
                        "password": "Key, token or secret",
                    },
                    "placeholders": {
                        "host": "https://api.loyalty.example.com",
                        "login": "for basic, oauth2, or a second key header",
                    },
                },
                "conn-fields": _loyalty_fields(),
            },
        ],
    }


def _text(label: str, description: str, default: str | None = None, **schema: Any) -> dict[str, Any]:
    if default is not None:
        schema["default"] = default
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _number(label: str, description: str, default: float | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": ["number", "null"], "minimum": 0}
    if default is not None:
        schema["default"] = default
    return {"label": label, "description": description, "schema": schema}


def _common_fields() -> dict[str, Any]:
    return {
        "connect_timeout": _number("Connect timeout", "Seconds until the connection must stand.", 5),
        "read_timeout": _number("Read timeout", "Seconds until an answer must begin.", 30),
        "ca_bundle": _text(
            "CA bundle",
            "Path of a PEM file on the workers, for a service whose certificate is signed by a private authority. "
            "TLS is always verified.",
        ),
    }


def _profile_store_fields() -> dict[str, Any]:
    return {
        "auth_preset": _text(
            "Key is sent as",
            "subscription_key: Ocp-Apim-Subscription-Key: KEY. epi_single: Authorization: epi-single KEY.",
            "subscription_key",
            enum=["subscription_key", "epi_single"],
        ),
        "read_host": _text(
            "Profile Store API URL",
            "Such as https://profilesapi-emea01.profilestore.episerver.net. Needed only to read events back, which is "
            "how an event whose fate is unclear is verified.",
        ),
        "read_api_key": _text("Profile Store key", "The key of the Profile Store API.", format="password"),
        "events_page": _text(
            "Page of the events",
            "Where a person sees the events or profiles, such as the Profile Store's own page; the send task gets a "
            "button that leads there.",
        ),
        "success_body": _text(
            "Answer that means taken",
            "Only for a service whose 2xx has a text that is neither empty nor JSON: that text, such as OK.",
        ),
        "auth_header": _text("Own header name", "Instead of the preset's header."),
        "auth_prefix": _text("Own word before the key", "Instead of the preset's, with a space after it."),
        "rate_limit": _number(
            "Calls per second",
            "At most, to both APIs together; empty is no limit. The in-store DAG's tasks share it, elsewhere it is for "
            "each worker process.",
        ),
        **_common_fields(),
    }


def _loyalty_fields() -> dict[str, Any]:
    return {
        "auth": _text(
            "Authentication",
            "api_key: a header. query: a query parameter. basic: user and password. bearer: a fixed token. "
            "oauth2: client credentials.",
            "api_key",
            enum=["api_key", "query", "basic", "bearer", "oauth2", "none"],
        ),
        "key_header": _text("Key header", "For api_key.", "X-Api-Key"),
        "key_prefix": _text("Word before the key", "For api_key, such as ManagementKey-v1."),
        "login_header": _text("Second header", "For api_key: sends the user or client id in this header as well."),
        "key_parameter": _text("Key parameter", "For query.", "api_key"),
        "token_url": _text("Token URL", "For oauth2: the token endpoint."),
        "oauth_scope": _text("Scopes", "For oauth2, with spaces between them."),
        "url_template": _text(
            "Path of the look-up",
            "Added to the URL; {card} is replaced by the card, percent-encoded. It may stand in a query.",
            "/customers/by-loyalty-card/{card}",
        ),
        "method": _text("Method", "GET, or POST, which is the default with a body.", enum=["GET", "POST"]),
        "body_template": _text("JSON body", 'For POST, such as {"card": "{card}"}; the card is escaped.'),
        "members_path": _text(
            "Path to the members",
            "JMESPath to the list of members, inside the answer: none is not found, several are ambiguous.",
        ),
        "second_hop_template": _text("Path of a second look-up", "Such as /customers/{id}, always GET."),
        "second_hop_id_path": _text("Path to the id", "JMESPath to the {id} of the second look-up.", "id"),
        "email_path": _text("Path to the email", "JMESPath in the member.", "email"),
        "card_path": _text(
            "Path to the card",
            "JMESPath in the member to its card, or cards: a member with another card than the one asked for is "
            "somebody else. Without it loyaltyCardNumber or cardNumber is compared, where the member has one.",
        ),
        "status_path": _text("Path to the status", "JMESPath in the member; no status means active.", "status"),
        "active_statuses": _text("Active statuses", "With commas between them; others are inactive.", "active"),
        "suppressed_statuses": _text(
            "Suppressed statuses", "Erased or opted out: nothing may be sent for these.", "erased,opted_out"
        ),
        "not_found_statuses": _text("Not-found statuses", "HTTP statuses that mean: no such card.", "404"),
        "not_found_body_path": _text(
            "Not-found path", "JMESPath in an answer of any status, for APIs that say it in the body, such as code."
        ),
        "not_found_body_value": _text("Not-found value", "What is found there when there is no such card."),
        "test_card": _text("Card to test with", "Of an active customer with an email; the Test button looks for it."),
        "rate_limit": _number(
            "Calls per second",
            "At most; empty is no limit. The in-store DAG's tasks share it, elsewhere it is for each worker process.",
        ),
        **_common_fields(),
    }
