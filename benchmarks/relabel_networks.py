"""The four experts at their published sizes with random weights, and the files that they read."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from agetf_pipeline.config import PipelineConfig
    from agetf_pipeline.core.workspace import Workspace

NAMES = ("janus", "mivolo", "resnet50", "vgg16")
_SEED = 0
_GRAIN = 2.0
"""Of the pictures' noise, in steps of 255: with it a PNG of 1024 px takes about 1.3 MB, as
FFHQ's do; without, a drawn one would be decoded in a fraction of the time."""


def config_of(folder: Path, names: tuple[str, ...]) -> "PipelineConfig":
    """Return what a user sets to be fast: `runtime.precision=bf16`."""
    from agetf_pipeline.config import PipelineConfig

    input_px = {"janus": 384}
    return PipelineConfig.model_validate(
        {
            "workspace": {"root": str(folder)},
            "runtime": {"device": "cpu", "precision": "bf16"},
            "train_experts": {
                "experts": {name: {"input_px": input_px.get(name, 224)} for name in names}
            },
        }
    )


def save_networks(workspace: "Workspace") -> None:
    """Write the weights of all four where the workspace keeps those that it trained.

    Janus is the one of `benchmarks.captions`: layers of the published widths, one of 24 on either
    side, and a 24th of the vocabulary.
    """
    from agetf_pipeline.config.experts import ExpertConfig
    from agetf_pipeline.core.weights import save_weights
    from agetf_pipeline.experts.training import build_module
    from benchmarks.captions import _build_published

    logging.getLogger("agetf_pipeline").setLevel(logging.ERROR)
    for name in NAMES:
        folder = workspace.models / "experts" / name
        folder.mkdir(parents=True)
        if name == "janus":
            janus = _build_published()
            janus.processor.save_pretrained(folder)
            janus.model.config.save_pretrained(folder)
            save_weights(
                folder / "weights.safetensors", janus.model, {"trained_on": "random weights"}
            )
            continue
        module = build_module(name, ExpertConfig(), np.full(1, 40.0), seed=_SEED)
        card = {"architecture": name, "size": "full", "input_px": 224, "profile": "imagenet"}
        save_weights(
            folder / "weights.safetensors", module, {**card, "trained_on": "random weights"}
        )


def write_files(folder: Path, num_files: int, sides_px: tuple[int, ...], suffix: str) -> list[Path]:
    """Write faces, drawn and grained, of the sides in turn; return their files."""
    from PIL import Image

    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    rng = np.random.default_rng(_SEED)
    folder.mkdir(parents=True)
    files = []
    for index in range(num_files):
        side = sides_px[index % len(sides_px)]
        drawn = Image.fromarray(draw_face(draw_identity(index), float(index % 90), 256))
        smooth = np.asarray(drawn.resize((side, side)), np.float32)
        grained = (smooth + rng.normal(0, _GRAIN, smooth.shape)).round().clip(0, 255)
        files.append(folder / f"{index:05d}.{suffix}")
        Image.fromarray(grained.astype(np.uint8)).save(files[-1], quality=95)
    return files


def write_table(workspace: "Workspace", files: list[Path]) -> None:
    """Write the table `images` of the files, with the hashes that ingest would give them."""
    import polars as pl

    from agetf_pipeline.core.hashing import hash_file
    from agetf_pipeline.data.schemas import IMAGES
    from agetf_pipeline.data.tables import empty_frame, write_table

    paths = [workspace.relative(path) for path in files]
    constants = {
        "partition": "ffhq_aging", "raw_name": "x", "format": "PNG", "mode": "RGB",
        "stored_width_px": 1, "stored_height_px": 1, "width_px": 1, "height_px": 1,
        "num_bytes": 1, "is_grey": False,
    }  # fmt: skip
    frame = pl.DataFrame(
        {
            "image_id": [hash_file(path) for path in files],
            "path": paths,
            "face_path": paths,
            "image_number": list(range(len(files))),
        }
    ).with_columns(
        pl.lit([], dtype=pl.List(pl.String)).alias("flags"),
        **{name: pl.lit(value) for name, value in constants.items()},
    )
    schema = empty_frame(IMAGES).schema
    absent = [pl.lit(None).alias(name) for name in schema if name not in frame.columns]
    write_table(workspace, IMAGES, "ffhq_aging", frame.with_columns(absent).cast(schema))
