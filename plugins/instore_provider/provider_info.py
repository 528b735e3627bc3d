"""
What Airflow's providers manager is told: the connection types with their forms, the hooks and the operators.

The shape is airflow/provider.yaml.schema.json. The form of a type comes from the model of its fields.
"""

from __future__ import annotations

from typing import Any

from instore_provider.connections import LoyaltyFields, ProfileStoreFields

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
                **ProfileStoreFields.form(),
            },
            {
                "connection-type": "loyalty",
                "hook-class-name": "instore_provider.hooks.loyalty.LoyaltyHook",
                "hook-name": "Loyalty",
                **LoyaltyFields.form(),
            },
        ],
    }
