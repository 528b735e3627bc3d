"""Where the extracts are: a folder of any storage that fsspec knows, listed without a request per file."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import posixpath
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from include.instore.model.errors import ConfigurationError, RetriableError

_SDKS = frozenset(
    {"adlfs", "aiohttp", "asyncssh", "azure", "botocore", "fsspec", "gcsfs", "google", "paramiko", "sshfs"}
)
_REFUSED = frozenset(
    {
        "AuthenticationException",
        "ClientAuthenticationError",
        "HostKeyNotVerifiable",
        "KeyEncryptionError",
        "KeyImportError",
        "PermissionDenied",
    }
)
_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What storages call the time of the last change; in memory:// a file that is written again is a new one."""
_NEVER = re.compile(r"[._]|lost\+found$")
"""Folders that are not looked into; the last one is at the top of a disk, and nobody may read it."""
_BUFFER = 1 << 20  # a request each

log = logging.getLogger(__name__)


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
        if _is_refused(error):
            raise ConfigurationError(
                f"The storage of connection instore_extracts refused the login ({kind}); correct its login, password, "
                "key, token or host_key, or what they are permitted to read."
            ) from None
        if isinstance(error, PermissionError) or kind == "SFTPPermissionDenied":
            raise RetriableError(
                f"The login of connection instore_extracts may not read the extracts ({kind}); give it the "
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


def _is_refused(error: Exception) -> bool:
    # Azure's firewall and a missing role are plain HTTP errors; sshfs makes a PermissionError of a refused login.
    if getattr(error, "status_code", None) in (401, 403):
        return True
    return any(parent.__name__ in _REFUSED for each in (error, error.__cause__) for parent in type(each).__mro__)


@dataclass(frozen=True)
class Listed:
    """A file as the storage lists it.

    :param path: what the storage calls it. :param name: its path below the folder.
    :param version: changes when its content does. :param modified: seconds since 1970; 0 where nobody knows.
    """

    path: str
    name: str
    version: str
    modified: float


class Storage:
    """A folder and what is below it.

    Every method raises what :func:`storage_errors` makes of a storage's errors. Nothing is answered from fsspec's
    listing caches: a worker lives for weeks, and a cached size would hide that a file grows while it is read.
    """

    def __init__(self, filesystem: Any, folder: str) -> None:
        self._filesystem = filesystem
        self._folder = folder.rstrip("/") or ("/" if folder else ".")

    @classmethod
    def local(cls, folder: Path) -> Storage:
        """A folder of this machine."""
        return cls(LocalFileSystem(), str(folder))

    def files(self, glob: str) -> Iterator[Listed]:
        """The files whose name matches, in the order of their names; at most one folder or page is in memory.

        :raises ConfigurationError: there is no such folder, or the glob cannot be read.
        """
        try:
            matches = re.compile(glob_translate(glob)).match
        except ValueError:
            raise ConfigurationError(
                "Setting INSTORE_EXTRACT_GLOB cannot be read; write ** as a part of its own, as in **/*.csv."
            ) from None
        listing = self._azure_pages() if "abfs" in self._filesystem.protocol else self._folders(glob)
        left_out = 0
        while True:
            with storage_errors():
                entry = next(listing, None)
            if entry is None:
                break
            if not matches(self._name(entry)):
                continue
            if entry["type"] in ("file", "link") and self._leads_out(entry):
                left_out += 1
            elif entry["type"] == "file":
                yield self._listed(entry)
        if left_out:
            log.warning("%d files lead outside the extracts folder and are not read", left_out)

    @storage_errors()
    def look_again(self, path: str) -> Listed:
        """The file as it is now."""
        return self._listed(self._info(path))

    def has_file(self, path: str) -> bool:
        """Whether there is a file of this path now."""
        with storage_errors():
            try:
                return bool(self._info(path)["type"] == "file")
            except FileNotFoundError:
                return False

    @storage_errors()
    def open(self, path: str) -> BinaryIO:
        """The file's bytes. A storage that fails while they are read raises too: its file is not broken."""
        return cast(BinaryIO, io.BufferedReader(_Reading(self._filesystem.open(path, "rb")), _BUFFER))

    def read(self, name: str, most: int) -> bytes | None:
        """The first bytes of a file by its name below the folder; None where there is none."""
        path = f"{self._folder.rstrip('/')}/{name}"
        with storage_errors():
            try:
                entry = self._info(path)
            except FileNotFoundError:
                return None
        if entry["type"] != "file" or self._leads_out(entry):
            return None
        with self.open(path) as file:
            return file.read(most)

    def _info(self, path: str) -> Mapping[str, Any]:
        self._filesystem.invalidate_cache()
        return cast(Mapping[str, Any], self._filesystem.info(path))

    def _name(self, entry: Mapping[str, Any]) -> str:
        return str(entry["name"]).removeprefix(self._folder.rstrip("/") + "/")

    def _listed(self, entry: Mapping[str, Any]) -> Listed:
        changed = next((entry[key] for key in _MODIFIED if entry.get(key) is not None), 0.0)
        modified = changed.timestamp() if isinstance(changed, datetime) else float(changed)
        tag = entry.get("etag") or entry.get("ETag") or modified
        return Listed(str(entry["name"]), self._name(entry), f"{entry['size']}:{tag}", modified)

    def _leads_out(self, entry: Mapping[str, Any]) -> bool:
        """A link, or a name such as ``../../x``, may lead out of the folder; what is out there is no extract."""
        if ".." in self._name(entry).split("/"):
            return True
        if entry["type"] == "link":
            return True  # of a server: nobody can tell where it leads
        if not entry.get("islink"):
            return False
        return not Path(entry["name"]).resolve().is_relative_to(Path(self._folder).resolve())

    def _folders(self, glob: str) -> Iterator[Mapping[str, Any]]:
        """Folder by folder, none deeper than the glob reaches; the folder's details come with its listing."""
        self._filesystem.invalidate_cache()
        depth = None if "**" in glob else glob.count("/") + 1
        try:
            if self._filesystem.info(self._folder)["type"] != "directory":
                raise _no_folder()
        except FileNotFoundError:
            raise _no_folder() from None
        yield from self._below(self._folder, depth)

    def _below(self, folder: str, depth: int | None) -> Iterator[Mapping[str, Any]]:
        entries = self._filesystem.ls(folder, detail=True)
        # With its slash a folder stands where its files stand in the order of all names.
        for entry in sorted(entries, key=lambda each: each["name"].rstrip("/") + "/" * (each["type"] == "directory")):
            if entry["type"] == "directory":
                if (depth is None or depth > 1) and not _NEVER.match(posixpath.basename(entry["name"].rstrip("/"))):
                    yield from self._below(entry["name"].rstrip("/"), depth and depth - 1)
            elif entry.get("islink"):
                with contextlib.suppress(FileNotFoundError):  # it leads nowhere
                    yield self._filesystem.info(entry["name"])
            else:
                yield entry

    def _azure_pages(self) -> Iterator[Mapping[str, Any]]:
        """Page by page of up to 5,000 blobs, by the SDK beneath adlfs.

        adlfs itself keeps all of a container in memory, and lists a folder that has a marker blob as empty.
        """
        blobs = self._azure_blobs()
        found = False
        while True:
            page = sync(self._filesystem.loop, _next, blobs)
            if page is None:
                break
            found = True
            yield from page
        if not found and "/" in self._folder:
            raise _no_folder()

    async def _azure_blobs(self) -> AsyncIterator[list[dict[str, Any]]]:
        from azure.core.exceptions import ResourceNotFoundError

        container, _, folder = self._folder.partition("/")
        client = self._filesystem.service_client.get_container_client(container)
        blobs = client.list_blobs(name_starts_with=f"{folder}/" if folder else None, include=["metadata"])
        try:
            async for page in blobs.by_page():
                if entries := [_blob(container, blob) async for blob in page]:
                    yield entries
        except ResourceNotFoundError:
            raise _no_folder() from None


async def _next(pages: AsyncIterator[Any]) -> Any:
    return await anext(pages, None)


def _blob(container: str, blob: Any) -> dict[str, Any]:
    """A blob in fsspec's words, and its etag as adlfs's ``info`` gives it."""
    marks = {key.lower(): value for key, value in (blob.metadata or {}).items()}
    folder = blob.name.endswith("/") or marks.get("hdi_isfolder") == "true"
    return {
        "name": f"{container}/{blob.name}",
        "type": "directory" if folder else "file",
        "size": blob.size,
        "etag": f'"{blob.etag.strip(chr(34))}"',
        "last_modified": blob.last_modified,
    }


def _no_folder() -> ConfigurationError:
    return ConfigurationError(
        "The extracts folder of connection instore_extracts does not exist; correct its path, or "
        "INSTORE_EXTRACTS_URL, or create the folder (in Azure Blob Storage the container)."
    )


class _Reading(io.RawIOBase):
    """A storage's file whose errors are the storage's, not those of the file's content."""

    def __init__(self, beneath: Any) -> None:
        self._beneath = beneath

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with storage_errors():
            data = self._beneath.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._beneath.close()
