"""Photographs that a person names: found, read safely, faces cut out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agetf_pipeline.core.errors import DataError

_FACE_PX = 512


@dataclass(frozen=True)
class InputFace:
    """One photograph: its aligned face, or why there is none.

    Attributes:
        path: The file; None where its bytes were given.
        face: uint8 (H, H, 3), RGB; None where there is no usable face.
        reason: Why there is no face; None where there is one.
        flags: What a person may want to know: `several_faces`, `exif_rotated`...
    """

    path: Path | None
    face: np.ndarray | None
    reason: str | None
    flags: tuple[str, ...] = ()


def find_files(source: Path) -> list[Path]:
    """Return the files that `source` names: itself, or every file below the folder, sorted.

    Label tables and hidden files are left out; anything else that is no photograph is reported
    when it is read.

    Raises:
        DataError: There is no such file or folder, or the folder holds no file.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"Expected a photograph or a folder at {source}; found nothing there.")
    files = sorted(
        path
        for path in source.rglob("[!.]*")
        if path.is_file() and path.suffix.lower() not in {".csv", ".json", ".txt"}
    )
    if not files:
        raise DataError(f"Expected photographs in {source}; found no file.")
    return files


def find_all(sources: Iterable[Path]) -> list[Path]:
    """Return the files that several sources name, in the order given; see `find_files`."""
    return [path for source in sources for path in find_files(source)]


def read_face(source: Path | bytes, aligned: bool) -> InputFace:
    """Read one photograph and cut out its face.

    Args:
        source: The file, or its bytes.
        aligned: Whether the face fills the picture already; otherwise it is found.
    """
    from agetf_pipeline.data.faces import default_detector, find_and_crop
    from agetf_pipeline.data.file_bytes import TooManyBytesError, read_at_most
    from agetf_pipeline.data.photos import middle_square
    from agetf_pipeline.data.probe import Limits, Rejection, probe, too_many_bytes

    path = None if isinstance(source, bytes) else source
    limits = Limits()
    try:
        data = source if isinstance(source, bytes) else read_at_most(source, limits.max_bytes)
        probed = probe(data, limits)
    except TooManyBytesError as error:
        return InputFace(path, None, too_many_bytes(error.num_bytes, limits.max_bytes).detail)
    except OSError as error:
        return InputFace(path, None, f"The file cannot be read: {error.strerror}.")
    if isinstance(probed, Rejection):
        return InputFace(path, None, probed.detail)
    facts, rgb = probed
    if aligned:
        return InputFace(path, middle_square(rgb), None, facts.flags)
    found = find_and_crop(rgb, _FACE_PX, default_detector())
    if found is None:
        reason = "No face was found. If the face fills the picture already, say --aligned."
        return InputFace(path, None, reason, facts.flags)
    face, flags = found
    return InputFace(path, face, None, (*facts.flags, *flags))
