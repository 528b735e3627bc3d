"""Servers that tests need and pip does not install: where they are, and what is said where one is missing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / ".servers/node_modules/.bin"
_MISSING = "for want of "
_IN_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2 << 30


def short_lived_folder(prefix: str) -> Path:
    """A folder for a PostgreSQL server: in memory, where writing through to the disk takes no time, if there is room.

    Its path is short, since that of a unix socket has 107 bytes at most.
    """
    roomy = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > _ENOUGH_BYTES
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_IN_MEMORY if roomy and os.access(_IN_MEMORY, os.W_OK) else None))


def azurite() -> str:
    """Path of Azurite's blob service; the test is skipped where there is none."""
    return needed("azurite-blob", "Azurite (make servers)")


def needed(program: str, name: str) -> str:
    """Path of a server's program; the test is skipped by the server's name where there is none."""
    found = shutil.which(program, path=os.pathsep.join((str(FOLDER), os.environ.get("PATH", ""))))
    return found or pytest.skip(f"{_MISSING}{name}")


def missing(skipped: Iterable[Any]) -> Counter[str]:
    """Name of each missing server, to the number of tests skipped for it; of no other skip.

    :param skipped: pytest's reports of skipped tests.
    """
    reasons = (str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    return Counter(reason.removeprefix(_MISSING) for reason in reasons if reason.startswith(_MISSING))
