"""Reading faces with several experts into rows of the table `predictions`.

One expert that fails on one image costs one row: the others, and the other images, are read.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from agetf_pipeline.data.schemas import PREDICTIONS
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.experts.base import AgeExpert, Readings

_LOGGER = logging.getLogger(__name__)
MAX_AGE_YEARS = 100.0


def read_faces(
    experts: Sequence[AgeExpert],
    faces_NHWC: np.ndarray,
    image_ids: Sequence[str],
    batch_size: int | Mapping[str, int],
) -> pl.DataFrame:
    """Read every face with every expert.

    Args:
        experts: The experts.
        faces_NHWC: uint8 (N, H, W, 3), RGB, square, aligned.
        image_ids: N names for the rows.
        batch_size: Faces per forward pass: of all experts, or of each by its name.

    Returns:
        Rows of `PREDICTIONS`, N per expert. A reading that failed has status `failed`, the reason
        and null values.
    """
    if len(faces_NHWC) != len(image_ids):
        raise ValueError(f"{len(faces_NHWC)} faces do not go with {len(image_ids)} image ids")
    rows = []
    for expert in experts:
        size = batch_size if isinstance(batch_size, int) else batch_size[expert.name]
        for start in range(0, len(image_ids), size):
            stop = start + size
            rows += _read_batch(expert, faces_NHWC[start:stop], image_ids[start:stop])
    return to_frame(rows, PREDICTIONS)


def failed_row(image_id: str, expert: str, model_version: str, reason: str) -> dict:
    """Return the row of a reading that failed."""
    row = dict.fromkeys(PREDICTIONS.schema.names)
    row |= {"image_id": image_id, "expert": expert, "model_version": model_version}
    return row | {"status": "failed", "reason": reason}


def _read_batch(expert: AgeExpert, faces_NHWC: np.ndarray, image_ids: Sequence[str]) -> list[dict]:
    try:
        readings = expert.read(faces_NHWC)
        _check_shapes(readings, len(image_ids))
    except Exception as error:
        # Whatever a network raises, on whatever library's behalf, must not stop the others. Alone,
        # the faces that it can read are read, so that a row never depends on its neighbours.
        if len(image_ids) > 1:
            _LOGGER.warning("%s failed on a batch (%s): reading one by one", expert.name, error)
            singles = ((faces_NHWC[i : i + 1], [name]) for i, name in enumerate(image_ids))
            return [row for faces, names in singles for row in _read_batch(expert, faces, names)]
        reason = f"{type(error).__name__}: {error}"
        return [failed_row(image_ids[0], expert.name, expert.version, reason)]
    return [_row(expert, readings, i, name) for i, name in enumerate(image_ids)]


def _check_shapes(readings: Readings, num: int) -> None:
    shapes = [readings.age_years.shape, readings.sigma_years.shape, (len(readings.reasons),)]
    if readings.distribution is not None:
        shapes.append(readings.distribution.shape[:1])
    if readings.valid_mass is not None:
        shapes.append(readings.valid_mass.shape)
    if any(shape != (num,) for shape in shapes):
        raise ValueError(f"the expert gave readings of shapes {shapes} for {num} faces")


def _row(expert: AgeExpert, readings: Readings, index: int, image_id: str) -> dict:
    age, sigma = float(readings.age_years[index]), float(readings.sigma_years[index])
    reason = readings.reasons[index]
    if reason is None and not 0 <= age <= MAX_AGE_YEARS:
        reason = f"the age {age:g} lies outside 0..{MAX_AGE_YEARS:g}"
    if reason is None and not (np.isfinite(sigma) and sigma > 0):
        reason = f"the spread {sigma:g} is not a positive number"
    if reason is not None:
        return failed_row(image_id, expert.name, expert.version, reason)
    distribution, mass = readings.distribution, readings.valid_mass
    return {
        "image_id": image_id,
        "expert": expert.name,
        "model_version": expert.version,
        "status": "ok",
        "reason": None,
        "age_years": age,
        "sigma_years": sigma,
        "distribution": None if distribution is None else distribution[index],
        "valid_mass": None if mass is None else float(mass[index]),
    }
