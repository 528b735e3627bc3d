"""Channels and connections, as the alerts' own tests have them."""

from tests.alerts.conftest import connect, webhook

__all__ = ["connect", "webhook"]
