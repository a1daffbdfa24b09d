"""Fine-tuning an expert: what is frozen, held out, kept, gone on with and written down."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agetf_pipeline.config.experts import ExpertConfig
from agetf_pipeline.core import fitting
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.core.tuning import FitResult
from agetf_pipeline.core.weights import read_card, read_state
from agetf_pipeline.experts import training
from agetf_pipeline.experts.fine_tuning import mae_years, tuning_of
from agetf_pipeline.experts.fine_tuning_log import TensorBoardLog, plot_training
from agetf_pipeline.experts.kinds import Trainer, trainer_of
from agetf_pipeline.experts.training import LabelledFaces, build_module, fit_expert

CPU = torch.device("cpu")
HEADS = {"resnet50": "fc.", "vgg16": "classifier.6."}


def _faces(num: int, seed: int) -> LabelledFaces:
    """Faces whose brightness is their age."""
    rng = np.random.default_rng(seed)
    ages = rng.uniform(0, 90, num).astype(np.float32)
    noise = rng.integers(0, 20, (num, 32, 32, 3))
    faces = (ages[:, None, None, None] * 2.5 + noise).clip(0, 255).astype(np.uint8)
    return LabelledFaces(faces, ages, [None] * num)


def _expert(**changes) -> ExpertConfig:
    settings = {"size": "tiny", "input_px": 32, "num_steps": 10, "batch_size": 8, "lr": 2e-3}
    return ExpertConfig.model_validate(settings | changes)


def _fit(name: str, expert: ExpertConfig, folder: Path, watcher=None, held_out=True) -> FitResult:
    return fit_expert(
        name, expert, _faces(24, 0), 1, CPU, folder / "fit.pt", "id", folder / "w.safetensors",
        {"trained_on": "synthetic"}, _faces(10, 1) if held_out else None, None, watcher,
    )  # fmt: skip


def _start(name: str, expert: ExpertConfig) -> dict[str, torch.Tensor]:
    return build_module(name, expert, _faces(24, 0).ages_years, 1).state_dict()


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_only_the_head_learns_while_the_trunk_is_frozen(name: str, tmp_path: Path):
    expert = _expert(num_steps=4, frozen_fraction=0.99)  # rounds to all four
    before = _start(name, expert)
    _fit(name, expert, tmp_path, held_out=False)
    after = read_state(tmp_path / "w.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"{HEADS[name]}weight", f"{HEADS[name]}bias"}

    _fit(name, _expert(num_steps=4, frozen_fraction=0.5), tmp_path, held_out=False)
    after = read_state(tmp_path / "w.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key for key in before if "running" in key} <= changed
    assert len(changed) > 0.9 * len(before)


def test_the_best_weights_are_written_with_their_error(tmp_path: Path, monkeypatch):
    errors = iter([9.0, 4.0, 5.0, 6.0, 7.0])
    states = []

    def measured(trainer, module, *_) -> float:
        states.append({key: value.clone() for key, value in module.state_dict().items()})
        return next(errors)

    monkeypatch.setattr("agetf_pipeline.experts.fine_tuning.mae_years", measured)
    expert = _expert(validation_fraction=0.3, validate_every=2, patience=2)
    result = _fit("vgg16", expert, tmp_path)
    written = read_state(tmp_path / "w.safetensors")
    assert all(torch.equal(written[key], states[1][key]) for key in written)
    assert result.stopped_early
    assert read_card(tmp_path / "w.safetensors")["validation"] == {
        "num_images": 10, "mae_years": 4.0, "best_step": 4, "last_step": 8, "stopped": "early",
    }  # fmt: skip


def test_without_validation_the_card_says_nothing_of_it(tmp_path: Path):
    _fit("vgg16", _expert(num_steps=1), tmp_path, held_out=False)
    assert not {"validation", "started_from"} & set(read_card(tmp_path / "w.safetensors"))


def test_a_killed_fine_tuning_ends_with_the_same_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(fitting, "_CHECKPOINT_EVERY_S", -1.0)
    expert = _expert(
        frozen_fraction=0.3, trunk_lr_factor=0.5, validation_fraction=0.3, validate_every=2
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    expected = _fit("resnet50", expert, whole)
    augment, calls = training.augment, []

    def augment_until_killed(*arguments):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(None)
        return augment(*arguments)

    monkeypatch.setattr(training, "augment", augment_until_killed)
    with pytest.raises(KeyboardInterrupt):
        _fit("resnet50", expert, killed)
    assert (killed / "fit.pt").exists()
    monkeypatch.setattr(training, "augment", augment)
    assert _fit("resnet50", expert, killed) == expected
    assert len(expected.validations) == 5
    files = [folder / "w.safetensors" for folder in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not (killed / "fit.pt").exists()


def test_the_validation_error_is_that_of_the_expert_on_plain_faces():
    from agetf_pipeline.experts.classifier import ClassifierExpert

    expert, data = _expert(batch_size=4), _faces(10, 1)
    module = build_module("resnet50", expert, data.ages_years, 0).eval()
    readings = ClassifierExpert("resnet50", module, 32, "imagenet", "v", "none").read(
        data.faces_NHWC
    )
    expected = np.abs(readings.age_years - data.ages_years).mean()
    found = mae_years(trainer_of("resnet50", expert), module, data, expert, CPU)
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_kind_without_head_or_ages_cannot_be_frozen_or_validated():
    module = torch.nn.Linear(1, 1)
    trainer = Trainer(lambda *_: module, lambda *_: torch.zeros(()), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"mine\.frozen_fraction"):
        tuning_of("mine", _expert(frozen_fraction=0.1), trainer, module, None, CPU)
    with pytest.raises(ConfigError, match=r"mine\.validation_fraction"):
        tuning_of("mine", _expert(), trainer, module, _faces(2, 0), CPU)
    plain = tuning_of("mine", _expert(), trainer, module, None, CPU)
    assert (plain.freezing, plain.validation) == (None, None)


# What is left to look at


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_holds_every_scalar(tmp_path: Path):
    log = TensorBoardLog(tmp_path / "tb")
    expert = _expert(validation_fraction=0.3, validate_every=5)
    result = _fit("vgg16", expert, tmp_path, log)
    log.close()
    scalars = _scalars(tmp_path / "tb")
    assert set(scalars) == {"loss", "lr", "validation/mae_years"}
    assert [step for step, _ in scalars["loss"]] == list(range(1, 11))
    assert np.allclose([value for _, value in scalars["loss"]], result.losses, rtol=1e-6)
    assert max(value for _, value in scalars["lr"]) == pytest.approx(2e-3)
    assert [step for step, _ in scalars["validation/mae_years"]] == [5, 10]
    errors = [error for _, error in result.validations]
    assert np.allclose([value for _, value in scalars["validation/mae_years"]], errors, rtol=1e-6)


def test_a_log_that_goes_on_replaces_what_is_done_again_and_a_new_one_starts_empty(tmp_path: Path):
    first = TensorBoardLog(tmp_path)
    first.started(0)
    for step in range(6):
        first.stepped(step, 1.0, 0.1)
    first.validated(4, 7.0)
    first.close()
    second = TensorBoardLog(tmp_path)
    second.started(4)  # the checkpoint was two steps older than the end
    for step in range(4, 8):
        second.stepped(step, 2.0, 0.1)
    second.close()
    scalars = _scalars(tmp_path)
    assert scalars["loss"] == [(step, 1.0 if step <= 4 else 2.0) for step in range(1, 9)]
    assert scalars["validation/mae_years"] == [(4, 7.0)]

    third = TensorBoardLog(tmp_path)
    third.started(0)
    third.stepped(0, 3.0, 0.1)
    third.close()
    assert _scalars(tmp_path)["loss"] == [(1, 3.0)]


@pytest.mark.parametrize("validations", [[], [(20, 9.0), (40, 8.0)]])
def test_the_curve_is_a_picture_and_the_same_for_the_same_numbers(tmp_path: Path, validations):
    losses = np.linspace(100, 5, 40).tolist()
    for name in ("a.png", "b.png"):
        plot_training(tmp_path / name, FitResult(losses, validations), "a test", 10)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 600
