"""A small shard of pictures and an untrained tiny Janus, for tests of the caption stage."""

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import read_table, write_table

PARTITION = "caf/shard-0000"
BATCH = 3


def make_config(**section: object) -> PipelineConfig:
    janus = {"size": "tiny", "input_px": 32, "num_steps": 8, "batch_size": 8, "lr": 3e-3}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "num_threads": 1},
            "train_experts": {"experts": {"janus": janus}},
            # An untrained network writes until it is cut, and nothing of use: all may fail.
            "caption": {
                "num_train_faces": 8, "batch_size": BATCH, "max_new_tokens": 4,
                "max_failed_fraction": 1.0, **section,
            },
        }
    )  # fmt: skip


def write_images(workspace: Workspace, num: int) -> None:
    """Write pictures of noise and their table `images`."""
    rng, rows = np.random.default_rng(0), []
    folder = workspace.raw_caf / "shard-0000"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        path = folder / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        row = dict.fromkeys(IMAGES.schema.names)
        place = workspace.relative(path)
        row |= {"image_id": hash_file(path), "partition": PARTITION, "path": place}
        row |= {"face_path": place, "raw_name": path.name, "format": "PNG", "mode": "RGB"}
        row |= dict.fromkeys(("stored_width_px", "stored_height_px", "width_px", "height_px"), 40)
        rows.append({**row, "num_bytes": path.stat().st_size, "is_grey": False, "flags": []})
    frame = pl.DataFrame(rows, schema=read_table(workspace, IMAGES).schema)
    write_table(workspace, IMAGES, PARTITION, frame)


def make_workspace(root: Path, num_images: int) -> Workspace:
    """Return a workspace with pictures and a Janus trained for a few steps."""
    from agetf_pipeline.experts.janus import fit_janus

    workspace = Workspace(root)
    faces = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    fit_janus(
        make_config(), workspace, faces, np.linspace(1, 90, 8), workspace.state / "janus.pt",
        "faces", workspace.models / "experts" / "janus", {"trained_on": "synthetic"},
    )  # fmt: skip
    write_images(workspace, num_images)
    return workspace
