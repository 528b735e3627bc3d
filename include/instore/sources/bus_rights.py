"""Whether the pipeline's key may do more on the namespace than it needs to."""

from __future__ import annotations

from azure.core.exceptions import AzureError
from azure.servicebus.management import ServiceBusAdministrationClient

from include.instore.model.settings import Settings

_SECONDS = 10


def may_manage(namespace: ServiceBusAdministrationClient, settings: Settings) -> bool:
    """Whether it has the Manage right, which only that right can see; not where the management cannot be reached."""
    try:
        namespace.get_subscription_runtime_properties(
            settings.topic,
            settings.subscription,
            retry_total=0,
            connection_timeout=_SECONDS,
            read_timeout=_SECONDS,
        )
    except (AzureError, ValueError):
        return False
    return True
