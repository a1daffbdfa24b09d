"""A first look at freshly trained enhancers: nearer to held-out clean faces than doing nothing?

The evaluation measures the whole stage against the corpus's truth; this only tells, right after
training, whether it went well.
"""

import cv2
import numpy as np

from agetf_pipeline.enhance.apply import bring_to_size
from agetf_pipeline.enhance.colour import Colouriser
from agetf_pipeline.enhance.engine_official import OfficialSuperResolver
from agetf_pipeline.enhance.esrgan import SuperResolver

_TILE_PX = 512


def psnr_db(images_NHW3: np.ndarray, clean_NHW3: np.ndarray) -> float:
    """Return the mean peak signal-to-noise ratio of uint8 images, in decibels."""
    error = images_NHW3.astype(np.float64) - clean_NHW3
    mse = np.maximum((error**2).mean(axis=(1, 2, 3)), 1e-3)
    return float((10 * np.log10(255**2 / mse)).mean())


def check_colour(colouriser: Colouriser, faces_NHW3: np.ndarray) -> dict[str, float | None]:
    """Colour grey copies of clean faces and compare both with the faces."""
    grey = [
        np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        for face in faces_NHW3
    ]
    coloured = colouriser(grey)
    return {
        "psnr_db_grey": round(psnr_db(np.stack(grey), faces_NHW3), 3),
        "psnr_db_colourised": round(psnr_db(np.stack(coloured), faces_NHW3), 3),
    }


def check_super_resolution(
    resolver: SuperResolver | OfficialSuperResolver, faces_NHW3: np.ndarray
) -> dict[str, float | None]:
    """Shrink clean faces by the network's scale, enlarge them again, and compare with bicubic."""
    size = faces_NHW3.shape[1] // resolver.scale
    side = size * resolver.scale
    clean = np.stack([bring_to_size(face, side, side) for face in faces_NHW3])
    small = np.stack([bring_to_size(face, size, size) for face in clean])
    bicubic = np.stack(
        [cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC) for face in small]
    )
    return {
        "psnr_db_bicubic": round(psnr_db(bicubic, clean), 3),
        "psnr_db_super_resolved": round(psnr_db(resolver(small, _TILE_PX), clean), 3),
    }
