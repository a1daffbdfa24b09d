"""Reading the caption cache: embeddings by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.tables import read_table

EmbeddingKind = Literal["image", "text"]


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of many images.

    Attributes:
        image_ids: N ids, sorted within a partition.
        matrix: float16 (N, D).
    """

    image_ids: tuple[str, ...]
    matrix: np.ndarray

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._rows

    def of(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the embeddings of images, float16 (len(image_ids), D), in their order.

        Raises:
            DataError: Some have none.
        """
        missing = [image_id for image_id in image_ids if image_id not in self._rows]
        if missing:
            raise DataError(
                f"Expected embeddings of {len(image_ids)} images; {len(missing)} have none, the "
                f"first {missing[0]}. Run the stage `caption` on their partitions."
            )
        return self.matrix[[self._rows[image_id] for image_id in image_ids]]


def load_embeddings(
    workspace: Workspace, partitions: list[str] | None = None, kind: EmbeddingKind = "image"
) -> tuple[list[str], np.ndarray]:
    """Read the embeddings of every image that has one.

    Args:
        workspace: The workspace.
        partitions: Partitions of the table `captions`; None: all that exist.
        kind: Of the image, or of its caption.

    Returns:
        N image ids, and their embeddings, float16 (N, D); (0, 0) where there is none. An image
        that lies in two partitions counts once.

    Raises:
        DataError: A partition is not there, or two models' embeddings of different width are.
    """
    column = f"{kind}_embedding"
    rows = read_table(workspace, CAPTIONS, partitions).filter(pl.col(column).is_not_null())
    rows = rows.unique("image_id", keep="first", maintain_order=True)
    if not rows.height:
        return [], np.empty((0, 0), np.float16)
    widths = rows[column].list.len().unique().sort().to_list()
    if len(widths) > 1:
        raise DataError(
            f"Expected {kind} embeddings of one width; found {widths}: they come from different "
            "models. Run the stage `caption` on every partition with the same configuration."
        )
    flat = rows[column].explode().to_numpy().astype(np.float16)
    return rows["image_id"].to_list(), flat.reshape(rows.height, widths[0])


def load_lookup(
    workspace: Workspace, partitions: list[str] | None = None, kind: EmbeddingKind = "image"
) -> Embeddings:
    """Read embeddings for look-ups by `image_id`; see `load_embeddings`."""
    image_ids, matrix = load_embeddings(workspace, partitions, kind)
    return Embeddings(tuple(image_ids), matrix)
