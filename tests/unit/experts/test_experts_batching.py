import pytest
import torch

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.experts.batching import batch_sizes, chosen_size

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
