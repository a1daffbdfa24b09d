"""The process that opens files from outside: one request a line, one answer a line, both JSON.

Started by `agetf_pipeline.data.examine_pool`. A decoder that crashes takes this process with it and
nothing else. It holds no state, and ends when its input does.
"""

import dataclasses
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from agetf_pipeline.core.errors import StorageError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.hashing import hash_bytes, hash_file
from agetf_pipeline.data.file_bytes import TooManyBytesError, read_at_most
from agetf_pipeline.data.probe import (
    Limits,
    Rejection,
    is_grey,
    out_of_memory,
    probe_picture,
    too_many_bytes,
)

READY = "ready"
STORAGE = "storage"
"""The answer's only key where nothing could be written."""


def examine(path: Path, limits: Limits, crop_to: Path | None, face_px: int) -> dict[str, Any]:
    """Examine one file, and cut its face out where that is asked for.

    Args:
        path: The file.
        limits: What is accepted.
        crop_to: File to write the face to; None for an image that is a face already.
        face_px: Side of the crop.

    Returns:
        JSON values: `sha256` of the bytes that were examined, then either the fields of
        `agetf_pipeline.data.probe.Facts` and `face_sha256`, or `reason` and `detail`.
    """
    try:
        data = read_at_most(path, limits.max_bytes)
    except TooManyBytesError as error:
        return _rejected(too_many_bytes(error.num_bytes, limits.max_bytes))
    except OSError as error:
        return _rejected(Rejection("unreadable", f"{error.strerror}."))
    sha256 = hash_bytes(data)
    result = probe_picture(data, limits)
    if isinstance(result, Rejection):
        return _rejected(result, sha256)
    facts, picture = result
    answer = {"sha256": sha256, "reason": None, "face_sha256": None, **dataclasses.asdict(facts)}
    if crop_to is None:
        return answer
    from PIL import Image

    try:
        found = _find_face(np.asarray(picture), face_px)
    except MemoryError:
        return _rejected(out_of_memory(), sha256)
    if found is None:
        detail = (
            "No frontal face was found. Crop it by hand (a square, the eyes a quarter of its side "
            "apart), or set aligned: true where faces fill the images already."
        )
        return _rejected(Rejection("no_face", detail), sha256)
    crop, flags = found
    with atomic_path(crop_to) as temporary:
        Image.fromarray(crop).save(temporary, compress_level=1)
    kept = [flag for flag in facts.flags if flag != "not_square"]
    return {
        **answer,
        "face_sha256": hash_file(crop_to),
        "flags": kept + flags,
        "is_grey": is_grey(crop),
        "width_px": face_px,
        "height_px": face_px,
    }


def _rejected(why: Rejection, sha256: str | None = None) -> dict[str, Any]:
    return {"sha256": sha256, "reason": why.reason, "detail": why.detail}


def _find_face(rgb: np.ndarray, face_px: int) -> tuple[np.ndarray, list[str]] | None:
    """Find and cut out a face; OpenCV's lack of memory is Python's.

    Raises:
        MemoryError: There is not enough.
    """
    import cv2

    from agetf_pipeline.data.faces import default_detector, find_and_crop

    try:
        return find_and_crop(rgb, face_px, default_detector())
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise


def serve(max_memory_bytes: int) -> None:
    """Answer requests until the input ends.

    Args:
        max_memory_bytes: Address space that this process may use.
    """
    # Decoders may print; the answers go where nothing else does.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    memory = max_memory_bytes if hard == resource.RLIM_INFINITY else min(hard, max_memory_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Loaded before the first request, so that a broken installation is not blamed on a file.
    import PIL.Image
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin
    import PIL.WebPImagePlugin  # noqa: F401

    answers.write(f"{json.dumps(READY)}\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        crop_to = request["crop_to"]
        try:
            answer = examine(
                Path(request["path"]),
                Limits(**request["limits"]),
                None if crop_to is None else Path(crop_to),
                request["face_px"],
            )
        except StorageError as error:  # the crop's disk is full: no fault of the picture
            answer = {STORAGE: str(error)}
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()
