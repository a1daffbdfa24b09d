"""Give every image of a CAF shard an enhanced copy: coloured, super-resolved, or passed through.

Reads the table `images` of one shard and the two networks. Writes the table `enhanced` and
`data/processed/caf_enhanced/<shard>/`: a PNG and a JSON sidecar for every image, and a contact
sheet. An image that needs nothing is a re-encoded copy, so that the folder holds the whole shard.
Only what is new, stale, missing or altered is made again; another version of a network touches only
the images that went through that network.
"""

import logging
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.background import map_ahead
from agetf_pipeline.core.devices import resolve_device, set_num_threads
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.files import remove_temporary_files
from agetf_pipeline.core.hashing import fingerprint, hash_file
from agetf_pipeline.core.workspace import Workspace, is_caf
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import ENHANCED, IMAGES
from agetf_pipeline.data.streaming import read_slices
from agetf_pipeline.data.tables import table_hashes, table_path, to_frame
from agetf_pipeline.enhance.load import (
    ddcolor_path,
    esrgan_path,
    load_colouriser,
    load_super_resolver,
    trained_on,
    wanted_precision,
)
from agetf_pipeline.enhance.tally import Tally
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    from agetf_pipeline.enhance.apply import Enhanced, Enhancer, Picture

_LOGGER = logging.getLogger(__name__)
STAGE = "enhance"
CODE_VERSION = "2"
_NOT_OF_THE_RESULT = {
    "chunk_size", "batch_size", "max_failed_fraction", "max_memory_mib", "engine", "precision",
}  # fmt: skip
"""Settings without which a row is the same. Engine and precision stand in the networks' versions,
which matter only to the images that went through them."""
_NUM_AHEAD = 32
_SLICE_ROWS = 4096
_NUM_UNWRITTEN = 16


def run(config: PipelineConfig, workspace: Workspace, partition: str) -> StageReport:
    """Bring the enhanced copies of one CAF shard up to date.

    Raises:
        StageError: The partition is no CAF shard, or too many images failed.
        WeightsError: Weights are absent, do not fit, or were never trained.
    """
    if not is_caf(partition):
        raise StageError(
            f"Expected a CAF shard such as caf/shard-0000 to enhance; found {partition!r}. "
            "FFHQ-Aging is not enhanced."
        )
    networks = {
        "ddcolor": (ddcolor_path(config, workspace), config.train_enhancers.ddcolor.weights),
        "esrgan": (esrgan_path(config, workspace), config.train_enhancers.esrgan.weights),
    }
    # Said before any work: weights that nobody trained are refused.
    sources = {
        name: trained_on(path, given is not None) for name, (path, given) in networks.items()
    }
    inputs = table_hashes(workspace, IMAGES, [partition])
    inputs |= {f"weights/{name}": hash_file(path) for name, (path, _) in networks.items()}
    settings = {
        "enhance": config.enhance.settings(),
        "ddcolor_input_px": config.train_enhancers.ddcolor.input_px,
        "precision": wanted_precision(config),
    }
    return run_once(
        workspace,
        STAGE,
        settings,
        CODE_VERSION,
        inputs,
        lambda: _work(config, workspace, partition, sources),
        partition,
    )


def settings_version(config: PipelineConfig) -> str:
    """Return the part of a row's version that comes from thresholds, sizes and code."""
    from agetf_pipeline.enhance.apply import CODE_VERSION as APPLY_VERSION

    settings = {
        name: value
        for name, value in config.enhance.settings().items()
        if name not in _NOT_OF_THE_RESULT
    }
    return fingerprint(settings, f"{CODE_VERSION}.{APPLY_VERSION}", {})[:16]


def _work(
    config: PipelineConfig, workspace: Workspace, partition: str, sources: dict[str, str]
) -> StageReport:
    from agetf_pipeline.enhance.assemble import build_enhancer
    from agetf_pipeline.enhance.outputs import (
        enhanced_folder,
        intact,
        remove_orphans,
        sheet_title,
        write_contact_sheet,
    )

    set_num_threads(config.runtime.num_threads)
    colouriser = load_colouriser(config, workspace)
    resolver = load_super_resolver(config, workspace)
    section = config.enhance
    device = resolve_device(config.runtime.device)
    enhancer = build_enhancer(section, colouriser, resolver, device)
    versions = {"ddcolor": colouriser.version, "esrgan": resolver.version}
    places = ["image_id", "path", "face_path"]
    images = pl.concat(read_slices(workspace, IMAGES, partition, _SLICE_ROWS, places))
    folder = enhanced_folder(workspace, partition)
    remove_temporary_files(folder)
    version = settings_version(config)

    def compute(chunk: pl.DataFrame) -> pl.DataFrame:
        return enhance_chunk(
            workspace, partition, enhancer, versions, version, chunk, config.runtime.max_silence_s
        )

    def is_current(rows: pl.DataFrame) -> pl.Series:
        # A network's version matters only to the images that went through it.
        same = rows.select(
            (
                pl.col("ddcolor_version").is_null()
                | (pl.col("ddcolor_version") == versions["ddcolor"])
            )
            & (
                pl.col("esrgan_version").is_null()
                | (pl.col("esrgan_version") == versions["esrgan"])
            )
        ).to_series()
        return same & intact(workspace, _located(rows, images))

    result = update_table(
        workspace,
        ENHANCED,
        partition,
        # Failed rows say another status: they are tried again.
        images.with_columns(settings_version=pl.lit(version), status=pl.lit("ok")),
        compute,
        section.chunk_size,
        f"enhance {partition}",
        is_current,
        drop_stale_first=True,
    )
    tally = Tally()
    for rows in read_slices(workspace, ENHANCED, partition, _SLICE_ROWS):
        tally.add(rows)
    num_orphans = remove_orphans(folder, tally.image_ids)
    if tally.num_good:
        title = sheet_title(partition, sources)
        write_contact_sheet(workspace, folder, title, _located(tally.shown, images))
    report = _report(workspace, partition, tally, sources, num_orphans)
    report.counts.update(num_reused=result.num_reused, num_computed=result.num_computed)
    _check_failures(config, partition, tally)
    return report


def _located(rows: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Join rows with the places of their originals; `images` is in the order of `image_id`."""
    if not rows.height:
        return rows.join(images.clear(), on="image_id", how="left")
    # Of a large shard a slice concerns only a part.
    ends = rows.select(pl.col("image_id").min(), last=pl.col("image_id").max()).row(0)
    start = images["image_id"].search_sorted(ends[0], "left")
    end = images["image_id"].search_sorted(ends[1], "right")
    near = images.slice(start, end - start)
    return rows.join(near, on="image_id", how="left", maintain_order="left")


def enhance_chunk(
    workspace: Workspace,
    partition: str,
    enhancer: "Enhancer",
    versions: dict[str, str],
    settings: str,
    chunk: pl.DataFrame,
    max_silence_s: float | None = None,
) -> pl.DataFrame:
    """Decode ahead, compute, and write behind, each in a thread of its own.

    Returns only when every picture and sidecar is on disk; what a thread raises is raised here.
    """
    failed = []

    def decode(image: dict[str, str]) -> "Picture | None":
        try:
            same = image["image_id"] if image["face_path"] == image["path"] else None
            rgb = read_rgb(workspace.resolve(image["face_path"]), same)
        except DataError as error:
            failed.append(_failed(image["image_id"], settings, str(error)))
            return None
        return enhancer.look(image, rgb)

    def write(picture: "Picture") -> dict:
        result = enhancer.finish(picture)
        return _write(workspace, partition, picture.key, result, versions, settings)

    decoded = map_ahead(decode, chunk.iter_rows(named=True), _NUM_AHEAD, max_silence_s)
    with closing(decoded):  # or its thread would outlive an error of the others
        enhanced = enhancer.stream(picture for picture in decoded if picture is not None)
        rows = list(map_ahead(write, enhanced, _NUM_UNWRITTEN, max_silence_s))
    return to_frame([*rows, *failed], ENHANCED)


def _write(
    workspace: Workspace,
    partition: str,
    image: dict[str, str],
    result: "Enhanced",
    versions: dict[str, str],
    settings: str,
) -> dict:
    from agetf_pipeline.enhance.outputs import enhanced_folder, write_output

    decision, before, after = result.decision, result.before, result.after
    used = {
        "ddcolor_version": versions["ddcolor"] if decision.colourise else None,
        "esrgan_version": versions["esrgan"] if decision.super_resolve else None,
    }
    measured = {
        name: round(float(value), 4)
        for name, value in (
            ("colourfulness_before", before.colourfulness),
            ("colourfulness_after", after.colourfulness),
            ("sharpness_before", before.sharpness),
            ("sharpness_after", after.sharpness),
        )
    }
    sidecar = {
        "original": {
            "path": image["path"],
            "sha256": image["image_id"],
            "face_path": image["face_path"],
            "face_width_px": before.width_px,
            "face_height_px": before.height_px,
        },
        "decision": {
            "colourised": decision.colourise,
            "super_resolved": decision.super_resolve,
            "reason": result.reason,
        },
        "models": used,
        "settings_version": settings,
        "measures": {
            **measured,
            "blockiness_before": round(before.blockiness, 4),
            "blockiness_after": round(after.blockiness, 4),
        },
    }
    folder = enhanced_folder(workspace, partition)
    picture, digest, described = write_output(folder, image["image_id"], result.rgb, sidecar)
    return {
        "image_id": image["image_id"],
        "status": "ok",
        "reason": None,
        "enhanced_path": workspace.relative(picture),
        "enhanced_sha256": digest,
        "sidecar_path": workspace.relative(described),
        "colourised": decision.colourise,
        "super_resolved": decision.super_resolve,
        "decision": result.reason,
        **used,
        "settings_version": settings,
        "input_width_px": before.width_px,
        "input_height_px": before.height_px,
        "output_width_px": after.width_px,
        "output_height_px": after.height_px,
        **measured,
    }


def _failed(image_id: str, settings: str, reason: str) -> dict:
    row: dict = dict.fromkeys(ENHANCED.schema.names)
    row |= {"image_id": image_id, "status": "failed", "reason": reason}
    return row | {"settings_version": settings}


def _report(
    workspace: Workspace,
    partition: str,
    tally: Tally,
    sources: dict[str, str],
    num_orphans: int,
) -> StageReport:
    from agetf_pipeline.enhance.outputs import CONTACT_SHEET, enhanced_folder

    messages = tally.explain_failures()
    if num_orphans:
        messages.append(
            f"outputs of {num_orphans} image(s) that the shard no longer has, or that failed, were "
            "removed"
        )
    messages += [
        f"{name} was trained on {source}"
        for name, source in sorted(sources.items())
        if source != "published"
    ]
    outputs = {"enhanced": workspace.relative(table_path(workspace, ENHANCED, partition))}
    if tally.num_good:
        folder = enhanced_folder(workspace, partition)
        outputs["enhanced_images"] = workspace.relative(folder)
        outputs["contact_sheet"] = workspace.relative(folder / CONTACT_SHEET)
    return StageReport(
        STAGE, counts=tally.counts, figures=tally.means, outputs=outputs, messages=messages
    )


def _check_failures(config: PipelineConfig, partition: str, tally: Tally) -> None:
    if tally.num_failed > config.enhance.max_failed_fraction * tally.num_rows:
        reasons = "; ".join(tally.explain_failures())
        raise StageError(
            f"Expected at most {config.enhance.max_failed_fraction:.0%} of the images of "
            f"{partition} to fail; {tally.num_failed} of {tally.num_rows} did. {reasons}. Restore "
            "the files, run ingest again, or raise enhance.max_failed_fraction."
        )
