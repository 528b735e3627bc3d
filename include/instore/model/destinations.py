"""Names of destinations, how one is asked what it has, and what it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

PROFILE_STORE = "profile_store"
"""The first destination, whose event ids are those of the orders themselves."""

SHOWN, ABSENT, UNCLEAR = "shown", "absent", "unclear"
"""What a destination says of one event id; unclear is an answer to another question than was asked."""


class ReadingSide(Protocol):
    """How a destination is asked what it has."""

    @property
    def reads_back(self) -> bool:
        """Whether it can be asked at all."""
        ...

    def look_for(self, event_ids: Iterable[str]) -> Mapping[str, str]:
        """Event id to :data:`SHOWN`, :data:`ABSENT` or :data:`UNCLEAR`. :raises RetriableError: it cannot be asked."""
        ...
