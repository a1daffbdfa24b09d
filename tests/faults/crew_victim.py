"""What the children of the crew's kill tests run; imported by the server they are forked from."""

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.weights import save_weights
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import empty_frame, write_table
from agetf_pipeline.experts import (  # noqa: F401 - loaded before the forks
    faces,
    load,
    predict,
    vgg16,
)
from agetf_pipeline.experts.training import build_module
from agetf_pipeline.stages import joining
from agetf_pipeline.stages.catalogue import run_stage

PARTITION = "caf/one"
NUM_IMAGES, NUM_CHUNKS = 120, 60


def make_config(num_workers: int = 1) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "num_threads": 1, "num_workers": num_workers},
            "predict": {"chunk_size": NUM_IMAGES // NUM_CHUNKS, "batch_size": 2},
            "train_experts": {"experts": {"vgg16": {"size": "tiny", "input_px": 32}}},
        }
    )


def make_workspace(root: Path) -> Workspace:
    """Return a workspace with images and an expert with random weights."""
    workspace = Workspace(root)
    expert = make_config().train_experts.experts["vgg16"]
    described = {"architecture": "vgg16", "size": "tiny", "input_px": 32, "profile": "imagenet"}
    save_weights(
        workspace.models / "experts" / "vgg16" / "weights.safetensors",
        build_module("vgg16", expert, np.full(1, 40.0), seed=0),
        {**described, "trained_on": "random weights"},
    )
    rng = np.random.default_rng(0)
    paths = []
    for number in range(NUM_IMAGES):
        path = workspace.processed / "faces" / PARTITION / f"{number:064x}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        paths.append(workspace.relative(path))
    schema = empty_frame(IMAGES).schema
    given = {
        "image_id": [Path(path).stem for path in paths], "face_path": paths,
        "path": [f"{path}.original" for path in paths],
    }  # fmt: skip
    constants = {
        "partition": PARTITION, "raw_name": "x", "format": "PNG", "mode": "RGB", "num_bytes": 1,
        "stored_width_px": 32, "stored_height_px": 32, "width_px": 32, "height_px": 32,
        "is_grey": False,
    }  # fmt: skip
    rest = {name: pl.lit(constants.get(name)) for name in schema if name not in given}
    rest["flags"] = pl.lit([], dtype=pl.List(pl.String))
    frame = pl.DataFrame(given).with_columns(**rest).select(list(schema)).cast(dict(schema.items()))
    write_table(workspace, IMAGES, PARTITION, frame)
    return workspace


def run(root: Path, num_workers: int) -> None:
    run_stage("predict", make_config(num_workers), Workspace(root), PARTITION)


def join(root: Path) -> None:
    joining.join_stage("predict", make_config(), Workspace(root), PARTITION, wait_s=30)
