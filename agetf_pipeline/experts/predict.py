"""Reading faces with several experts into rows of the table `predictions`.

One expert that fails on one image costs one row: the others, and the other images, are read. What
is not a face's fault (memory, a lost device, weights) makes no row: memory that is short halves the
batch, the rest is raised.
"""

import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from agetf_pipeline.core.batches import Work, in_batches, is_out_of_memory
from agetf_pipeline.core.devices import is_device_lost
from agetf_pipeline.core.errors import ConfigError, StageError, WeightsError
from agetf_pipeline.data.schemas import PREDICTIONS
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.experts.base import AgeExpert, Readings

_LOGGER = logging.getLogger(__name__)
MAX_AGE_YEARS = 100.0
_EXCEPTION = re.compile(r"\w*(Error|Exception): ")


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

    Raises:
        StageError: The memory does not hold one face.
        DeviceLostError: The device is gone.
        WeightsError: An expert's files are gone or do not fit.
    """
    if len(faces_NHWC) != len(image_ids):
        raise ValueError(f"{len(faces_NHWC)} faces do not go with {len(image_ids)} image ids")
    from agetf_pipeline.experts.preprocess import shared_faces

    rows = []
    with shared_faces():
        for expert in experts:
            size = batch_size if isinstance(batch_size, int) else batch_size[expert.name]

            def read(part: slice, expert: AgeExpert = expert) -> list[dict]:
                return _read_batch(expert, faces_NHWC[part], image_ids[part])

            for _, found in in_batches(read, len(image_ids), size, _work(expert)):
                rows += found
    return to_frame(rows, PREDICTIONS)


def raised(reason: str | None) -> bool:
    """Whether a failed row's reason is an exception's, not the expert's own word on a face."""
    return reason is not None and _EXCEPTION.match(reason) is not None


def _work(expert: AgeExpert) -> Work:
    return Work(f"reading with {expert.name}", "predict.batch_size")


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
        if _is_not_of_a_face(error):
            raise
        # Whatever a network raises, on whatever library's behalf, must not stop the others. Alone,
        # the faces that it can read are read, so that a row never depends on its neighbours.
        if len(image_ids) > 1:
            _LOGGER.warning("%s failed on a batch (%s): reading one by one", expert.name, error)
            singles = ((faces_NHWC[i : i + 1], [name]) for i, name in enumerate(image_ids))
            return [row for faces, names in singles for row in _read_batch(expert, faces, names)]
        reason = f"{type(error).__name__}: {error}"
        return [failed_row(image_ids[0], expert.name, expert.version, reason)]
    return [_row(expert, readings, i, name) for i, name in enumerate(image_ids)]


def _is_not_of_a_face(error: Exception) -> bool:
    """Whether every face would meet the same error: memory, the device, weights, a file."""
    return (
        is_out_of_memory(error)
        or is_device_lost(error)
        or isinstance(error, StageError | WeightsError | ConfigError | OSError)
    )


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
