"""Weights of networks: written as safetensors, loaded strictly, named by their content."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.files import atomic_path
from agetf_pipeline.core.hashing import hash_file

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_weights(path: Path, module: "nn.Module", card: dict[str, Any]) -> str:
    """Write a module's state as safetensors, atomically.

    Args:
        path: File to write, `*.safetensors`.
        module: The module. Tensors shared between names are written once per name.
        card: What made the weights (architecture settings, data, `trained_on`), JSON-compatible;
            kept in the file's header.

    Returns:
        The file's sha256, which serves as the model version.
    """
    save_tensors(path, module.state_dict(), card)
    return hash_file(path)


def save_tensors(path: Path, tensors: "Mapping[str, Tensor]", card: dict[str, Any]) -> None:
    """Write named tensors as `save_weights` writes a module's."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"card": json.dumps(card, sort_keys=True)})


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a weights file written by `save_weights` (empty for foreign files).

    Raises:
        WeightsError: The file is absent or damaged.
    """
    from safetensors import safe_open

    _require(path)
    try:
        with safe_open(path, framework="pt") as stream:
            card = json.loads((stream.metadata() or {}).get("card", "{}"))
            if isinstance(card, dict):
                return card
            found: object = f"a card that is a {type(card).__name__}"
    except Exception as error:  # safetensors raises an exception class of its own
        found = error
    raise WeightsError(
        f"Expected a safetensors file at {path}; found damage: {found}. Supply the file again; one "
        "that was written here goes and comes again: delete it, and run the stage that makes it."
    )


def read_state(path: Path) -> "dict[str, Tensor]":
    """Read a state dict from safetensors, or from a PyTorch file without executing pickles.

    Raises:
        WeightsError: The file is absent or unreadable, or holds more than tensors.
    """
    _require(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(_more_than_tensors(path, error)) from error
    except Exception as error:
        raise WeightsError(
            f"Expected weights at {path}; could not read them: {error}. "
            "Supply the file again, as safetensors or as a PyTorch file that holds only tensors."
        ) from error


def _more_than_tensors(path: Path, error: pickle.UnpicklingError) -> str:
    """Say what a PyTorch file holds beside tensors, instead of how to trust it."""
    found = re.findall(r"(?:GLOBAL |class |import )`?([A-Za-z_][\w.]*\.\w+)", str(error))
    what = (
        f"it also holds {', '.join(sorted(set(found)))}, which only code could rebuild"
        if found
        else "it is no such file, or only code of its own could rebuild what it holds"
    )
    return (
        f"Expected weights at {path}, a PyTorch file of tensors, numbers and text; could not read "
        f"them: {what}. Code of a file is never run. Supply it as safetensors, or as a file that "
        "holds only tensors; where you trust it, convert it elsewhere: load it with "
        "weights_only=False, and save its tensors and numbers."
    )


def load_weights(module: "nn.Module", path: Path) -> str:
    """Load weights strictly into `module`; return the file's sha256, the model version."""
    load_state(module, read_state(path), str(path))
    return hash_file(path)


def load_state(module: "nn.Module", state: "dict[str, Tensor]", source: str) -> None:
    """Load a state dict strictly.

    Raises:
        WeightsError: Keys are missing or unexpected, or shapes differ; all are listed.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(state))
        if own[name].shape != state[name].shape
    ]
    if missing or unexpected or shapes:
        raise WeightsError(
            f"Weights of {source} do not fit {type(module).__name__}. Missing: {missing or 'none'}."
            f" Unexpected: {unexpected or 'none'}. Other shapes: {shapes or 'none'}. "
            "Check the architecture settings, or supply the matching file."
        )
    module.load_state_dict(state, strict=True)


def _require(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"Expected weights at {path}; found nothing. Put the file there, or run the stage that "
            "trains it."
        )
