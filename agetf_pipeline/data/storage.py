"""Shared storage by URI: a folder on a disk, in S3, in Google Cloud, or wherever fsspec reaches.

Files are listed in one go, under names that cannot lead out of the folder they are copied to.
Credentials are the backend's business: it reads its own environment variables.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import available_protocols, get_filesystem_class

from agetf_pipeline.core.errors import ConfigError, DataError, UnavailableError
from agetf_pipeline.data.listing import escape_name

OPTIONS_VARIABLE = "AGETF_STORAGE_OPTIONS"
_LOCAL = ("file", "local")
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
_TAGS = (
    "ETag", "etag", "md5Hash", "content_md5", "crc32c", "checksum", "generation", "mtime",
    "LastModified", "last_modified", "updated", "modified", "created",
)  # fmt: skip
"""What backends call what changes with a file's content, the surest first."""
_MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class StoredFile:
    """One file of a listing.

    Attributes:
        name: Its path in the folder, with `/`.
        num_bytes: Its size.
        tag: What the backend says changes with the content (ETag, checksum or time); may be empty.
        md5: 32 hexadecimal digits where the backend gives them. An ETag that looks like one need
            not be one: equal proves the content, different proves nothing.
    """

    name: str
    num_bytes: int
    tag: str
    md5: str | None = None


@dataclass(frozen=True)
class StoredFolder:
    """What a listing found: the files by name, what is not taken and why, and hidden names."""

    files: dict[str, StoredFile] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    num_hidden: int = 0


@dataclass(frozen=True)
class Store:
    """A folder of shared storage: its address, fsspec's file system, and its path in that."""

    uri: str
    fs: Any
    root: str

    def path_of(self, name: str) -> str:
        """Return the path of a file by its name in the folder."""
        return f"{self.root}/{name}"

    def list_files(self, missing_ok: bool = False) -> StoredFolder:
        """List everything below the folder.

        Args:
            missing_ok: Whether a folder that is not there counts as empty.

        Raises:
            DataError: There is no such folder, or sizes are not given.
            UnavailableError: The listing failed, in whole or in part.
        """
        try:
            self.fs.invalidate_cache()
            infos = _find(self.fs, self.root)
        except FileNotFoundError as error:
            if missing_ok:
                return StoredFolder()
            raise DataError(
                f"Expected a folder at {self.uri}; found none. Mount the disk or make the folder, "
                "or correct the URI."
            ) from error
        except Exception as error:  # backends raise errors of their own libraries
            raise UnavailableError(
                f"Expected to list {self.uri}; found {_spell(error)}. Check the address, the "
                "network, and the credentials in the backend's own environment variables."
            ) from error
        return _sort(self.uri, self.root, infos)


def open_store(uri: str) -> Store:
    """Return the folder that a URI names; nothing is read yet.

    Raises:
        ConfigError: fsspec knows no such kind of storage, its package is not installed, or
            AGETF_STORAGE_OPTIONS cannot be used.
    """
    protocol = uri.partition("://")[0]
    try:
        kind = get_filesystem_class(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        advice = f"pip install {package}" if package else str(error)
        raise ConfigError(
            f"Expected the package that reads {protocol}:// beside this library, for {uri}; found "
            f"none. Install it: {advice} (docs/deployment.md says how, beside the locked fsspec)."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"Expected storage that fsspec knows, such as s3://, gs:// or file:///; found {uri}. "
            "Correct the URI."
        ) from error
    options: dict[str, Any] = {"auto_mkdir": True} if protocol in _LOCAL else {}
    options |= _options().get(protocol, {})
    try:
        fs = kind(**options)
    except Exception as error:
        raise ConfigError(
            f"Expected to reach {uri}; found {_spell(error)}. Check {OPTIONS_VARIABLE} and the "
            "backend's own environment variables."
        ) from error
    return Store(uri, fs, str(kind._strip_protocol(uri)).rstrip("/"))


def unsafe_name(name: str) -> str | None:
    """Say why a name cannot be a file's below a folder; None where it can."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        return "The name leads out of the folder."
    if "" in parts or "." in parts:
        return "The name has an empty part."
    if "\\" in name or "\0" in name:
        return "The name holds a backslash or a null."
    if any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts):
        return f"A part of the name is longer than {_MAX_NAME_BYTES} bytes."
    return None


def _options() -> dict[str, dict[str, Any]]:
    """Read AGETF_STORAGE_OPTIONS: keyword arguments of file systems, by protocol."""
    text = os.environ.get(OPTIONS_VARIABLE, "").strip()
    if not text:
        return {}
    form = '{"s3": {"endpoint_url": "https://minio.example.org"}}'
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    # The value is not repeated: it may hold a secret.
    if not isinstance(options, dict) or not all(isinstance(o, dict) for o in options.values()):
        raise ConfigError(
            f"Expected JSON such as {form} in {OPTIONS_VARIABLE}; found something else. Correct it."
        )
    unknown = sorted(set(options) - set(available_protocols()))
    if unknown:
        raise ConfigError(
            f"Expected options by protocol in {OPTIONS_VARIABLE}, such as {form}; found the keys "
            f"{unknown}. Name the protocol, as the URI begins."
        )
    return options


def _find(fs: Any, root: str) -> dict[str, dict[str, Any]]:
    """Return what lies below a folder, by path. A folder that cannot be read is an error."""
    # Object stores list everything at once. fsspec's own walk leaves out folders that fail.
    if isinstance(fs, AsyncFileSystem):
        at_once = type(fs)._find is not AsyncFileSystem._find
    else:
        at_once = type(fs).find is not fsspec.AbstractFileSystem.find
    if at_once:
        return dict(fs.find(root, detail=True))
    infos: dict[str, dict[str, Any]] = {}
    pending, visited = [root], set()
    while pending:
        folder = pending.pop()
        visited.add(folder)
        for info in fs.ls(folder, detail=True):
            path = info["name"].rstrip("/")
            if info["type"] != "directory":
                infos[path] = info
            elif path not in visited:
                pending.append(path)
    return infos


def _sort(uri: str, root: str, infos: Mapping[str, Mapping[str, Any]]) -> StoredFolder:
    """Sort a listing into files, refused names and hidden ones."""
    found = StoredFolder()
    names: dict[str, Mapping[str, Any]] = {}
    num_hidden = 0
    for path, info in infos.items():
        if path.rstrip("/") == root:
            if info.get("type") == "directory" or path.endswith("/"):
                continue
            raise DataError(f"Expected a folder at {uri}; found a file. Name the folder around it.")
        name = path.removeprefix(f"{root}/")
        if info.get("type") == "directory" or path.endswith("/"):
            continue  # what consoles of object stores make to show a folder
        reason = "It is not below the folder." if name == path else unsafe_name(name)
        if reason is None and any(part.startswith(".") for part in name.split("/")):
            num_hidden += 1
        elif reason is None and (info.get("islink") or info.get("type", "file") != "file"):
            found.refused[escape_name(name)] = "A link, pipe or device, not a file."
        elif reason is not None:
            found.refused[escape_name(name)] = reason
        else:
            names[name] = info
    folders = {name[: at.start()] for name in names for at in re.finditer("/", name)}
    for name, info in sorted(names.items()):
        size = info.get("size")
        if name in folders:
            found.refused[escape_name(name)] = "A file and a folder have this name."
        elif size is None:
            raise DataError(
                f"Expected sizes in the listing of {uri}; found none for {escape_name(name)}. "
                "Copies could not be verified: use another kind of storage."
            )
        else:
            found.files[name] = StoredFile(name, int(size), _tag(info), _md5(info))
    return StoredFolder(found.files, found.refused, num_hidden)


def _tag(info: Mapping[str, Any]) -> str:
    for key in _TAGS:
        value = info.get(key)
        if value is not None and value != "":
            text = bytes(value).hex() if isinstance(value, bytes | bytearray) else str(value)
            return f"{key}={text}"
    return ""


def _md5(info: Mapping[str, Any]) -> str | None:
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"').lower()
    if re.fullmatch(r"[0-9a-f]{32}", etag):
        return etag
    encoded = info.get("md5Hash")
    if isinstance(encoded, str):
        try:
            digest = base64.b64decode(encoded, validate=True).hex()
        except ValueError:
            return None
        return digest if re.fullmatch(r"[0-9a-f]{32}", digest) else None
    return None


def _spell(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
