"""The guards after enhancement: is it still as old, still the same person, as sharp, as coloured?

Reads the tables `enhanced`, `labels` and `images` of one CAF shard and the pictures before and
after, the experts, the mixture's calibration, and the identity model where one is configured.
Writes the table `enhanced_ages` (what was measured, the flags, and why), and for a person, in
`stats/recheck/<partition>/`: the distributions with their thresholds, the flagged images ranked,
and a contact sheet of them.

The age before is the mixture's label of the original; the age after is the same mixture's reading
of the enhanced file. A copy whose pixels were not touched keeps everything: networks would see the
same pixels. What was measured is kept: a threshold that moves changes verdicts, an identity model
that is added reads identities, and no age is read twice.

The values stand in this stage's table, never in the sidecars, which are the stage enhance's:
whoever audits a shard reads both.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import resolve_device, set_num_threads
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import ENHANCED, ENHANCED_AGES, IMAGES, LABELS
from agetf_pipeline.data.streaming import SortedTable
from agetf_pipeline.data.tables import (
    table_hashes,
    table_path,
    to_frame,
)
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    from agetf_pipeline.enhance.identity import IdentityModel
    from agetf_pipeline.experts.base import AgeExpert
    from agetf_pipeline.moe.calibration import Calibration

STAGE = "recheck"
CODE_VERSION = "2"
_MAX_REASONS = 3


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Bring the guards' table of one CAF shard up to date.

    Raises:
        StageError: The partition is no CAF shard.
        DataError: A table or the calibration that this reads is absent.
        WeightsError: The weights of an expert or of the identity model are absent, unverified or
            do not fit.
    """
    from agetf_pipeline.experts.load import weights_hash
    from agetf_pipeline.moe.calibration import calibration_path

    if not is_caf(partition):
        raise StageError(
            f"Expected a CAF shard such as caf/shard-0000 to re-check; found {partition!r}. "
            "FFHQ-Aging is not enhanced."
        )
    inputs: dict[str, str] = {}
    for spec in (ENHANCED, LABELS, IMAGES):
        inputs |= table_hashes(workspace, spec, [partition])
    calibration = calibration_path(config.relabel, workspace)
    if calibration.is_file():
        inputs["calibration"] = hash_file(calibration)
    experts = sorted(config.train_experts.experts)
    inputs |= {f"weights/{name}": weights_hash(config, workspace, name) for name in experts}
    if (identity := identity_path(config, workspace)) is not None:
        inputs["weights/identity"] = hash_file(identity) if identity.is_file() else "absent"
    section = config.recheck.settings()
    section.pop("identity_weights")  # where they lie does not matter, only what they are
    settings = {
        "recheck": section,
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


def identity_path(config: PipelineConfig, workspace: Workspace) -> Path | None:
    """Return the weights of the guard's identity model, None where none is configured."""
    given = config.recheck.identity_weights
    return None if given is None else workspace.root / given


def _work(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    from agetf_pipeline.enhance.guard_measures import measure_pictures
    from agetf_pipeline.enhance.guard_rows import is_measured, measured_row, with_known
    from agetf_pipeline.enhance.guard_tables import rows_of, wanted_rows
    from agetf_pipeline.enhance.guards import judge
    from agetf_pipeline.experts.load import load_experts
    from agetf_pipeline.moe.calibration import calibration_path, load_calibration

    set_num_threads(config.runtime.num_threads)
    calibration = load_calibration(calibration_path(config.relabel, workspace))
    model = _identity_model(config, workspace)
    wanted, num_enhanced = wanted_rows(workspace, partition, model)
    stored = _stored(workspace, partition)
    images = SortedTable(table_path(workspace, IMAGES, partition), IMAGES)
    # Loaded when the first age has to be read: after a change of thresholds there is none.
    experts = functools.cache(lambda: load_experts(config, workspace))

    def compute(chunk: pl.DataFrame) -> pl.DataFrame:
        known = with_known(chunk, rows_of(stored, chunk, ENHANCED_AGES), model is not None)
        touched = known.filter("touched")
        unread = touched.filter(pl.col("age_after_years").is_null())
        ages = _read_after(config, workspace, experts, calibration, unread, images)
        unmeasured = touched.filter(~is_measured())
        pixels = measure_pictures(workspace, unmeasured.to_dicts(), model)
        rows = [
            measured_row(row, ages.get(row["image_id"]), pixels.get(row["image_id"]))
            for row in known.iter_rows(named=True)
        ]
        measured = to_frame(rows, ENHANCED_AGES)
        return measured.with_columns(judge(measured, config.recheck).drop("severity"))

    def is_current(rows: pl.DataFrame) -> pl.Series:
        # What could not be measured is tried again; a changed threshold changes verdicts.
        settled = rows.select(is_measured() & pl.col("age_after_years").is_not_null()).to_series()
        verdicts = judge(rows, config.recheck)
        return settled & (verdicts["reason"].eq_missing(rows["reason"]))

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
    report = _report(config, workspace, partition)
    report.counts.update(num_reused=result.num_reused, num_computed=result.num_computed)
    report.messages.extend(_about_model(workspace, model))
    if unlabelled := num_enhanced - wanted.height:
        report.messages.append(
            f"{unlabelled} enhanced image(s) have no row in the table 'labels': run relabel"
        )
    return report


def _identity_model(config: PipelineConfig, workspace: Workspace) -> "IdentityModel | None":
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.enhance.identity import load_identity_model

    path = identity_path(config, workspace)
    if path is None:
        return None
    require_verified(path, workspace, config.runtime)
    return load_identity_model(path, resolve_device(config.runtime.device))


def _about_model(workspace: Workspace, model: "IdentityModel | None") -> list[str]:
    from agetf_pipeline.enhance.guard_measures import NO_MODEL
    from agetf_pipeline.enhance.identity import is_the_evaluations

    if model is None:
        return [f"identity was not compared: {NO_MODEL}"]
    messages = [f"identity was compared by {model.architecture}, trained on {model.trained_on}"]
    if is_the_evaluations(model, workspace):
        messages.append(
            "the identity model is the one that evaluation measures with: its figures on images "
            "that this guard let through flatter. Name another in recheck.identity_weights"
        )
    return messages


def _stored(workspace: Workspace, partition: str) -> SortedTable | None:
    """What was measured before; None where there is no table, or one of other columns."""
    path = table_path(workspace, ENHANCED_AGES, partition)
    if not path.exists():
        return None
    try:
        return SortedTable(path, ENHANCED_AGES)
    except DataError:  # update_table makes it again
        return None


def _read_after(
    config: PipelineConfig,
    workspace: Workspace,
    experts: "Callable[[], list[AgeExpert]]",
    calibration: "Calibration",
    unread: pl.DataFrame,
    images: SortedTable,
) -> dict[str, tuple[float | None, str | None]]:
    """The mixture's age of each enhanced file, or why there is none."""
    from agetf_pipeline.enhance.guard_tables import rows_of
    from agetf_pipeline.experts.batching import batch_sizes
    from agetf_pipeline.experts.faces import load_readable_faces
    from agetf_pipeline.experts.predict import read_faces
    from agetf_pipeline.moe.labels import label_predictions

    if not unread.height:
        return {}
    size_px = max(expert.input_px for expert in config.train_experts.experts.values())
    faces_NHWC, reasons = load_readable_faces(workspace, unread["enhanced_path"].to_list(), size_px)
    ids = unread["image_id"].to_list()
    after: dict[str, tuple[float | None, str | None]] = {
        image_id: (None, reason) for image_id, reason in zip(ids, reasons, strict=True)
    }
    readable = [image_id for image_id, (_, reason) in after.items() if reason is None]
    predictions = read_faces(experts(), faces_NHWC, readable, batch_sizes(config))
    about = rows_of(images, unread.filter(pl.col("image_id").is_in(readable)), IMAGES)
    labels = label_predictions(predictions, about, calibration, config.relabel)
    for label in labels.iter_rows(named=True):
        after[label["image_id"]] = (label["age_years"], label["reason"])
    return after


def _report(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    from agetf_pipeline.enhance.guard_report import mean_figures
    from agetf_pipeline.enhance.guard_tables import gather
    from agetf_pipeline.enhance.guards import GUARDS

    rows, flagged = gather(config.recheck, workspace, partition)
    touched = rows.filter("touched")
    by_guard = {
        f"num_flagged_{guard}": int(rows["flags"].list.contains(guard).sum()) for guard in GUARDS
    }
    counts = {
        "num_images": rows.height,
        "num_read": touched["age_shift_years"].count(),
        "num_flagged": flagged.height,
        **by_guard,
        "num_excluded": rows.filter("excluded").height,
        "num_without_shift": rows["age_shift_years"].null_count(),
        "num_identity_compared": touched["identity_similarity"].count(),
        "num_aligned_by_eyes": touched.filter(pl.col("identity_alignment") == "eyes").height,
    }
    return StageReport(
        STAGE,
        counts=counts,
        figures=mean_figures(touched),
        outputs=_write_outputs(config, workspace, partition, touched, flagged),
        messages=_messages(config, rows, by_guard),
    )


def _messages(config: PipelineConfig, rows: pl.DataFrame, by_guard: dict[str, int]) -> list[str]:
    messages = []
    if num_flagged := int(rows["flagged"].sum()):
        by = ", ".join(
            f"{name.removeprefix('num_flagged_')} {count}" for name, count in by_guard.items()
        )
        messages.append(
            f"{num_flagged} image(s) are flagged (by {by}); the enhanced copies of "
            f"{rows.filter('excluded').height} do not reach training (recheck.exclude is "
            f"{config.recheck.excluding()})"
        )
    unread = rows.filter(pl.col("age_shift_years").is_null())
    reasons = unread.group_by(why=pl.col("not_compared").str.split("; ").list.first()).len()
    return messages + [
        f"{row['len']} image(s) without a shift: {row['why']}"
        for row in reasons.sort("why").head(_MAX_REASONS).iter_rows(named=True)
    ]


def _write_outputs(
    config: PipelineConfig,
    workspace: Workspace,
    partition: str,
    touched: pl.DataFrame,
    flagged: pl.DataFrame,
) -> dict[str, str]:
    """Write what a person looks at; see `gather`."""
    from agetf_pipeline.enhance.guard_report import (
        plot_guards,
        rank_flagged,
        write_flagged_csv,
        write_flagged_sheet,
    )

    folder = workspace.stats / "recheck" / partition
    faces = "synthetic faces" if config.synthesize.enabled else partition
    ranked = rank_flagged(flagged)
    outputs = {
        "enhanced_ages": table_path(workspace, ENHANCED_AGES, partition),
        "guards": folder / "guards.png",
        "flagged_csv": folder / "flagged.csv",
    }
    plot_guards(outputs["guards"], touched, config.recheck, faces)
    write_flagged_csv(outputs["flagged_csv"], ranked)
    sheet = folder / "flagged.jpg"
    sheet.unlink(missing_ok=True)
    if ranked.height:
        write_flagged_sheet(
            workspace, sheet, f"{partition}: flagged after enhancement ({faces})", ranked
        )
        outputs["flagged_sheet"] = sheet
    return {name: workspace.relative(path) for name, path in outputs.items()}
