"""Where orders come from beside topic and extracts: another source is a new file here, and its name in the list."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import contextlib

    from include.instore.model.settings import Settings
    from include.instore.model.windows import Run
    from include.instore.sources.landing import Source

Opener = Callable[["Run", "Settings"], "contextlib.AbstractContextManager[Source]"]

SOURCES: tuple[str, ...] = (
)  # fmt: skip
"""Names, of at most 16 letters, of those that are on."""


def source_of(name: str) -> Opener:
    """Who opens a source: ``opened`` in the file of its name."""
    return cast("Opener", import_module(f"{__name__}.{name}").opened)
