"""The words for where a thing is on its way; docs/design.md draws who moves it."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    def __str__(self) -> str:
        return str(self.value)

    def __hash__(self) -> int:
        return hash(self.value)  # it equals its text, so it is the same key of a mapping


class Source(_Word):
    """Where a record came from."""

    TOPIC = "topic"
    EXTRACT = "extract"


class RecordState(_Word):
    """What became of a quarantined record."""

    QUARANTINED = "quarantined"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    ANY = "any"  # of a filter


class CardOutcome(_Word):
    """What became of looking a card up; all but the first are codes of docs/codes.md."""

    MATCHED = "matched"  # with an email
    NOT_FOUND = "not_found"
    NO_EMAIL = "no_email"
    INACTIVE = "inactive"
    AMBIGUOUS = "ambiguous"
    SUPPRESSED = "suppressed"
    LOOK_UP_FAILED = "look_up_failed"  # the answer says nothing about it, or none came


WITHOUT_ADDRESS = (CardOutcome.NOT_FOUND, CardOutcome.NO_EMAIL, CardOutcome.INACTIVE)
"""Final answers about a card without an address."""


class Status(_Word):
    """How far the search for an order's customer is; design.md draws who moves it."""

    PENDING = "pending"
    MATCHED = "matched"  # where its events are is said by its deliveries
    UNMATCHED = "unmatched"
    SUPPRESSED = "suppressed"


class DeliveryStatus(_Word):
    """Where one edition of an order is on its way to one destination."""

    READY = "ready"
    SENDING = "sending"
    SENT = "sent"
    REJECTED = "rejected"
    SUPPRESSED = "suppressed"
    HELD = "held"  # nobody can tell whether it was taken: a person decides
    CANCELLED = "cancelled"  # its destination was switched off before it left


UNDER_WAY = (DeliveryStatus.READY.value, DeliveryStatus.SENDING.value)
"""States of a delivery that a run can move on without a person; of an order it is pending."""


class ContentState(_Word):
    """What became of a content that is not the one its order has now."""

    REPLACED = "replaced"  # a later one took its place before anything had been sent
    OLDER = "older"  # it came after a later one
    AFTER_SENDING = "after_sending"  # it came when the order had left: nobody has been sent it
    SENT = "sent"  # an earlier edition was sent with it
    ANOTHER = "another"  # a person has accepted it as an order of its own


class ExtractState(_Word):
    """What became of an extract's file."""

    LOADED = "loaded"
    LEFT = "left"  # it is still being written, or what says that it is whole is not there: it was not read
    WAITING = "waiting"  # it cannot be read to its end: nothing of it was landed
    RELEASED = "released"  # a person wants what is before the fault: the next run loads that
    FORGOTTEN = "forgotten"  # a person does not want it
