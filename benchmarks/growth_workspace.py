"""What growth is measured on: shards of small faces, and tiny networks of random weights."""

from pathlib import Path

FACE_PX = 64
READERS = ("mivolo", "resnet50", "vgg16")


def config_of(root: Path, experts: tuple[str, ...] = READERS):
    """Return the configuration of tiny networks, in the workspace `root`."""
    from agetf_pipeline.config import PipelineConfig

    return PipelineConfig.model_validate(
        {
            "workspace": {"root": str(root)},
            "runtime": {"device": "cpu"},
            "relabel": {"log_to_mlflow": False},
            "train_experts": {
                "experts": {name: {"size": "tiny", "input_px": 32} for name in experts}
            },
            "train_enhancers": {
                "ddcolor": {"size": "tiny", "input_px": 32},
                "esrgan": {"arch": "srvgg", "size": "tiny", "scale": 2},
            },
            "enhance": {"target_px": FACE_PX},
            # An untrained network writes until it is cut, and nothing of use: all may fail.
            "caption": {"num_train_faces": 8, "max_new_tokens": 2, "max_failed_fraction": 1.0},
            "filter": {"max_sigma_years": 1000, "max_interval_width_years": 1000},
        }
    )


def write_networks(workspace) -> None:
    """Write tiny networks with random weights."""
    import logging

    import numpy as np
    import torch

    from agetf_pipeline.core.weights import save_weights
    from agetf_pipeline.enhance.ddcolor import SIZES as COLOUR_SIZES
    from agetf_pipeline.enhance.ddcolor import DDColor
    from agetf_pipeline.enhance.esrgan import build_esrgan
    from agetf_pipeline.experts.janus import fit_janus
    from agetf_pipeline.experts.training import build_module

    logging.getLogger("agetf_pipeline").setLevel(logging.ERROR)
    torch.manual_seed(0)
    card = {"trained_on": "random weights"}
    for name, network in (
        ("ddcolor", DDColor(COLOUR_SIZES["tiny"])), ("esrgan", build_esrgan("srvgg", "tiny", 2)),
    ):  # fmt: skip
        save_weights(workspace.models / "enhance" / f"{name}.safetensors", network, card)
    config = config_of(workspace.root, ("janus", *READERS))
    for name in config.train_experts.experts:
        out = workspace.models / "experts" / name
        expert = config.train_experts.experts[name]
        if name == "janus":
            faces = np.zeros((8, 32, 32, 3), np.uint8)
            ages = np.arange(8, dtype=np.float32)
            short = expert.model_copy(update={"num_steps": 1})
            section = config.train_experts.model_copy(
                update={"experts": {**config.train_experts.experts, name: short}}
            )
            brief = config.model_copy(update={"train_experts": section})
            state = workspace.state / "janus.pt"
            fit_janus(brief, workspace, faces, ages, state, "benchmark", out, card)
            continue
        module = build_module(name, expert, np.full(1, 40.0), seed=0)
        described = {"architecture": name, "size": expert.size, "input_px": expert.input_px}
        save_weights(
            out / "weights.safetensors", module, {**described, "profile": "imagenet", **card}
        )


def small_faces() -> list[bytes]:
    """Return some small faces as JPEG files."""
    import io

    from PIL import Image

    from agetf_pipeline.synthetic.faces import draw_face, draw_identity

    found = []
    for seed in range(16):
        stream = io.BytesIO()
        face = Image.fromarray(draw_face(draw_identity(seed), 5.0 * seed, FACE_PX))
        face.save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def write_shard(workspace, name: str, num_images: int, faces: list[bytes]) -> None:
    """Write a CAF shard of files of different bytes: a comment beside the same few faces."""
    folder = workspace.raw_caf / name
    folder.mkdir(parents=True)
    lines = ["path,subject,age"]
    for number in range(num_images):
        face, comment = faces[number % len(faces)], f"{name}/{number}".encode()
        # After the two bytes that begin a JPEG: a comment segment.
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"{number:06d}.jpg").write_bytes(face[:2] + segment + face[2:])
        lines.append(f"{number:06d}.jpg,{name}-{number // 5},{number * 7 % 90}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def copy_tables(workspace, source: str, partition: str) -> None:
    """Give a shard the tables of another, of its own images."""
    import polars as pl

    from agetf_pipeline.data.schemas import (
        CAPTIONS,
        ENHANCED,
        ENHANCED_AGES,
        IMAGES,
        KEEP_LIST,
        LABELS,
        PREDICTIONS,
    )  # fmt: skip
    from agetf_pipeline.data.tables import read_table, table_path, write_table

    theirs, its = (
        read_table(workspace, IMAGES, [name])["image_id"].to_list() for name in (source, partition)
    )
    renamed = pl.col("image_id").replace_strict(theirs, its)
    for spec in (PREDICTIONS, LABELS, KEEP_LIST, ENHANCED, ENHANCED_AGES, CAPTIONS):
        if table_path(workspace, spec, source).exists():
            rows = read_table(workspace, spec, [source]).with_columns(renamed)
            write_table(workspace, spec, partition, rows)
