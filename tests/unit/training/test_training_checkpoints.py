"""Checkpoints: whole or not there, the last and the best kept, a damaged one passed over."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training_loop import make_run

from agetf_pipeline.core.weights import read_card, read_state
from agetf_pipeline.training import checkpoints, loop


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("images-*"))


def eager(folder: Path, **changes) -> loop.Run:
    """A run that writes a checkpoint at every log point."""
    folder.mkdir(exist_ok=True)
    return make_run(folder, checkpoint_every_s=1e-9, **changes)


def states_equal(first: checkpoints.TrainState, second: checkpoints.TrainState) -> bool:
    return all(
        torch.equal(value, second.networks()[name].state_dict()[key])
        for name, network in first.networks().items()
        for key, value in network.state_dict().items()
    ) and all(torch.equal(value, second.ema.state[key]) for key, value in first.ema.state.items())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> checkpoints.TrainState:
    return loop.train(make_run(tmp_path_factory.mktemp("undisturbed")))


def test_a_checkpoint_is_a_folder_that_says_where_it_comes_from(tmp_path):
    record = {"config": {"seed": 0}, "seed": 0, "git_commit": None, "data": {"a": "b"}}
    run = replace(make_run(tmp_path), record=record, card={"kind": "age_transformer"})
    state = loop.train(run, stop_after_steps=5)
    folder = run.checkpoints / "images-00000020"
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.safetensors", "optimizer.pt", "state.json", "weights.safetensors",
    ]  # fmt: skip
    content = json.loads((folder / "state.json").read_text())
    assert content["history"] == state.history
    assert (content["step"], content["num_images"]) == (5, 20)
    assert content["identity"] == run.identity
    assert {key: content[key] for key in record} == record
    # The average can be rendered with, the networks are as they train.
    assert read_card(folder / "weights.safetensors") == {
        "kind": "age_transformer", "num_images": 20,
    }  # fmt: skip
    average = read_state(folder / "weights.safetensors")
    assert all(torch.equal(average[key], value) for key, value in state.ema.state.items())
    assert {key.split(".")[0] for key in read_state(folder / "model.safetensors")} == {
        "model", "discriminator", "aligner",
    }  # fmt: skip
    assert (
        torch.load(folder / "optimizer.pt", weights_only=True).keys() == state.optimizers().keys()
    )
    assert not list(run.checkpoints.glob(".tmp-*"))


def test_the_last_and_the_best_are_kept_and_known_after_the_end(tmp_path):
    figures = {20: 0.5, 40: 0.2, 60: 0.4, 80: 0.3}
    counts = iter(figures)
    run = replace(
        eager(tmp_path / "a", keep_last=1, validate_every_images=20),
        validate=lambda _: ({"val_paired_l1": figures[next(counts)]}, None),
    )
    state = loop.train(run)
    assert names(run.checkpoints) == ["images-00000040", "images-00000080"]
    assert [row["val_paired_l1"] for row in state.history] == list(figures.values())
    assert state.figures == {"val_paired_l1": 0.3}
    best = json.loads((run.checkpoints / "best.json").read_text())
    assert best == {
        "checkpoint": "images-00000040", "figure": "val_paired_l1", "value": 0.2,
        "identity": "identity",
    }  # fmt: skip
    # Another run of this name that did not end goes with the end of this one.
    shutil.copytree(run.checkpoints / "images-00000080", run.checkpoints / "images-00000090")
    other = run.checkpoints / "images-00000090" / "state.json"
    other.write_text(other.read_text().replace('"identity": "identity"', '"identity": "other"'))
    (run.checkpoints / ".tmp-half").mkdir()
    checkpoints.finish(run.checkpoints, run.identity)
    assert names(run.checkpoints) == ["images-00000040", "images-00000080"]
    assert not list(run.checkpoints.rglob("optimizer.pt"))
    assert not list(run.checkpoints.glob(".tmp-*"))


def test_the_best_is_written_when_it_is_measured_whatever_the_clock_says(tmp_path):
    values = iter((0.5, 0.2, 0.4, 0.3))
    run = replace(
        make_run(tmp_path, checkpoint_every_s=1e9, validate_every_images=20, keep_last=1),
        validate=lambda _: ({"val_paired_l1": next(values)}, None),
    )
    loop.train(run)
    assert names(run.checkpoints) == ["images-00000040", "images-00000080"]


def test_a_finished_run_needs_no_optimiser_to_be_taken_up_and_does_nothing(tmp_path, undisturbed):
    run = make_run(tmp_path)
    loop.train(run)
    checkpoints.finish(run.checkpoints, run.identity)
    before = (run.checkpoints / "images-00000080" / "state.json").stat().st_mtime_ns
    again = loop.train(run)
    assert states_equal(again, undisturbed)
    assert again.history == undisturbed.history
    assert (run.checkpoints / "images-00000080" / "state.json").stat().st_mtime_ns == before


def test_steps_in_parts_equal_steps_in_one_to_the_byte(tmp_path, undisturbed):
    run = make_run(tmp_path)
    for steps in (5, 10, None):
        state = loop.train(run, stop_after_steps=steps)
    assert states_equal(state, undisturbed)
    assert state.history == undisturbed.history


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog, undisturbed, file):
    run = eager(tmp_path / "a")
    loop.train(run, stop_after_steps=15)
    assert names(run.checkpoints) == ["images-00000040", "images-00000060"]
    victim = run.checkpoints / "images-00000060" / file
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 255
    victim.write_bytes(bytes(content))
    with caplog.at_level(logging.INFO, logger="agetf_pipeline"):
        state = loop.train(run)
    assert "images-00000060; " in caplog.text
    assert "going on from image 40" in caplog.text
    assert states_equal(state, undisturbed)


def test_where_every_checkpoint_is_damaged_the_run_starts_afresh(tmp_path, caplog, undisturbed):
    run = eager(tmp_path / "a")
    loop.train(run, stop_after_steps=10)
    for path in run.checkpoints.glob("images-*/model.safetensors"):
        path.write_bytes(b"not tensors")
    assert states_equal(loop.train(run), undisturbed)
    assert caplog.text.count("is damaged") == 2


def test_a_later_folder_than_the_present_is_replaced(tmp_path):
    """After a step back, what lay ahead is no longer part of the last k."""
    run = eager(tmp_path / "a", keep_last=2)
    loop.train(run, stop_after_steps=15)
    (run.checkpoints / "images-00000060" / "optimizer.pt").write_bytes(b"")
    loop.train(run, stop_after_steps=5)
    assert names(run.checkpoints) == ["images-00000040", "images-00000060"]
    assert (run.checkpoints / "images-00000060" / "optimizer.pt").stat().st_size > 0


def test_a_checkpoint_of_other_settings_is_not_taken_up_and_stays_while_the_run_goes_on(tmp_path):
    loop.train(make_run(tmp_path), stop_after_steps=2)
    other = loop.train(replace(make_run(tmp_path), identity="other"), stop_after_steps=1)
    assert other.step == 1
    assert names(tmp_path / "checkpoints") == ["images-00000004", "images-00000008"]
    assert loop.train(make_run(tmp_path), stop_after_steps=1).step == 3


def test_checkpoints_are_ordered_by_number_beyond_eight_digits(tmp_path):
    for count in (99_999_999, 100_000_000, 5):
        checkpoints.checkpoint_path(tmp_path, count).mkdir()
    found = [path.name for path in checkpoints._checkpoints(tmp_path)]
    assert found == ["images-00000005", "images-99999999", "images-100000000"]


def test_the_commit_is_none_outside_a_checkout_and_never_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_REPOSITORY", tmp_path)
    assert checkpoints.git_commit() is None
    (tmp_path / ".git").mkdir()
    assert checkpoints.git_commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkpoints.git_commit() is None
