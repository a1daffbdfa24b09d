"""Read every image of a partition with every expert.

Reads the table `images`. Writes the table `predictions`, chunk by chunk: what is there already for
the same image and model version is kept. Failed readings are rows too, with the reason; they are
tried again whenever the stage runs anew.
"""

import logging
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import resolve_device, set_num_threads
from agetf_pipeline.core.errors import ConfigError, StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS
from agetf_pipeline.data.streaming import read_slices
from agetf_pipeline.data.tables import read_table, table_hashes, table_path, to_frame
from agetf_pipeline.experts.base import AgeExpert
from agetf_pipeline.experts.load import load_experts, weights_hash
from agetf_pipeline.stages.base import StageReport, run_once

_LOGGER = logging.getLogger(__name__)
STAGE = "predict"
CODE_VERSION = "1"
_MAX_REASONS = 3
_SLICE = 8192


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Bring the predictions of one partition up to date.

    Raises:
        ConfigError: No expert is configured.
        DataError: The partition has no table `images`.
        WeightsError: The weights of an expert are absent or do not fit.
        StageError: Too many images have no reading by any expert, or an expert raises the same on
            each of them.
        DeviceLostError: The GPU is gone; what was read before is kept.
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
    if config.runtime.compile:  # not otherwise: what was read before it was a setting still holds
        settings["compile"] = True
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
    images = read_table(workspace, IMAGES, [partition]).select("image_id", "path", "face_path")
    experts = load_experts(config, workspace)
    versions = pl.DataFrame(
        {
            "expert": [expert.name for expert in experts],
            "model_version": [expert.version for expert in experts],
            # Rows that say otherwise count as missing: failed readings are tried again.
            "status": ["ok"] * len(experts),
        }
    )
    result = update_table(
        workspace,
        PREDICTIONS,
        partition,
        images.join(versions, how="cross"),
        lambda chunk: _read_chunk(config, workspace, experts, chunk),
        # Rows are sorted by image, so all of an image's readings lie in one chunk.
        config.predict.chunk_size * len(experts),
        f"predict {partition}",
    )
    failed, mean_ages = _read_outcome(workspace, partition)
    counts = {
        "num_images": images.height,
        "num_experts": len(experts),
        "num_reused": result.num_reused,
        "num_computed": result.num_computed,
        "num_failed": failed.height,
    }
    messages = _explain(failed)
    num_unread = _check_failures(config, partition, images.height, len(experts), failed)
    _check_experts(partition, images.height, failed)
    counts["num_images_without_reading"] = num_unread
    outputs = {"predictions": workspace.relative(table_path(workspace, PREDICTIONS, partition))}
    figures = {f"mean_age_years_{expert.name}": mean_ages.get(expert.name) for expert in experts}
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _read_chunk(
    config: PipelineConfig, workspace: Workspace, experts: list[AgeExpert], chunk: pl.DataFrame
) -> pl.DataFrame:
    """Read a slice of the wanted rows; each image is decoded once for all experts.

    On a CPU batches are read side by side, each by all experts on one core; on a GPU one after the
    other. The next faces are decoded meanwhile.
    """
    import torch

    from agetf_pipeline.core.background import map_ahead
    from agetf_pipeline.core.side_by_side import side_by_side
    from agetf_pipeline.data.images import original_ids
    from agetf_pipeline.experts.batching import batch_sizes, num_side_by_side
    from agetf_pipeline.experts.faces import load_readable_faces

    sizes = batch_sizes(config)
    size_px = max(expert.input_px for expert in config.train_experts.experts.values())
    images = chunk.select("image_id", "path", "face_path").unique("image_id").sort("image_id")

    def load(some: pl.DataFrame) -> _Loaded:
        paths = some["face_path"].to_list()
        return _Loaded(some, *load_readable_faces(workspace, paths, size_px, original_ids(some)))

    def read(loaded: _Loaded) -> tuple[_Loaded, list[pl.DataFrame]]:
        wanted = chunk.join(loaded.images.select("image_id"), on="image_id", how="semi")
        return loaded, _read_loaded(experts, wanted, loaded, sizes)

    num_threads = torch.get_num_threads()
    ahead = map_ahead(
        load,
        images.iter_slices(max(sizes.values())),
        num_ahead=num_threads + 1,
        max_silence_s=config.runtime.max_silence_s,
        num_threads=num_threads,
    )
    frames: list[pl.DataFrame] = []
    device = resolve_device(config.runtime.device)
    with (
        closing(ahead),
        side_by_side(device, num_side_by_side(config)) as workers,
        closing(workers.map(read, ahead)) as done,
    ):
        for _, rows in done:
            frames += rows
    return pl.concat(frames)


@dataclass(frozen=True)
class _Loaded:
    """Decoded faces of some images.

    Attributes:
        images: Rows of the images.
        faces_NHWC: uint8 (M, H, W, 3), those that could be decoded, in order.
        reasons: Of each image None, or why it could not be decoded.
    """

    images: pl.DataFrame
    faces_NHWC: np.ndarray
    reasons: list[str | None]

    @property
    def why(self) -> dict[str, str]:
        """Why images could not be decoded, by their id."""
        pairs = zip(self.images["image_id"], self.reasons, strict=True)
        return {image_id: reason for image_id, reason in pairs if reason is not None}


def _read_loaded(
    experts: list[AgeExpert], wanted: pl.DataFrame, loaded: _Loaded, sizes: dict[str, int]
) -> list[pl.DataFrame]:
    """Read decoded faces, and say of the others why they have no reading."""
    from agetf_pipeline.experts.predict import failed_row, read_faces

    why = loaded.why
    readable = [image_id for image_id in loaded.images["image_id"] if image_id not in why]
    place = {image_id: index for index, image_id in enumerate(readable)}
    frames, failures = [], []
    alike: dict[tuple[str, ...], list[AgeExpert]] = {}
    for expert in experts:
        its = wanted.filter(pl.col("expert") == expert.name)["image_id"].to_list()
        alike.setdefault(tuple(id_ for id_ in its if id_ in place), []).append(expert)
        failures += [
            failed_row(image_id, expert.name, expert.version, why[image_id])
            for image_id in its
            if image_id in why
        ]
    # Experts that want the same faces share what is made of them: nearly always all of them.
    for ids, some in alike.items():
        whole = list(ids) == readable
        faces = loaded.faces_NHWC if whole else loaded.faces_NHWC[[place[id_] for id_ in ids]]
        frames.append(read_faces(some, faces, ids, sizes))
    return [*frames, to_frame(failures, PREDICTIONS)]


def _read_outcome(
    workspace: Workspace, partition: str
) -> tuple[pl.DataFrame, dict[str, float | None]]:
    """Return the failed rows of the table and every expert's mean age, a slice at a time."""
    columns = ["image_id", "expert", "status", "reason", "age_years"]
    failed, sums = [to_frame([], PREDICTIONS).select(columns)], []
    for rows in read_slices(workspace, PREDICTIONS, partition, _SLICE, columns):
        failed.append(rows.filter(pl.col("status") == "failed"))
        age = pl.col("age_years").cast(pl.Float64)
        sums.append(rows.group_by("expert").agg(total=age.sum(), num=age.count()))
    if not sums:
        return pl.concat(failed), {}
    means = pl.concat(sums).group_by("expert").agg(pl.col("total").sum(), pl.col("num").sum())
    return pl.concat(failed), {
        row["expert"]: row["total"] / row["num"] if row["num"] else None
        for row in means.iter_rows(named=True)
    }


def _explain(failed: pl.DataFrame) -> list[str]:
    """One message per expert and reason of failure, the commonest first."""
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
    config: PipelineConfig, partition: str, num_images: int, num_experts: int, failed: pl.DataFrame
) -> int:
    """Return how many images no expert could read; stop where there are too many."""
    per_image = failed.group_by("image_id").len()
    num_unread = per_image.filter(pl.col("len") == num_experts).height
    if num_unread > config.predict.max_failed_fraction * num_images:
        reasons = "; ".join(_explain(failed)[:_MAX_REASONS])
        raise StageError(
            f"Expected readings of at least {1 - config.predict.max_failed_fraction:.0%} of the "
            f"images of {partition}; {num_unread} of {num_images} have none. {reasons}. "
            "Repair the files or the weights, or raise predict.max_failed_fraction."
        )
    return num_unread


def _check_experts(partition: str, num_images: int, failed: pl.DataFrame) -> None:
    """Stop where an expert raised the same on every image it was shown: that is no image's fault.

    Told from the table alone, since any number of processes may have read the images.

    Args:
        partition: The partition.
        num_images: Images of the partition.
        failed: Rows of all failed readings: raised, not decoded, or the expert's own word.
    """
    from agetf_pipeline.experts.predict import raised

    num_failed = pl.len().over("expert")
    unread = failed.filter(num_failed == num_images).group_by("expert", "reason").len()
    by_raising = [
        row for row in unread.sort("expert").iter_rows(named=True) if raised(row["reason"])
    ]
    times = Counter(row["expert"] for row in by_raising)
    broken = [row for row in by_raising if times[row["expert"]] == 1]
    num_shown = max((row["len"] for row in broken), default=0)
    if broken and num_shown > 1:
        what = "; ".join(f"{row['expert']}: {row['reason']}" for row in broken)
        raise StageError(
            f"Expected every expert to read some image of {partition}; each of {num_shown} images "
            f"raised the same. {what}. Repair its weights or its code, or take it out of "
            "train_experts.experts. What the other experts read is kept, and the failed readings "
            "are tried again when the stage runs anew."
        )
