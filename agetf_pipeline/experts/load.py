"""Loading the configured experts, and the identity of their weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig, ExpertName
from agetf_pipeline.core.devices import resolve_device
from agetf_pipeline.core.errors import ConfigError, WeightsError
from agetf_pipeline.core.hashing import hash_file, hash_files
from agetf_pipeline.core.weights import load_state, read_card, read_state
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.experts.base import AgeExpert

if TYPE_CHECKING:
    import torch

TRAINED_FILE = "weights.safetensors"


def expert_folder(workspace: Workspace, name: ExpertName) -> Path:
    """Return where the workspace keeps the weights of an expert that it trains."""
    return workspace.models / "experts" / name


def weights_path(config: PipelineConfig, workspace: Workspace, name: ExpertName) -> Path:
    """Return an expert's weights: the configured path, else what the workspace trains.

    For Janus a folder in transformers' format, for the others a file. Relative paths are taken
    from the workspace root.
    """
    weights = config.train_experts.experts[name].weights
    if weights is not None:
        return workspace.root / weights
    folder = expert_folder(workspace, name)
    return folder if name == "janus" else folder / TRAINED_FILE


def weights_hash(config: PipelineConfig, workspace: Workspace, name: ExpertName) -> str:
    """Return the sha256 of an expert's weights, without loading them.

    Raises:
        WeightsError: There are none.
    """
    path = weights_path(config, workspace, name)
    _require(path, name, configured=config.train_experts.experts[name].weights is not None)
    if path.is_file():
        return hash_file(path)
    return hash_files((file for file in path.rglob("[!.]*") if file.is_file()), path)


def load_experts(config: PipelineConfig, workspace: Workspace) -> list[AgeExpert]:
    """Load every expert that the config names, in the order of their names.

    Raises:
        ConfigError: The config names none.
        WeightsError: Weights are absent, damaged, or of another architecture.
    """
    names = sorted(config.train_experts.experts)
    if not names:
        raise ConfigError(
            "Expected experts in train_experts.experts; found none. Name at least one of janus, "
            "mivolo, resnet50, vgg16 (two for a mixture), as configs/base.yaml does."
        )
    return [load_expert(config, workspace, name) for name in names]


def load_expert(config: PipelineConfig, workspace: Workspace, name: ExpertName) -> AgeExpert:
    """Load one expert on the configured device; see `load_experts`."""
    expert = config.train_experts.experts[name]
    path = weights_path(config, workspace, name)
    _require(path, name, configured=expert.weights is not None)
    if name == "janus":
        from agetf_pipeline.experts.janus import JanusExpert, load_janus

        return JanusExpert(load_janus(config, workspace))
    device = resolve_device(config.runtime.device)
    if name == "mivolo":
        return _load_mivolo(expert, path, device)
    return _load_classifier(name, expert, path, device)


def _load_mivolo(expert: ExpertConfig, path: Path, device: "torch.device") -> AgeExpert:
    from agetf_pipeline.experts.mivolo import CODE_VERSION, MiVOLO, MiVOLOExpert, read_published

    card = _card_of(path, "mivolo", expert)
    if card:
        input_px = int(card["input_px"])
        module = MiVOLO(card["size"], input_px)
        load_state(module, read_state(path), str(path))
    else:
        module, input_px = read_published(path, expert.size)
    version = f"{hash_file(path)[:12]}-{CODE_VERSION}"
    trained_on = str(card.get("trained_on", "published"))
    return MiVOLOExpert(module.to(device), input_px, version, trained_on)


def _load_classifier(
    name: str, expert: ExpertConfig, path: Path, device: "torch.device"
) -> AgeExpert:
    from agetf_pipeline.experts import resnet50, vgg16
    from agetf_pipeline.experts.classifier import ClassifierExpert

    card = _card_of(path, name, expert)
    size = card.get("size", expert.size)
    if name == "resnet50":
        module, code_version = resnet50.build_resnet50(size), resnet50.CODE_VERSION
    else:
        module, code_version = vgg16.build_vgg16(size), vgg16.CODE_VERSION
    load_state(module, read_state(path), str(path))
    version = f"{hash_file(path)[:12]}-{code_version}"
    return ClassifierExpert(
        name,
        module.to(device),
        int(card.get("input_px", expert.input_px)),
        str(card.get("profile", expert.profile)),
        version,
        str(card.get("trained_on", "published")),
    )


def _card_of(path: Path, name: str, expert: ExpertConfig) -> dict:
    """The card of weights written here, checked against the config; empty for foreign weights."""
    card = read_card(path) if path.suffix == ".safetensors" else {}
    if not card:
        return {}
    found = (card.get("architecture"), card.get("size"), card.get("input_px"))
    expected = (name, expert.size, expert.input_px)
    if found != expected:
        raise WeightsError(
            f"Expected weights of {expected} (architecture, size, input_px) at {path}; its card "
            f"says {found}. Run the stage train_experts again, or correct "
            f"train_experts.experts.{name} in the config."
        )
    return card


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
