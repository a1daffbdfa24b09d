"""The two networks that a config names, loaded from where they are, and only if they were trained.

Weights that the workspace made carry a card that says what they were trained on. Without one, only
weights that the config names itself are taken, and only if they are verified: random weights never
pass as an enhancement, nor does a damaged or exchanged file.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agetf_pipeline.checkpoints import require_verified
from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.core.errors import WeightsError
from agetf_pipeline.core.weights import read_card
from agetf_pipeline.core.workspace import Workspace

if TYPE_CHECKING:
    from agetf_pipeline.enhance.colour import Colouriser
    from agetf_pipeline.enhance.engine_official import OfficialSuperResolver
    from agetf_pipeline.enhance.esrgan import SuperResolver


def ddcolor_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the colouriser's weights: configured (relative to the workspace), or trained here."""
    given = config.train_enhancers.ddcolor.weights
    if given is not None:
        return workspace.root / given
    return workspace.models / "enhance" / "ddcolor.safetensors"


def esrgan_path(config: PipelineConfig, workspace: Workspace) -> Path:
    """Return the super-resolver's weights: configured, or trained here."""
    given = config.train_enhancers.esrgan.weights
    if given is not None:
        return workspace.root / given
    return workspace.models / "enhance" / "esrgan.safetensors"


def trained_on(path: Path, configured: bool) -> str:
    """Return what weights were trained on, as their card says.

    Args:
        path: The weights.
        configured: Whether the config names them; then a file without a card is the user's word.

    Raises:
        WeightsError: The file is absent, or nothing says that it was ever trained.
    """
    if not path.is_file():
        raise WeightsError(
            f"Expected weights at {path}; found nothing. Run the stage train_enhancers, or name "
            "them in train_enhancers.ddcolor.weights or train_enhancers.esrgan.weights."
        )
    card = read_card(path) if path.suffix == ".safetensors" else {}
    if "trained_on" in card:
        return str(card["trained_on"])
    if configured:
        return "not stated (weights named in the config)"
    raise WeightsError(
        f"Expected a card in {path} that says what it was trained on; found none. Random weights "
        "are no enhancement: run the stage train_enhancers, or name trained weights in the config."
    )


def wanted_precision(config: PipelineConfig) -> Literal["fp32", "bf16"]:
    """Return the precision that the config asks the enhancers to compute in."""
    return config.enhance.precision or config.runtime.precision


def load_colouriser(config: PipelineConfig, workspace: Workspace) -> "Colouriser":
    """Load the configured DDColor.

    Raises:
        WeightsError: Absent, untrained, unverified, or of another architecture.
    """
    from agetf_pipeline.enhance.colour import load_ddcolor
    from agetf_pipeline.enhance.engine import choose_precision

    section = config.train_enhancers.ddcolor
    path = ddcolor_path(config, workspace)
    trained_on(path, section.weights is not None)
    require_verified(path, workspace, config.runtime)
    device = resolve_device(config.runtime.device)
    precision = choose_precision(wanted_precision(config), device)
    return load_ddcolor(path, section.size, section.input_px, device, precision)


def load_super_resolver(
    config: PipelineConfig, workspace: Workspace
) -> "SuperResolver | OfficialSuperResolver":
    """Load the configured ESRGAN.

    Raises:
        WeightsError: Absent, untrained, unverified, or of another architecture.
    """
    from agetf_pipeline.enhance.engine import choose_precision
    from agetf_pipeline.enhance.engine_official import OfficialSuperResolver
    from agetf_pipeline.enhance.esrgan import load_esrgan

    section = config.train_enhancers.esrgan
    path = esrgan_path(config, workspace)
    trained_on(path, section.weights is not None)
    require_verified(path, workspace, config.runtime)
    device = resolve_device(config.runtime.device)
    size = (section.arch, section.size, section.scale)
    if config.enhance.engine == "realesrgan":
        return OfficialSuperResolver(load_esrgan(path, *size, device))
    precision = choose_precision(wanted_precision(config), device)
    return load_esrgan(path, *size, device, precision, config.enhance.max_memory_mib)
