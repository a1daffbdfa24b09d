"""What the sizes cost, counted and held."""

import pytest

from agetf_pipeline.age_transformer.sizes import SIZES, ModelSettings
from agetf_pipeline.age_transformer.summary import cost_of, summarise, table_lines
from agetf_pipeline.core.errors import ConfigError

# Parameters; GFLOP of one encoding and of ten renderings.
WRITTEN_DOWN = {
    "tiny-64": (937_586, 0.140, 1.160),
    "tiny-128": (2_292_442, 0.554, 7.860),
    "base-128": (25_485_970, 4.245, 56.428),
    "base-256": (25_800_770, 5.481, 78.933),
    "large-256": (73_592_386, 15.811, 207.975),
    "large-512": (73_899_938, 19.058, 271.813),
}


def test_every_size_costs_what_is_written_down():
    costs = {cost.name: cost for cost in summarise()}
    assert set(costs) == set(WRITTEN_DOWN) == set(SIZES)
    for name, (num_parameters, encoder_gflop, decoder_gflop) in WRITTEN_DOWN.items():
        cost = costs[name]
        assert cost.num_parameters == num_parameters
        assert cost.encoder_gflop == pytest.approx(encoder_gflop, rel=0.01)
        assert cost.decoder_gflop == pytest.approx(decoder_gflop, rel=0.01)
        assert cost.gflop == cost.encoder_gflop + cost.decoder_gflop
    assert costs["base-128"].gflop <= 65


def test_ages_cost_decodings_and_one_encoding():
    one, five = (cost_of("tiny-64", SIZES["tiny-64"], number) for number in (1, 5))
    assert five.encoder_gflop == one.encoder_gflop
    assert five.decoder_gflop == pytest.approx(5 * one.decoder_gflop, rel=0.01)
    assert one.activations_mib < five.activations_mib < 5 * one.activations_mib


def test_memory_holds_at_least_what_one_block_needs():
    # A block's input, its normalised features and their convolution stand side by side.
    settings = ModelSettings(32, 1, (8, 16, 16), (1, 1, 1), 1, 2, 16)
    cost = cost_of("small", settings, 10)
    finest_mib = 10 * 8 * 32 * 32 * 4 / 2**20
    assert 3 * finest_mib <= cost.activations_mib <= 12 * finest_mib
    assert cost.weights_mib == pytest.approx(cost.num_parameters * 4 / 2**20, rel=0.01)


def test_the_table_has_a_line_a_size_and_unknown_sizes_are_named():
    lines = table_lines(summarise(["tiny-64", "base-128"]))
    assert len(lines) == 4
    assert "25.49" in lines[3]
    assert "60.67" in lines[3]
    with pytest.raises(ConfigError, match="huge-9000"):
        summarise(["huge-9000"])
