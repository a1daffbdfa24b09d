"""Ages of photographs: faces found, read by every expert, mixed; a chunk at a time."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig, load_config, workspace_of
from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.core.progress import Progress
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.inputs import find_all, read_face
from agetf_pipeline.experts.base import AgeExpert
from agetf_pipeline.moe.calibration import (
    Calibration,
    calibration_path,
    load_calibration,
    uncalibrated,
)

_LOGGER = logging.getLogger(__name__)

SCHEMA: dict[str, pl.DataType] = {
    "path": pl.String(),  # null where the photograph's bytes were given
    "flags": pl.String(),  # several_faces, exif_rotated...; separated by commas
    "age_years": pl.Float32(),  # null where `reason` says why
    "variance_years2": pl.Float32(),
    "between_variance_years2": pl.Float32(),  # disagreement of the experts
    "interval_low_years": pl.Float32(),
    "interval_high_years": pl.Float32(),
    "age_group": pl.String(),
    "reliability": pl.Float32(),  # 0..1, the mixture's own P(within five years)
    "num_experts": pl.Int32(),
    "calibrated": pl.Boolean(),
    "experts": pl.String(),  # JSON, every expert's part
    "label_version": pl.String(),
    "reason": pl.String(),
    "note": pl.String(),  # what holds for all ages of the call, null where there is nothing to say
}
"""What is said of a photograph."""

_OF_LABEL = [
    name for name in SCHEMA if name not in ("path", "flags", "calibrated", "reason", "note")
]


@dataclass(frozen=True)
class _Photograph:
    path: Path | None
    flags: tuple[str, ...]
    face: np.ndarray | None
    reason: str | None


def estimate_ages(
    paths: Path | str | Sequence[Path | str],
    config: PipelineConfig | Path | str,
    workspace: Workspace | None = None,
    aligned: bool = False,
) -> pl.DataFrame:
    """Estimate the ages of photographs; see `agetf_pipeline.experts.estimate_ages`.

    Faces are read and forgotten a chunk at a time, the next ones while the networks read these:
    memory does not grow with the number of photographs, but for the rows.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = find_all(Path(path) for path in given)
    if not isinstance(config, PipelineConfig):
        config = load_config(Path(config))
    workspace = workspace or workspace_of(config)
    estimator = load_estimator(config, workspace)
    frames = [pl.DataFrame(schema=SCHEMA)]
    with Progress("estimating ages", len(files)) as progress:
        for rows in estimator.estimate(files, aligned):
            frames.append(rows)
            progress.advance(rows.height)
    return pl.concat(frames)


@dataclass(frozen=True)
class AgeEstimator:
    """Experts and their mixture, loaded once for many photographs.

    Attributes:
        config: What they were loaded with.
        experts: The experts, in the order of their names.
        calibration: The mixture's.
        note: What a reader of its ages has to know; None where there is nothing to say.
    """

    config: PipelineConfig
    experts: list[AgeExpert]
    calibration: Calibration
    note: str | None

    def estimate(
        self, sources: Sequence[Path | bytes], aligned: bool = False
    ) -> Iterator[pl.DataFrame]:
        """Yield rows of `SCHEMA`, one a photograph, a chunk at a time in the order given.

        Args:
            sources: Files, or their bytes.
            aligned: Whether the faces fill the pictures already; otherwise they are found.
        """
        for chunk in _read_ahead(sources, self.config, aligned):
            labels = _label(chunk, self.experts, self.calibration, self.config)
            yield _rows(chunk, labels, self.calibration.calibrated, self.note)

    def estimate_all(self, sources: Sequence[Path | bytes], aligned: bool = False) -> pl.DataFrame:
        """Return all rows of `estimate` at once."""
        return pl.concat([pl.DataFrame(schema=SCHEMA), *self.estimate(sources, aligned)])


def load_estimator(config: PipelineConfig, workspace: Workspace) -> AgeEstimator:
    """Load the configured experts and the mixture's calibration.

    Raises:
        ConfigError: The config names no expert.
        WeightsError: Weights are absent, damaged, or of another architecture.
        DataError: The calibration is damaged, or the one that the config names is absent.
    """
    experts = _load(config, workspace)
    calibration = calibration_of(config, workspace)
    return AgeEstimator(config, experts, calibration, _note(experts, calibration))


def calibration_of(config: PipelineConfig, workspace: Workspace) -> Calibration:
    """Return the mixture's calibration: the config's, else the workspace's, else none.

    Where the workspace has none the experts are taken at their word, and `reason` says so.

    Raises:
        DataError: The file is damaged, or the one that the config names is absent.
    """
    path = calibration_path(config.relabel, workspace)
    if config.relabel.calibration_path is not None or path.is_file():
        return load_calibration(path)
    return uncalibrated(
        f"there is no calibration at {workspace.relative(path)}", config.relabel.interval_level
    )


def _load(config: PipelineConfig, workspace: Workspace) -> list[AgeExpert]:
    from agetf_pipeline.experts.load import load_experts

    experts = load_experts(config, workspace)
    if len(experts) < config.relabel.min_experts:
        _LOGGER.warning(
            "%d expert(s) are configured and relabel.min_experts=%d: no photograph gets an age.",
            len(experts), config.relabel.min_experts,
        )  # fmt: skip
    return experts


def _note(experts: list[AgeExpert], calibration: Calibration) -> str | None:
    """Return what a reader of the ages has to know; said once as a warning, too."""
    notes = []
    drawn = [expert.name for expert in experts if expert.trained_on == "synthetic"]
    if drawn:
        notes.append(
            f"{', '.join(drawn)} saw drawn faces alone: of photographs their ages say nothing"
        )
    if not calibration.calibrated:
        notes.append(
            f"not calibrated ({calibration.reason}): experts are taken at their word, and nobody "
            "has checked the intervals"
        )
    for note in notes:
        _LOGGER.warning("%s.", note)
    return "; ".join(notes) or None


def _read_ahead(
    sources: Sequence[Path | bytes], config: PipelineConfig, aligned: bool
) -> Iterator[list[_Photograph]]:
    from agetf_pipeline.core.background import map_ahead
    from agetf_pipeline.experts.batching import batch_sizes

    # As large as the experts take it, as the stage 'predict' does.
    size_px = max(expert.input_px for expert in config.train_experts.experts.values())
    size = max(batch_sizes(config).values())
    chunks = (sources[start : start + size] for start in range(0, len(sources), size))
    silence_s = config.runtime.max_silence_s
    return map_ahead(
        lambda some: [_read(one, aligned, size_px) for one in some], chunks, max_silence_s=silence_s
    )


def _read(source: Path | bytes, aligned: bool, size_px: int) -> _Photograph:
    from agetf_pipeline.data.images import resize_rgb

    found = read_face(source, aligned)
    face = None if found.face is None else resize_rgb(found.face, size_px)
    return _Photograph(found.path, found.flags, face, found.reason)


def _label(
    chunk: list[_Photograph],
    experts: list[AgeExpert],
    calibration: Calibration,
    config: PipelineConfig,
) -> dict[int, dict]:
    """Return the mixture's label of each photograph with a face, by its place in the chunk."""
    from agetf_pipeline.experts.batching import batch_sizes
    from agetf_pipeline.experts.predict import read_faces

    faces = {place: taken.face for place, taken in enumerate(chunk) if taken.face is not None}
    if not faces:
        return {}
    # Named by their place: the same picture may be there twice.
    name_of = {place: f"{place:09d}" for place in faces}
    readings = read_faces(
        experts, np.stack(list(faces.values())), list(name_of.values()), batch_sizes(config)
    )
    by_name = _mix(readings, list(name_of.values()), calibration, config.relabel)
    return {place: by_name[name] for place, name in name_of.items()}


def _mix(
    readings: pl.DataFrame, names: list[str], calibration: Calibration, config: RelabelConfig
) -> dict[str, dict]:
    from agetf_pipeline.moe.labels import label_predictions

    images = pl.DataFrame({"image_id": names}).with_columns(
        pl.lit(None, pl.String).alias("age_group"), pl.lit(None, pl.Float32).alias("true_age_years")
    )
    labels = label_predictions(readings, images, calibration, config)
    return {row["image_id"]: row for row in labels.iter_rows(named=True)}


def _rows(
    chunk: list[_Photograph], labels: dict[int, dict], calibrated: bool, note: str | None
) -> pl.DataFrame:
    rows = []
    for place, taken in enumerate(chunk):
        label = labels.get(place, {})
        rows.append(
            {
                "path": None if taken.path is None else str(taken.path),
                "flags": ", ".join(taken.flags),
                **{name: label.get(name) for name in _OF_LABEL},
                "calibrated": calibrated,
                "reason": taken.reason or label.get("reason"),
                "note": note,
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA)
