"""Memory that is short: the batch is halved, the work goes on, and the report says so."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agetf_pipeline.core import batches
from agetf_pipeline.core.batches import Work, in_batches, is_out_of_memory, watching
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.work import StageReport, load_report, run_once
from agetf_pipeline.core.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = Work("reading", "predict.batch_size")
CUDA = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _victim(*arguments: str) -> dict:
    """Run the victim, whose memory the kernel limits; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "memory_victim.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) | {"stderr": done.stderr}


def test_faces_are_read_in_memory_that_does_not_hold_the_batch():
    # Maps of 4 MiB a face: 64 of them cannot be had in 150 MiB, 16 can.
    result = _victim("read", "64", "150")
    assert "can't allocate memory" in result["stderr"]
    np.testing.assert_allclose(result["found"], result["expected"], atol=1e-4)
    (said,) = result["said"]
    assert said.startswith("reading with vgg16: 64 at once did not fit the memory; ")
    assert "predict.batch_size" in said


def test_a_picture_is_enlarged_in_memory_that_does_not_hold_its_tiles():
    result = _victim("enlarge", "32", "150")
    assert result["found"] == result["expected"]
    assert result["said"][0].startswith("enlarging tiles of 128 x 128 px: 32 at once")


def _holding(most: int, error: Exception, tried: list[int]):
    """A function that stands for a network on a device that holds so many rows."""

    def run(rows: slice) -> list[int]:
        tried.append(rows.stop - rows.start)
        if rows.stop - rows.start > most:
            raise error
        return list(range(rows.start, rows.stop))

    return run


@pytest.mark.parametrize(
    "error",
    [  # fakes of what a GPU says: there is none here
        CUDA,
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        MemoryError(),
    ],
    ids=["cuda", "cublas", "cudnn", "numpy"],
)
def test_the_size_that_fitted_is_remembered_and_said_once(
    error: Exception, caplog: pytest.LogCaptureFixture
):
    tried: list[int] = []
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            parts = in_batches(_holding(5, error, tried), 20, 16, WORK)
            assert [row for _, part in parts for row in part] == list(range(20))
    assert tried == [16, 8, *[4] * 15]
    assert len(caplog.records) == 2
    assert "predict.batch_size=4" in caplog.records[-1].message


def test_one_that_does_not_fit_is_an_error_that_says_what_to_do():
    with pytest.raises(StageError, match=r"one at a time.*runtime\.device=cpu"):
        list(in_batches(_holding(0, CUDA, []), 4, 4, WORK))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    for error in (RuntimeError("shapes do not fit"), ValueError("out of memory"), KeyError("a")):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error)):
            list(in_batches(_holding(0, error, []), 4, 4, WORK))


def test_the_report_of_a_stage_says_which_batches_were_smaller(tmp_path: Path):
    workspace = Workspace(tmp_path)

    def work() -> StageReport:
        list(in_batches(_holding(2, CUDA, []), 8, 8, WORK))
        return StageReport("predict", messages=["before"])

    report = run_once(workspace, "predict", {}, "1", {}, work)
    assert report.messages[0] == "before"
    assert report.messages[1].startswith("reading: 8 at once did not fit the memory; 2 at a time")
    stored = load_report(workspace, "predict")
    assert stored is not None
    assert stored.messages == report.messages
    # The next partition starts with what fitted, and says so, too.
    again = run_once(workspace, "predict", {}, "1", {}, work, "ffhq_aging")
    assert again.messages == report.messages
    batches.forget_sizes()
    quiet = run_once(workspace, "quiet", {}, "1", {}, lambda: StageReport("quiet"))
    assert quiet.messages == []


def test_a_block_within_another_leaves_its_report_alone():
    with watching("outer") as outer:
        list(in_batches(_holding(2, CUDA, []), 8, 8, WORK))
        with watching("inner") as inner:
            assert inner() == []
            list(in_batches(_holding(1, CUDA, []), 4, 4, Work("inner work")))
        assert [said.partition(":")[0] for said in outer()] == ["inner work", "reading"]
        assert [said.partition(":")[0] for said in inner()] == ["inner work"]


def test_rows_that_are_no_more_than_fits_are_not_said():
    list(in_batches(_holding(2, CUDA, []), 8, 8, WORK))
    with watching("one row") as said:
        list(in_batches(_holding(2, CUDA, []), 1, 8, WORK))
    assert said() == []


def test_memory_that_is_short_elsewhere_is_a_clear_error(tmp_path: Path):
    def work() -> StageReport:
        raise MemoryError("Unable to allocate 8.00 GiB for an array")

    with pytest.raises(StageError, match=r"Expected memory for relabel; found too little"):
        run_once(Workspace(tmp_path), "relabel", {}, "1", {}, work)


def test_a_training_step_is_not_halved_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "unit" / "training")
    from test_training_loop import make_run

    from agetf_pipeline.training import loop

    settings = {"log_every_images": 4, "checkpoint_every_s": 1e-9, "num_images": 24}
    runs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        runs.append(make_run(tmp_path / name, **settings))
    whole = loop.train(runs[0])
    step = loop.train_step

    def failing(run, state, loaded, sampler):
        if state.step == 3:  # stands for a GPU that others have filled meanwhile
            raise CUDA
        return step(run, state, loaded, sampler)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", failing)
        with pytest.raises(StageError, match=r"(?s)4 images.*train\.num_processes"):
            loop.train(runs[1])
    resumed = loop.train(runs[1])
    assert resumed.step == whole.step == 6
    for name, value in whole.ema.state.items():
        torch.testing.assert_close(resumed.ema.state[name], value)
