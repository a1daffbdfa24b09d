"""Fetching a checkpoint: each file downloaded, verified, and only then given its name."""

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

from agetf_pipeline.checkpoints.catalogue import (
    Catalogue,
    Checkpoint,
    CheckpointFile,
    checkpoints_folder,
)
from agetf_pipeline.checkpoints.checksums import accept
from agetf_pipeline.checkpoints.downloading import (
    Patience,
    UnreachableError,
    discard,
    download,
    part_of,
)
from agetf_pipeline.checkpoints.hashes import cached_hash, hash_now, remember
from agetf_pipeline.checkpoints.verifying import judge
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.locks import exclusive_lock
from agetf_pipeline.core.workspace import Workspace

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """One file of a checkpoint.

    Attributes:
        path: Below models/checkpoints.
        sha256: Of the file.
        already: Whether it was there before.
        vouched: Whether a published hash says that these are the right bytes.
    """

    path: Path
    sha256: str
    already: bool
    vouched: bool


def fetch(
    name: str, workspace: Workspace, catalogue: Catalogue, patience: Patience | None = None
) -> Iterator[Fetched]:
    """Fetch what is missing of a checkpoint, file by file.

    Args:
        name: Its name in the catalogue.
        workspace: Where it goes, `models/checkpoints`.
        catalogue: The published checkpoints.
        patience: Timeouts and tries.

    Yields:
        Each file as it is there.

    Raises:
        ConfigError: There is no such checkpoint.
        WeightsError: A file has no url, cannot be reached, or is not what was published; the
            message says which file to put where by hand. Nothing is left under its final name.
    """
    checkpoint = catalogue.checkpoint(name)
    lock = workspace.state / "locks" / "fetch.lock"
    with exclusive_lock(lock, "fetching checkpoints", wait=False):
        unreachable: list[CheckpointFile] = []
        for file in checkpoint.files:
            if file.url is None and not _path(file, workspace).is_file():
                unreachable.append(file)
                continue
            yield _fetch_file(name, checkpoint, file, workspace, catalogue, patience)
        if unreachable:
            raise WeightsError(by_hand(name, checkpoint, unreachable, workspace))
        for file in shard_files(checkpoint, workspace):
            yield _fetch_file(name, checkpoint, file, workspace, catalogue, patience)


def shard_files(checkpoint: Checkpoint, workspace: Workspace) -> list[CheckpointFile]:
    """Return the weight files that a checkpoint's index names; none before the index is there.

    Raises:
        WeightsError: The index is damaged, or names something else than files beside it.
    """
    index = next((file for file in checkpoint.files if file.path == checkpoint.shard_index), None)
    if index is None or not _path(index, workspace).is_file():
        return []
    path = _path(index, workspace)
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        plain = all(PurePosixPath(n).name == n and n.endswith(".safetensors") for n in names)
    except (ValueError, KeyError, AttributeError, TypeError):
        names, plain = set(), False
    if not plain:
        raise WeightsError(
            f"Expected an index of safetensors files in {path}; found something else. Delete it "
            "and fetch again."
        )
    listed = {file.path for file in checkpoint.files}
    folder = PurePosixPath(index.path).parent
    return [
        CheckpointFile(path=str(folder / n), url=urljoin(index.url, n) if index.url else None)
        for n in sorted(names)
        if str(folder / n) not in listed
    ]


def by_hand(
    name: str, checkpoint: Checkpoint, files: list[CheckpointFile], workspace: Workspace
) -> str:
    """Return what a person has to do where nothing can be downloaded from here."""
    lines = [f"{checkpoint.title} ({name}) has to be brought by hand:"]
    for file in files:
        facts = [f"{file.size_bytes} bytes"] if file.size_bytes else []
        facts += [f"sha256 {file.expected_hash}"] if file.has_hash else []
        lines.append(f"  put {PurePosixPath(file.path).name} at {_path(file, workspace)}")
        lines.append(f"    from {file.url or checkpoint.by_hand}")
        if facts:
            lines.append(f"    {', '.join(facts)}")
    lines.append(f"  or, from wherever it lies: agetf models import FILE --name {name}")
    unknown = [file for file in files if not file.has_hash]
    if unknown:
        lines.append(
            "  No checksum is published for "
            f"{', '.join(PurePosixPath(file.path).name for file in unknown)}: in any case run "
            "`agetf models import`, which puts the file on record as accepted by you."
        )
    return "\n".join(lines)


def _path(file: CheckpointFile, workspace: Workspace) -> Path:
    return checkpoints_folder(workspace) / file.path


def _fetch_file(
    name: str,
    checkpoint: Checkpoint,
    file: CheckpointFile,
    workspace: Workspace,
    catalogue: Catalogue,
    patience: Patience | None,
) -> Fetched:
    target = _path(file, workspace)
    if target.is_file():
        verdict = judge(target, workspace, catalogue)
        if verdict.problem is not None:
            raise WeightsError(
                f"{verdict.problem}\nIt is left as it is: remove it to fetch it anew."
            )
        digest = verdict.sha256 or cached_hash(target, workspace)
        return Fetched(target, digest, already=True, vouched=verdict.status == "verified")
    assert file.url is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    _require_room(target, file)
    try:
        digest = _download_verified(name, file, target, patience)
    except UnreachableError as error:
        raise WeightsError(f"{error}\n{by_hand(name, checkpoint, [file], workspace)}") from error
    if not file.has_hash:
        _LOGGER.warning(
            "No checksum is published for %s: what came over https is put on record as it is.",
            target.name,
        )
    remember(target, digest, workspace)
    accept(workspace, target, digest, "fetched", name)
    return Fetched(target, digest, already=False, vouched=file.has_hash)


def _download_verified(
    name: str,
    file: CheckpointFile,
    target: Path,
    patience: Patience | None,
) -> str:
    """Download into the part file, check size and hash, and give it its name."""
    assert file.url is not None
    part = part_of(target)
    resumed = download(file.url, part, file.size_bytes, patience)
    problem, digest = _examine(part, file)
    if problem is not None and resumed:
        # Two halves may come from two versions of the file: once more, from the beginning.
        _LOGGER.warning("%s: %s after going on; fetched anew", target.name, problem)
        discard(part)
        download(file.url, part, file.size_bytes, patience)
        problem, digest = _examine(part, file)
    if problem is not None:
        discard(part)
        raise WeightsError(
            f"Expected {file.url} to be the published {name} (sha256 {file.expected_hash}, "
            f"{file.hash_source}); found {problem}. It was thrown away. Try again; if it stays so, "
            "the publisher changed the file: compare with the checkpoint's page."
        )
    with atomic_path(target) as temporary:
        part.replace(temporary)
    discard(part)
    return digest


def _examine(part: Path, file: CheckpointFile) -> tuple[str | None, str]:
    """Return what is wrong with a finished download (None: nothing), and its sha256."""
    size = part.stat().st_size
    if file.size_bytes is not None and size != file.size_bytes:
        return f"{size} bytes instead of {file.size_bytes}", ""
    digest = hash_now(part)
    wrong = file.has_hash and not file.fits(digest)
    return (f"sha256 {digest}" if wrong else None), digest


def _require_room(target: Path, file: CheckpointFile) -> None:
    part = part_of(target)
    missing = (file.size_bytes or 0) - (part.stat().st_size if part.is_file() else 0)
    free = shutil.disk_usage(target.parent).free
    if free < missing:
        raise WeightsError(
            f"Expected {missing / 1e9:.1f} GB of free disk for {target.name} in {target.parent}; "
            f"found {free / 1e9:.1f} GB. Free some, or set workspace.root to a larger disk."
        )
