"""Where events go: another destination is a new file here, and its name in the list."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from include.instore.model.destinations import PROFILE_STORE

if TYPE_CHECKING:
    from include.instore.destinations.delivery import Destination
    from include.instore.ledger import Ledger
    from include.instore.model.settings import Settings

Opener = Callable[["Ledger", "Settings"], "contextlib.AbstractContextManager[Destination]"]

DESTINATIONS = (
    PROFILE_STORE,
)  # fmt: skip
"""Names of those that are on; one that is taken off the list is switched off."""


def opener_of(name: str) -> Opener:
    """Who opens a destination: ``opened`` in the file of its name."""
    return cast("Opener", import_module(f"{__name__}.{name}").opened)
