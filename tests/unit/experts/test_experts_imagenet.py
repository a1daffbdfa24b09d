"""What a training starts from: strict but for the 1000-class head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50, vgg16

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core.errors import ConfigError, WeightsError
from agetf_pipeline.core.weights import read_card, read_state, save_weights
from agetf_pipeline.experts.imagenet import load_initial_weights
from agetf_pipeline.experts.resnet50 import build_resnet50
from agetf_pipeline.experts.training import LabelledFaces, fit_expert
from agetf_pipeline.experts.vgg16 import build_vgg16

TINY = ExpertConfig(size="tiny", input_px=32, num_steps=2, batch_size=4)
BUILD = {"resnet50": build_resnet50, "vgg16": build_vgg16}
HEADS = {"resnet50": ("fc",), "vgg16": ("classifier.6",)}


def _imagenet(kind: str) -> dict[str, torch.Tensor]:
    """Like torchvision's file for the tiny network: a head of 1000 classes."""
    torch.manual_seed(7)
    module = BUILD[kind]("tiny")
    head = module.get_submodule(HEADS[kind][0])
    assert isinstance(head, nn.Linear)
    module.set_submodule(HEADS[kind][0], nn.Linear(head.in_features, 1000))
    return module.state_dict()


def _load(kind: str, path: Path, module: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(1)
    module = BUILD[kind]("tiny") if module is None else module
    load_initial_weights(module, path, kind, TINY, HEADS[kind])
    return module


@pytest.mark.parametrize("kind", ["resnet50", "vgg16"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_trunk_is_loaded_and_the_head_is_fresh(kind: str, suffix: str, tmp_path: Path):
    state, path = _imagenet(kind), tmp_path / f"imagenet{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state, path)
    torch.manual_seed(1)
    fresh = BUILD[kind]("tiny").state_dict()
    loaded = _load(kind, path).state_dict()
    head = tuple(f"{name}." for name in HEADS[kind])
    assert loaded.keys() == fresh.keys()
    for key, value in loaded.items():
        assert torch.equal(value, fresh[key] if key.startswith(head) else state[key]), key
        if key.startswith(head):
            assert len(value) == 101


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
@pytest.mark.parametrize("kind", ["resnet50", "vgg16"])
def test_torchvisions_full_networks_fit(kind: str, tmp_path: Path):
    with torch.device("meta"):
        theirs = {"resnet50": resnet50, "vgg16": vgg16}[kind]().state_dict()
        module = BUILD[kind]("full")
    # Expanded zeros: next to nothing in a file, and on the meta device nothing is copied.
    path = tmp_path / "torchvision.pth"
    torch.save({key: torch.zeros(()).expand(v.shape) for key, v in theirs.items()}, path)
    what = load_initial_weights(module, path, kind, ExpertConfig(), HEADS[kind])
    assert what == "ImageNet trunk, fresh head"


def test_batch_counters_of_old_files_may_be_absent_all_together(tmp_path: Path):
    state = _imagenet("resnet50")
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    torch.save({key: v for key, v in state.items() if key not in counters}, tmp_path / "old.pth")
    loaded = _load("resnet50", tmp_path / "old.pth").state_dict()
    assert all(loaded[key] == 0 for key in counters)
    torch.save({k: v for k, v in state.items() if k != counters[0]}, tmp_path / "damaged.pth")
    with pytest.raises(WeightsError, match=counters[0].replace(".", r"\.")):
        _load("resnet50", tmp_path / "damaged.pth")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("layer2.0.conv1.weight"), r"Missing: \['layer2\.0\.conv1\.weight"),
        (lambda state: state.update(surprise=torch.zeros(1)), r"Unexpected: \['surprise'\]"),
        (lambda state: state.pop("fc.bias"), r"whole 1000-class head.*fc\.bias"),
        (lambda state: [state.pop("fc.bias"), state.pop("fc.weight")], r"'fc\.bias', 'fc\.weight'"),
        (lambda state: state.update({"fc.weight": torch.zeros(10, 64)}), r"fc\.weight \(10, 64\)"),
    ],
)
def test_anything_but_the_head_must_fit(change, match: str, tmp_path: Path):
    state = _imagenet("resnet50")
    change(state)
    torch.save(state, tmp_path / "w.pth")
    module = build_resnet50("tiny")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(WeightsError, match=match):
        _load("resnet50", tmp_path / "w.pth", module)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path: Path):
    torch.save(_imagenet("vgg16"), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"Unexpected: .*features\.0\.weight"):
        _load("resnet50", tmp_path / "w.pth")


def test_weights_written_here_are_loaded_with_their_head_and_must_fit_their_card(tmp_path: Path):
    path = tmp_path / "ours.safetensors"
    card = {"architecture": "resnet50", "size": "tiny", "input_px": 32, "trained_on": "synthetic"}
    torch.manual_seed(3)
    ours = build_resnet50("tiny")
    save_weights(path, ours, card)
    loaded = _load("resnet50", path)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
    with pytest.raises(WeightsError, match="card"):
        load_initial_weights(
            ours, path, "resnet50", ExpertConfig(size="tiny", input_px=64), ("fc",)
        )
    save_weights(path, build_vgg16("tiny"), card | {"architecture": "vgg16"})
    with pytest.raises(WeightsError, match="card"):
        _load("resnet50", path)


def test_other_peoples_whole_age_networks_are_loaded_with_their_head(tmp_path: Path):
    torch.manual_seed(3)
    theirs = build_resnet50("tiny").state_dict()
    torch.save(theirs, tmp_path / "w.pth")
    loaded = _load("resnet50", tmp_path / "w.pth").state_dict()
    assert all(torch.equal(theirs[key], loaded[key]) for key in theirs)


def test_a_kind_without_a_head_starts_from_its_own_weights_alone(tmp_path: Path):
    torch.save({"weight": torch.zeros(1, 1)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="init_weights"):
        load_initial_weights(nn.Linear(1, 1), tmp_path / "w.pth", "mine", TINY, ())


def test_the_card_says_what_the_training_started_from(tmp_path: Path):
    state = _imagenet("vgg16")
    torch.save(state, tmp_path / "imagenet.pth")
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
    data = LabelledFaces(faces, rng.uniform(0, 90, 8).astype(np.float32), [None] * 8)
    expert = TINY.model_copy(update={"frozen_fraction": 0.99})
    path = tmp_path / "w.safetensors"
    fit_expert(
        "vgg16", expert, data, 0, torch.device("cpu"), tmp_path / "c.pt", "id", path, {},
        init_path=tmp_path / "imagenet.pth",
    )  # fmt: skip
    card = read_card(path)
    assert card["started_from"] == "ImageNet trunk, fresh head"
    assert len(card["init_sha256"]) == 64
    written = read_state(path)
    assert torch.equal(written["features.0.weight"], state["features.0.weight"])
    assert written["classifier.6.weight"].shape[0] == 101
