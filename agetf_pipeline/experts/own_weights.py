"""Weights that this project wrote: recognised by the card in their header, checked by it."""

from pathlib import Path
from typing import Any

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import read_card


def own_card(path: Path, kind: str, expert: ExpertConfig) -> dict[str, Any]:
    """Return the card of weights written here, checked against the config; empty for foreign ones.

    Args:
        path: The weights.
        kind: The kind of expert that shall be loaded.
        expert: Its settings.

    Raises:
        WeightsError: The weights are of another kind, size or input size than the config says.
    """
    card = read_card(path) if path.suffix == ".safetensors" else {}
    if not card:
        return {}
    found = (card.get("architecture"), card.get("size"), card.get("input_px"))
    expected = (kind, expert.size, expert.input_px)
    if found != expected:
        raise WeightsError(
            f"Expected weights of {expected} (architecture, size, input_px) at {path}; its card "
            f"says {found}. Run the stage train_experts again, or correct "
            "train_experts.experts in the config."
        )
    return card
