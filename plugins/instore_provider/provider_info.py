"""
What Airflow's providers manager reads: the connection types with their forms, the hooks and the operators.

The shape is airflow/provider.yaml.schema.json. The form of a type comes from the model of its fields.
"""

from __future__ import annotations

from typing import Any

from instore_provider.connections import AlertFields, LoyaltyFields, ProfileStoreFields, ServiceBusFields

PACKAGE_NAME = "instore-provider"  # must equal the name of the distribution, or Airflow refuses to start

_HOOKS = "instore_provider.hooks"
_TYPES = (
    ("profile_store", "Profile Store", "profile_store.ProfileStoreHook", ProfileStoreFields),
    ("loyalty", "Loyalty", "loyalty.LoyaltyHook", LoyaltyFields),
    ("service_bus", "Service Bus", "service_bus.ServiceBusHook", ServiceBusFields),
    ("alerts", "Alert channels", "alerts.AlertsHook", AlertFields),
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata; the entry point `apache_airflow_provider` leads here."""
    return {
        "package-name": PACKAGE_NAME,
        "name": "In-store orders",
        "description": "Profile Store tracking and loyalty look-ups for in-store orders.",
        "integrations": [{"integration-name": name, "tags": ["service"]} for _, name, _, _ in _TYPES],
        "hooks": [
            {"integration-name": name, "python-modules": [f"{_HOOKS}.{hook.partition('.')[0]}"]}
            for _, name, hook, _ in _TYPES
        ],
        "operators": [
            {"integration-name": "Profile Store", "python-modules": ["instore_provider.operators.profile_store"]},
        ],
        "triggers": [
            {"integration-name": "Service Bus", "python-modules": ["instore_provider.triggers.service_bus"]},
        ],
        "extra-links": ["instore_provider.links.EventsPageLink"],
        "connection-types": [
            {
                "connection-type": conn_type,
                "hook-class-name": f"{_HOOKS}.{hook}",
                "hook-name": name,
                **fields.form(),
            }
            for conn_type, name, hook, fields in _TYPES
        ],
    }
