"""Who is it? Identity embedders outside training: published ones, and this project's own.

An embedder comes from one file: an AdaFace checkpoint, an ArcFace backbone of InsightFace, or
weights with the card of this project's. `bring_embedder` copies any of them into the workspace with
a card that says what it is, and `load_embedder` builds from the card.

The published networks take the 112 px square of ArcFace's template: the eyes, the nose and the
corners of the mouth on five fixed points. A face here is a square after FFHQ's recipe, upright and
centred by the same points, so the template's square is one window of it, the same for every face
(`enhance.identity_alignment.ffhq_window` derives it from both recipes: 0.765 of the side, and was
compared with eyes found in real FFHQ faces). No detector is asked: one that finds a face in a
photograph and none in its rendering, or finds it elsewhere, would measure itself.

Shapes: N faces, H W their sides, D embedding.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_weights, read_card, read_state, save_weights
from agetf_pipeline.evaluation import arcface, ir50
from agetf_pipeline.evaluation.judges import IDENTITY_KIND, build, to_input

PUBLISHED_KIND = "published_identity_embedder"
ADAFACE, ARCFACE = "AdaFace", "ArcFace"

_BATCH = 32
_UNKNOWN_TRAINING = "not stated (a published checkpoint)"
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class FaceEmbedder:
    """An identity embedder at work (`panel.Embedder`).

    Attributes:
        name: For people, such as `AdaFace ir_50`.
        version: sha256 of its weights file.
        trained_on: What its card says.
        input_px: Side of the pictures that the network takes.
        takes_window: Whether it takes the window of the template, not the whole face.
    """

    name: str
    version: str
    trained_on: str
    input_px: int
    takes_window: bool
    _network: Callable[[np.ndarray], Tensor]

    @torch.inference_mode()
    def embed(self, faces_NHWC: np.ndarray) -> np.ndarray:
        """Return unit vectors, float64 (N, D), of uint8 RGB faces cut out as FFHQ's are."""
        if not len(faces_NHWC):
            return np.empty((0, 1))

        def embed(rows: slice) -> Tensor:
            faces = faces_NHWC[rows]
            if self.takes_window:
                faces = cut_window(faces, self.input_px)
            return self._network(faces).double().cpu()

        parts = in_batches(embed, len(faces_NHWC), _BATCH, Work(f"embedding with {self.name}"))
        return torch.cat([part for _, part in parts]).numpy()


def cut_window(faces_NHWC: np.ndarray, size_px: int) -> np.ndarray:
    """Return the template's window of each face, uint8 (N, size_px, size_px, 3).

    Args:
        faces_NHWC: uint8 faces cut out as FFHQ's are, of any side.
        size_px: Side of the result.
    """
    from agetf_pipeline.enhance.identity_alignment import cut_out, ffhq_window

    window = ffhq_window()
    return np.stack([cut_out(np.asarray(face), window, size_px) for face in faces_NHWC])


def load_embedder(path: Path, device: torch.device) -> FaceEmbedder:
    """Load an identity embedder; the caller has verified the file.

    Args:
        path: Weights with a card, as `bring_embedder` and `evaluation.training` write them, or a
            published checkpoint as it is.
        device: Where it runs.

    Raises:
        WeightsError: The file is absent or unreadable, of another kind, or does not fit.
    """
    card = _card_of(path)
    if not card:
        module, card = _read_published(path)
        version = hash_file(path)
    elif card.get("kind") in (PUBLISHED_KIND, IDENTITY_KIND):
        module = _published(card) if card["kind"] == PUBLISHED_KIND else build(card)
        version = load_weights(module, path)
    else:
        raise _another_kind(path, card)
    module = module.eval().to(device)
    published = card["kind"] == PUBLISHED_KIND
    return FaceEmbedder(
        f"{card['family']} {card['architecture']}" if published else "identity embedder",
        version,
        card["trained_on"],
        card["input_px"],
        published,
        _with_input(module, card, device),
    )


def bring_embedder(source: Path, target: Path) -> None:
    """Copy an embedder's weights into a workspace, so that `load_embedder` knows what they are.

    This project's weights are copied as they are. Published ones are loaded strictly and written as
    safetensors, with a card that names their architecture and the sha256 of the file they were.

    Raises:
        WeightsError: As of `load_embedder`; nothing is written.
    """
    card = _card_of(source)
    if card:
        load_embedder(source, torch.device("cpu"))  # refuses what does not fit
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        return
    module, card = _read_published(source)
    save_weights(target, module, card)


def tensors_digest(path: Path) -> str:
    """Return a hash of a file's tensors: the same for one network in two kinds of file.

    A training checkpoint's wrapping, the head of AdaFace's training and counters do not count.

    Raises:
        WeightsError: The file is absent or unreadable.
    """
    state = read_state(path)
    state = ir50.network_state(state) if _is_training_checkpoint(state) else state
    state = {name.removeprefix("module."): value for name, value in state.items()}
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if name.endswith(_COUNTER) or not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_training_checkpoint(state: Mapping[str, Any]) -> bool:
    return "state_dict" in state or any(name.startswith("model.") for name in state)


def _card_of(path: Path) -> dict[str, Any]:
    return read_card(path) if path.suffix == ".safetensors" else {}


def _read_published(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a published checkpoint strictly; return its network and the card for it."""
    if arcface.is_arcface(read_state(path)):
        family, (module, architecture) = ARCFACE, arcface.read_published(path)
    else:
        family, (module, architecture) = ADAFACE, ir50.read_published(path)
    return module, {
        "kind": PUBLISHED_KIND,
        "family": family,
        "architecture": architecture,
        "input_px": ir50.INPUT_PX,
        "trained_on": _UNKNOWN_TRAINING,
        "source_sha256": hash_file(path),
    }


def _published(card: Mapping[str, Any]) -> nn.Module:
    builders = {ADAFACE: ir50.build_published, ARCFACE: arcface.build_published}
    return builders[card["family"]](card["architecture"])


def _with_input(
    module: nn.Module, card: Mapping[str, Any], device: torch.device
) -> Callable[[np.ndarray], Tensor]:
    """Return the network with its own way to prepare uint8 RGB faces (N, H, W, 3)."""
    if card["kind"] == IDENTITY_KIND:
        return lambda faces: module(to_input(faces, card["input_px"], device))
    prepare = ir50.to_bgr_input if card["family"] == ADAFACE else arcface.to_rgb_input
    return lambda faces: module(prepare(torch.from_numpy(np.array(faces)).to(device)))


def _another_kind(path: Path, card: Mapping[str, Any]) -> WeightsError:
    return WeightsError(
        f"Expected an identity embedder at {path}; found weights of kind {card.get('kind')!r}. "
        f"Supply an AdaFace or an ArcFace checkpoint, or weights of kind {IDENTITY_KIND} made by "
        "the stage train_evaluators."
    )
