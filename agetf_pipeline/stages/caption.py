"""Caption every image of a partition with Janus, without words of age, and keep the embeddings.

Reads the table `images`. Writes the table `captions`, batch by batch: what is there already for the
same image, model and prompt is kept, and so is what other models and prompts gave. An image without
a usable caption is a row with the reason. Beside the table: the embeddings mapped into memory,
token grids where they are asked for, and a page to look at, with what an audit of all captions
found.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import set_num_threads
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.incremental import IncrementalResult, update_table
from agetf_pipeline.data.schemas import CAPTIONS, IMAGES
from agetf_pipeline.data.tables import read_table, table_hashes, table_path, to_frame
from agetf_pipeline.experts.load import weights_hash
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    import numpy as np
    import torch

    from agetf_pipeline.captions.audit import CaptionAudit
    from agetf_pipeline.captions.versions import CaptionVersion
    from agetf_pipeline.experts.janus import Janus

STAGE = "caption"
CODE_VERSION = "3"
_MAX_REASONS = 3
_LEAST_PART = 8
"""Images that share the reading of the weights at each token; fewer are not worth a core."""
_NUM_READERS = 8


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Bring the captions of one partition up to date.

    Raises:
        ConfigError: No expert `janus` is configured.
        DataError: The partition has no table `images`.
        WeightsError: Janus is absent or does not fit.
        StageError: Too many images have no caption.
    """
    from agetf_pipeline.captions.versions import current_version
    from agetf_pipeline.experts.janus import require_janus

    require_janus(config)
    inputs = table_hashes(workspace, IMAGES, [partition])
    inputs["weights/janus"] = weights_hash(config, workspace, "janus")
    version = current_version(config, workspace)
    settings = {
        "version": version.name,
        "token_grid": config.caption.token_grid,
        "max_failed_fraction": config.caption.max_failed_fraction,
        "checks": config.caption.checks.settings(),
        "num_examples": config.caption.num_examples,
        "synthetic": config.synthesize.enabled,
    }
    return run_once(
        workspace,
        STAGE,
        settings,
        CODE_VERSION,
        inputs,
        lambda: _work(config, workspace, partition, version),
        partition,
    )


def _work(
    config: PipelineConfig, workspace: Workspace, partition: str, version: "CaptionVersion"
) -> StageReport:
    from agetf_pipeline.captions.audit import audit_captions
    from agetf_pipeline.captions.cache import ensure_index
    from agetf_pipeline.captions.versions import record_version, request_of

    set_num_threads(config.runtime.num_threads)
    images = read_table(workspace, IMAGES, [partition]).select("image_id", "path", "face_path")
    result = _update(config, workspace, partition, images, version)
    record_version(workspace, version, request_of(config))
    index = ensure_index(workspace, partition, version)
    audit = audit_captions(workspace, [partition], version, config.caption.checks)
    # Before anything may stop the stage: a person then wants to see why.
    outputs = {"captions": table_path(workspace, CAPTIONS, partition)}
    outputs |= _write_pages(config, workspace, partition, version, audit)
    failed = audit.rows.filter(pl.col("status") == "failed")
    messages = _explain(failed)
    _check_failures(config, partition, audit.rows.height, failed.height, messages)
    if index is not None:
        outputs["embeddings"] = index
    counts = {
        "num_images": images.height,
        "num_reused": result.num_reused,
        "num_computed": result.num_computed,
        "num_failed": failed.height,
        **audit.counts,
    }
    return StageReport(
        STAGE,
        counts=counts,
        figures=audit.figures,
        outputs={name: workspace.relative(path) for name, path in outputs.items()},
        messages=[*messages, *audit.messages],
    )


def _write_pages(
    config: PipelineConfig,
    workspace: Workspace,
    partition: str,
    version: "CaptionVersion",
    audit: "CaptionAudit",
) -> dict[str, Path]:
    """Write what a person looks at: a page, a sheet of pictures, and a table of the same images."""
    from agetf_pipeline.captions.examples import choose, read_examples, write_examples_csv
    from agetf_pipeline.captions.origin import configured_origin, record_origin
    from agetf_pipeline.captions.page import Subject, write_page, write_sheet

    trained_on = configured_origin(config, workspace)
    record_origin(workspace, version.model_version, trained_on)
    prompt, synthetic = config.caption.prompt, config.synthesize.enabled
    subject = Subject((partition,), prompt, version, trained_on, synthetic)
    examples = read_examples(workspace, choose(audit.rows, config.caption.num_examples))
    folder = workspace.stats / "captions" / partition
    outputs = {
        "page": folder / "page.html",
        "sheet": folder / "sheet.jpg",
        "examples": folder / "examples.csv",
    }
    write_page(outputs["page"], subject, audit, examples)
    write_sheet(outputs["sheet"], subject, examples)
    write_examples_csv(outputs["examples"], examples)
    return outputs


def _update(
    config: PipelineConfig,
    workspace: Workspace,
    partition: str,
    images: pl.DataFrame,
    version: "CaptionVersion",
) -> IncrementalResult:
    """Write what is missing of the table, a batch at a time."""
    wanted = images.with_columns(
        model_version=pl.lit(version.model_version),
        prompt_hash=pl.lit(version.prompt_hash),
        # Failed rows count as missing: they are tried again whenever the stage runs anew.
        status=pl.lit("ok"),
    )

    def has_grid(rows: pl.DataFrame) -> pl.Series:
        paths = rows["token_grid_path"].to_list()
        return pl.Series([p is not None and workspace.resolve(p).is_file() for p in paths])

    def is_of_an_image(rows: pl.DataFrame) -> pl.Series:
        return rows["image_id"].is_in(images["image_id"].implode())

    return update_table(
        workspace,
        CAPTIONS,
        partition,
        wanted,
        lambda batch: _caption_batch(config, workspace, batch),
        config.caption.batch_size,
        f"caption {partition}",
        is_current=has_grid if config.caption.token_grid else None,
        keeps_besides=is_of_an_image,
    )


def _caption_batch(
    config: PipelineConfig, workspace: Workspace, batch: pl.DataFrame
) -> pl.DataFrame:
    """Caption a batch; on a CPU in parts side by side, each decoded and written on its own core."""
    from agetf_pipeline.core.side_by_side import side_by_side
    from agetf_pipeline.experts.janus import load_janus

    janus = load_janus(config, workspace)
    parts = _parts(batch, janus.device)
    with side_by_side(janus.device, len(parts)) as workers:
        done = workers.map(lambda part: _caption_part(config, workspace, janus, part), parts)
        return to_frame([row for rows in done for row in rows], CAPTIONS)


def _parts(batch: pl.DataFrame, device: "torch.device") -> list[pl.DataFrame]:
    """Return a part a thread where each is large enough, else the batch as a whole."""
    import torch

    num_threads = torch.get_num_threads()
    if device.type != "cpu" or batch.height < _LEAST_PART * num_threads:
        return [batch]
    return list(batch.iter_slices(-(-batch.height // num_threads)))


def _caption_part(
    config: PipelineConfig, workspace: Workspace, janus: "Janus", part: pl.DataFrame
) -> list[dict]:
    from agetf_pipeline.captions.captioner import caption_faces
    from agetf_pipeline.captions.token_grids import save_grid
    from agetf_pipeline.captions.versions import request_of

    request = request_of(config)
    faces_NHWC, reasons = _load_faces(workspace, part, janus)
    readable = [
        image_id for image_id, why in zip(part["image_id"], reasons, strict=True) if why is None
    ]
    captions = (
        caption_faces(janus, faces_NHWC, readable, request, config.caption.token_grid)
        if readable
        else []
    )
    written = iter(captions)
    rows = []
    for keys, reason in zip(part.iter_rows(named=True), reasons, strict=True):
        row = dict.fromkeys(CAPTIONS.schema.names)
        row |= {name: keys[name] for name in CAPTIONS.key} | {"prompt": request.prompt}
        if reason is None:
            caption = next(written)
            reason = caption.reason
            row |= {
                "raw_caption": caption.raw,
                "caption": caption.clean if reason is None else None,
                "num_tokens": caption.num_tokens,
                "finished": caption.finished,
                "image_embedding": caption.image_embedding,
                "text_embedding": caption.text_embedding if reason is None else None,
            }
            if caption.token_grid is not None:
                grid = save_grid(
                    workspace, keys["model_version"], keys["image_id"], caption.token_grid
                )
                row["token_grid_path"] = workspace.relative(grid)
        rows.append({**row, "status": "ok" if reason is None else "failed", "reason": reason})
    return rows


def _load_faces(
    workspace: Workspace, part: pl.DataFrame, janus: "Janus"
) -> "tuple[np.ndarray, list[str | None]]":
    """Read faces; for a GPU, which would wait, with several threads."""
    import numpy as np

    from agetf_pipeline.data.images import original_ids
    from agetf_pipeline.experts.faces import load_readable_faces

    def load(rows: pl.DataFrame) -> "tuple[np.ndarray, list[str | None]]":
        paths = rows["face_path"].to_list()
        return load_readable_faces(workspace, paths, janus.input_px, original_ids(rows))

    if janus.device.type == "cpu":
        return load(part)
    with ThreadPoolExecutor(_NUM_READERS, "decode") as pool:
        found = list(pool.map(load, part.iter_slices(-(-part.height // _NUM_READERS))))
    reasons = [reason for _, some in found for reason in some]
    return np.concatenate([faces for faces, _ in found]), reasons


def _explain(failed: pl.DataFrame) -> list[str]:
    """One message per reason, the commonest first."""
    groups = failed.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    messages = [
        f"{row['len']} image(s) have no caption: {row['reason']}."
        for row in groups.head(_MAX_REASONS).iter_rows(named=True)
    ]
    if groups.height > _MAX_REASONS:
        messages.append(f"{groups.height - _MAX_REASONS} more reasons of missing captions.")
    return messages


def _check_failures(
    config: PipelineConfig, partition: str, num: int, num_failed: int, messages: list[str]
) -> None:
    if num_failed > config.caption.max_failed_fraction * num:
        raise StageError(
            f"Expected captions of at least {1 - config.caption.max_failed_fraction:.0%} of the "
            f"images of {partition}; {num_failed} of {num} have none. {' '.join(messages)} "
            "Repair the files, train or supply a better Janus, or raise "
            "caption.max_failed_fraction."
        )
