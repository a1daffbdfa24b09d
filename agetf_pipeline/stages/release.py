"""Write the files for others: relabelled metadata, identity splits, statistics, cards, checksums.

No image is released unless the config asks for it, and no name of a person ever: identities are
numbered by hash.
"""

import shutil
from pathlib import Path

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import atomic_path, read_json, write_json, write_text
from agetf_pipeline.core.hashing import hash_bytes, hash_file
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, is_caf
from agetf_pipeline.data.schemas import (
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    TRAINING_MANIFEST,
)
from agetf_pipeline.data.tables import (
    list_partitions,
    read_table,
    table_hashes,
    table_path,
    write_parquet,
)
from agetf_pipeline.stages.base import StageReport, run_once
from agetf_pipeline.stages.evaluate import run_folder

STAGE = "release"
CODE_VERSION = "1"

_TABLES = (IMAGES, LABELS, KEEP_LIST, ENHANCED, ENHANCED_AGES, TRAINING_MANIFEST)
CHECKSUMS = "checksums.sha256"


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Write `outputs/release/<version>/`, the same bytes for the same tables."""
    metrics = run_folder(config, workspace) / "metrics.json"
    if not metrics.is_file():
        raise StageError(
            f"Expected {metrics} of run '{config.train.run_name}'; found nothing. "
            "Run the stage evaluate first."
        )
    inputs = {"metrics": hash_file(metrics)}
    for spec in _TABLES:
        inputs |= table_hashes(workspace, spec)
    settings = {
        **config.release.settings(),
        "run_name": config.train.run_name,
        "synthetic": config.synthesize.enabled,
    }
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs,
        lambda: _release(config, workspace, read_json(metrics)),
    )  # fmt: skip


def _release(config: PipelineConfig, workspace: Workspace, evaluation: dict) -> StageReport:
    from agetf_pipeline.evaluation.cards import dataset_card, model_card

    folder = workspace.root / "outputs" / "release" / config.release.version
    if folder.exists():
        # Files of an earlier making of this version must not stay among the new ones.
        shutil.rmtree(folder)
    ffhq, caf = _ffhq_rows(workspace), _caf_rows(workspace)
    splits = _split_rows(workspace)
    _write_frame(folder, "ffhq_aging_relabelled", ffhq, ("json", "csv", "parquet"))
    _write_frame(folder, "caf_enhanced", caf, ("json", "csv", "parquet"))
    _write_frame(folder, "identity_splits", splits, ("csv", "parquet"))
    statistics = _statistics(ffhq, caf, splits)
    write_json(folder / "statistics.json", statistics)
    synthetic = config.synthesize.enabled
    write_text(
        folder / "DATASET_CARD.md",
        dataset_card(config.release.version, statistics, evaluation, synthetic),
    )
    write_text(
        folder / "MODEL_CARD.md",
        model_card(config.release.version, config.train.run_name, evaluation, synthetic),
    )
    num_images = _copy_images(workspace, folder, caf) if config.release.include_images else 0
    num_files = write_checksums(folder)
    messages = []
    if not caf.height:
        messages.append("no CAF image was enhanced: caf_enhanced has no rows")
    if not ffhq.height:
        messages.append("FFHQ-Aging has no labels: ffhq_aging_relabelled has no rows")
    if num_images:
        messages.append(
            f"the release holds {num_images} pictures of people (release.include_images is true): "
            "check that you may pass them on"
        )
    return StageReport(
        STAGE,
        counts={
            "num_files": num_files,
            "num_ffhq_rows": ffhq.height,
            "num_caf_rows": caf.height,
            "num_images": num_images,
        },
        outputs={"release": workspace.relative(folder)},
        messages=messages,
    )


def write_checksums(folder: Path) -> int:
    """Write `checksums.sha256` over all other files, as `sha256sum -c` reads it; count them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS)
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / CHECKSUMS, "".join(lines))
    return len(files)


def _table(workspace: Workspace, spec, wanted: list[str]) -> pl.DataFrame:
    """Read those of the wanted partitions that exist."""
    return read_table(
        workspace, spec, [p for p in wanted if table_path(workspace, spec, p).exists()]
    )


def _ffhq_rows(workspace: Workspace) -> pl.DataFrame:
    """The labels of FFHQ-Aging, by image number, with what the filter decided.

    File names stay out: in a person's own collection they may name somebody.
    """
    wanted = [FFHQ_PARTITION]
    keep = _table(workspace, KEEP_LIST, wanted).select("image_id", "keep", "reasons")
    return (
        _table(workspace, LABELS, wanted)
        .join(
            _table(workspace, IMAGES, wanted).select("image_id", "image_number"),
            on="image_id",
        )
        .join(keep, on="image_id", how="left")
        .rename({"reasons": "filter_reasons", "keep": "filter_keep"})
        .select("image_number", pl.exclude("image_number"))
        .sort("image_number", "image_id", nulls_last=True)
    )


def _caf_rows(workspace: Workspace) -> pl.DataFrame:
    """What enhancement did to each CAF image, with the ages before and after."""
    caf = [name for name in list_partitions(workspace, ENHANCED) if is_caf(name)]
    partitions = _table(workspace, IMAGES, caf).select("image_id", "partition")
    ages = _table(workspace, ENHANCED_AGES, caf).select(
        "image_id", "age_before_years", "age_after_years", "age_shift_years",
        flagged=pl.col("flags").list.contains("age"),
    )  # fmt: skip
    return (
        _table(workspace, ENHANCED, caf)
        .drop("sidecar_path")
        .join(partitions, on="image_id", how="left")
        .join(ages, on="image_id", how="left")
        .sort("image_id")
    )


def _split_rows(workspace: Workspace) -> pl.DataFrame:
    """The split of each image; identities are hashed, so that no name of a person leaves."""
    manifest = read_table(workspace, TRAINING_MANIFEST)
    return manifest.select(
        "image_id",
        "partition",
        pl.col("identity").map_elements(_anonymous, pl.String).alias("identity"),
        "split",
        "age_years",
        "age_group",
        "label_source",
    ).sort("image_id")


def _anonymous(identity: str) -> str:
    return hash_bytes(identity.encode())[:16]


def _write_frame(folder: Path, name: str, frame: pl.DataFrame, formats: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if "parquet" in formats:
        write_parquet(folder / f"{name}.parquet", frame.to_arrow())
    # Text carries what a person reads: eight digits of a float32 are noise.
    rounded = frame.with_columns(pl.selectors.float().cast(pl.Float64).round(4))
    if "json" in formats:
        write_json(folder / f"{name}.json", rounded.to_dicts())
    if "csv" in formats:
        lists = [column for column, kind in frame.schema.items() if kind == pl.List(pl.String)]
        flat = rounded.with_columns(pl.col(lists).list.join("|")) if lists else rounded
        write_text(folder / f"{name}.csv", flat.write_csv())


def _statistics(ffhq: pl.DataFrame, caf: pl.DataFrame, splits: pl.DataFrame) -> dict:
    return {
        "ffhq_aging": {
            "num_images": ffhq.height,
            "num_labelled": ffhq["age_years"].count(),
            "by_decision": _counts(ffhq, "decision"),
            "by_age_group": _counts(ffhq, "age_group"),
        },
        "caf_enhanced": {
            "num_images": caf.height,
            "by_status": _counts(caf, "status"),
            "num_colourised": int(caf["colourised"].sum() or 0),
            "num_super_resolved": int(caf["super_resolved"].sum() or 0),
            "num_age_shift_flagged": int(caf["flagged"].sum() or 0),
        },
        "splits": {
            "num_images": splits.height,
            "num_identities": splits["identity"].n_unique(),
            "by_split": _counts(splits, "split"),
        },
    }


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    counted = frame[column].drop_nulls().value_counts()
    return {str(key): int(count) for key, count in counted.sort(column).rows()}


def _copy_images(workspace: Workspace, folder: Path, caf: pl.DataFrame) -> int:
    """Copy the enhanced CAF images; FFHQ's are never ours to pass on."""
    paths = caf["enhanced_path"].drop_nulls().sort().to_list()
    prefix = workspace.relative(workspace.processed / "caf_enhanced")
    for path in paths:
        name = path.removeprefix(f"{prefix}/")
        with atomic_path(folder / "images" / name) as temporary:
            shutil.copyfile(workspace.resolve(path), temporary)
    return len(paths)
