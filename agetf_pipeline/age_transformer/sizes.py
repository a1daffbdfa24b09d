"""The sizes that the AgeTransformer comes in, as parameter sets."""

from dataclasses import asdict, dataclass
from typing import Any

from agetf_pipeline.core.errors import ConfigError

ANCHORS_YEARS: tuple[float, ...] = (5.0, 15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 85.0, 95.0)
"""The ten ages of configs/age_anchors.yaml: where the age embedding's anchors stand."""


@dataclass(frozen=True)
class ModelSettings:
    """Everything that is needed to rebuild an AgeTransformer.

    Attributes:
        size_px: Side of the square image.
        patch_px: Pixels folded into channels on the way in, and unfolded on the way out.
        channels: Channels of each level, from size_px / patch_px down to 8 x 8.
        blocks: Residual blocks of each level of the decoder, in the order of `channels`.
        num_layers: Transformer layers of the 8 x 8 bottleneck.
        num_heads: Attention heads of each.
        style_dim: Width of age embedding and style.
        num_frequencies: Fourier frequencies of the age.
        vlm_dim: Width of the VLM embedding that guides the model; 0: there is none.
        max_flow: Largest displacement of the warp, as a share of the image's side.
        anchors_years: Ages with an embedding of their own, rising.
    """

    size_px: int
    patch_px: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    num_layers: int
    num_heads: int
    style_dim: int
    num_frequencies: int = 6
    vlm_dim: int = 0
    max_flow: float = 0.2
    anchors_years: tuple[float, ...] = ANCHORS_YEARS

    def __post_init__(self) -> None:
        if self.size_px != self.patch_px * 8 * 2 ** (len(self.channels) - 1):
            raise ConfigError(
                f"Expected levels that end at 8 x 8; found size_px={self.size_px}, "
                f"patch_px={self.patch_px} and {len(self.channels)} levels. Change the channels."
            )
        if len(self.blocks) != len(self.channels) or self.channels[-1] % self.num_heads:
            raise ConfigError(
                f"Expected one entry of blocks per level and channels that {self.num_heads} heads "
                f"divide; found blocks {self.blocks} and channels {self.channels}."
            )

    def to_card(self) -> dict[str, Any]:
        """Return JSON-compatible values, for the card of saved weights."""
        return asdict(self)

    @classmethod
    def from_card(cls, values: dict[str, Any]) -> "ModelSettings":
        """Return the settings that `to_card` wrote (JSON turns tuples into lists)."""
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        try:
            return cls(**{**values, **lists})
        except TypeError as error:
            raise ConfigError(
                f"Expected the settings of an AgeTransformer; found {sorted(values)}: {error}. "
                "The weights were saved by another version: train them again."
            ) from error


SIZES: dict[str, ModelSettings] = {
    "tiny-64": ModelSettings(64, 2, (32, 64, 96), (1, 1, 1), 1, 4, 128),
    "tiny-128": ModelSettings(128, 2, (32, 64, 88, 112), (1, 2, 2, 2), 2, 4, 128),
    "base-128": ModelSettings(128, 2, (64, 160, 288, 384), (2, 2, 2, 2), 4, 8, 256),
    "base-256": ModelSettings(256, 2, (32, 80, 160, 288, 384), (2, 2, 2, 2, 2), 4, 8, 256),
    "large-256": ModelSettings(256, 2, (64, 128, 256, 416, 624), (2, 2, 2, 2, 2), 6, 12, 384),
    "large-512": ModelSettings(512, 2, (32, 64, 128, 256, 416, 624), (2,) * 6, 6, 12, 384),
}
"""Parameter sets by the name that a config's `train.model` gives."""


def settings_of(name: str, vlm_dim: int = 0) -> ModelSettings:
    """Return the settings of a size, for a VLM embedding of `vlm_dim` values (0: none).

    Raises:
        ConfigError: There is no size of that name.
    """
    if name not in SIZES:
        raise ConfigError(f"Expected train.model to be one of {sorted(SIZES)}; found {name!r}.")
    return ModelSettings(**{**asdict(SIZES[name]), "vlm_dim": vlm_dim})
