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
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import (
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    TRAINING_MANIFEST,
)
from agetf_pipeline.data.tables import (
    table_hashes,
)
from agetf_pipeline.stages.base import StageReport, run_once
from agetf_pipeline.stages.evaluate import run_folder

STAGE = "release"
CODE_VERSION = "3"

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
    from agetf_pipeline.release import tables
    from agetf_pipeline.release.cards import dataset_card, model_card
    from agetf_pipeline.release.columns import CAF_COLUMNS, FFHQ_COLUMNS, SPLIT_COLUMNS
    from agetf_pipeline.release.croissant import write_croissant

    folder = workspace.root / "outputs" / "release" / config.release.version
    if folder.exists():
        # Files of an earlier making of this version must not stay among the new ones.
        shutil.rmtree(folder)
    splits = tables.split_rows(workspace)
    ffhq, caf = tables.ffhq_rows(workspace), tables.caf_rows(workspace, splits)
    tables.write_frame(folder, "ffhq_aging_relabelled", ffhq, ("json", "csv", "parquet"))
    tables.write_frame(folder, "caf_enhanced", caf, ("json", "csv", "parquet"))
    tables.write_frame(folder, "identity_splits", splits, ("csv", "parquet"))
    statistics = tables.statistics_of(ffhq, caf, splits)
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
    described = {
        "ffhq_aging_relabelled": FFHQ_COLUMNS,
        "caf_enhanced": CAF_COLUMNS,
        "identity_splits": SPLIT_COLUMNS,
    }
    tools = [f"{name}: {sha}" for name, sha in sorted(evaluation["versions"].items())]
    write_croissant(folder, config.release, described, synthetic, tools)
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


def _copy_images(workspace: Workspace, folder: Path, caf: pl.DataFrame) -> int:
    """Copy the enhanced CAF images; FFHQ's are never ours to pass on."""
    paths = caf["enhanced_path"].drop_nulls().sort().to_list()
    prefix = workspace.relative(workspace.processed / "caf_enhanced")
    for path in paths:
        name = path.removeprefix(f"{prefix}/")
        with atomic_path(folder / "images" / name) as temporary:
            shutil.copyfile(workspace.resolve(path), temporary)
    return len(paths)
