"""Fitting small networks: resumed equals undisturbed; weights load strictly."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from agetf_pipeline.core import fitting
from agetf_pipeline.core.errors import StageError, WeightsError
from agetf_pipeline.core.fitting import FitSettings, batch_indices, fine_tune, fit
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.tuning import Freezing, Tuning, Validation
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


# Fine-tuning: a frozen trunk, validation, early stopping


def trunk_and_head(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
    module = nn.ModuleDict({"trunk": trunk, "head": nn.Linear(8, 1)})
    module.forward = lambda x: module["head"](module["trunk"](x))  # type: ignore[method-assign]
    return module


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.starts, self.steps, self.errors = [], [], []

    def started(self, step: int) -> None:
        self.starts.append(step)

    def stepped(self, step: int, loss: float, lr: float) -> None:
        self.steps.append((step, loss, lr))

    def validated(self, num_steps: int, error: float) -> None:
        self.errors.append((num_steps, error))


def tune(module, path, tuning, stop_at=None, settings=SETTINGS):
    return fine_tune(
        module, loss_for(module, stop_at), len(X), settings, path, "a", "a test", tuning
    )


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, two, part):
    keys = [key for key in one if key.startswith(part)]
    assert keys
    return [torch.equal(one[key], two[key]) for key in keys]


def test_a_frozen_trunk_keeps_weights_and_statistics_and_learns_afterwards(tmp_path):
    module = trunk_and_head()
    before = copy_of(module)
    short = FitSettings(num_steps=5, batch_size=4, lr=0.01)
    tune(module, tmp_path / "f.pt", Tuning(Freezing(("head",), 5)), settings=short)
    frozen = copy_of(module)
    assert all(same(before, frozen, "trunk"))  # weights, BatchNorm statistics and its counter
    assert not any(same(before, frozen, "head"))

    module = trunk_and_head()
    tune(module, tmp_path / "g.pt", Tuning(Freezing(("head",), 5, 0.1)))
    learned = copy_of(module)
    assert not any(same(before, learned, "trunk"))
    assert learned["trunk.1.num_batches_tracked"] == SETTINGS.num_steps - 5


def test_the_trunk_learns_more_slowly_by_its_factor(tmp_path):
    moved = []
    for factor in (1.0, 0.1):
        module = trunk_and_head()
        before = module["trunk"][0].weight.detach().clone()
        one = FitSettings(num_steps=1, batch_size=4, lr=0.01, weight_decay=0.0)
        tune(module, tmp_path / "x.pt", Tuning(Freezing(("head",), 0, factor)), settings=one)
        moved.append((module["trunk"][0].weight - before).abs().max().item())
    # The first step of Adam is the learning rate, whatever the gradient.
    assert moved[1] == pytest.approx(0.1 * moved[0], rel=1e-3)


def test_head_and_trunk_together_equal_plain_training(tmp_path):
    plain, grouped = trunk_and_head(), trunk_and_head()
    losses = run(plain, tmp_path / "one.pt")
    result = tune(grouped, tmp_path / "two.pt", Tuning(Freezing(("head",))))
    assert result.losses == losses
    assert all(same(copy_of(plain), copy_of(grouped), ""))


def test_training_stops_without_gain_and_gives_the_best_weights_back(tmp_path):
    module, weights, errors = trunk_and_head(), [], iter([5.0, 3.0, 4.0, 3.0, 9.0, 1.0])

    def measure() -> float:
        assert not module.training
        weights.append(copy_of(module))
        return next(errors)

    seen = Seen()
    tuning = Tuning(None, Validation(measure, every=2, patience=3), seen)
    result = tune(module, tmp_path / "x.pt", tuning)
    assert result.validations == [(2, 5.0), (4, 3.0), (6, 4.0), (8, 3.0), (10, 9.0)]
    assert result.best == (4, 3.0)
    assert result.stopped_early
    assert len(result.losses) == 10
    assert all(same(copy_of(module), weights[1], ""))
    assert not all(same(copy_of(module), weights[-1], ""))
    assert seen.errors == result.validations
    assert [step for step, _, _ in seen.steps] == list(range(10))


def test_patience_counts_once_the_trunk_learns(tmp_path):
    module = trunk_and_head()
    validation = Validation(iter([1.0, *range(2, 20)]).__next__, every=1, patience=2)
    result = tune(module, tmp_path / "x.pt", Tuning(Freezing(("head",), 6), validation))
    assert len(result.losses) == 8
    assert result.best == (1, 1.0)


def test_the_last_step_is_measured_and_a_whole_training_did_not_stop_early(tmp_path):
    module = trunk_and_head()
    validation = Validation(iter([3.0, 2.0, 1.0]).__next__, every=5, patience=2)
    result = tune(module, tmp_path / "x.pt", Tuning(None, validation))
    assert [steps for steps, _ in result.validations] == [5, 10, 12]
    assert not result.stopped_early


def test_an_error_that_is_no_number_stops_the_training(tmp_path):
    validation = Validation(lambda: float("nan"), every=1, patience=2)
    with pytest.raises(StageError, match="validation error"):
        tune(trunk_and_head(), tmp_path / "x.pt", Tuning(None, validation))


@pytest.mark.parametrize("stop_at", [3, 6, 9])
def test_fine_tuning_goes_on_where_it_was_killed(tmp_path, monkeypatch, stop_at):
    """Killed frozen, in the first unfrozen step, and after the best weights were measured."""
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY_S", -1.0)

    def tuning(module, watcher=None):
        def measure():  # best in the middle, so that the best weights come from the checkpoint
            with torch.no_grad():
                error = (module(X) - Y).abs().mean().item()
            return error + abs(len(seen.errors) - 3)

        seen = watcher or Seen()
        return Tuning(Freezing(("head",), 6, 0.5), Validation(measure, 2, 3), seen)

    def resumed_tuning(module, watcher):
        made = tuning(module, watcher)
        watcher.errors += [None] * (stop_at // 2)  # what was measured before counts
        return made

    whole = trunk_and_head()
    expected = tune(whole, tmp_path / "one.pt", tuning(whole))
    killed = trunk_and_head()
    with pytest.raises(KeyboardInterrupt):
        tune(killed, tmp_path / "two.pt", tuning(killed), stop_at=stop_at)
    again, seen = trunk_and_head(seed=99), Seen()
    torch.manual_seed(12345)
    result = tune(again, tmp_path / "two.pt", resumed_tuning(again, seen))
    assert result == expected
    assert seen.starts == [stop_at]
    assert all(same(copy_of(whole), copy_of(again), ""))


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
    assert not Path("/tmp/should-never-exist").exists()
    (tmp_path / "broken.safetensors").write_bytes(b"{")
    with pytest.raises(WeightsError, match="could not read"):
        read_state(tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match="found nothing"):
        read_state(tmp_path / "absent.safetensors")
