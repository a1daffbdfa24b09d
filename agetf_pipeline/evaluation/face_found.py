"""Whether there is a face to be found: the detector of photographs looks at every image.

A rendering without a face that anybody finds is a failure, and is counted as one.
"""

from dataclasses import dataclass

import numpy as np

from agetf_pipeline.data.faces import FaceDetector, default_detector

SEARCH_PX = 384
"""Images are brought to this side: cascades see no face of a few dozen pixels."""


@dataclass(frozen=True)
class DetectorFinder:
    """A detector at work; a `panel.FaceFinder`.

    Attributes:
        detector: What finds faces in a photograph.
        search_px: Longer side of an image when it is searched, at least.
    """

    detector: FaceDetector
    search_px: int = SEARCH_PX

    def found(self, images_NHWC: np.ndarray) -> np.ndarray:
        """Return whether a face is found in each image, bool (N,), of uint8 RGB images."""
        found = [bool(self.detector.find(self._enlarged(image))) for image in images_NHWC]
        return np.array(found, bool)

    def _enlarged(self, rgb: np.ndarray) -> np.ndarray:
        import cv2

        scale = self.search_px / max(rgb.shape[:2])
        if scale <= 1:
            return np.ascontiguousarray(rgb)
        return cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def detector_finder() -> DetectorFinder:
    """Return the finder that uses the detector of this process, loaded once."""
    return DetectorFinder(default_detector())
