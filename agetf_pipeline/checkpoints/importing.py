"""Importing files that a person brought: recognised, verified, copied, put on record."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agetf_pipeline.checkpoints.catalogue import (
    RECORD_FILE,
    Catalogue,
    Checkpoint,
    CheckpointFile,
    checkpoints_folder,
)
from agetf_pipeline.checkpoints.checksums import accept
from agetf_pipeline.checkpoints.hashes import cached_hash, remember
from agetf_pipeline.checkpoints.verifying import loadable_files
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.workspace import Workspace

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Imported:
    """One file that is on record now.

    Attributes:
        path: Below models/checkpoints.
        checkpoint: The catalogue's name, or the given one.
        sha256: Of the file.
        vouched: `published`: the published hash says that it is right; `person`: only the import
            does; `mismatch`: the import does, against the published hash.
    """

    path: Path
    checkpoint: str
    sha256: str
    vouched: str


@dataclass(frozen=True)
class _Plan:
    source: Path
    target: str
    checkpoint: str
    file: CheckpointFile | None


def import_path(
    source: Path,
    workspace: Workspace,
    catalogue: Catalogue,
    name: str | None = None,
    accept_mismatch: bool = False,
) -> list[Imported]:
    """Copy a file, or the files of a checkpoint folder, into models/checkpoints and accept them.

    A file is recognised by its name or sha256; `name` decides where both are unknown or ambiguous.
    A file that lies at its place already is only put on record.

    Args:
        source: A weights file; or a folder: of one checkpoint in transformers' format (it has a
            config.json), or one that holds single files of the catalogue.
        workspace: Where they go.
        catalogue: The published checkpoints.
        name: A checkpoint of the catalogue, or a new name for one that is not in it.
        accept_mismatch: Take a file whose published hash is another.

    Raises:
        WeightsError: Nothing is there, the file is not recognised, or it differs from what was
            published; nothing of the source is imported then.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise WeightsError(
            f"Expected a --name of letters, digits, '.', '_' and '-'; found {name!r}."
        )
    if source.is_dir():
        plans = _plan_folder(source, workspace, catalogue, name)
    elif source.is_file():
        plans = [_plan_file(source, workspace, catalogue, name)]
    else:
        raise WeightsError(f"Expected a file or a folder at {source}; found nothing there.")
    digests = [cached_hash(plan.source, workspace) for plan in plans]
    vouched = [_vouch(p, d, accept_mismatch) for p, d in zip(plans, digests, strict=True)]
    return [
        _bring(plan, digest, how, workspace)
        for plan, digest, how in zip(plans, digests, vouched, strict=True)
    ]


def _plan_file(source: Path, workspace: Workspace, catalogue: Catalogue, name: str | None) -> _Plan:
    known = catalogue.with_hash(cached_hash(source, workspace))
    if name in catalogue.checkpoints:
        file = _file_named(source.name, catalogue.checkpoints[name])
        return _Plan(source, file.path, name, file)
    if name is not None:
        if known:
            raise WeightsError(
                f"Expected {source} to be {name}, which the catalogue does not know; its sha256 is "
                f"that of {known[0][0]}. Import it without --name."
            )
        if source.name == RECORD_FILE:
            raise WeightsError(f"Expected a weights file; {source} has the name of the record.")
        return _Plan(source, source.name, name, None)
    # By folder and name, by content, by name alone: the first that says anything.
    named = [pair for pair in catalogue.files() if source.name in pair[1].names]
    found = catalogue.listed_as(source.absolute()) or known[:1] or named
    if len(found) == 1:
        return _Plan(source, found[0][1].path, found[0][0], found[0][1])
    names = ", ".join(sorted(name for name, _ in found))
    raise WeightsError(
        f"Expected a file that the catalogue knows by name or sha256; {source.name} could be any "
        f"of {names}. Say which: --name NAME."
        if found
        else f"Expected a file that the catalogue knows by name or sha256; found {source.name}, "
        "which it does not. If you trust where it comes from, give it a name: --name NAME."
    )


def _file_named(file_name: str, checkpoint: Checkpoint) -> CheckpointFile:
    """The file of a checkpoint that a source stands for: of that name, or the only one there is."""
    found = [file for file in checkpoint.files if file_name in file.names]
    if not found and len(checkpoint.files) == 1:
        found = [checkpoint.files[0]]
    if not found:
        names = [PurePosixPath(file.path).name for file in checkpoint.files]
        raise WeightsError(
            f"Expected a file of {checkpoint.title}: {', '.join(names)}; found {file_name}. "
            "Give it the name that it was published under."
        )
    return found[0]


def _plan_folder(
    source: Path, workspace: Workspace, catalogue: Catalogue, name: str | None
) -> list[_Plan]:
    files = loadable_files(source)
    if any(file.name == "config.json" for file in files):
        return _plan_checkpoint_folder(source, files, workspace, catalogue, name)
    if name is not None:
        raise WeightsError(
            f"Expected a checkpoint folder (with config.json) at {source} to give a name to; found "
            "none. Import its files one by one."
        )
    plans = []
    for file in sorted(path for path in source.iterdir() if path.is_file()):
        listed = [pair for pair in catalogue.listed_as(file) if "/" not in pair[1].path]
        plans += [_Plan(file, found.path, known, found) for known, found in listed]
    if not plans:
        raise WeightsError(
            f"Expected files of the catalogue in {source}; found none by name. `agetf models list "
            "--files` gives the names; import another file alone, with --name."
        )
    return plans


def _plan_checkpoint_folder(
    source: Path, files: list[Path], workspace: Workspace, catalogue: Catalogue, name: str | None
) -> list[_Plan]:
    """A folder in transformers' format: of the named checkpoint, or of the one it is known as."""
    folders = {c.folder: key for key, c in catalogue.checkpoints.items() if c.folder is not None}
    if name is None:
        weights = [file for file in files if file.suffix == ".safetensors"]
        hashes = [catalogue.with_hash(cached_hash(file, workspace)) for file in weights]
        by_hash = [known[0][0] for known in hashes if known]
        name = by_hash[0] if by_hash else folders.get(source.absolute().name)
    if name is None:
        raise WeightsError(
            f"Expected a checkpoint folder that the catalogue knows; {source} is none by name or "
            f"sha256 (there are {', '.join(sorted(folders.values()))}). Say which it is, or give "
            "it a new name: --name NAME."
        )
    checkpoint = catalogue.checkpoints.get(name)
    if checkpoint is not None and checkpoint.folder is None:
        raise WeightsError(f"Expected the name of a checkpoint folder; {name} is a single file.")
    folder = name if checkpoint is None else checkpoint.folder
    listed = {} if checkpoint is None else {file.path: file for file in checkpoint.files}
    targets = [f"{folder}/{file.name}" for file in files]
    return [
        _Plan(f, target, name, listed.get(target)) for f, target in zip(files, targets, strict=True)
    ]


def _vouch(plan: _Plan, digest: str, accept_mismatch: bool) -> str:
    file = plan.file
    if file is None:
        return "person"
    size = plan.source.stat().st_size
    if file.has_hash and file.fits(digest):
        return "published"
    if not file.has_hash and file.size_bytes in (None, size):
        return "person"
    if accept_mismatch:
        return "mismatch"
    expected = (
        f"sha256 {file.expected_hash} ({file.hash_source})"
        if file.has_hash
        else f"{file.size_bytes} bytes"
    )
    raise WeightsError(
        f"Expected {plan.source} to be the published {plan.checkpoint}, {expected}; found sha256 "
        f"{digest}, {size} bytes. It is damaged, incomplete or another file: get it again. If you "
        "know why it differs and trust it, add --accept-mismatch."
    )


def _bring(plan: _Plan, digest: str, vouched: str, workspace: Workspace) -> Imported:
    target = checkpoints_folder(workspace) / plan.target
    if not (target.is_file() and plan.source.samefile(target)):
        with atomic_path(target) as temporary:
            if _copy(plan.source, temporary) != digest:
                raise WeightsError(
                    f"Expected {plan.source} to stay as it is while it is copied; it changed. "
                    "Wait until it is written, and import it again."
                )
    remember(target, digest, workspace)
    accept(
        workspace, target, digest, "imported", plan.checkpoint,
        mismatch_accepted=vouched == "mismatch",
    )  # fmt: skip
    return Imported(target, plan.checkpoint, digest, vouched)


def _copy(source: Path, target: Path) -> str:
    """Copy a file's bytes; return the sha256 of what was written."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            writing.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()
