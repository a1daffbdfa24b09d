"""The catalogue of published checkpoints, `configs/models.yaml`: source, files, hashes, licence."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from agetf_pipeline.config.base import Section
from agetf_pipeline.config.runtime import RuntimeConfig
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.core.yaml_files import read_yaml

RECORD_FILE = "checksums.json"
_REPOSITORY = Path(__file__).resolve().parents[2]
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

CheckpointName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class CheckpointFile(Section):
    """One file of a checkpoint."""

    path: str = Field(description="Where it goes, below models/checkpoints, with `/`.")
    url: str | None = Field(description="Direct download; null: by hand only.")
    size_bytes: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    sha256_prefix: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{8,63}$",
        description="The first digits, where the published file name carries them.",
    )
    hash_source: str | None = Field(default=None, description="Where the hash was read.")
    also_named: tuple[str, ...] = Field(
        default=(), description="Other names under which the same bytes are passed on."
    )

    @field_validator("path")
    @classmethod
    def _stays_below_the_folder(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        plain = parts and all(part[0] not in "./" and "\\" not in part for part in parts)
        if not plain or path != "/".join(parts) or path == RECORD_FILE:
            raise ValueError("expected a plain relative path such as janus-pro-1b/config.json")
        return path

    @model_validator(mode="after")
    def _is_consistent(self) -> "CheckpointFile":
        if self.has_hash and not self.hash_source:
            raise ValueError("a hash needs hash_source: where it was read")
        if self.sha256 and self.sha256_prefix and not self.sha256.startswith(self.sha256_prefix):
            raise ValueError("sha256 does not begin with sha256_prefix")
        if self.url is not None:
            parts = urlsplit(self.url)
            # Without a hash, only the connection says that the bytes are the publisher's.
            safe = parts.scheme == "https" or self.has_hash or parts.hostname in _LOOPBACK
            if parts.scheme not in ("http", "https") or not parts.hostname or not safe:
                raise ValueError("url must be https (http only where a hash is known)")
        return self

    @property
    def has_hash(self) -> bool:
        """Whether the published bytes are known by a hash."""
        return self.sha256 is not None or self.sha256_prefix is not None

    @property
    def expected_hash(self) -> str:
        """The published sha256 as a person reads it."""
        return self.sha256 or (f"{self.sha256_prefix}..." if self.sha256_prefix else "unknown")

    def fits(self, sha256: str) -> bool:
        """Whether a file of this sha256 is the published one; False where no hash is known."""
        if self.sha256 is not None:
            return self.sha256 == sha256
        return self.sha256_prefix is not None and sha256.startswith(self.sha256_prefix)

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the file may be met: published first."""
        return (PurePosixPath(self.path).name, *self.also_named)


class Licence(Section):
    """What the publisher allows."""

    name: str = Field(min_length=1)
    note: str = ""


class Checkpoint(Section):
    """One published checkpoint."""

    title: str = Field(min_length=1)
    loader: str = Field(min_length=1, description="What of this project loads it, or why nothing.")
    source: str = Field(pattern=r"^https://", description="The publisher's page.")
    by_hand: str | None = Field(default=None, description="How to get files without a url.")
    licence: Licence
    used_by: tuple[str, ...] = Field(description="Config keys that may name it.")
    approx_mb: float | None = Field(default=None, gt=0, description="Download size, roughly.")
    shard_index: str | None = Field(
        default=None,
        description="A file of it (transformers' index) that names further weight files beside it.",
    )
    files: tuple[CheckpointFile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_obtainable(self) -> "Checkpoint":
        if self.by_hand is None and any(file.url is None for file in self.files):
            raise ValueError("a file without url needs by_hand: where to get it")
        if self.shard_index is not None and self.shard_index not in {f.path for f in self.files}:
            raise ValueError("shard_index must be one of the files")
        return self

    @property
    def folder(self) -> str | None:
        """The one folder below models/checkpoints that holds the files; None for single files."""
        tops = {PurePosixPath(file.path).parts[0] for file in self.files if "/" in file.path}
        return tops.pop() if len(tops) == 1 else None

    @property
    def download_mb(self) -> float | None:
        """Size of all files in MB (10^6 bytes); None where it is not known."""
        sizes = [file.size_bytes for file in self.files]
        if self.shard_index is None and None not in sizes:
            return sum(size for size in sizes if size is not None) / 1e6
        return self.approx_mb


class Catalogue(Section):
    """Every published checkpoint that this project knows of, by name."""

    checkpoints: dict[CheckpointName, Checkpoint]

    @model_validator(mode="after")
    def _lists_a_path_once(self) -> "Catalogue":
        paths = [file.path for _, file in self.files()]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise ValueError(f"files listed twice: {twice}")
        return self

    def files(self) -> Iterator[tuple[str, CheckpointFile]]:
        """Iterate over all files, each with its checkpoint's name."""
        for name, checkpoint in self.checkpoints.items():
            for file in checkpoint.files:
                yield name, file

    def listed_as(self, path: Path) -> list[tuple[str, CheckpointFile]]:
        """Return the files that `path` claims to be by its name.

        A file of a folder is met by folder and name (`janus-pro-1b/config.json`), others by name.
        """
        found = []
        for name, file in self.files():
            wanted = PurePosixPath(file.path)
            depth = len(wanted.parts)
            tail = path.parts[-depth:]
            if tail[:-1] == wanted.parts[:-1] and tail[-1] in file.names:
                found.append((name, file))
        return found

    def with_hash(self, sha256: str) -> list[tuple[str, CheckpointFile]]:
        """Return the files whose whole published sha256 this is."""
        return [(name, file) for name, file in self.files() if file.sha256 == sha256]

    def checkpoint(self, name: str) -> Checkpoint:
        """Return a checkpoint.

        Raises:
            ConfigError: There is none of this name.
        """
        if name not in self.checkpoints:
            raise ConfigError(
                f"Expected the name of a checkpoint; found {name!r}. "
                f"There are: {', '.join(sorted(self.checkpoints)) or 'none'}."
            )
        return self.checkpoints[name]


def load_catalogue(path: Path) -> Catalogue:
    """Read a catalogue.

    Raises:
        ConfigError: The file is absent, not YAML, or an entry does not fit; the entry is named.
    """
    if not path.is_file():
        raise ConfigError(
            f"Expected the catalogue of checkpoints at {path}; found nothing. "
            "Set runtime.models_catalogue to configs/models.yaml of the repository."
        )
    return _load(path, path.stat().st_mtime_ns)


def find_catalogue(runtime: RuntimeConfig) -> Catalogue:
    """Return the configured catalogue; an empty one where there is no file.

    A relative path that no config file gave (the default) is taken from the code's repository.
    """
    path = catalogue_path(runtime)
    return load_catalogue(path) if path.is_file() else Catalogue(checkpoints={})


def catalogue_path(runtime: RuntimeConfig) -> Path:
    """Return where the catalogue is looked for."""
    return _REPOSITORY / runtime.models_catalogue


def checkpoints_folder(workspace: Workspace) -> Path:
    """Return the folder that holds published checkpoints."""
    return workspace.models / "checkpoints"


@lru_cache(maxsize=8)
def _load(path: Path, _mtime_ns: int) -> Catalogue:
    try:
        values = read_yaml(path)
    except ValueError as error:
        raise ConfigError(f"Expected YAML in {path}; found: {error}. Correct the file.") from error
    try:
        return Catalogue.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        raise ConfigError(
            f"Expected entries that fit in {path}; found {problems}. Correct these entries."
        ) from error
