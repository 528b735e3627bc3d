"""Orders for tests of the glue, and a Profile Store whose hook has its own patience."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from instore_provider.hooks.profile_store import ProfileStoreHook

from include.instore.ledger.intake import arrival
from include.instore.ledger.records import Record
from include.instore.model.orders import parse_order
from include.instore.model.settings import Settings
from include.instore_airflow.connections import PROFILE_STORE
from include.instore_airflow.destinations import Opener
from include.instore_airflow.destinations.profile_store import ProfileStoreDestination
from include.instore_airflow.shared_limits import share


def pending_order(number: str, **fields: Any) -> dict[str, Any]:
    """The ledger row of an order that needs no look-up, but for the fields given."""
    document = {
        "orderNumber": number,
        "date": "2017-06-05T08:00:00Z",
        "storeId": "1",
        "currency": "USD",
        "total": "1.10",
        "emailAddress": "canary-77@example.com",
    } | fields
    order = parse_order(json.dumps(document).encode(), 10_000)
    return arrival(Record("topic", f"{number}#1", b"", order), Settings()).row


def through(hook: ProfileStoreHook) -> Opener:
    """Who opens the Profile Store behind this hook, under the limits that all tasks share."""

    def opened(ledger: Any, settings: Settings) -> contextlib.AbstractContextManager[ProfileStoreDestination]:
        share(hook, PROFILE_STORE, ledger, settings.services)
        return contextlib.nullcontext(ProfileStoreDestination(hook, settings))

    return opened
