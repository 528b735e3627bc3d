"""The causes of alerts and what is measured for them, by name; their texts are in runs/alerts.py."""

from __future__ import annotations

from dataclasses import dataclass

TASK_FAILED = "task_failed"
NUMBERS = "numbers"
BAD_SHARE = "bad_share"
COLLISIONS = "collisions"
UNREAD_FILES = "unread_files"
HELD_EVENTS = "held_events"
QUARANTINED_SHARE = "quarantined_share"
UNMATCHED_SHARE = "unmatched_share"
OLDEST_MESSAGE = "oldest_message"
OLDEST_UNSENT = "oldest_unsent"
DEAD_LETTERS = "dead_letters"
LOOK_UPS_FAILING = "look_ups_failing"
CORRECTED_AFTER_SENT = "corrected_after_sent"
NO_REPORT = "no_report"
DEADLINE = "deadline"
RECOVERED = "recovered"

SOFT = (
    QUARANTINED_SHARE, UNMATCHED_SHARE, OLDEST_MESSAGE, OLDEST_UNSENT, DEAD_LETTERS, LOOK_UPS_FAILING,
    CORRECTED_AFTER_SENT,
)  # fmt: skip
"""Causes that last from run to run until a run finds their end."""


@dataclass(frozen=True)
class Ages:
    """What is measured after the run's tasks; None is not known, and says nothing about a limit.

    :param new_orders: orders that arrived with this run; 0 where not all of their customers were asked for.
    :param new_unmatched: those of them without a customer; asked-again ones would make quiet hours look bad.
    :param oldest_unsent: seconds since the oldest order that still has somewhere to go arrived; 0 when there is none.
    :param oldest_message: seconds since the oldest message still on the bus was published; 0 when there is none.
    :param dead_letters: messages in the subscription's dead-letter queue, as far as was looked.
    :param expired: those of them that nobody had read in time.
    """

    new_orders: int
    new_unmatched: int
    oldest_unsent: float
    oldest_message: float | None = None
    dead_letters: int | None = None
    expired: int | None = None


def kind_of(cause: str) -> str:
    """The kind of a cause: ``task_failed`` of ``task_failed:drain_topic``."""
    return cause.partition(":")[0]
