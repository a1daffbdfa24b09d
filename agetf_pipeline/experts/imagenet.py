"""What a training starts from: ImageNet weights with a fresh head, or weights written here."""

from pathlib import Path

from torch import Tensor, nn

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError, WeightsError
from agetf_pipeline.core.weights import load_state, read_state
from agetf_pipeline.experts.own_weights import own_card

NUM_IMAGENET_CLASSES = 1000


def load_initial_weights(
    module: nn.Module, path: Path, kind: str, expert: ExpertConfig, head: tuple[str, ...]
) -> str:
    """Fill a network with what its training shall start from.

    Weights written here are loaded whole, head included. So is a state dict that fits the network
    as it is. Of torchvision's ImageNet weights the trunk is loaded; their 1000-class head is the
    one thing that is left out, and the network keeps its own fresh one.

    Args:
        module: The network with random weights, on the CPU.
        path: The weights, a PyTorch file that holds only tensors, or safetensors.
        kind: The network's kind.
        expert: Its settings.
        head: Names of the submodules that form the head.

    Returns:
        What was loaded, in words, for the card.

    Raises:
        ConfigError: Networks of this kind cannot start from other people's weights.
        WeightsError: The file is unreadable, or anything but the head does not fit.
    """
    card = own_card(path, kind, expert)
    state = read_state(path)
    if card:
        load_state(module, state, str(path))
        return f"weights written here ({card.get('trained_on', 'unknown')}), with their head"
    if not head:
        raise ConfigError(
            f"Expected weights written here in init_weights of an expert of the kind {kind!r}, as "
            f"only those can be trained on; found {path} without their card. Remove init_weights."
        )
    state = with_batch_counters(state, module)
    kept, replaced = _without_imagenet_head(state, head)
    if replaced:
        own = module.state_dict()
        kept |= {key: value for key, value in own.items() if _is_part_of(key, head)}
    load_state(module, kept, str(path))
    return "ImageNet trunk, fresh head" if replaced else "a whole network, with its head"


def with_batch_counters(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Add the counters of seen batches that files of before PyTorch 0.4.1 lack, as PyTorch does.

    They count training batches; with a fixed momentum, nothing depends on them. A file that has
    some of them is left as it is, so that a damaged one is refused.
    """
    if any(key.endswith("num_batches_tracked") for key in state):
        return state
    own = module.state_dict()
    counters = {k: v.clone().zero_() for k, v in own.items() if k.endswith("num_batches_tracked")}
    return state | counters


def _without_imagenet_head(
    state: dict[str, Tensor], head: tuple[str, ...]
) -> tuple[dict[str, Tensor], bool]:
    """Leave out a 1000-class head; whether there was one."""
    found = {key: value for key, value in state.items() if _is_part_of(key, head)}
    is_imagenet = bool(found) and all(
        len(value) == NUM_IMAGENET_CLASSES for value in found.values() if value.ndim
    )
    if not is_imagenet:
        return state, False
    missing = [f"{name}.{part}" for name in head for part in ("weight", "bias")]
    missing = [key for key in missing if key not in found]
    if missing:
        raise WeightsError(
            f"Expected a whole 1000-class head in ImageNet weights; found {sorted(found)}, not "
            f"{missing}. Supply torchvision's file."
        )
    return {key: value for key, value in state.items() if key not in found}, True


def _is_part_of(key: str, head: tuple[str, ...]) -> bool:
    return key.startswith(tuple(f"{name}." for name in head))
