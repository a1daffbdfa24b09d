"""Fitting small networks: resumed equals undisturbed; weights load strictly."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from agetf_pipeline.core import fitting
from agetf_pipeline.core.errors import StageError, WeightsError
from agetf_pipeline.core.fitting import FitSettings, batch_indices, fit
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.weights import load_weights, read_card, read_state, save_weights

SETTINGS = FitSettings(num_steps=12, batch_size=4, lr=0.01, seed=3)
X = torch.linspace(-1, 1, 10)[:, None].repeat(1, 3)
Y = X.sum(1, keepdim=True)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))


def loss_for(module: nn.Module, stop_at: int | None = None):
    calls = 0

    def loss_of(indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        nonlocal calls
        if calls == stop_at:
            raise KeyboardInterrupt
        calls += 1
        noise = 0.01 * torch.rand(len(indices), 3, generator=generator)
        return (module(X[indices] + noise) - Y[indices]).square().mean()

    return loss_of


def run(module, path, stop_at=None, identity="a", settings=SETTINGS):
    return fit(module, loss_for(module, stop_at), len(X), settings, path, identity, "a test")


def test_a_resumed_fit_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY_S", -1.0)
    undisturbed = network()
    losses = run(undisturbed, tmp_path / "one.pt")
    interrupted = network()
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, tmp_path / "two.pt", stop_at=7)
    # What the process held in memory is lost with it.
    resumed = network(seed=99)
    torch.manual_seed(12345)
    assert run(resumed, tmp_path / "two.pt") == losses
    for one, two in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not resumed.training


def test_a_checkpoint_of_other_work_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY_S", -1.0)
    run(network(), tmp_path / "one.pt", identity="other")
    fresh, again = network(), network()
    assert run(fresh, tmp_path / "one.pt", identity="a") == run(again, tmp_path / "none.pt")


def test_a_fit_learns_and_says_what_is_wrong(tmp_path):
    module = nn.Sequential(nn.Linear(3, 1))
    losses = run(module, tmp_path / "x.pt", settings=FitSettings(200, 10, 0.05))
    assert losses[-1] < 0.1 * losses[0]
    with pytest.raises(StageError, match="labelled images to fit a test"):
        fit(module, loss_for(module), 0, SETTINGS, tmp_path / "y.pt", "a", "a test")
    with pytest.raises(StageError, match="found nan at step 0"):
        fit(
            module,
            lambda indices, generator: module(X[indices]).sum() * float("nan"),
            10,
            SETTINGS,
            tmp_path / "z.pt",
            "a",
            "a test",
        )


def test_every_epoch_sees_every_item_once():
    drawn = torch.cat([batch_indices(step, 10, 4, seed=1) for step in range(5)])
    assert sorted(drawn[:10].tolist()) == list(range(10))
    assert sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_weights_come_back_with_their_card_and_a_stable_version(tmp_path):
    module = network()
    version = save_weights(tmp_path / "w.safetensors", module, {"trained_on": "synthetic"})
    again = save_weights(tmp_path / "v.safetensors", module, {"trained_on": "synthetic"})
    assert version == again == hash_file(tmp_path / "w.safetensors")
    other = network(1)
    assert load_weights(other, tmp_path / "w.safetensors") == version
    assert read_card(tmp_path / "w.safetensors") == {"trained_on": "synthetic"}
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_that_do_not_fit_are_refused_with_every_key(tmp_path):
    save_file({"0.weight": torch.zeros(8, 4), "extra": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), tmp_path / "w.safetensors")
    for expected in ("'3.bias'", "'extra'", "0.weight (8, 4) instead of (8, 3)"):
        assert expected in str(caught.value)
    assert read_card(tmp_path / "w.safetensors") == {}


class Evil:
    def __reduce__(self):
        import os

        return (os.system, ("touch /tmp/should-never-exist",))


def test_pickles_are_never_executed(tmp_path):
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="could not read"):
        read_state(tmp_path / "evil.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"{")
    with pytest.raises(WeightsError, match="could not read"):
        read_state(tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match="found nothing"):
        read_state(tmp_path / "absent.safetensors")
