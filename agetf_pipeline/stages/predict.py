"""Read every image of a partition with every expert.

Reads the table `images`. Writes the table `predictions`, chunk by chunk: what is there already for
the same image and model version is kept. Failed readings are rows too, with the reason; they are
tried again whenever the stage runs anew.
"""

import logging

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import set_num_threads
from agetf_pipeline.core.errors import ConfigError, StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS
from agetf_pipeline.data.tables import read_table, table_hashes, table_path, to_frame
from agetf_pipeline.experts.base import AgeExpert
from agetf_pipeline.experts.load import load_experts, weights_hash
from agetf_pipeline.stages.base import StageReport, run_once

_LOGGER = logging.getLogger(__name__)
STAGE = "predict"
CODE_VERSION = "1"
_MAX_REASONS = 3


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Bring the predictions of one partition up to date.

    Raises:
        ConfigError: No expert is configured.
        DataError: The partition has no table `images`.
        WeightsError: The weights of an expert are absent or do not fit.
        StageError: Too many images have no reading by any expert.
    """
    names = sorted(config.train_experts.experts)
    if not names:
        raise ConfigError(
            "Expected experts in train_experts.experts; found none. Name at least one, as "
            "configs/base.yaml does."
        )
    inputs = table_hashes(workspace, IMAGES, [partition])
    inputs |= {f"weights/{name}": weights_hash(config, workspace, name) for name in names}
    settings = {
        "max_failed_fraction": config.predict.max_failed_fraction,
        "experts": {name: config.train_experts.experts[name].settings() for name in names},
        "precision": config.runtime.precision,
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


def _work(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    set_num_threads(config.runtime.num_threads)
    images = read_table(workspace, IMAGES, [partition]).select("image_id", "face_path")
    experts = load_experts(config, workspace)
    versions = pl.DataFrame(
        {
            "expert": [expert.name for expert in experts],
            "model_version": [expert.version for expert in experts],
            # Rows that say otherwise count as missing: failed readings are tried again.
            "status": ["ok"] * len(experts),
        }
    )
    size_px = max(expert.input_px for expert in config.train_experts.experts.values())
    result = update_table(
        workspace,
        PREDICTIONS,
        partition,
        images.join(versions, how="cross"),
        lambda chunk: _read_chunk(workspace, experts, chunk, size_px, config.predict.batch_size),
        # Rows are sorted by image, so all of an image's readings lie in one chunk.
        config.predict.chunk_size * len(experts),
        f"predict {partition}",
    )
    rows = read_table(workspace, PREDICTIONS, [partition])
    counts = {
        "num_images": images.height,
        "num_experts": len(experts),
        "num_reused": result.num_reused,
        "num_computed": result.num_computed,
        "num_failed": rows.filter(pl.col("status") == "failed").height,
    }
    messages = _explain(rows)
    num_unread = _check_failures(config, partition, images, rows)
    counts["num_images_without_reading"] = num_unread
    outputs = {"predictions": workspace.relative(table_path(workspace, PREDICTIONS, partition))}
    figures = {}
    for expert in experts:
        mean = rows.filter(pl.col("expert") == expert.name)["age_years"].mean()
        figures[f"mean_age_years_{expert.name}"] = mean if isinstance(mean, float) else None
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _read_chunk(
    workspace: Workspace,
    experts: list[AgeExpert],
    chunk: pl.DataFrame,
    size_px: int,
    batch_size: int,
) -> pl.DataFrame:
    """Read a slice of the wanted rows; each image is decoded once for all experts."""
    from agetf_pipeline.experts.faces import load_readable_faces
    from agetf_pipeline.experts.predict import failed_row, read_faces

    images = chunk.select("image_id", "face_path").unique("image_id").sort("image_id")
    faces_NHWC, reasons = load_readable_faces(workspace, images["face_path"].to_list(), size_px)
    why = dict(zip(images["image_id"], reasons, strict=True))
    readable = [image_id for image_id, reason in why.items() if reason is None]
    place = {image_id: index for index, image_id in enumerate(readable)}
    frames, failures = [], []
    for expert in experts:
        wanted = chunk.filter(pl.col("expert") == expert.name)["image_id"].to_list()
        ids = [image_id for image_id in wanted if image_id in place]
        faces = faces_NHWC[[place[image_id] for image_id in ids]]
        frames.append(read_faces([expert], faces, ids, batch_size))
        failures += [
            failed_row(image_id, expert.name, expert.version, why[image_id] or "")
            for image_id in wanted
            if image_id not in place
        ]
    return pl.concat([*frames, to_frame(failures, PREDICTIONS)])


def _explain(rows: pl.DataFrame) -> list[str]:
    """One message per expert and reason of failure, the commonest first."""
    failed = rows.filter(pl.col("status") == "failed")
    groups = failed.group_by("expert", "reason").len().sort(["len", "expert", "reason"])
    messages = [
        f"{row['expert']} gave no reading of {row['len']} image(s): {row['reason']}"
        for row in groups.reverse().head(_MAX_REASONS).iter_rows(named=True)
    ]
    if groups.height > _MAX_REASONS:
        messages.append(f"{groups.height - _MAX_REASONS} more reasons of failed readings.")
    if messages:
        messages.append(
            "Failed readings are rows of the table with their reason. They are tried again when "
            "the stage next runs; delete the table to make it run."
        )
    return messages


def _check_failures(
    config: PipelineConfig, partition: str, images: pl.DataFrame, rows: pl.DataFrame
) -> int:
    """Return how many images no expert could read; stop where there are too many."""
    read = rows.filter(pl.col("status") == "ok").select("image_id").unique()
    unread = images.join(read, on="image_id", how="anti")
    allowed = config.predict.max_failed_fraction * images.height
    if unread.height > allowed:
        reasons = "; ".join(_explain(rows)[:_MAX_REASONS])
        raise StageError(
            f"Expected readings of at least {1 - config.predict.max_failed_fraction:.0%} of the "
            f"images of {partition}; {unread.height} of {images.height} have none. {reasons}. "
            "Repair the files or the weights, or raise predict.max_failed_fraction."
        )
    return unread.height
