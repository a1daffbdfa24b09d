"""Compiled networks: whole batches compiled, others filled up or eager, never compiled again."""

import os

import pytest
import torch
from torch import nn

from agetf_pipeline.core.compiling import compiled, require_compiler
from agetf_pipeline.core.errors import ConfigError


class Doubling(nn.Module):
    """Two answers of each row, one of them absent."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return 2 * x, None


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network whose fast path notes what it was called with; nothing is really compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")  # put back afterwards
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    found = compiled(Doubling(), tmp_path / "made", batch_size=8)
    sizes = []

    def fast(x: torch.Tensor) -> object:
        sizes.append(len(x))
        return found.module(x)

    found._fast = fast
    return found, sizes


@pytest.mark.parametrize(
    ("num_rows", "compiled_at"), [(8, [8]), (5, [8]), (4, []), (1, []), (9, [])]
)
def test_only_one_size_is_compiled(network, num_rows, compiled_at):
    run, sizes = network
    x = torch.rand(num_rows, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    answer, nothing = run(x)
    assert torch.equal(answer, 2 * x)
    assert nothing is None
    assert sizes == compiled_at


def test_the_first_batch_says_how_large_a_whole_one_is(network):
    run, sizes = network
    run.batch_size = None
    run(torch.rand(6, 2))
    run(torch.rand(5, 2))
    run(torch.rand(2, 2))
    assert sizes == [6, 6]


def test_what_is_compiled_is_kept_in_the_folder_that_is_given(network, tmp_path):
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str((tmp_path / "made").resolve())
    assert (tmp_path / "made").is_dir()


def test_without_a_compiler_it_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler.*runtime\.compile=false"):
        compiled(Doubling(), None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="Triton"):
        require_compiler("cuda:0")


def test_a_compiler_that_fails_is_said_so(network):
    from torch._dynamo.exc import TorchDynamoException

    run, _ = network

    def fail(x: torch.Tensor) -> object:
        raise TorchDynamoException("no such instruction\nand much more")

    run._fast = fail
    with pytest.raises(ConfigError, match=r"no such instruction\. Look at"):
        run(torch.rand(8, 2))
