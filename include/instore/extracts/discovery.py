"""Which files are due: the run's window, not loaded yet or changed since, and no longer being written."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from include.instore.errors import ConfigurationError, RetriableError
from include.instore.extracts.formats import format_of
from include.instore.ledger.tables import kept_text
from include.instore.settings import Settings
from include.instore.windows import Run

_DAY = re.compile(r"(?<!\d)(\d{4})[-_/]?(\d{2})[-_/]?(\d{2})(?!\d)")
_SDKS = frozenset(
    {"adlfs", "aiohttp", "asyncssh", "azure", "botocore", "fsspec", "gcsfs", "google", "paramiko", "sshfs"}
)
_REFUSED = frozenset(
    {"AuthenticationException", "ClientAuthenticationError", "HostKeyNotVerifiable", "PermissionDenied"}
)
_BEING_WRITTEN = (".tmp", ".partial", ".filepart", ".crdownload")

log = logging.getLogger(__name__)


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
    with storage_errors():
        return _find(root, run, loaded, settings)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """The errors of a storage as ours; anything else is a bug and comes out as itself.

    fsspec has no error tree of its own: a storage raises OSError, or what its SDK defines. The SDKs may be missing, so
    their errors are known by where their classes are defined.

    :raises ConfigurationError: the storage refused the key. :raises RetriableError: it failed otherwise.
    """
    try:
        yield
    except Exception as error:
        kind = type(error).__name__
        if not _is_of_storage(error):
            raise
        if any(parent.__name__ in _REFUSED for parent in type(error).__mro__):
            raise ConfigurationError(
                f"The storage of connection instore_extracts refused the login ({kind}); correct its login, password, "
                "key or token, or what they are permitted to read."
            ) from None
        if isinstance(error, PermissionError):
            raise RetriableError(
                "The login of connection instore_extracts may not read the extracts (PermissionError); give it the "
                "permission to list the folder and to read its files."
            ) from None
        raise RetriableError(
            f"The extracts (connection instore_extracts) could not be read: {kind}; check the connection where this "
            "stays."
        ) from None


def _is_of_storage(error: Exception) -> bool:
    # Before Python 3.11 asyncio's timeout, which fsspec raises, is no OSError.
    if isinstance(error, OSError | asyncio.TimeoutError):
        return True
    return any(parent.__module__.partition(".")[0] in _SDKS for parent in type(error).__mro__)


def _find(root: Any, run: Run, loaded: Mapping[str, str], settings: Settings) -> Found:
    if not root.is_dir():
        raise ConfigurationError(
            "The extracts folder of connection instore_extracts does not exist; correct its path, or "
            "INSTORE_EXTRACTS_URL, or create the folder."
        )
    files = sorted((path for path in root.glob(settings.extract_glob) if path.is_file()), key=str)
    paths = [path for path in files if _is_inside(path, root)]
    if len(paths) < len(files):
        log.warning("%d files lead out of the extracts folder and are not read", len(files) - len(paths))
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
            if _still_written(path, stat, settings):
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


def _is_inside(path: Any, root: Any) -> bool:
    """A link, or a name such as ``../../x``, may lead out of the folder; what is out there is no extract."""
    if ".." in str(path).split("/"):
        return False
    local, folder = _local(path), _local(root)
    return local is None or folder is None or local.resolve().is_relative_to(folder.resolve())


def _local(path: Any) -> Path | None:
    """The path as one of this machine; None in a storage, which has no links."""
    if isinstance(path, Path):
        return path
    return Path(path.path) if getattr(path, "protocol", None) in ("file", "local") else None


def _relative(path: Any, root: Any) -> str:
    # Not relative_to(): an ObjectStoragePath of 0.3.10 has none in a storage such as abfs.
    if not hasattr(path, "relative_to"):
        return kept_text(str(path))
    return kept_text(posixpath.relpath(*(str(getattr(each, "path", each)) for each in (path, root))))


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _is_marker(name: str, settings: Settings) -> bool:
    marker = settings.extract_marker
    return bool(marker) and name.endswith(marker)


def _still_written(path: Any, stat: Any, settings: Settings) -> bool:
    if settings.extract_min_age and time.time() - float(stat.st_mtime) < settings.extract_min_age:
        return True
    marker = settings.extract_marker
    if not marker:
        return False
    # Asked of the storage and not of what was listed: the glob that chooses the extracts may leave the markers out.
    return not any((path.parent / beside).is_file() for beside in (marker, f"{path.name}{marker}"))


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
