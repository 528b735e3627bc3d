"""Azure Service Bus by Airflow's own hook, with a Test button that looks at a subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.microsoft.azure.hooks.asb import AdminClientHook, BaseAzureServiceBusHook, MessageHook
from azure.servicebus.exceptions import (
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusError,
)

from instore_provider.connections import ServiceBusFields
from instore_provider.errors import ConfigurationError, said_of_this_connection

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusClient

__all__ = ["ServiceBusAdminHook", "ServiceBusHook"]


class _NoneIsEmpty(BaseAzureServiceBusHook):
    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """Return the connection; one without a connection string has an empty one, by which Airflow's hook knows it."""
        found = super().get_connection(conn_id)
        found.schema = found.schema or ""
        return found


class ServiceBusAdminHook(_NoneIsEmpty, AdminClientHook):
    """Airflow's hook for topics and subscriptions, for connections of type `service_bus` as well."""


class ServiceBusHook(_NoneIsEmpty, MessageHook):
    """
    Opens clients for the namespace of a connection.

    :param service_bus_conn_id: id of a connection of type `service_bus`, or of Airflow's `azure_service_bus`.
    """

    conn_name_attr = "service_bus_conn_id"
    default_conn_name = "service_bus_default"
    conn_type = "service_bus"
    hook_name = "Service Bus"

    def __init__(self, service_bus_conn_id: str = default_conn_name) -> None:
        super().__init__(azure_service_bus_conn_id=service_bus_conn_id)

    def get_conn(self) -> ServiceBusClient:
        """
        Return a new client, which the caller closes.

        :raises ConfigurationError: the connection names no namespace, or its connection string cannot be read.
        """
        ServiceBusFields.of(self.conn_id)
        try:
            return super().get_conn()
        except (ValueError, TypeError):  # the SDK's errors repeat the connection string
            raise ConfigurationError(
                f"Connection {self.conn_id!r}: its field 'schema' is not a connection string, so copy it again from "
                f"the namespace's shared access policy."
            ) from None

    def test_connection(self) -> tuple[bool, str]:
        """Look at one message of the subscription to test with; none is locked or taken."""
        try:
            fields = ServiceBusFields.of(self.conn_id)
            names = f"topic {fields.topic!r} with subscription {fields.subscription!r}"
            with (
                self.get_conn() as client,
                client.get_subscription_receiver(fields.topic, fields.subscription) as receiver,
            ):
                receiver.peek_messages(max_message_count=1, timeout=30)
        except ConfigurationError as error:
            return False, said_of_this_connection(error, self.conn_id)
        except (MessagingEntityNotFoundError, MessagingEntityDisabledError):
            return False, f"The namespace has no active {names}, so correct 'topic' and 'subscription', or create them."
        except (ServiceBusAuthenticationError, ServiceBusAuthorizationError) as error:
            if getattr(error.inner_exception, "status_code", None) == 404:
                return False, f"The namespace has no {names}, so correct 'topic' and 'subscription', or create them."
            return False, "Service Bus refused the key, so put a connection string with the Listen right into 'schema'."
        except ServiceBusError as error:
            return False, f"Service Bus failed with {type(error).__name__}, so check the host and the network to it."
        return True, f"Service Bus takes the key and shows {names}."
