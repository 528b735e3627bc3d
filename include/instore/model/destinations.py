"""Names of destinations, how one is asked what it has, and what it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

PROFILE_STORE = "profile_store"
"""The first destination, whose event ids are those of the orders themselves."""

SHOWN, ABSENT = "shown", "absent"
IGNORED_FILTER, EMPTY_PAGES = "ignored_filter", "empty_pages"
"""What a destination says of one event id; the last two are answers to another question than was asked: it has other
events, or counts some and shows none."""

LAG, NO_READ_SIDE, BY_SETTING = "lag", "no_read_side", "on_ambiguous"
"""What else keeps events in doubt: later ones are not shown yet, there is nobody to ask, or nobody is to be asked."""


class ReadingSide(Protocol):
    """How a destination is asked what it has."""

    @property
    def reads_back(self) -> bool:
        """Whether it can be asked at all."""
        ...

    def look_for(self, event_ids: Iterable[str]) -> Mapping[str, str]:
        """Event id to :data:`SHOWN`, :data:`ABSENT`, :data:`IGNORED_FILTER` or :data:`EMPTY_PAGES`.

        :raises RetriableError: it cannot be asked.
        """
        ...
