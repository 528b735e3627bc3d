"""Which files are due: the run's window, not loaded yet or changed since, and no longer being written."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from include.instore.errors import ConfigurationError, RetriableError
from include.instore.extracts.formats import format_of
from include.instore.settings import Settings
from include.instore.windows import Run

_DAY = re.compile(r"(?<!\d)(\d{4})[-_/]?(\d{2})[-_/]?(\d{2})(?!\d)")
_BEING_WRITTEN = (".tmp", ".partial", ".filepart", ".crdownload")


@dataclass(frozen=True)
class ExtractFile:
    """A file that is due; ``version`` changes when its content does."""

    path: Any
    name: str
    version: str


@dataclass(frozen=True)
class Found:
    """The files due now, and how many are left for a later run because they are still being written."""

    due: tuple[ExtractFile, ...]
    left: int
    unknown_format: int


def find_extracts(root: Any, run: Run, loaded: Mapping[str, str], settings: Settings) -> Found:
    """Look below ``root`` (a pathlib-like path, such as Airflow's ObjectStoragePath).

    :param loaded: relative path to version of every file loaded before.
    :raises ConfigurationError: there is no such folder.
    :raises RetriableError: the storage does not answer.
    """
    try:
        if not root.is_dir():
            raise ConfigurationError(
                "The extracts folder of connection instore_extracts does not exist; correct its path, or "
                "INSTORE_EXTRACTS_URL, or create the folder."
            )
        paths = sorted((path for path in root.glob(settings.extract_glob) if path.is_file()), key=str)
    except ConfigurationError:
        raise
    except Exception as error:  # fsspec has no error tree of its own; every storage raises its SDK's
        raise RetriableError(
            f"The extracts (connection instore_extracts) could not be listed: {type(error).__name__}; check the "
            "connection where this stays."
        ) from None
    names = {_relative(path, root) for path in paths}
    due, left, unknown = [], 0, 0
    for path in paths:
        name = _relative(path, root)
        if _is_marker(name, settings) or _hidden(name):
            continue
        if name.lower().endswith(_BEING_WRITTEN):
            left += 1
        elif format_of(name) is None:
            unknown += 1
        else:
            stat = path.stat()
            version = version_of(stat)
            if loaded.get(name) == version or not _is_for(run, name, stat):
                continue
            if _still_written(name, names, stat, settings):
                left += 1
            else:
                due.append(ExtractFile(path, name, version))
    return Found(tuple(due), left, unknown)


def version_of(stat: Any) -> str:
    """Size with etag or modified time: what tells a changed file from the one that was loaded."""
    tag = next((stat[key] for key in ("etag", "ETag") if _has(stat, key)), None)
    return f"{stat.st_size}:{tag or stat.st_mtime}"


def _has(stat: Any, key: str) -> bool:
    try:
        return bool(stat[key])
    except (KeyError, TypeError, IndexError):
        return False


def _relative(path: Any, root: Any) -> str:
    return str(path.relative_to(root)) if hasattr(path, "relative_to") else str(path)


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _is_marker(name: str, settings: Settings) -> bool:
    marker = settings.extract_marker
    return bool(marker) and name.endswith(marker)


def _still_written(name: str, names: set[str], stat: Any, settings: Settings) -> bool:
    if settings.extract_min_age and time.time() - float(stat.st_mtime) < settings.extract_min_age:
        return True
    marker = settings.extract_marker
    if not marker:
        return False
    folder = name.rpartition("/")[0]
    beside = f"{folder}/{marker}" if folder else marker
    return beside not in names and f"{name}{marker}" not in names


def _is_for(run: Run, name: str, stat: Any) -> bool:
    if run.loads_any_extract:
        return True
    if run.window is None:
        return False
    start, end = _covers(name, stat)
    return run.window.overlaps(start, end)


def _covers(name: str, stat: Any) -> tuple[datetime, datetime]:
    """The day in the file's path, or the moment it was modified."""
    for year, month, day in reversed(_DAY.findall(name)):
        try:
            start = datetime(int(year), int(month), int(day), tzinfo=timezone.utc)
        except ValueError:
            continue
        return start, start + timedelta(days=1)
    modified = datetime.fromtimestamp(float(stat.st_mtime), timezone.utc)
    return modified, modified + timedelta(microseconds=1)
