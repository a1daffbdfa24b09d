"""Write the files for others: relabelled metadata, identity splits, statistics, cards, checksums.

No image is released unless the config asks for it, and no name of a person ever: persons are keyed
hashes, and of messages only those leave that are known to name no file.
"""

import shutil
from pathlib import Path

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.files import atomic_path, read_json, write_json, write_text
from agetf_pipeline.core.hashing import hash_bytes, hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import (
    ENHANCED,
    ENHANCED_AGES,
    IMAGES,
    KEEP_LIST,
    LABELS,
    TRAINING_MANIFEST,
)
from agetf_pipeline.data.tables import table_hashes
from agetf_pipeline.release import CHECKSUMS
from agetf_pipeline.stages.base import StageReport, run_once
from agetf_pipeline.stages.evaluate import run_folder

STAGE = "release"
CODE_VERSION = "4"

_TABLES = (IMAGES, LABELS, KEEP_LIST, ENHANCED, ENHANCED_AGES, TRAINING_MANIFEST)


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Write `outputs/release/<version>/`, the same bytes for the same tables."""
    metrics = run_folder(config, workspace) / "metrics.json"
    if not metrics.is_file():
        raise StageError(
            f"Expected {metrics} of run '{config.train.run_name}'; found nothing. "
            "Run the stage evaluate first."
        )
    from agetf_pipeline.release.redaction import load_key

    key = load_key(workspace)
    inputs = {"metrics": hash_file(metrics), "key": hash_bytes(key)}
    for spec in _TABLES:
        inputs |= table_hashes(workspace, spec)
    settings = {
        **config.release.settings(),
        "run_name": config.train.run_name,
        "synthetic": config.synthesize.enabled,
    }
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs,
        lambda: _release(config, workspace, read_json(metrics), key),
    )  # fmt: skip


def _release(
    config: PipelineConfig, workspace: Workspace, evaluation: dict, key: bytes
) -> StageReport:
    from agetf_pipeline.release.swapping import replaced_folder

    final = workspace.root / "outputs" / "release" / config.release.version
    with replaced_folder(final) as folder:
        counts = _write(config, workspace, folder, evaluation, key)
    messages = []
    if not counts["num_caf_rows"]:
        messages.append("no CAF image was enhanced: caf_enhanced has no rows")
    if not counts["num_ffhq_rows"]:
        messages.append("FFHQ-Aging has no labels: ffhq_aging_relabelled has no rows")
    if counts["num_images"]:
        messages.append(
            f"the release holds {counts['num_images']} pictures of people (release.include_images "
            "is true): check that you may pass them on"
        )
    return StageReport(
        STAGE, counts=counts, outputs={"release": workspace.relative(final)}, messages=messages
    )


def _write(
    config: PipelineConfig, workspace: Workspace, folder: Path, evaluation: dict, key: bytes
) -> dict[str, int]:
    """Write a release into an empty folder; return its counts."""
    from agetf_pipeline.release import tables
    from agetf_pipeline.release.cards import dataset_card, errors_by, model_card
    from agetf_pipeline.release.columns import CAF_COLUMNS, FFHQ_COLUMNS, SPLIT_COLUMNS
    from agetf_pipeline.release.croissant import Contents, write_croissant

    its, synthetic = config.release, config.synthesize.enabled
    splits = tables.split_rows(workspace, key)
    ffhq = tables.ffhq_rows(workspace)
    caf = tables.caf_rows(workspace, splits, its.include_images)
    tables.write_frame(folder, "ffhq_aging_relabelled", ffhq, ("json", "csv", "parquet"))
    tables.write_frame(folder, "caf_enhanced", caf, ("json", "csv", "parquet"))
    tables.write_frame(folder, "identity_splits", splits, ("csv", "parquet"))
    statistics = tables.statistics_of(ffhq, caf, splits)
    write_json(folder / "statistics.json", statistics)
    images = tables.enhanced_images(workspace) if its.include_images else {}
    for name, source in images.items():
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(source, temporary)
    contents = Contents(synthetic, len(images), errors_by(evaluation))
    write_text(folder / "DATASET_CARD.md", dataset_card(its, statistics, evaluation, contents))
    write_text(
        folder / "MODEL_CARD.md", model_card(its, config.train.run_name, evaluation, synthetic)
    )
    described = {
        "ffhq_aging_relabelled": FFHQ_COLUMNS,
        "caf_enhanced": CAF_COLUMNS,
        "identity_splits": SPLIT_COLUMNS,
    }
    tools = [f"{name}: {sha}" for name, sha in sorted(evaluation["versions"].items())]
    write_croissant(folder, its, described, contents, tools)
    return {
        "num_files": write_checksums(folder),
        "num_ffhq_rows": ffhq.height,
        "num_caf_rows": caf.height,
        "num_images": len(images),
    }


def write_checksums(folder: Path) -> int:
    """Write `checksums.sha256` over all other files, as `sha256sum -c` reads it; count them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS)
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / CHECKSUMS, "".join(lines))
    return len(files)
