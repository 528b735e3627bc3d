"""Which files are due: the run's window, not loaded yet or changed since, and no longer being written."""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice

from include.instore.ledger.extract_files import RELEASED
from include.instore.ledger.tables import kept_text
from include.instore.model.settings import ExtractSettings, Settings
from include.instore.model.windows import Run
from include.instore.sources.extracts.formats import is_read
from include.instore.sources.extracts.storage import Listed, Storage

_DAY = re.compile(r"(?<!\d)(\d{4})[-_/]?(\d{2})[-_/]?(\d{2})(?!\d)")
_BEING_WRITTEN = (".tmp", ".partial", ".filepart", ".crdownload")
_PAGE = 500
"""Files compared with the ledger at once."""

LoadedVersions = Callable[[Sequence[str]], Mapping[str, str]]
"""Name to version of those of the names that are known, as ``ledger.extract_files.known_versions`` has it."""


@dataclass(frozen=True)
class ExtractFile:
    """A file that is due; ``name`` is what the ledger calls it, ``version`` changes when its content does.

    :param modified: seconds since 1970; 0 where nobody knows.
    """

    path: str
    name: str
    version: str
    modified: float = 0.0


@dataclass(frozen=True)
class Found:
    """The files due now.

    :param left: those left for a later run, because they are still being written, and why that is thought.
    :param unread: those that nothing here reads, by their names.
    """

    due: tuple[ExtractFile, ...]
    left: Mapping[ExtractFile, str]
    unread: tuple[ExtractFile, ...]


def find_extracts(storage: Storage, run: Run, loaded: LoadedVersions, settings: Settings) -> Found:
    """Look at every file of the storage, however old its folder is; what was loaded is asked a page of names at a time.

    :raises ConfigurationError: there is no such folder, or the storage refused the key.
    :raises RetriableError: the storage does not answer.
    """
    due: list[ExtractFile] = []
    unread: list[ExtractFile] = []
    left: dict[ExtractFile, str] = {}
    listing = storage.files(settings.extracts.extract_glob)
    while page := list(islice(listing, _PAGE)):
        known: list[tuple[str, Listed]] = []
        for file in page:
            name = kept_text(file.name)
            if settings.extracts.extract_marker and name.endswith(settings.extracts.extract_marker):
                continue
            if _is_hidden(name) and not is_read(name, settings):
                continue  # a folder's own, such as .DS_Store or _SUCCESS
            known.append((name, file))
        versions = loaded([name for name, _ in known])
        for name, file in known:
            if versions.get(name) == file.version or not _is_for(run, name, file):
                continue
            found = ExtractFile(file.path, name, file.version, file.modified)
            is_released = versions.get(name) == f"{RELEASED}{file.version}"
            if not is_released and name.lower().endswith(_BEING_WRITTEN):
                left[found] = "by its name it is still being written"
            elif _is_hidden(name) or not is_read(name, settings):
                unread.append(found)
            elif not is_released and (why := _still_written(storage, file, settings.extracts)):
                left[found] = why
            else:
                due.append(found)
    return Found(tuple(due), left, tuple(unread))


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _still_written(storage: Storage, file: Listed, settings: ExtractSettings) -> str:
    """Why that is thought; empty: it is not."""
    # A file of the future is one of a clock that is wrong.
    if abs(time.time() - file.modified) < settings.extract_min_age:
        return f"it was changed less than {settings.extract_min_age:g} s before it was looked at"
    if settings.extract_marker and marker_of(storage, file.path, settings) is None:
        return f"its marker, {settings.extract_marker}, is not there"
    return ""


def marker_of(storage: Storage, path: str, settings: ExtractSettings) -> str | None:
    """Where the marker of a file is, None while there is none."""
    marker = settings.extract_marker
    # Asked of the storage and not of what was listed: the glob that chooses the extracts may leave the markers out.
    beside = posixpath.join(posixpath.dirname(path), marker)
    return next((each for each in (beside, f"{path}{marker}") if storage.has_file(each)), None)


def _is_for(run: Run, name: str, file: Listed) -> bool:
    if run.loads_any_extract:
        return True
    if run.window is None:
        return False
    start, end = _covers(name, file)
    return run.window.overlaps(start, end)


def _covers(name: str, file: Listed) -> tuple[datetime, datetime]:
    """The day in the file's path, or the moment it was modified."""
    for year, month, day in reversed(_DAY.findall(name)):
        try:
            start = datetime(int(year), int(month), int(day), tzinfo=timezone.utc)
        except ValueError:
            continue
        return start, start + timedelta(days=1)
    modified = datetime.fromtimestamp(file.modified, timezone.utc)
    return modified, modified + timedelta(microseconds=1)
