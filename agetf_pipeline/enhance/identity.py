"""Is it still the same person? The cosine of two embeddings, before and after enhancement.

The embedder comes from a file that the config names (`recheck.identity_weights`): an AdaFace
checkpoint, or an identity embedder that this project trained, known by its card. Without one the
guard does not judge.

It should not be the network that evaluation measures identity with, nor one that guides training:
a picture that this guard let through is, by the guard's choice, one that its own network finds
alike, and figures of the same network on such pictures flatter. `is_the_evaluations` tells.

How well a cosine tells a changed face from a kept one depends on the network, the size and the age
of the pictures. No threshold was measured here on photographs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import read_card
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.enhance.identity_alignment import Alignment, Window, cut_out, find_window

if TYPE_CHECKING:
    import torch

    from agetf_pipeline.data.faces import FaceDetector

_BATCH = 16


@dataclass(frozen=True)
class IdentityModel:
    """An embedder of faces.

    Attributes:
        version: sha256 of its weights.
        trained_on: What its card says, or that nothing is said.
        architecture: Its name, for the report.
        input_px: Side of the faces that it takes.
        embed: uint8 faces (N, input_px, input_px, 3), RGB, to unit vectors float64 (N, D).
        detector: Finds eyes, for a network that needs its faces aligned; None takes whole pictures.
    """

    version: str
    trained_on: str
    architecture: str
    input_px: int
    embed: Callable[[np.ndarray], np.ndarray]
    detector: "FaceDetector | None" = None


@dataclass(frozen=True)
class FacePair:
    """The faces of one picture before and after, as an embedder takes them.

    Attributes:
        before: uint8 (input_px, input_px, 3).
        after: The same window of the enhanced copy.
        alignment: How the window was found.
    """

    before: np.ndarray
    after: np.ndarray
    alignment: Alignment


def load_identity_model(path: Path, device: "torch.device") -> IdentityModel:
    """Load an embedder; the caller has verified the file.

    Args:
        path: An AdaFace checkpoint, or weights with the card of this project's embedder.
        device: Where it runs.

    Raises:
        WeightsError: The file is absent or unreadable, of another kind, or does not fit.
    """
    from agetf_pipeline.evaluation.judges import IDENTITY_KIND, embed, load_judge

    if path.suffix == ".safetensors" and read_card(path):
        judge = load_judge(path, IDENTITY_KIND, device)
        return IdentityModel(
            judge.version, judge.trained_on, "identity embedder", judge.input_px,
            lambda faces: embed(judge, faces),
        )  # fmt: skip
    return _load_adaface(path, device)


def _load_adaface(path: Path, device: "torch.device") -> IdentityModel:
    import torch

    from agetf_pipeline.data.faces import default_detector
    from agetf_pipeline.evaluation.ir50 import INPUT_PX, read_published, to_bgr_input

    module, architecture = read_published(path)
    module = module.eval().to(device)

    @torch.inference_mode()
    def embed(faces_NHW3: np.ndarray) -> np.ndarray:
        faces = torch.from_numpy(np.ascontiguousarray(faces_NHW3))

        def run(rows: slice) -> torch.Tensor:
            return module(to_bgr_input(faces[rows].to(device))).double().cpu()

        parts = in_batches(run, len(faces), _BATCH, Work("comparing identities"))
        return torch.cat([part for _, part in parts]).numpy()

    return IdentityModel(
        hash_file(path), "not stated (a published checkpoint)", f"AdaFace {architecture}",
        INPUT_PX, embed, default_detector(),
    )  # fmt: skip


def is_the_evaluations(model: IdentityModel, workspace: Workspace) -> bool:
    """Whether this is the network that evaluation measures identity with."""
    path = workspace.models / "evaluators" / "identity_embedder.safetensors"
    # Evaluation keeps a published network as safetensors, whose card names the file that it was.
    return path.is_file() and model.version in (
        hash_file(path),
        read_card(path).get("source_sha256"),
    )


def face_pair(original: np.ndarray, enhanced: np.ndarray, model: IdentityModel) -> FacePair:
    """Cut the same face out of a picture, uint8 (H, W, 3), and of its enhanced copy."""
    if model.detector is None:
        window = Window(0.5, 0.5, 1.0, 0.0, "whole")
    else:
        window = find_window(original, enhanced, model.detector)
    before, after = (cut_out(picture, window, model.input_px) for picture in (original, enhanced))
    return FacePair(before, after, window.found_by)


def similarities(pairs: Iterable[FacePair], model: IdentityModel) -> list[float]:
    """Return the cosine of each pair's embeddings, in -1 to 1."""
    pairs = list(pairs)
    if not pairs:
        return []
    faces = np.stack([face for pair in pairs for face in (pair.before, pair.after)])
    embedded_ND = model.embed(faces)
    cosines = (embedded_ND[0::2] * embedded_ND[1::2]).sum(axis=1)
    return [float(cosine) for cosine in np.clip(cosines, -1.0, 1.0)]
