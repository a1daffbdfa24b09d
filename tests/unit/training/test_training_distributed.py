"""Several processes train as one would: the same losses, the same weights, the same errors.

Tolerances: one process adds up 8 rows, two add up 4 and 4, so float32 sums differ in their last
bits (6e-8 relative). Adam divides by the gradient's own size, which turns the last bits of a tiny
gradient into a visible share of a step of `lr`, for single weights. So the differences of a tensor
must be 1e-5 in root mean square (weights are 0.01 to 1), and no weight may differ by more than a
twentieth of one step of lr 2e-3. Measured: 2e-7 at most with every loss on, 5e-5 in one weight of
2,304 with a single pair a batch. A mean that each process normalises by itself: 6e-3.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import FORKS, ensure_server, preload
from several_processes import (
    few_pairs,
    outcome,
    process,
    train,
    train_on_a_bad_label,
    train_on_few_pairs,
)
from test_training_loop import SMALL, make_run

from agetf_pipeline.age_transformer.discriminator import minibatch_deviation
from agetf_pipeline.age_transformer.model import AgeTransformer
from agetf_pipeline.core.errors import ConfigError
from agetf_pipeline.training import loop
from agetf_pipeline.training.alignment import PairAligner
from agetf_pipeline.training.distributed import World, device_of, keeps_groups, rows_of
from agetf_pipeline.training.steps import shard

RMS_TOLERANCE = 1e-5
MAX_TOLERANCE = 1e-4
EQUAL = {"batch_size": 8, "num_images": 64, "log_every_images": 8, "r1_every": 2}
ALL_LOSSES = {
    "adversarial", "age", "identity", "reconstruction", "paired", "cycle", "order",
    "smoothness", "preservation", "discriminator", "r1",
}  # fmt: skip

preload("several_processes")


def in_two_processes(task: Callable, folder: Path, *arguments: object) -> list[tuple]:
    """Return (error, answer) of each process."""
    ensure_server()
    started = []
    (folder / "meeting").unlink(missing_ok=True)
    for rank in range(2):
        receiver, sender = FORKS.Pipe(duplex=False)
        world = World(rank, 2, rank)
        child = FORKS.Process(target=process, args=(task, world, folder, sender, arguments))
        child.start()
        sender.close()
        started.append((child, receiver))
    answers = [receiver.recv() for _, receiver in started]
    for child, _ in started:
        child.join()
    return answers


def answers_of(task: Callable, folder: Path, *arguments: object) -> list[dict]:
    answers = in_two_processes(task, folder, *arguments)
    assert [error for error, _ in answers] == [None, None]
    return [answer for _, answer in answers]


def assert_equal(result: dict, expected: dict) -> None:
    assert result["step"] == expected["step"]
    assert result["tensors"].keys() == expected["tensors"].keys()
    for name, value in expected["tensors"].items():
        difference = result["tensors"][name] - value
        assert np.sqrt((difference**2).mean()) <= RMS_TOLERANCE, name
        assert np.abs(difference).max() <= MAX_TOLERANCE, name
    assert len(result["history"]) == len(expected["history"])
    for row, wanted in zip(result["history"], expected["history"], strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def alone(folder: Path, **changes) -> dict:
    folder.mkdir()
    return outcome(loop.train(make_run(folder, **changes)))


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_batch(tmp_path):
    one = alone(tmp_path / "one", **EQUAL)
    assert {name for row in one["history"] for name in row} >= ALL_LOSSES
    first, second = answers_of(train, tmp_path, EQUAL)
    assert_equal(first, one)
    assert all((first["tensors"][k] == second["tensors"][k]).all() for k in first["tensors"])
    # One folder of checkpoints, of the first.
    assert len(list((tmp_path / "checkpoints").glob("images-*"))) == 1
    assert len(list(tmp_path.glob("process-*/tensorboard"))) == 1


@pytest.mark.slow
def test_two_processes_equal_one_where_only_one_of_them_has_pairs(tmp_path):
    # Too few rows for the groups of the discriminator: without it.
    changes = {"batch_size": 4, "num_images": 40, "log_every_images": 4, "paired_fraction": 0.25,
               "losses": {"adversarial": 0.0}}  # fmt: skip
    (single := tmp_path / "one").mkdir()
    (several := tmp_path / "two").mkdir()
    run = few_pairs(make_run(single, **changes))
    one = outcome(loop.train(run))
    assert sum("paired" in row for row in one["history"]) >= 5
    assert_equal(answers_of(train_on_few_pairs, several, changes)[0], one)


@pytest.mark.slow
def test_shards_resume_and_equal_one_process(tmp_path):
    """FSDP2: its checkpoints are whole, and any number of processes goes on from them."""
    changes = EQUAL | {"num_images": 32, "losses": {"adversarial": 0.0}}
    one = alone(tmp_path / "one", **changes)
    sharded = changes | {"sharding": "fsdp2"}
    assert answers_of(train, tmp_path, sharded, 2)[0]["step"] == 2
    (tmp_path / "alone").mkdir()
    (tmp_path / "checkpoints").rename(tmp_path / "alone" / "checkpoints")
    resumed = loop.train(make_run(tmp_path / "alone", **changes), stop_after_steps=1)
    assert resumed.step == 3
    (tmp_path / "alone" / "checkpoints").rename(tmp_path / "checkpoints")
    assert_equal(answers_of(train, tmp_path, sharded)[0], one)


@pytest.mark.slow
def test_what_is_not_finite_in_one_process_stops_both_and_saves_the_batch_once(tmp_path):
    changes = EQUAL | {"num_images": 800, "paired_fraction": 0.0}
    answers = in_two_processes(train_on_a_bad_label, tmp_path, changes)
    for error, _ in answers:
        assert error is not None
        assert error.startswith("StageError: Expected finite losses")
    (saved,) = tmp_path.glob("bad_batch_step_*.npz")
    assert len(np.load(saved)["image_ids"]) == 8


def test_rows_cover_the_batch_and_keep_the_groups_that_one_process_forms():
    generator = torch.Generator().manual_seed(0)
    for size, batch_size in ((1, 5), (2, 8), (2, 16), (4, 32), (3, 24)):
        worlds = [World(rank, size) for rank in range(size)]
        rows = [rows_of(world, batch_size) for world in worlds]
        assert sorted(np.concatenate(rows).tolist()) == list(range(batch_size))
        assert all(keeps_groups(world, batch_size) for world in worlds)
        features = torch.randn(batch_size, 3, 2, 2, generator=generator)
        together = minibatch_deviation(features, 4)
        for own in rows:
            torch.testing.assert_close(minibatch_deviation(features[own], 4), together[own])


def test_rows_are_consecutive_where_groups_cannot_be_kept():
    assert not keeps_groups(World(0, 2), 12)
    assert rows_of(World(1, 2), 12).tolist() == [6, 7, 8, 9, 10, 11]


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(ConfigError, match=r"found 10 for 4\. Set it to 8"):
        rows_of(World(0, 4), 10)
    with pytest.raises(ConfigError, match="Set it to 4"):
        rows_of(World(0, 4), 1)


def test_sharding_needs_several_processes():
    with pytest.raises(ConfigError, match=r"train\.num_processes"):
        shard(AgeTransformer(SMALL), PairAligner(), World(), torch.device("cpu"))


def test_each_process_needs_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cpu", World(3, 4, 3)).type == "cpu"
    with pytest.raises(ConfigError, match="found 2 for process 4"):
        device_of("auto", World(3, 4, 3))
