"""The one Definitions object; workspace.yaml points at this file."""

import sys
from pathlib import Path

# Dagster loads this file by path, from any folder: the application's packages lie beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import dagster as dg

from assets import (
    assemble,
    caption,
    distill,
    enhance,
    evaluate,
    filter,
    ingest,
    predict,
    recheck,
    register,
    relabel,
    release,
    synthesize,
    train,
    train_enhancers,
    train_evaluators,
    train_experts,
)
from jobs.asset_jobs import JOBS
from jobs.executors import deployed_executor
from jobs.schedules import SCHEDULES
from jobs.sensors import SENSORS
from jobs.storage import pull_sources_job, quarter_hourly_pull
from resources.gpu import GpuResource
from resources.pipeline import PipelineResource

_MODULES = [
    synthesize,
    ingest,
    train_experts,
    predict,
    relabel,
    filter,
    train_enhancers,
    enhance,
    recheck,
    caption,
    assemble,
    distill,
    train,
    train_evaluators,
    evaluate,
    register,
    release,
]

_ASSETS = dg.load_assets_from_modules(_MODULES)

defs = dg.Definitions(
    assets=_ASSETS,
    asset_checks=dg.load_asset_checks_from_modules(_MODULES),
    jobs=[*JOBS, pull_sources_job],
    schedules=[*SCHEDULES, quarter_hourly_pull],
    sensors=SENSORS,
    resources={
        "pipeline": PipelineResource(),
        "gpu_pool": GpuResource(),
        # No asset hands a value on; configured, so that a run cannot name its folder.
        "io_manager": dg.fs_io_manager.configured({}),
    },
    executor=deployed_executor(_ASSETS),
)
