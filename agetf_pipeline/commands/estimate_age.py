"""`agetf estimate-age`: photographs in, ages with intervals out."""

import logging
from pathlib import Path

import polars as pl

from agetf_pipeline.commands.inputs import InputFace, find_files, read_face
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.progress import track
from agetf_pipeline.core.workspace import Workspace

_LOGGER = logging.getLogger(__name__)
_COLUMNS = (
    "age_years", "variance_years2", "interval_low_years", "interval_high_years", "age_group",
    "num_experts", "calibrated", "experts", "label_version",
)  # fmt: skip
_WRITERS = {".csv": "write_csv", ".json": "write_json", ".parquet": "write_parquet"}
_FACE_PX = 256


def estimate_files(
    source: Path, out: Path, config: PipelineConfig, workspace: Workspace, aligned: bool = False
) -> pl.DataFrame:
    """Estimate the age of every photograph with the workspace's experts and calibration.

    Args:
        source: A photograph or a folder.
        out: File to write, `.csv`, `.json` or `.parquet`.
        config: Names the experts.
        workspace: Holds their weights and the mixture's calibration.
        aligned: Whether the faces fill the pictures already.

    Returns:
        One row per photograph: path, flags, the mixture's age, variance and interval, every
        expert's part as JSON; ages are null where `reason` says why.

    Raises:
        DataError: There is nothing at `source`, or `out` has another suffix.
        WeightsError: An expert's weights are absent.
    """
    if out.suffix not in _WRITERS:
        raise DataError(f"Expected --out to end in {', '.join(_WRITERS)}; found {out.name!r}.")
    faces = [read_face(path, aligned) for path in track(find_files(source), "reading")]
    labels = _label([face for face in faces if face.face is not None], config, workspace)
    rows = [
        {
            "path": str(face.path),
            "flags": ", ".join(face.flags),
            **{name: labels.get(face.path, {}).get(name) for name in _COLUMNS},
            "reason": face.reason or labels.get(face.path, {}).get("reason"),
        }
        for face in faces
    ]
    frame = pl.DataFrame(rows, schema=_schema())
    with atomic_path(out) as temporary:
        getattr(frame, _WRITERS[out.suffix])(temporary)
    return frame


def _label(
    faces: list[InputFace], config: PipelineConfig, workspace: Workspace
) -> dict[Path, dict]:
    """Return the mixture's label of each face, by its path."""
    import numpy as np

    from agetf_pipeline.data.images import resize_rgb
    from agetf_pipeline.experts.load import load_experts
    from agetf_pipeline.experts.predict import read_faces
    from agetf_pipeline.moe.calibration import load_calibration
    from agetf_pipeline.moe.labels import label_predictions

    experts = load_experts(config, workspace)
    drawn = [expert.name for expert in experts if expert.trained_on == "synthetic"]
    if drawn:
        _LOGGER.warning(
            "%s were trained on drawn faces: of photographs their ages say nothing.",
            ", ".join(drawn),
        )
    calibration = load_calibration(workspace.models / "moe" / "calibration.json")
    if not faces:
        return {}
    # Rows are named by their place: the same picture may be there twice.
    names = [f"{number:09d}" for number in range(len(faces))]
    pixels = np.stack([resize_rgb(face.face, _FACE_PX) for face in faces if face.face is not None])
    predictions = read_faces(experts, pixels, names, config.predict.batch_size)
    nothing = pl.lit(None)
    images = pl.DataFrame({"image_id": names}).with_columns(
        nothing.cast(pl.String).alias("age_group"), nothing.cast(pl.Float32).alias("true_age_years")
    )
    labels = label_predictions(predictions, images, calibration, config.relabel)
    by_name = {row["image_id"]: row for row in labels.iter_rows(named=True)}
    return {face.path: by_name[name] for face, name in zip(faces, names, strict=True)}


def _schema() -> dict[str, pl.DataType]:
    text, number = pl.String(), pl.Float32()
    kinds = {"num_experts": pl.Int32(), "calibrated": pl.Boolean(), "age_group": text}
    kinds |= {"experts": text, "label_version": text}
    columns = {name: kinds.get(name, number) for name in _COLUMNS}
    return {"path": text, "flags": text, **columns, "reason": text}
