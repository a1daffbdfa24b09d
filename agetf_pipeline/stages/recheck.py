"""Read ages again after enhancement: a picture that became older or younger is flagged.

Reads the tables `enhanced`, `labels` and `images` of one CAF shard, the experts and the mixture's
calibration. Writes the table `enhanced_ages`. The age before is the mixture's label of the
original; the age after is the same mixture's reading of the enhanced file. A copy whose pixels were
not touched keeps its age: the experts would read the same pixels.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import set_num_threads
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import ENHANCED, ENHANCED_AGES, IMAGES, LABELS
from agetf_pipeline.data.tables import read_table, table_hashes, table_path, to_frame
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    from agetf_pipeline.experts.base import AgeExpert
    from agetf_pipeline.moe.calibration import Calibration

STAGE = "recheck"
CODE_VERSION = "1"
_TOUCHED = (
    pl.col("colourised")
    | pl.col("super_resolved")
    | (pl.col("input_width_px") != pl.col("output_width_px"))
    | (pl.col("input_height_px") != pl.col("output_height_px"))
)


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Bring the ages after enhancement of one CAF shard up to date.

    Raises:
        StageError: The partition is no CAF shard.
        DataError: A table or the calibration that this reads is absent.
        WeightsError: The weights of an expert are absent or do not fit.
    """
    from agetf_pipeline.experts.load import weights_hash

    if not is_caf(partition):
        raise StageError(
            f"Expected a CAF shard such as caf/shard-0000 to re-check; found {partition!r}. "
            "FFHQ-Aging is not enhanced."
        )
    inputs: dict[str, str] = {}
    for spec in (ENHANCED, LABELS, IMAGES):
        inputs |= table_hashes(workspace, spec, [partition])
    calibration = calibration_path(config, workspace)
    if calibration.is_file():
        inputs["calibration"] = hash_file(calibration)
    experts = sorted(config.train_experts.experts)
    inputs |= {f"weights/{name}": weights_hash(config, workspace, name) for name in experts}
    settings = {
        "recheck": config.recheck.settings(),
        "relabel": config.relabel.settings(),
        "experts": {name: config.train_experts.experts[name].settings() for name in experts},
    }
    return run_once(
        workspace,
        STAGE,
        settings,
        CODE_VERSION,
        inputs,
        lambda: _work(config, workspace, partition),
        partition,
    )


def calibration_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the mixture's calibration: configured (relative to the workspace), or fitted here."""
    given = config.relabel.calibration_path
    if given is not None:
        return workspace.root / given
    return workspace.models / "moe" / "calibration.json"


def _work(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    from agetf_pipeline.experts.load import load_experts
    from agetf_pipeline.moe.calibration import load_calibration

    set_num_threads(config.runtime.num_threads)
    calibration = load_calibration(calibration_path(config, workspace))
    experts = load_experts(config, workspace)
    enhanced = read_table(workspace, ENHANCED, [partition]).filter(pl.col("status") == "ok")
    labels = read_table(workspace, LABELS, [partition])
    images = read_table(workspace, IMAGES, [partition])
    before = labels.select("image_id", "label_version", age_before="age_years", why="reason")
    wanted = enhanced.select("image_id", "enhanced_sha256", "enhanced_path", touched=_TOUCHED).join(
        before, on="image_id"
    )
    limit = config.recheck.max_age_shift_years

    def compute(chunk: pl.DataFrame) -> pl.DataFrame:
        after = _read_after(config, workspace, experts, calibration, chunk, images)
        rows = [
            _row(image, after.get(image["image_id"]), limit)
            for image in chunk.iter_rows(named=True)
        ]
        return to_frame(rows, ENHANCED_AGES)

    def is_current(rows: pl.DataFrame) -> pl.Series:
        # A changed threshold changes verdicts; what could not be read is tried again.
        same = pl.col("flagged") == (pl.col("age_shift_years").abs() > limit)
        return rows.select(same.fill_null(False)).to_series()

    result = update_table(
        workspace,
        ENHANCED_AGES,
        partition,
        wanted,
        compute,
        config.predict.chunk_size,
        f"recheck {partition}",
        is_current,
    )
    report = _report(workspace, partition, limit)
    report.counts.update(num_reused=result.num_reused, num_computed=result.num_computed)
    if unlabelled := enhanced.height - wanted.height:
        report.messages.append(
            f"{unlabelled} enhanced image(s) have no row in the table 'labels': run relabel"
        )
    return report


def _read_after(
    config: PipelineConfig,
    workspace: Workspace,
    experts: "list[AgeExpert]",
    calibration: "Calibration",
    chunk: pl.DataFrame,
    images: pl.DataFrame,
) -> dict[str, tuple[float | None, str | None]]:
    """The mixture's age of each touched file, or why there is none."""
    from agetf_pipeline.experts.batching import batch_sizes
    from agetf_pipeline.experts.faces import load_readable_faces
    from agetf_pipeline.experts.predict import read_faces
    from agetf_pipeline.moe.labels import label_predictions

    touched = chunk.filter("touched")
    if not touched.height:
        return {}
    size_px = max(expert.input_px for expert in config.train_experts.experts.values())
    faces_NHWC, reasons = load_readable_faces(
        workspace, touched["enhanced_path"].to_list(), size_px
    )
    ids = touched["image_id"].to_list()
    after: dict[str, tuple[float | None, str | None]] = {
        image_id: (None, reason) for image_id, reason in zip(ids, reasons, strict=True)
    }
    readable = [image_id for image_id, (_, reason) in after.items() if reason is None]
    predictions = read_faces(experts, faces_NHWC, readable, batch_sizes(config))
    about = images.filter(pl.col("image_id").is_in(readable))
    labels = label_predictions(predictions, about, calibration, config.relabel)
    for label in labels.iter_rows(named=True):
        after[label["image_id"]] = (label["age_years"], label["reason"])
    return after


def _row(image: dict, after: tuple[float | None, str | None] | None, limit: float) -> dict:
    age_before = image["age_before"]
    # No reading: the pixels are those of the original.
    age_after, why = (age_before, None) if after is None else after
    shift, reason = None, None
    if age_before is None:
        reason = f"no age before: {image['why'] or 'the mixture gave none'}"
    elif age_after is None:
        reason = f"no age after: {why or 'the mixture gave none'}"
    else:
        shift = age_after - age_before
    flagged = shift is not None and abs(shift) > limit
    if flagged and shift is not None:
        reason = f"the age moved by {shift:+.1f} years, more than {limit:g}"
    return {
        "image_id": image["image_id"],
        "enhanced_sha256": image["enhanced_sha256"],
        "label_version": image["label_version"],
        "age_before_years": age_before,
        "age_after_years": age_after,
        "age_shift_years": shift,
        "flagged": flagged,
        "reason": reason,
    }


def _report(workspace: Workspace, partition: str, limit: float) -> StageReport:
    rows = read_table(workspace, ENHANCED_AGES, [partition])
    touched = read_table(workspace, ENHANCED, [partition]).filter(_TOUCHED).select("image_id")
    shifts = rows.join(touched, on="image_id").drop_nulls("age_shift_years")["age_shift_years"]
    num_flagged = rows.filter("flagged").height
    unread = rows.filter(pl.col("age_shift_years").is_null())
    messages = []
    if num_flagged:
        messages.append(
            f"{num_flagged} image(s) moved by more than {limit:g} years and are flagged; with "
            "recheck.exclude_flagged their enhanced copies do not reach training"
        )
    reasons = unread.group_by("reason").len().sort("reason").head(3)
    messages += [
        f"{row['len']} image(s) without a shift: {row['reason']}"
        for row in reasons.iter_rows(named=True)
    ]
    figures = {
        "mean_age_shift_years": _rounded(shifts.mean()),
        "mean_abs_age_shift_years": _rounded(shifts.abs().mean()),
    }
    counts = {
        "num_images": rows.height,
        "num_read": shifts.len(),
        "num_flagged": num_flagged,
        "num_without_shift": unread.height,
    }
    outputs = {"enhanced_ages": workspace.relative(table_path(workspace, ENHANCED_AGES, partition))}
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _rounded(value: object) -> float | None:
    return round(value, 4) if isinstance(value, float) else None
