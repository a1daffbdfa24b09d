"""Reading MiVOLO's published weights: checkpoints of version 1, the folder of version 2.

Version 1 is a PyTorch file: a dict of `state_dict`, `min_age`, `max_age`, `avg_age` and flags.
Verified: our network takes the state dict of the official one, of random weights, strictly, and
gives the same ages (tests/parity, docs/golden_values.md): face alone or with the body, 224 and 384
pixels, with gender and without. Not verified: a checkpoint with learned weights.

Version 2 (`iitolstykh/mivolo_v2` on the Hugging Face hub) is a folder in transformers' format:
`config.json` and `model.safetensors`. Verified: nothing against the hub's own files, which were not
at hand. Read, in public code of several users who load these files: the network is the official
`mivolo_d1_384` with face and body (which is verified), its names stand behind `mivolo.model.`, and
it loads strictly; the config says `min_age` 0, `max_age` 122, `avg_age` 61, `input_size` 384,
`in_chans` 6, `num_classes` 3, `with_persons_model`, `only_age`; pictures are prepared as for
version 1. So whatever the config says is compared with the tensors, and a contradiction refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from agetf_pipeline.config.experts import NetworkSize
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.experts.mivolo_network import (
    NUM_OUTPUTS,
    PX_PER_POSITION,
    AgeRange,
    MiVOLO,
)

_AGES = ("min_age", "max_age", "avg_age")
_V2_PREFIX = "mivolo.model."
_V2_CONFIG = "config.json"
_V2_WEIGHTS = "model.safetensors"


def read_published(path: Path, size: NetworkSize = "full") -> tuple[MiVOLO, int]:
    """Build MiVOLO from a published checkpoint of version 1, loaded strictly.

    Args:
        path: A PyTorch file: a dict of `state_dict`, `min_age`, `max_age`, `avg_age` and flags.
        size: Layout of the trunk.

    Returns:
        The network, without a sigma head, and its input size in pixels.

    Raises:
        WeightsError: Something is missing or left over, has another shape, or contradicts a flag.
    """
    checkpoint: dict[str, Any] = read_state(path)
    absent = [key for key in ("state_dict", *_AGES) if key not in checkpoint]
    if absent:
        raise WeightsError(
            f"Expected a published MiVOLO checkpoint at {path}; it lacks {absent}. Supply the "
            "original file, or weights written by the stage train_experts."
        )
    # Feature-distribution smoothing is a training aid; it has no part in reading.
    state = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("fds.")}
    return _build(state, checkpoint, {"no_gender": "only_age"}, size, str(path))


def read_published_folder(folder: Path, size: NetworkSize = "full") -> tuple[MiVOLO, int]:
    """Build MiVOLO version 2 from its folder in transformers' format, loaded strictly.

    Nothing of the code that the folder may hold is run.

    Args:
        folder: Holds `config.json` and `model.safetensors`.
        size: Layout of the trunk.

    Returns:
        The network, without a sigma head, and its input size in pixels.

    Raises:
        WeightsError: A file is absent or damaged, or as for `read_published`.
    """
    source = folder / _V2_CONFIG
    try:
        config = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"Expected MiVOLO version 2 in {folder}: {_V2_CONFIG} and {_V2_WEIGHTS}. Could not "
            f"read {_V2_CONFIG}: {error}. Copy both files of the published repository there."
        ) from error
    absent = [key for key in _AGES if key not in config]
    if absent:
        raise WeightsError(
            f"Expected the ages {_AGES} in {source}; it lacks {absent}. Copy the config of the "
            "published repository there."
        )
    state = {
        name.removeprefix(_V2_PREFIX): tensor
        for name, tensor in read_state(folder / _V2_WEIGHTS).items()
    }
    return _build(state, config, {}, size, str(folder))


def _build(
    state: dict[str, Tensor],
    stated: Mapping[str, Any],
    other_names: Mapping[str, str],
    size: NetworkSize,
    source: str,
) -> tuple[MiVOLO, int]:
    """Build what the tensors describe, check it against what stands beside them, load strictly."""
    if "pos_embed" not in state or "head.weight" not in state:
        raise WeightsError(
            f"Expected pos_embed and head.weight in the weights of {source}; found neither or one. "
            "Supply the original file."
        )
    input_px = state["pos_embed"].shape[1] * PX_PER_POSITION
    num_outputs = state["head.weight"].shape[0]
    if num_outputs not in (1, NUM_OUTPUTS):
        raise WeightsError(
            f"Expected 1 output (age) or {NUM_OUTPUTS} (two of gender, age) in {source}; found "
            f"{num_outputs}. Supply MiVOLO's weights, not those of its trunk for other classes."
        )
    with_body = any(name.startswith("patch_embed.conv1.") for name in state)
    found = {
        "input_size": input_px,
        "num_classes": num_outputs,
        "only_age": num_outputs == 1,
        "with_persons_model": with_body,
        "in_chans": 6 if with_body else 3,
    }
    said = {other_names.get(key, key): value for key, value in stated.items()}
    wrong = [f"{k} {said[k]} but {v}" for k, v in found.items() if k in said and said[k] != v]
    if wrong:
        raise WeightsError(
            f"Expected the settings of {source} to describe its weights; found (said, but in the "
            f"weights): {', '.join(wrong)}. Supply settings and weights of one origin."
        )
    module = MiVOLO(
        size,
        input_px,
        AgeRange(*(float(stated[key]) for key in _AGES)),
        num_outputs,
        with_sigma=False,
        with_body=with_body,
    )
    load_state(module.volo, state, source)
    return module, input_px
