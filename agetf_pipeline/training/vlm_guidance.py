"""What the vision-language model says of the training images, as vectors from the caption cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agetf_pipeline.captions.cache import EmbeddingKind, EmbeddingStore, open_embeddings
from agetf_pipeline.captions.versions import recorded_version
from agetf_pipeline.core.workspace import Workspace

KIND_OF: dict[str, EmbeddingKind] = {"embedding": "image", "caption": "text"}
"""What `train.guidance` reads: the image's embedding, or that of its caption."""


@dataclass(frozen=True)
class VlmGuidance:
    """A vector of each training image, read from the cache when it is needed.

    Attributes:
        store: The cache.
        rows: int64 (n,), row of each image in it, -1 where it has none.
        kind: Of the image or of its caption.
    """

    store: EmbeddingStore
    rows: np.ndarray
    kind: EmbeddingKind

    @property
    def width(self) -> int:
        """Values of a vector."""
        return self.store.width

    def of(self, items: np.ndarray) -> np.ndarray:
        """Return the vectors of images by their index, float32 (N, D); rows of NaN for none."""
        return self.store.take(self.rows[items], self.kind).astype(np.float32)


def open_guidance(
    workspace: Workspace, image_ids: Sequence[str], guidance: str, messages: list[str]
) -> VlmGuidance | None:
    """Open the cache for the training images; None without any vector.

    Args:
        workspace: The workspace.
        image_ids: The n training images.
        guidance: `train.guidance`, not "null".
        messages: Is told what is missing.
    """
    version = recorded_version(workspace)
    store = None if version is None else open_embeddings(workspace, version)
    if store is None or not len(store):
        messages.append(
            f"train.guidance is '{guidance}', but the caption cache holds no embedding: trained "
            "without guidance. Run the stage caption, or set train.guidance=null."
        )
        return None
    kind = KIND_OF[guidance]
    rows = store.rows(image_ids)
    rows[np.isnan(store.take(rows, kind)[:, 0])] = -1
    if missing := int((rows < 0).sum()):
        messages.append(
            f"{missing} of {len(rows)} training images have no {kind} embedding in the caption "
            "cache: they train with the null token."
        )
    return VlmGuidance(store, rows, kind)
