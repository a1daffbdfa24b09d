"""Whether a weights file is what it claims to be, decided before anything of it is loaded.

Weights made here carry a card and pass. Other people's files pass if the catalogue knows their
sha256, or if a person imported them (`agetf models import`), or fetched them. Nothing else does.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agetf_pipeline.checkpoints.catalogue import Catalogue, CheckpointFile, find_catalogue
from agetf_pipeline.checkpoints.checksums import read_record, record_key
from agetf_pipeline.checkpoints.hashes import HashOf, cached_hash
from agetf_pipeline.config.runtime import RuntimeConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import read_card
from agetf_pipeline.core.workspace import Workspace

_LOGGER = logging.getLogger(__name__)
LOADABLE_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""What is read of a checkpoint folder in transformers' format. Pickles are not."""
_OWN_FILE = "weights.safetensors"
_REMEDY = "or set runtime.allow_unverified_weights=true to load it all the same."

Status = Literal["missing", "unchecked", "own", "verified", "accepted", "unverified", "mismatch"]


@dataclass(frozen=True)
class Verdict:
    """What is known of one file.

    Attributes:
        path: The file.
        status: `verified`: it has the published hash. `accepted`: a person or a fetch put it on
            record. `own`: written here. `unverified`: nothing vouches for it. `mismatch`: something
            says it should be other bytes. `unchecked`: too big to hash in passing.
        sha256: Of the file; None where it was not computed.
        problem: What was expected, found, and can be done; None where it may be loaded.
    """

    path: Path
    status: Status
    sha256: str | None = None
    problem: str | None = None


def require_verified(path: Path, workspace: Workspace, runtime: RuntimeConfig) -> str | None:
    """Refuse weights that fail verification. To be called before they are loaded.

    Args:
        path: A weights file, or a checkpoint folder in transformers' format.
        workspace: Holds the record of accepted checksums.
        runtime: Names the catalogue, and says whether unverified weights are allowed.

    Returns:
        The file's sha256; None where it was not needed: a folder, or weights made here.

    Raises:
        WeightsError: There is no such file, or nothing vouches for it, or it differs from what it
            claims to be; with all such files of a folder.
    """
    catalogue = find_catalogue(runtime)
    files = _files_to_verify(path, workspace)
    verdicts = [judge(file, workspace, catalogue) for file in files]
    problems = [verdict.problem for verdict in verdicts if verdict.problem is not None]
    if problems:
        if not runtime.allow_unverified_weights or any(v.status == "missing" for v in verdicts):
            raise WeightsError("\n".join(problems))
        for problem in problems:
            _LOGGER.warning("Loaded all the same, as the config allows: %s", problem)
    return verdicts[0].sha256 if path.is_file() else None


def judge(
    path: Path, workspace: Workspace, catalogue: Catalogue, hash_of: HashOf = cached_hash
) -> Verdict:
    """Say what is known of one file.

    Args:
        path: The file.
        workspace: Holds the record of accepted checksums.
        catalogue: The published checkpoints.
        hash_of: How to hash: anew, from the cache, or only if that is quick (then None).
    """
    if not path.is_file():
        return Verdict(path, "missing", problem=f"Expected weights at {path}; found nothing there.")
    listed = [(name, file) for name, file in catalogue.listed_as(path) if file.has_hash]
    record = read_record(workspace)
    entry = record.get(record_key(path, workspace) or "")
    if not listed and entry is None and is_own_export(path):
        return Verdict(path, "own")
    digest = hash_of(path, workspace)
    if digest is None:
        return Verdict(path, "unchecked")
    if any(file.fits(digest) for _, file in listed):
        return Verdict(path, "verified", digest)
    if listed:
        if any(one.sha256 == digest and one.mismatch_accepted for one in record.values()):
            return Verdict(path, "accepted", digest)
        return Verdict(path, "mismatch", digest, _differs(path, digest, listed))
    if catalogue.with_hash(digest):
        return Verdict(path, "verified", digest)
    if entry is not None and entry.sha256 != digest:
        return Verdict(path, "mismatch", digest, _changed(path, digest, entry.sha256, entry.how))
    if entry is not None or any(one.sha256 == digest for one in record.values()):
        return Verdict(path, "accepted", digest)
    return Verdict(path, "unverified", digest, _unknown(path, digest, catalogue))


def is_own_export(path: Path) -> bool:
    """Whether a file carries the card of weights that this project wrote."""
    if path.suffix != ".safetensors":
        return False
    try:
        return bool(read_card(path))
    except Exception:  # a damaged or foreign header: certainly no card of ours
        return False


def loadable_files(folder: Path) -> list[Path]:
    """Return what is read of a checkpoint folder, sorted."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix in LOADABLE_SUFFIXES and not file.name.startswith(".")
    )


def _files_to_verify(path: Path, workspace: Workspace) -> list[Path]:
    """A file itself; of a foreign folder what is read; of our own, only what is on record."""
    if not path.is_dir():
        return [path]
    files = loadable_files(path)
    own = path / _OWN_FILE
    if own in files and is_own_export(own):
        record = read_record(workspace)
        return [own, *(f for f in files if f != own and record_key(f, workspace) in record)]
    if not files:
        raise WeightsError(
            f"Expected a checkpoint folder in transformers' format at {path}; found none of its "
            "files (config.json, *.safetensors). Put the whole folder there: `agetf models list` "
            "says which."
        )
    return files


def _differs(path: Path, digest: str, listed: list[tuple[str, CheckpointFile]]) -> str:
    name, file = listed[0]
    return (
        f"Expected {path} to be the published {name} (sha256 {file.expected_hash}, "
        f"{file.hash_source}); found sha256 {digest}, {path.stat().st_size} bytes. It is damaged, "
        f"incomplete or another file. Get it again (`agetf models fetch {name}`); if you know why "
        f"it differs: `agetf models import --accept-mismatch {path}`, {_REMEDY}"
    )


def _changed(path: Path, digest: str, recorded: str, how: str) -> str:
    return (
        f"Expected {path} as it was {how} (sha256 {recorded}); found sha256 {digest}. It "
        f"changed since. Restore it; if the change is yours: `agetf models import {path}`, "
        f"{_REMEDY}"
    )


def _unknown(path: Path, digest: str, catalogue: Catalogue) -> str:
    known = catalogue.listed_as(path)
    extra = "" if known else " --name NAME"
    return (
        f"Expected weights that something vouches for; {path} (sha256 {digest}) carries no card "
        "of this project, no published checksum is known for it, and it was not imported. If you "
        f"trust where it comes from: `agetf models import {path}{extra}`, {_REMEDY}"
    )
