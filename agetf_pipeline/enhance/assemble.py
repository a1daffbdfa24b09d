"""Both networks as the stage runs them: how many pictures a call takes, and how many calls at once.

On a CPU a picture a call and a call a core are fastest (docs/enhancement.md); a GPU wants batches.
`enhance.max_memory_mib` caps what all calls that run at once take together.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from agetf_pipeline.config.enhance import EnhanceConfig
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.enhance.apply import Enhancer
from agetf_pipeline.enhance.colour import Colouriser

if TYPE_CHECKING:
    from agetf_pipeline.enhance.engine_official import OfficialSuperResolver
    from agetf_pipeline.enhance.esrgan import SuperResolver

_BATCH_SIZE = {"cpu": 1, "cuda": 8}
_SIZES = 1024
"""Of pictures, whose numbers are remembered."""


def build_enhancer(
    section: EnhanceConfig,
    colouriser: Colouriser,
    resolver: "SuperResolver | OfficialSuperResolver",
    device: torch.device,
) -> Enhancer:
    """Return the networks behind one call, within the cap on their memory.

    Args:
        section: Thresholds, sizes, and the cap.
        colouriser: Loaded.
        resolver: Loaded.
        device: Of both.

    Raises:
        ConfigError: The cap does not hold one picture of the colouriser.
    """
    wanted = section.batch_size or _BATCH_SIZE.get(device.type, _BATCH_SIZE["cuda"])
    num_threads = torch.get_num_threads() if device.type == "cpu" else 1
    num_coloured = wanted
    if (cap_mib := section.max_memory_mib) is not None:
        num_fitting = int(cap_mib / colouriser.picture_mib)
        if not num_fitting:
            raise ConfigError(
                f"Expected enhance.max_memory_mib of at least {colouriser.picture_mib:.0f} for a "
                f"colouriser that sees {colouriser.input_px} px; found {cap_mib}. Raise it, or "
                "lower train_enhancers.ddcolor.input_px."
            )
        num_threads = min(num_threads, num_fitting)
        num_coloured = min(wanted, num_fitting // num_threads)

    @lru_cache(_SIZES)
    def num_resolved(height: int, width: int) -> int:
        return resolver.num_at_once(height, width, section.tile_px, wanted, num_threads)

    return Enhancer(
        section,
        lambda images: colouriser(images, wanted),
        lambda images: resolver(images, section.tile_px, wanted),
        device,
        num_coloured,
        num_resolved,
        num_threads,
    )
