"""Reading the faces of a table for the experts: one bad file does not stop the others."""

from collections.abc import Sequence

import numpy as np

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.images import load_faces


def load_readable_faces(
    workspace: Workspace,
    paths: Sequence[str],
    size_px: int,
    image_ids: Sequence[str | None] | None = None,
) -> tuple[np.ndarray, list[str | None]]:
    """Read face images, saying which cannot be read any more.

    Args:
        workspace: The workspace.
        paths: The `face_path` of each image.
        size_px: Side to resize to.
        image_ids: What `agetf_pipeline.data.images.original_ids` says of the same rows, to notice
            files that changed since ingest.

    Returns:
        The readable faces in order, uint8 (M, size_px, size_px, 3), and per path None or why it
        could not be read; M of them are None.
    """
    faces, reasons = [], []
    ids = [None] * len(paths) if image_ids is None else image_ids
    for path, image_id in zip(paths, ids, strict=True):
        try:
            faces.append(load_faces(workspace, [path], size_px, [image_id]))
            reasons.append(None)
        except DataError as error:
            reasons.append(str(error))
    empty = np.empty((0, size_px, size_px, 3), np.uint8)
    return (np.concatenate(faces) if faces else empty), reasons
