"""Loading the configured experts, and the identity of their weights."""

import logging
from pathlib import Path

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.core.errors import ConfigError, WeightsError
from agetf_pipeline.core.hashing import hash_file, hash_folder
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts.base import AgeExpert

_LOGGER = logging.getLogger(__name__)
TRAINED_FILE = "weights.safetensors"


def expert_folder(workspace: Workspace, name: str) -> Path:
    """Return where the workspace keeps the weights of an expert that it trains."""
    return workspace.models / "experts" / name


def weights_path(config: PipelineConfig, workspace: Workspace, name: str) -> Path:
    """Return an expert's weights: the configured path, else what the workspace trains.

    For Janus a folder in transformers' format, for the others a file. Relative paths are taken
    from the workspace root.
    """
    weights = config.train_experts.experts[name].weights
    if weights is not None:
        return workspace.root / weights
    folder = expert_folder(workspace, name)
    return folder if name == "janus" else folder / TRAINED_FILE


def weights_hash(config: PipelineConfig, workspace: Workspace, name: str) -> str:
    """Return the sha256 of an expert's weights, without loading them.

    Raises:
        WeightsError: There are none.
    """
    path = weights_path(config, workspace, name)
    _require(path, name, configured=config.train_experts.experts[name].weights is not None)
    if path.is_file():
        return hash_file(path)
    return hash_folder(path)


def load_experts(config: PipelineConfig, workspace: Workspace) -> list[AgeExpert]:
    """Load every expert that the config names, in the order of their names.

    Raises:
        ConfigError: The config names none, or one of an unknown kind.
        WeightsError: Weights are absent, damaged, or of another architecture.
    """
    names = sorted(config.train_experts.experts)
    if not names:
        raise ConfigError(
            "Expected experts in train_experts.experts; found none. Name at least one of janus, "
            "mivolo, resnet50, vgg16 (two for a mixture), as configs/base.yaml does."
        )
    return [load_expert(config, workspace, name) for name in names]


def load_expert(config: PipelineConfig, workspace: Workspace, name: str) -> AgeExpert:
    """Load one expert on the configured device; see `load_experts`."""
    from agetf_pipeline.checkpoints import require_verified
    from agetf_pipeline.experts.kinds import kind_of
    from agetf_pipeline.experts.precision import in_precision

    expert = resolved(config, name)
    path = weights_path(config, workspace, name)
    _require(path, name, configured=expert.weights is not None)
    require_verified(path, workspace, config.runtime)
    device = resolve_device(config.runtime.device)
    kind = kind_of(name, expert)
    loaded = kind.load_expert(name, expert, path, device)
    if config.runtime.compile:
        _compile(config, workspace, loaded)
    if getattr(kind, "LOADS_IN_PRECISION", False):
        return loaded
    return in_precision(loaded, expert, device)


def _compile(config: PipelineConfig, workspace: Workspace, expert: AgeExpert) -> None:
    """Compile the network of an expert whose kind gains by it."""
    from agetf_pipeline.core.compiling import FOLDER
    from agetf_pipeline.experts.batching import batch_sizes

    compile_network = getattr(expert, "compile_network", None)
    if compile_network is None:
        _LOGGER.info("%s is not compiled: it gains nothing by it (docs/speed.md)", expert.name)
        return
    compile_network(workspace.state / FOLDER, batch_sizes(config)[expert.name])


def resolved(config: PipelineConfig, name: str) -> ExpertConfig:
    """Return an expert's settings with the precision that the config asks for filled in."""
    expert = config.train_experts.experts[name]
    precision = expert.precision or config.runtime.precision
    return expert.model_copy(update={"precision": precision})


def _require(path: Path, name: str, configured: bool) -> None:
    if path.exists():
        return
    remedy = (
        f"Put the file there, or correct train_experts.experts.{name}.weights."
        if configured
        else "Run `agetf train_experts`, or name trained weights in "
        f"train_experts.experts.{name}.weights."
    )
    raise WeightsError(f"Expected weights of the expert {name} at {path}; found nothing. {remedy}")
