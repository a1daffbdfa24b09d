"""A small CAF shard and two tiny networks, for tests of the stage `enhance` and its audit.

The networks' weights are random and their cards say so: what comes out is no enhancement.
"""

import numpy as np
from PIL import Image

from agetf_pipeline.config.pipeline import PipelineConfig
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.synthetic.degrade import degrade
from agetf_pipeline.synthetic.faces import draw_face
from agetf_pipeline.synthetic.identity import draw_identity

PARTITION = "caf/one"
TARGET_PX = 64
KINDS: tuple[tuple[str, ...], ...] = ((), ("grey",), ("low_res",), ("grey", "low_res"))
"""What degrades the images of the shard, in turn: copied, coloured, super-resolved, both."""


def make_config(**enhance: object) -> PipelineConfig:
    """Return the tiny networks' config; a chunk holds two images."""
    sections = {
        "runtime": {"device": "cpu", "num_threads": 1},
        "train_enhancers": {
            "ddcolor": {"size": "tiny", "input_px": 32},
            "esrgan": {"arch": "srvgg", "size": "tiny", "scale": 2},
        },
        "enhance": {"target_px": TARGET_PX, "chunk_size": 2, **enhance},
    }
    return PipelineConfig.model_validate(sections)


def make_workspace(root, num_images: int = 4) -> Workspace:
    """Make a workspace with the shard and both networks."""
    workspace = Workspace(root)
    for name in ("ddcolor", "esrgan"):
        write_network(workspace, name, seed=0)
    add_images(workspace, num_images)
    return workspace


def write_network(workspace: Workspace, name: str, seed: int) -> None:
    """Write one of the networks with the random weights of a seed."""
    import torch

    from agetf_pipeline.core.weights import save_weights
    from agetf_pipeline.enhance.ddcolor import SIZES, DDColor
    from agetf_pipeline.enhance.esrgan import build_esrgan

    torch.manual_seed(seed)
    network = DDColor(SIZES["tiny"]) if name == "ddcolor" else build_esrgan("srvgg", "tiny", 2)
    path = workspace.models / "enhance" / f"{name}.safetensors"
    save_weights(path, network, {"trained_on": f"random weights of seed {seed}, for a test"})


def add_images(workspace: Workspace, num_images: int) -> None:
    """Write the first images of the shard, and their table."""
    rows = []
    for number in range(num_images):
        kinds = list(KINDS[number % len(KINDS)])
        face = draw_face(draw_identity(number), 40.0, TARGET_PX)
        picture = degrade(face, kinds, np.random.default_rng(number))
        path = workspace.raw_caf / "one" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        height, width = picture.shape[:2]
        row = dict.fromkeys(IMAGES.schema.names)
        row |= {"image_id": hash_file(path), "partition": PARTITION, "raw_name": path.name}
        row |= {"path": workspace.relative(path), "face_path": workspace.relative(path)}
        row |= {"format": "PNG", "mode": "RGB", "num_bytes": path.stat().st_size, "flags": []}
        row |= {"is_grey": "grey" in kinds, "width_px": width, "height_px": height}
        row |= {"stored_width_px": width, "stored_height_px": height}
        rows.append(row)
    write_table(workspace, IMAGES, PARTITION, to_frame(rows, IMAGES))


def pictures_of(workspace: Workspace) -> dict[str, str]:
    """Return name to sha256 of every enhanced picture."""
    folder = workspace.processed / "caf_enhanced" / "one"
    return {path.name: hash_file(path) for path in sorted(folder.glob("[!.]*.png"))}
