import pytest
import torch

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.experts.batching import (
    batch_sizes,
    chosen_size,
    face_mib,
    num_side_by_side,
)
from agetf_pipeline.experts.resnet50 import build_resnet50
from agetf_pipeline.experts.vgg16 import build_vgg16

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def _config(**predict) -> PipelineConfig:
    experts = {"janus": {"input_px": 384}, "vgg16": {"input_px": 224}, "mivolo": {"input_px": 64}}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu"},
            "train_experts": {"experts": experts},
            "predict": predict,
        }
    )


def test_batches_shrink_with_the_square_of_the_input():
    assert [chosen_size(px, CPU) for px in (64, 224, 384, 2000)] == [32, 16, 4, 1]
    assert chosen_size(224, CUDA) > chosen_size(224, CPU)


def test_every_expert_gets_its_own_size_unless_the_config_says_one():
    assert batch_sizes(_config()) == {"janus": 1, "vgg16": 16, "mivolo": 32}
    assert set(batch_sizes(_config(batch_size=5)).values()) == {5}


@pytest.mark.parametrize("input_px", range(32, 1024, 37))
def test_sizes_are_powers_of_two(input_px):
    size = chosen_size(input_px, CPU)
    assert size & (size - 1) == 0
    assert size >= 1


def test_batches_stay_within_the_memory_that_is_given():
    wide = batch_sizes(_config(max_memory_mib=100_000))
    assert wide == batch_sizes(_config())
    narrow = _config(max_memory_mib=64)
    for name, size in batch_sizes(narrow).items():
        expert = narrow.train_experts.experts[name]
        assert size <= wide[name]
        assert size == 1 or size * face_mib(name, expert) <= 64
    assert batch_sizes(narrow)["vgg16"] == 2


def test_what_the_memory_leaves_free_runs_side_by_side():
    assert [num_side_by_side(_config(max_memory_mib=mib)) for mib in (64, 460, 1400)] == [1, 1, 2]
    assert num_side_by_side(_config(max_memory_mib=100_000)) > 64


@pytest.mark.parametrize(
    ("build", "size", "input_px"),
    [(build_resnet50, "tiny", 96), (build_vgg16, "tiny", 96), (build_vgg16, "full", 224)],
)
def test_a_pass_takes_no_more_memory_than_is_reckoned(build, size, input_px):
    with torch.device("meta"):
        module = build(size).eval()
        faces = torch.empty(4, 3, input_px, input_px)
    expert = ExpertConfig(size=size, input_px=input_px)
    # What is alive at once: each layer's output with its input, at the least.
    taken = greatest_pair_bytes(module, faces) / 2**20
    assert taken <= 4 * face_mib("vgg16", expert)
    assert taken > 4 * face_mib("vgg16", expert) / 8  # reckoned, not merely enough


def greatest_pair_bytes(module: torch.nn.Module, faces: torch.Tensor) -> int:
    """Return the bytes of the largest input and output of a layer together."""
    found = [0]

    def note(_layer: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        found[0] = max(found[0], 4 * (inputs[0].numel() + output.numel()))

    for layer in module.modules():
        if not list(layer.children()):
            layer.register_forward_hook(note)
    with torch.inference_mode():
        module(faces)
    return found[0]
