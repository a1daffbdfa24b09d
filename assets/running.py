"""From a stage to an asset: runs it, and tells Dagster what it did."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import dagster as dg

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.hashing import fingerprint
from agetf_pipeline.core.progress import ProgressEvent, progress_listener
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace, caf_partition
from agetf_pipeline.stages.base import StageReport
from agetf_pipeline.stages.catalogue import run_stage, stage_info
from assets.partitions import CAF_BACKFILL, CAF_SHARDS
from assets.retries import failing_readably, retry_policy
from assets.shard_runs import materialise_each
from assets.showing import merge_metadata, report_metadata
from resources.gpu import GPU_POOL, GpuResource
from resources.pipeline import PipelineResource

Over = Literal["once", "ffhq", "shards", "all"]
"""Over what an asset runs its stage: once, the FFHQ-Aging partition, its CAF shards (as Dagster
partitions), or every partition there is (in one unpartitioned asset)."""

_OWNER = "team:agetf"

GROUPS = (
    "corpus", "labels", "enhancement", "captions", "training", "evaluation", "registry", "release",
)  # fmt: skip
"""From left to right, as the README draws them: no group reads from one to its right."""


def stage_asset(
    name: str,
    stage: str,
    what: str,
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
        what: What it is, in words: what its rows or files hold, and what they are for.
        deps: Names of the assets that it reads.
        group: The asset's group, one of `GROUPS`.
        cost: What it costs, in words.
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
        description=(
            f"{what}\n\n**Made by** the stage `{stage}`: {stage_info(stage).summary}.\n\n"
            f"**Cost:** {cost}"
        ),
        owners=[_OWNER],
        kinds=kinds or {"python"},
        code_version=code_version(stage),
        pool=GPU_POOL if gpu else None,
        partitions_def=CAF_SHARDS if partitioned else None,
        backfill_policy=CAF_BACKFILL if partitioned else None,
        freshness_policy=freshness,
        metadata={"stage": stage},
    )
    def run(
        context: dg.AssetExecutionContext, pipeline: PipelineResource, gpu_pool: GpuResource
    ) -> None:
        from agetf_pipeline.quality.records import require_fit

        policy = retry_policy(stage)
        with failing_readably(policy, context.retry_number):
            config, workspace = pipeline.load()
            if config.quality.refuse_blocked:
                require_fit(workspace, deps)
            num_devices = config.train.num_processes if stage == "train" else 1
        with (
            failing_readably(policy, context.retry_number),
            _leased(gpu, gpu_pool, config, num_devices) as placed,
            progress_listener(_tell(context)),
        ):
            if over == "shards":
                _run_shards(context, stage, placed, workspace)
            else:
                partitions = _partitions(over, placed, workspace)
                reports = [run_stage(stage, placed, workspace, p) for p in partitions]
                context.add_asset_metadata(merge_metadata(reports, workspace))
                context.set_data_version(context.asset_key, data_version(stage, reports))

    return run


def code_version(stage: str) -> str:
    """Return the code version of a stage, the one that its own skipping goes by."""
    return importlib.import_module(f"agetf_pipeline.stages.{stage}").CODE_VERSION


def data_version(stage: str, reports: Sequence[StageReport]) -> dg.DataVersion:
    """Return the version of what a stage made: of the same settings, code and inputs, the same.

    Dagster's 'unsynced' goes by it: an asset that was made again of the same things leaves what
    comes after it in sync.
    """
    versions = {report.partition or "": report.data_version for report in reports}
    if list(versions) == [""]:
        # A stage that the config leaves out has no version of its own.
        return dg.DataVersion(versions[""] or fingerprint({}, code_version(stage), {}))
    return dg.DataVersion(fingerprint({}, code_version(stage), versions))


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
