"""One planned picture of a corpus: what it shows, where it lies, how it is made and written.

Light imports alone: worker processes start with this module.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agetf_pipeline.synthetic.degrade import encode_degraded, encode_png
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import Identity


@dataclass(frozen=True)
class Photograph:
    """A picture that the corpus will hold.

    Attributes:
        path: Its file, relative to the workspace root.
        partition: Where it belongs.
        identity: Who, and how photographed.
        age_years: True age.
        size_px: Side of the clean original.
        degradations: Kinds of `degrade.DEGRADATIONS`; empty for a clean picture.
        seed: Of the degradations' strength.
        clean_path: The clean original, relative to the workspace root; `path` for a clean picture.
    """

    path: str
    partition: str
    identity: Identity
    age_years: float
    size_px: int
    degradations: tuple[str, ...]
    seed: int
    clean_path: str


def write_photograph(root: Path, photograph: Photograph) -> dict[str, str]:
    """Draw and write one picture, and its clean original where it is degraded.

    Args:
        root: Workspace root.
        photograph: What to make.

    Returns:
        sha256 of each file written, by path relative to the root.
    """
    rgb = draw_face(photograph.identity, photograph.age_years, photograph.size_px)
    clean = encode_png(rgb)
    files = {photograph.clean_path: clean}
    if photograph.degradations:
        rng = np.random.default_rng([109, photograph.seed])
        files[photograph.path], _ = encode_degraded(rgb, photograph.degradations, rng)
    for path, data in files.items():
        _place(root / path, data)
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def _place(path: Path, data: bytes) -> None:
    """Write a file under its name at once, without waiting for the disk.

    A power cut may leave it torn; the ledger's hashes tell, and it is drawn again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_chunk(root: str, photographs: list[Photograph]) -> dict[str, str]:
    """Write several pictures (the work of one worker's turn); return their hashes by path."""
    hashes: dict[str, str] = {}
    for photograph in photographs:
        hashes.update(write_photograph(Path(root), photograph))
    return hashes
