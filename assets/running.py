"""From a stage to an asset: runs it, and tells Dagster what it did."""

import base64
import csv
import importlib
import io
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.progress import ProgressEvent, progress_listener
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, caf_partition
from agetf_pipeline.stages.base import StageReport
from agetf_pipeline.stages.catalogue import run_stage, stage_info
from assets.partitions import CAF_BACKFILL, CAF_SHARDS
from assets.retries import failing_readably, retry_policy
from assets.shard_runs import materialise_each
from resources.gpu import GPU_POOL, GpuResource
from resources.pipeline import PipelineResource

Over = Literal["once", "ffhq", "shards", "all"]
"""Over what an asset runs its stage: once, the FFHQ-Aging partition, its CAF shards (as Dagster
partitions), or every partition there is (in one unpartitioned asset)."""

_MAX_PREVIEW_BYTES = 400_000
_MAX_PREVIEW_PX = 1400
_MAX_TABLE_ROWS = 100
_OWNER = "team:agetf"


def stage_asset(
    name: str,
    stage: str,
    deps: list[str],
    group: str,
    cost: str,
    over: Over = "once",
    gpu: bool = False,
    kinds: set[str] | None = None,
    freshness: dg.FreshnessPolicy | None = None,
) -> dg.AssetsDefinition:
    """Make the asset of a stage.

    Args:
        name: The asset's name, a noun.
        stage: The stage's verb.
        deps: Names of the assets that it reads.
        group: The asset's group.
        cost: What it costs, in words, for the description.
        over: Over what it runs the stage.
        gpu: Whether it belongs to the GPU pool and leases a device.
        kinds: Dagster's kinds, for the icons.
        freshness: After how long Dagster shows that it has not been made anew.
    """
    partitioned = over == "shards"

    @dg.asset(
        name=name,
        deps=deps,
        group_name=group,
        description=f"{stage_info(stage).summary.capitalize()}. {cost}",
        owners=[_OWNER],
        kinds=kinds or {"python"},
        code_version=code_version(stage),
        pool=GPU_POOL if gpu else None,
        partitions_def=CAF_SHARDS if partitioned else None,
        backfill_policy=CAF_BACKFILL if partitioned else None,
        retry_policy=retry_policy(stage),
        freshness_policy=freshness,
        metadata={"stage": stage},
    )
    def run(
        context: dg.AssetExecutionContext, pipeline: PipelineResource, gpu_pool: GpuResource
    ) -> None:
        with failing_readably():
            config, workspace = pipeline.load()
            num_devices = config.train.num_processes if stage == "train" else 1
        with (
            failing_readably(),
            _leased(gpu, gpu_pool, config, num_devices) as placed,
            progress_listener(_tell(context)),
        ):
            if over == "shards":
                _run_shards(context, stage, placed, workspace)
            else:
                partitions = _partitions(over, placed, workspace)
                reports = [run_stage(stage, placed, workspace, p) for p in partitions]
                context.add_asset_metadata(merge_metadata(reports, workspace))

    return run


def code_version(stage: str) -> str:
    """Return the code version of a stage, the one that its own skipping goes by."""
    return importlib.import_module(f"agetf_pipeline.stages.{stage}").CODE_VERSION


def _partitions(over: Over, config: PipelineConfig, workspace: Workspace) -> list[str | None]:
    from agetf_pipeline.data.corpora import discover_partitions

    if over == "once":
        return [None]
    if over == "ffhq":
        return [FFHQ_PARTITION]
    return list(discover_partitions(config, workspace))


def _run_shards(
    context: dg.AssetExecutionContext, stage: str, config: PipelineConfig, workspace: Workspace
) -> None:
    """Run a stage over the shards of this run; what finished is kept however the run ends."""
    materialise_each(
        context,
        code_version(stage),
        lambda shard: run_stage(stage, config, workspace, caf_partition(shard)),
        lambda report: report_metadata(report, workspace),
    )


@contextmanager
def _leased(
    gpu: bool, pool: GpuResource, config: PipelineConfig, num_devices: int = 1
) -> Iterator[PipelineConfig]:
    """Give the config with the leased device in it; untouched for stages that need no device."""
    if not gpu:
        yield config
        return
    with pool.lease(num_devices) as device:
        if config.runtime.device != "auto":
            yield config
        else:
            runtime = config.runtime.model_copy(update={"device": device})
            yield config.model_copy(update={"runtime": runtime})


def _tell(context: dg.AssetExecutionContext):
    def tell(event: ProgressEvent) -> None:
        context.log.info(str(event))

    return tell


def report_metadata(report: StageReport, workspace: Workspace) -> dict[str, Any]:
    """Return a stage's report as asset metadata: counts, figures, links, pictures, tables."""
    metadata: dict[str, Any] = {
        "status": report.status,
        "duration_s": report.duration_s,
        "data_version": report.data_version,
        **{f"num_{name.removeprefix('num_')}": count for name, count in report.counts.items()},
        **{name: value for name, value in report.figures.items() if value is not None},
    }
    for name, relative in report.outputs.items():
        path = workspace.resolve(relative)
        metadata[f"file_{name}"] = dg.MetadataValue.path(str(path))
        if path.suffix in {".png", ".jpg"} and path.is_file():
            preview = _preview(path)
            if preview is not None:
                metadata[f"picture_{name}"] = preview
        if path.suffix == ".csv" and path.is_file():
            metadata[f"table_{name}"] = _table(path)
    if report.messages:
        metadata["messages"] = dg.MetadataValue.md("\n".join(f"- {m}" for m in report.messages))
    return metadata


def merge_metadata(reports: list[StageReport], workspace: Workspace) -> Mapping[str, Any]:
    """Return the metadata of one asset that ran its stage several times, a row per partition."""
    if len(reports) == 1:
        return report_metadata(reports[0], workspace)
    rows = [
        dg.TableRecord(
            {"partition": report.partition or "", "status": report.status}
            | {name: str(count) for name, count in report.counts.items()}
        )
        for report in reports
    ]
    names = sorted({name for row in rows for name in row.data})
    schema = dg.TableSchema(columns=[dg.TableColumn(name) for name in names])
    filled = [dg.TableRecord({n: row.data.get(n, "") for n in names}) for row in rows]
    messages = [f"- {r.partition}: {m}" for r in reports for m in r.messages]
    merged: dict[str, Any] = {
        "partitions": dg.MetadataValue.table(records=filled, schema=schema),
        "duration_s": round(sum(report.duration_s for report in reports), 2),
    }
    if messages:
        merged["messages"] = dg.MetadataValue.md("\n".join(messages))
    return merged


def _table(path: Path) -> dg.TableMetadataValue:
    """Return the first rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = [dg.TableRecord(dict(row)) for row in itertools.islice(reader, _MAX_TABLE_ROWS)]
        columns = [dg.TableColumn(name) for name in reader.fieldnames or []]
    return dg.MetadataValue.table(records=rows, schema=dg.TableSchema(columns=columns))


def _preview(path: Path) -> dg.MarkdownMetadataValue | None:
    data, kind = path.read_bytes(), "png" if path.suffix == ".png" else "jpeg"
    if len(data) > _MAX_PREVIEW_BYTES:
        data, kind = _smaller(path), "jpeg"
    if len(data) > _MAX_PREVIEW_BYTES:
        return None
    return dg.MetadataValue.md(
        f"![{path.name}](data:image/{kind};base64,{base64.b64encode(data).decode()})"
    )


def _smaller(path: Path) -> bytes:
    """Return a picture as JPEG, at most `_MAX_PREVIEW_PX` wide and high."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_MAX_PREVIEW_PX, _MAX_PREVIEW_PX))
    picture.save(stream, "JPEG", quality=80)
    return stream.getvalue()
