"""A GPU that disappears: no failed rows, what was finished stays, and another process goes on.

There is no GPU here: errors with the words that CUDA has for it stand for one that is lost.
"""

from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core import devices
from agetf_pipeline.core.batches import Work, in_batches
from agetf_pipeline.core.devices import is_device_lost, resolve_device
from agetf_pipeline.core.errors import DeviceLostError, StageError, UnavailableError, WeightsError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.work import load_report, run_once
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.incremental import update_table
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS
from agetf_pipeline.data.tables import read_table, to_frame, write_table
from agetf_pipeline.experts.base import Readings
from agetf_pipeline.stages import predict
from assets import retries
from resources import gpu

PARTITION = "ffhq_aging"
_Raised = getattr(torch, "AcceleratorError", RuntimeError)
LOST = [
    "CUDA error: unspecified launch failure",
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: no CUDA-capable device is detected",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: uncorrectable ECC error encountered",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "NCCL Error 1: unhandled cuda error",
    "CUDA error: invalid program counter",
    "CUDA error: operation not supported on global/shared address space",
    "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
    "CUDA error: GPU requires reset",
    "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasSgemm`",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "CUDA error: unknown error",
    "CUDA error: all CUDA-capable devices are busy or unavailable",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost. cuda",
]


class LosingExpert:
    """Reads brightness, until its GPU is lost at some face."""

    name = "vgg16"
    version = "v"
    trained_on = "synthetic"

    def __init__(self, error: Exception | None, num_good: int) -> None:
        self.error, self.num_good = error, num_good

    def read(self, faces_NHWC: np.ndarray) -> Readings:
        self.num_good -= len(faces_NHWC)
        if self.num_good < 0 and self.error is not None:
            raise self.error
        age = (faces_NHWC.mean(axis=(1, 2, 3)) / 2.55).astype(np.float32)
        return Readings(age, np.full_like(age, 2.0), None, None, (None,) * len(age))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    rows = []
    for index in range(12):
        path = workspace.raw_ffhq / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 10 * index, np.uint8)).save(path)
        rows.append(
            dict.fromkeys(IMAGES.schema.names)
            | {"image_id": hash_file(path), "partition": PARTITION, "format": "PNG",
               "path": workspace.relative(path), "face_path": workspace.relative(path),
               "raw_name": path.name, "mode": "RGB", "stored_width_px": 32, "is_grey": True,
               "stored_height_px": 32, "width_px": 32, "height_px": 32, "num_bytes": 1,
               "flags": []}
        )  # fmt: skip
    write_table(workspace, IMAGES, PARTITION, to_frame(rows, IMAGES).sort("image_id"))
    return workspace


@pytest.fixture
def expert(monkeypatch: pytest.MonkeyPatch) -> LosingExpert:
    found = LosingExpert(None, 0)
    monkeypatch.setattr(predict, "load_experts", lambda config, workspace: [found])
    monkeypatch.setattr(predict, "weights_hash", lambda config, workspace, name: "w")
    return found


def _config() -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "num_threads": 1},
            "train_experts": {"experts": {"vgg16": {"size": "tiny", "input_px": 32}}},
            "predict": {"chunk_size": 4, "batch_size": 2},
        }
    )


@pytest.mark.parametrize("words", LOST)
def test_what_cuda_says_of_a_lost_device_is_known(words: str):
    error = RuntimeError(f"{words}\nCUDA kernel errors might be asynchronously reported ...")
    assert is_device_lost(error)
    with pytest.raises(DeviceLostError, match="new process") as caught:
        list(in_batches(lambda rows: _raise(error), 8, 4, Work("reading")))
    assert isinstance(caught.value, UnavailableError)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unspecified launch failure of a rocket"),
        RuntimeError("CUDA out of memory."),
        RuntimeError("CUDA error: invalid device ordinal"),
        RuntimeError("NCCL error: unhandled cuda error\nCuda failure 2 'out of memory'"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("The operation failed: unknown error in /opt/cuda/plugin"),
        RuntimeError("the port that cuda.example listens at is busy or unavailable"),
        ValueError("CUDA error: unspecified launch failure"),
    ],
    ids=str,
)
def test_other_errors_are_not_taken_for_it(error: Exception):
    assert not is_device_lost(error)


def _raise(error: Exception):
    raise error


def test_what_was_read_before_stays_and_no_face_is_written_as_failed(
    workspace: Workspace, expert: LosingExpert
):
    expert.error, expert.num_good = _Raised(LOST[0]), 6
    with pytest.raises(DeviceLostError):
        predict.run(_config(), workspace, PARTITION)
    seen_by_another_process = _peek(workspace)
    assert seen_by_another_process["status"].to_list() == ["ok"] * 4  # the chunk before
    devices.forget_lost_device()
    expert.error = None
    report = predict.run(_config(), workspace, PARTITION)
    assert (report.counts["num_reused"], report.counts["num_computed"]) == (4, 8)
    assert report.counts["num_failed"] == 0


def _peek(workspace: Workspace) -> pl.DataFrame:
    """Return the rows of finished chunks, merged as the next run merges them."""
    nothing = to_frame([], PREDICTIONS).select("image_id", "expert", "model_version")
    update_table(
        workspace, PREDICTIONS, PARTITION, nothing, lambda chunk: chunk, 4, "peek",
        keeps_besides=lambda rows: pl.Series([True] * rows.height, dtype=pl.Boolean),
    )  # fmt: skip
    return read_table(workspace, PREDICTIONS, [PARTITION])


@pytest.mark.parametrize(
    "error",
    [
        WeightsError("Expected weights; found none."),
        FileNotFoundError(2, "No such file", "tokenizer.json"),
        StageError("Expected memory; found none."),
    ],
    ids=["weights", "file", "stage"],
)
def test_what_is_no_face_s_fault_makes_no_failed_rows(
    workspace: Workspace, expert: LosingExpert, error: Exception
):
    expert.error = error
    with pytest.raises(type(error)):
        predict.run(_config(), workspace, PARTITION)
    assert _peek(workspace).height == 0


def test_an_error_that_every_face_meets_stops_the_stage(workspace: Workspace, expert: LosingExpert):
    expert.error = KeyError("a bug")
    with pytest.raises(StageError, match="KeyError"):
        predict.run(_config(), workspace, PARTITION)


def test_this_process_does_not_ask_for_the_device_again():
    with pytest.raises(DeviceLostError):
        list(in_batches(lambda rows: _raise(RuntimeError(LOST[0])), 1, 1, Work("reading")))
    with pytest.raises(DeviceLostError, match="unspecified launch failure"):
        resolve_device("cuda:0")
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize(("executor", "attempts"), [(None, 1), ("processes", 2), ("k8s", 2)])
def test_a_step_is_tried_again_where_that_is_another_process(
    executor: str | None, attempts: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AGETF_EXECUTOR", raising=False)
    if executor is not None:
        monkeypatch.setenv("AGETF_EXECUTOR", executor)
    tries = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1, delay=0))
    def readings() -> None:
        tries.append(1)
        with retries.failing_readably():
            raise DeviceLostError("Expected the GPU. Found none. Run it again.")

    assert not dg.materialize([readings], raise_on_error=False).success
    assert len(tries) == attempts


def test_the_lock_of_a_lost_device_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A context that is dead answers every call with the error it died of.
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: _raise(_Raised(LOST[0])))
    pool = gpu.GpuResource(num_devices=1, lock_folder=str(tmp_path))
    with pytest.raises(DeviceLostError), pool.lease():
        raise DeviceLostError("gone")
    with pool.lease() as device:
        assert device.startswith("cuda")


def test_whichever_stage_meets_it_says_so_and_writes_no_report(tmp_path: Path):
    # Enhancement, captions, evaluation and training, too, run inside of `run_once`.
    workspace = Workspace(tmp_path)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        run_once(workspace, "enhance", {}, "1", {}, lambda: _raise(_Raised(LOST[2])))
    assert load_report(workspace, "enhance") is None
