"""Who judges renderings: readers outside training, each there or absent with a reason.

Shapes: N images, H W their sides, D features.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from agetf_pipeline.core.statistics import Measure


class AgeReader(Protocol):
    """Reads ages of faces."""

    def read(self, faces_NHWC: np.ndarray) -> np.ndarray:
        """Return ages in years, float64 (N,), NaN where none is read, of uint8 RGB faces."""
        ...


class Embedder(Protocol):
    """Embeds identities."""

    def embed(self, faces_NHWC: np.ndarray) -> np.ndarray:
        """Return unit vectors, float64 (N, D), of uint8 RGB faces cut out as FFHQ's are."""
        ...


class AttributeReader(Protocol):
    """Reads attributes of faces that ageing should keep."""

    def read(self, faces_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Return the value of each attribute by its name, str (N,), of uint8 RGB faces."""
        ...


class FeatureExtractor(Protocol):
    """Maps images to features whose distributions can be compared."""

    def features(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return features, float32 (N, D), of uint8 RGB images of any side."""
        ...


class PairDistance(Protocol):
    """Measures how far two images are apart."""

    def distances(self, images_NHWC: np.ndarray, references_NHWC: np.ndarray) -> np.ndarray:
        """Return the distance of each pair, float64 (N,), of uint8 RGB images of one side."""
        ...


class FaceFinder(Protocol):
    """Says in which images there is a face to be found."""

    def found(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return whether a face is found in each image, bool (N,), of uint8 RGB images."""
        ...


@dataclass(frozen=True)
class Panel:
    """Everybody who judges renderings.

    Attributes:
        age_estimator: Outside training.
        mixture: The mixture of experts in evaluation mode: calibrated, nothing fitted.
        embedder: Outside training.
        attributes: Likewise.
        inception: FID and KID go by its features alone.
        own_features: Features of a network of this project; what they give has names of its own.
        lpips: LPIPS, by its published weights alone.
        face_finder: The detector that finds faces in photographs.
        attribute_accuracy: How often the reader of attributes is right, by attribute.
        absent: Why there is none, by the names above; with the file to supply where it helps.
        versions: What each is: sha256 of its weights, or the version of its code.
    """

    age_estimator: AgeReader | None = None
    mixture: AgeReader | None = None
    embedder: Embedder | None = None
    attributes: AttributeReader | None = None
    inception: FeatureExtractor | None = None
    own_features: FeatureExtractor | None = None
    lpips: PairDistance | None = None
    face_finder: FaceFinder | None = None
    attribute_accuracy: dict[str, Measure] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
