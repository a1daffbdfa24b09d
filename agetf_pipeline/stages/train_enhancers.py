"""Train the colouriser and the super-resolver on the clean colour faces of FFHQ-Aging.

Reads the table `images` of FFHQ-Aging. Writes `models/enhance/{ddcolor,esrgan}.safetensors`. A
network with configured weights is left alone; one that was trained on the same faces and settings
is kept, so that a run that was killed goes on with what is missing.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import set_num_threads
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.hashing import fingerprint, hash_bytes, hash_file
from agetf_pipeline.core.parallel import run_in_processes
from agetf_pipeline.core.weights import read_card, save_weights
from agetf_pipeline.core.workspace import FFHQ_PARTITION, Workspace
from agetf_pipeline.data.images import read_rgb, resize_rgb
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import list_partitions, read_table, table_hashes
from agetf_pipeline.data.trained_on import write_trained_on
from agetf_pipeline.enhance.load import ddcolor_path, esrgan_path, trained_on
from agetf_pipeline.stages.base import StageReport, run_once

if TYPE_CHECKING:
    from torch import nn

    from agetf_pipeline.core.fitting import LossOf

_LOGGER = logging.getLogger(__name__)
STAGE = "train_enhancers"
CODE_VERSION = "2"
_FIT_VERSION = "1"
"""Of the arithmetic alone: a network of the same faces and settings is kept."""
_MAX_TRAINING_PX = 256
_MIN_IMAGES = 8
_HELD_OUT_EVERY = 20
_MAX_HELD_OUT = 64


def run(config: PipelineConfig, workspace: Workspace) -> StageReport:
    """Train the networks that have no configured weights, and measure them on held-out faces.

    Raises:
        StageError: There are too few clean colour faces to train on.
        WeightsError: Training is off and weights are absent.
    """
    section = config.train_enhancers
    paths = {
        "ddcolor": (ddcolor_path(config, workspace), section.ddcolor.weights),
        "esrgan": (esrgan_path(config, workspace), section.esrgan.weights),
    }
    wanted = [name for name, (_, given) in paths.items() if given is None and section.enabled]
    inputs = {}
    for name, (path, given) in paths.items():
        if name not in wanted:
            trained_on(path, given is not None)
            inputs[f"weights/{name}"] = hash_file(path)
    if wanted:
        inputs |= table_hashes(workspace, IMAGES, [FFHQ_PARTITION])
    settings = {
        **section.settings(),
        "target_px": config.enhance.target_px,
        "trained_on": _corpus_name(config),
    }
    return run_once(
        workspace, STAGE, settings, CODE_VERSION, inputs, lambda: _work(config, workspace, wanted)
    )


def _work(config: PipelineConfig, workspace: Workspace, wanted: list[str]) -> StageReport:
    if not wanted:
        return StageReport(STAGE, messages=["both networks have weights already: nothing to train"])
    set_num_threads(config.runtime.num_threads)
    chosen = _clean_faces(config, workspace)
    messages: list[str] = []
    faces_NHW3, image_ids = _load(config, workspace, chosen, messages)
    held_out = np.arange(len(faces_NHW3)) % _HELD_OUT_EVERY == 0
    train, check = faces_NHW3[~held_out], faces_NHW3[held_out][:_MAX_HELD_OUT]
    figures: dict[str, float | None] = {}
    outputs = {}
    # Trained on the CPU whatever the device: the tiny networks alone are trained here.
    calls = [(config, workspace, name, train, chosen) for name in wanted]
    paths = run_in_processes(_ensure_trained, calls, config.runtime.max_silence_s)
    for name, path in zip(wanted, paths, strict=True):
        outputs[name] = workspace.relative(path)
        learned_from = write_trained_on(path, image_ids[~held_out].tolist())
        outputs[f"{name}_trained_on"] = workspace.relative(learned_from)
        figures |= _measure(config, workspace, name, check)
    messages.append(
        f"figures are of {len(check)} {_corpus_name(config)} faces that training did not see"
    )
    messages += [
        f"{name} was trained from random weights on {len(train)} faces: at this size name "
        f"published weights in train_enhancers.{name}.weights for real use"
        for name in wanted
        if getattr(config.train_enhancers, name).size != "tiny"
    ]
    counts = {"num_train_images": len(train), "num_held_out_images": len(check)}
    return StageReport(STAGE, counts=counts, figures=figures, outputs=outputs, messages=messages)


def _corpus_name(config: PipelineConfig) -> str:
    return "synthetic" if config.synthesize.enabled else "workspace corpus"


def _clean_faces(config: PipelineConfig, workspace: Workspace) -> pl.DataFrame:
    """Colour faces of FFHQ-Aging in an order drawn by seed: what comes first is a fair sample."""
    if FFHQ_PARTITION not in list_partitions(workspace, IMAGES):
        images = pl.DataFrame(schema={"image_id": pl.String, "face_path": pl.String})
    else:
        images = read_table(workspace, IMAGES, [FFHQ_PARTITION]).filter(~pl.col("is_grey"))
    if images.height < _MIN_IMAGES:
        raise StageError(
            f"Expected at least {_MIN_IMAGES} clean colour faces in FFHQ-Aging to train the "
            f"enhancers on; found {images.height}. Add images and run ingest, or name trained "
            "weights in train_enhancers.ddcolor.weights and train_enhancers.esrgan.weights."
        )
    seed = config.train_enhancers.seed
    order = [hash_bytes(f"{seed}:{image_id}".encode()) for image_id in images["image_id"]]
    drawn = images.with_columns(pl.Series("order", order)).sort("order")
    return drawn.head(config.train_enhancers.max_images).select("image_id", "face_path")


def _load(
    config: PipelineConfig, workspace: Workspace, chosen: pl.DataFrame, messages: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces that can be read, (N, H, W, 3), and whose they are, (N,)."""
    size_px = min(config.enhance.target_px, _MAX_TRAINING_PX)
    faces, image_ids, num_failed = [], [], 0
    for image_id, path in chosen.select("image_id", "face_path").iter_rows():
        try:
            faces.append(resize_rgb(read_rgb(workspace.resolve(path)), size_px))
            image_ids.append(image_id)
        except DataError as error:
            num_failed += 1
            if num_failed == 1:
                messages.append(f"left out of the training: {error}")
    if num_failed > 1:
        messages.append(f"{num_failed} faces in all were left out of the training")
    if len(faces) < _MIN_IMAGES:
        raise StageError(
            f"Expected at least {_MIN_IMAGES} readable faces to train the enhancers; found "
            f"{len(faces)}. Restore the files and run ingest again."
        )
    return np.stack(faces), np.array(image_ids)


def _ensure_trained(
    config: PipelineConfig,
    workspace: Workspace,
    name: str,
    faces_NHW3: np.ndarray,
    chosen: pl.DataFrame,
) -> Path:
    """Train one network unless its file stands and was made of the same."""
    from agetf_pipeline.core.fitting import FitSettings, fit

    section = getattr(config.train_enhancers, name)
    settings = {
        "network": section.settings(),
        "seed": config.train_enhancers.seed,
        "face_px": faces_NHW3.shape[1],
        "trained_on": _corpus_name(config),
    }
    data = hash_bytes("\n".join(chosen["image_id"]).encode())
    identity = fingerprint(settings, _FIT_VERSION, {"images": data})
    path = workspace.models / "enhance" / f"{name}.safetensors"
    if path.exists() and read_card(path).get("fit_identity") == identity:
        _LOGGER.info("%s was trained on the same faces and settings: kept", name)
        return path
    build = _build_ddcolor if name == "ddcolor" else _build_esrgan
    network, loss_of = build(config, faces_NHW3)
    checkpoint = workspace.state / "fit" / f"enhance_{name}.pt"
    fit_settings = FitSettings(
        section.num_steps, section.batch_size, section.lr, seed=config.train_enhancers.seed
    )
    losses = fit(
        network, loss_of, len(faces_NHW3), fit_settings, checkpoint, identity, f"train {name}"
    )
    card = {
        "architecture": name,
        **section.settings(),
        "trained_on": _corpus_name(config),
        "num_images": len(faces_NHW3),
        "final_loss": round(float(np.mean(losses[-20:])), 5),
        "fit_identity": identity,
    }
    save_weights(path, network, card)
    checkpoint.unlink(missing_ok=True)
    return path


def _build_ddcolor(config: PipelineConfig, faces_NHW3: np.ndarray) -> "tuple[nn.Module, LossOf]":
    import torch

    from agetf_pipeline.enhance.ddcolor import SIZES, DDColor
    from agetf_pipeline.enhance.training import colour_loss

    section = config.train_enhancers.ddcolor
    torch.manual_seed(config.train_enhancers.seed)
    network = DDColor(SIZES[section.size])
    small = np.stack([resize_rgb(face, section.input_px) for face in faces_NHW3])
    return network, colour_loss(network, small)


def _build_esrgan(config: PipelineConfig, faces_NHW3: np.ndarray) -> "tuple[nn.Module, LossOf]":
    import torch

    from agetf_pipeline.enhance.esrgan import build_esrgan
    from agetf_pipeline.enhance.training import start_as_enlargement, super_resolution_loss

    section = config.train_enhancers.esrgan
    torch.manual_seed(config.train_enhancers.seed)
    network = build_esrgan(section.arch, section.size, section.scale)
    start_as_enlargement(network, section.scale)
    return network, super_resolution_loss(network, faces_NHW3, section.scale, section.patch_px)


def _measure(
    config: PipelineConfig, workspace: Workspace, name: str, faces_NHW3: np.ndarray
) -> dict[str, float | None]:
    from agetf_pipeline.enhance.check import check_colour, check_super_resolution
    from agetf_pipeline.enhance.load import load_colouriser, load_super_resolver

    if name == "ddcolor":
        return check_colour(load_colouriser(config, workspace), faces_NHW3)
    return check_super_resolution(load_super_resolver(config, workspace), faces_NHW3)
