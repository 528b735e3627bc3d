"""Alert channels: mail, chat and paging services, named by their Apprise URLs."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import BaseHook

from instore_provider.connections import AlertFields
from instore_provider.errors import ConfigurationError, said_of_this_connection
from instore_provider.log_levels import at_level

__all__ = ["AlertsHook"]

_SECONDS = 60


class AlertsHook(BaseHook):
    """
    Delivers messages to every channel of a connection.

    :param alerts_conn_id: id of a connection of type `alerts`, or of any other with Apprise URLs as its password.
    """

    conn_name_attr = "alerts_conn_id"
    default_conn_name = "alerts_default"
    conn_type = "alerts"
    hook_name = "Alert channels"

    def __init__(self, alerts_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.alerts_conn_id = alerts_conn_id

    def deliver(self, title: str, text: str, kind: str = "info", *, send: bool = True) -> list[str]:
        """
        Deliver a message to each channel, and return a sentence for each in their order: "" where it took the message.

        :param kind: `info`, `success`, `warning` or `failure`.
        :param send: False: only find out which URLs are none that Apprise knows.
        :raises ConfigurationError: there is no connection of this id, or no URL in it.
        """
        from apprise import Apprise, NotifyFormat, NotifyType

        said = []
        # Both would log URLs, which are secrets, where they warn or at DEBUG.
        with at_level(logging.CRITICAL + 1, "apprise", "urllib3"):
            for number, url in enumerate(AlertFields.of(self.alerts_conn_id).urls, 1):
                channel, which = Apprise(), f"URL {number} of connection {self.alerts_conn_id}"
                given: dict[str, Any] = {"notify_type": NotifyType(kind), "body_format": NotifyFormat.TEXT}
                if not channel.add(url):
                    said.append(f"{which} is not a URL that Apprise knows; correct it.")
                elif send and not channel.notify(text, title=title, timeout=_SECONDS, **given):
                    said.append(f"{which} did not take the message {title!r}; check its host and token.")
                else:
                    said.append("")
        return said

    def test_connection(self) -> tuple[bool, str]:
        """Send a test alert to every channel."""
        try:
            said = self.deliver("Test alert", "This is a test: somebody pressed Test of this connection in Airflow.")
        except ConfigurationError as error:
            return False, said_of_this_connection(error, self.alerts_conn_id)
        if any(said):
            return False, " ".join(said).replace(f" of connection {self.alerts_conn_id}", "").strip()
        return True, f"Channels that took a test alert: {len(said)}, which is all."
