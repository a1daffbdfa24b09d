"""Image features before pooling: a file an image, for those who attend to places of a face.

They are large (576 x 2048 values with Janus-Pro-1B), do not depend on the prompt, and are read one
at a time: a file each is as good as a table, and nothing has to be rewritten when one is added.
"""

from pathlib import Path

import numpy as np

from agetf_pipeline.captions.versions import cache_folder
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.workspace import Workspace


def save_grid(workspace: Workspace, model_version: str, image_id: str, grid_TD: np.ndarray) -> Path:
    """Write the features of an image, float16 (T, D), atomically; return their file."""
    path = cache_folder(workspace) / "token_grids" / model_version / image_id[:2]
    path = path / f"{image_id}.npy"
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, grid_TD.astype(np.float16), allow_pickle=False)
    return path


def load_grid(workspace: Workspace, relative_path: str) -> np.ndarray:
    """Return the features of an image, float16 (T, D), mapped into memory.

    Args:
        workspace: The workspace.
        relative_path: Column `token_grid_path` of the table `captions`.

    Raises:
        DataError: The file is not there or damaged.
    """
    path = workspace.resolve(relative_path)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected image features at {path}; found: {error}. Delete the file and run the stage "
            "`caption` with caption.token_grid=true."
        ) from error
