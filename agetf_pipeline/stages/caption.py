"""Caption every image of a partition with Janus, without words of age, and keep the embeddings.

Reads the table `images`. Writes the table `captions`, chunk by chunk: what is there already for the
same image, model and prompt is kept. An image without a usable caption is a row with the reason.
"""

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import set_num_threads
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import CAPTIONS, IMAGES
from agetf_pipeline.data.tables import read_table, table_hashes, table_path, to_frame
from agetf_pipeline.experts.load import weights_hash
from agetf_pipeline.stages.base import StageReport, run_once

STAGE = "caption"
CODE_VERSION = "1"
_MAX_REASONS = 3


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Bring the captions of one partition up to date.

    Raises:
        ConfigError: No expert `janus` is configured.
        DataError: The partition has no table `images`.
        WeightsError: Janus is absent or does not fit.
        StageError: Too many images have no caption.
    """
    inputs = table_hashes(workspace, IMAGES, [partition])
    inputs["weights/janus"] = _janus_hash(config, workspace)
    section = config.caption
    settings = {
        "prompt": section.prompt,
        "max_new_tokens": section.max_new_tokens,
        "max_failed_fraction": section.max_failed_fraction,
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


def prompt_hash(config: PipelineConfig) -> str:
    """Return the identity of the request, and of the code that cleans what comes back."""
    request = {"prompt": config.caption.prompt, "max_new_tokens": config.caption.max_new_tokens}
    return fingerprint(request, CODE_VERSION, {})[:16]


def _janus_hash(config: PipelineConfig, workspace: Workspace) -> str:
    from agetf_pipeline.experts.janus import require_janus

    require_janus(config)
    return weights_hash(config, workspace, "janus")


def _work(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    from agetf_pipeline.experts.janus import janus_version

    set_num_threads(config.runtime.num_threads)
    images = read_table(workspace, IMAGES, [partition]).select("image_id", "face_path")
    version = janus_version(config, workspace)
    wanted = images.with_columns(
        model_version=pl.lit(version),
        prompt_hash=pl.lit(prompt_hash(config)),
        # Failed rows count as missing: they are tried again whenever the stage runs anew.
        status=pl.lit("ok"),
    )
    result = update_table(
        workspace,
        CAPTIONS,
        partition,
        wanted,
        lambda chunk: _caption_chunk(config, workspace, chunk),
        config.caption.chunk_size,
        f"caption {partition}",
    )
    rows = read_table(workspace, CAPTIONS, [partition])
    failed = rows.filter(pl.col("status") == "failed")
    ok = rows.filter(pl.col("status") == "ok")
    messages = _explain(failed)
    _check_failures(config, partition, rows.height, failed.height, messages)
    counts = {
        "num_images": images.height,
        "num_reused": result.num_reused,
        "num_computed": result.num_computed,
        "num_failed": failed.height,
        "num_changed": ok.filter(pl.col("raw_caption") != pl.col("caption")).height,
        "num_distinct": ok["caption"].n_unique(),
    }
    outputs = {"captions": workspace.relative(table_path(workspace, CAPTIONS, partition))}
    return StageReport(STAGE, counts=counts, outputs=outputs, messages=messages)


def _caption_chunk(
    config: PipelineConfig, workspace: Workspace, chunk: pl.DataFrame
) -> pl.DataFrame:
    from agetf_pipeline.captions.captioner import caption_faces
    from agetf_pipeline.experts.faces import load_readable_faces
    from agetf_pipeline.experts.janus import load_janus

    janus = load_janus(config, workspace)
    size_px = janus.input_px
    faces_NHWC, reasons = load_readable_faces(workspace, chunk["face_path"].to_list(), size_px)
    captions = []
    for start in range(0, len(faces_NHWC), config.caption.batch_size):
        batch = faces_NHWC[start : start + config.caption.batch_size]
        captions += caption_faces(
            janus, batch, config.caption.prompt, config.caption.max_new_tokens
        )
    written = iter(captions)
    rows = []
    for keys, reason in zip(chunk.iter_rows(named=True), reasons, strict=True):
        row = dict.fromkeys(CAPTIONS.schema.names)
        row |= {name: keys[name] for name in ("image_id", "model_version", "prompt_hash")}
        if reason is None:
            caption = next(written)
            reason = caption.reason
            row |= {
                "raw_caption": caption.raw,
                "caption": caption.clean if reason is None else None,
                "image_embedding": caption.image_embedding,
                "text_embedding": caption.text_embedding if reason is None else None,
            }
        rows.append({**row, "status": "ok" if reason is None else "failed", "reason": reason})
    return to_frame(rows, CAPTIONS)


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
