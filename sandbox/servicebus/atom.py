"""The ATOM entry of a queue or a subscription with its runtime counts: what
`ServiceBusAdministrationClient.get_subscription_runtime_properties` and `get_queue_runtime_properties` ask for.

As with the service, ActiveMessageCount takes in what is locked at the moment, and not what is deferred.
"""

from __future__ import annotations

from datetime import datetime, timezone
from xml.sax.saxutils import escape

from sandbox.servicebus.queues import Queue

_ENTITY_NS = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
_COUNTS_NS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_NEVER = "P10675199DT2H48M5.4775807S"


def subscription_entry(queue: Queue) -> bytes:
    return _entry(queue, queue.path.rpartition("/")[2], "SubscriptionDescription")


def queue_entry(queue: Queue) -> bytes:
    return _entry(queue, queue.path, "QueueDescription")


def _entry(queue: Queue, title: str, element: str) -> bytes:
    counts = queue.snapshot()
    active = counts["active"] + counts["locked"]
    total = active + counts["deferred"] + counts["scheduled"] + counts["dead_lettered"]
    at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    ttl = _NEVER if queue.spec.ttl is None else _duration(queue.spec.ttl)
    details = "".join(
        f"<d:{name}>{count}</d:{name}>"
        for name, count in (
            ("ActiveMessageCount", active),
            ("DeadLetterMessageCount", counts["dead_lettered"]),
            ("ScheduledMessageCount", counts["scheduled"]),
            ("TransferDeadLetterMessageCount", 0),
            ("TransferMessageCount", 0),
        )
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<entry xmlns="http://www.w3.org/2005/Atom"><id>{escape(queue.path)}</id><title>{escape(title)}</title>'
        f"<published>{at}</published><updated>{at}</updated>"
        f'<content type="application/xml"><{element} xmlns="{_ENTITY_NS}" xmlns:d="{_COUNTS_NS}">'
        f"<LockDuration>{_duration(queue.spec.lock)}</LockDuration>"
        f"<RequiresSession>{str(queue.spec.sessions).lower()}</RequiresSession>"
        f"<DefaultMessageTimeToLive>{ttl}</DefaultMessageTimeToLive>"
        f"<DeadLetteringOnMessageExpiration>{str(queue.spec.dead_letter_expired).lower()}"
        "</DeadLetteringOnMessageExpiration>"
        f"<MessageCount>{total}</MessageCount><MaxDeliveryCount>{queue.spec.max_deliveries}</MaxDeliveryCount>"
        f"<Status>Active</Status><CreatedAt>{at}</CreatedAt><UpdatedAt>{at}</UpdatedAt><AccessedAt>{at}</AccessedAt>"
        f"<CountDetails>{details}</CountDetails>"
        f"<EntityAvailabilityStatus>Available</EntityAvailabilityStatus></{element}></content></entry>"
    ).encode()


def _duration(seconds: float) -> str:
    return f"PT{seconds:g}S"
