"""The loader: the sampler's batches in its order, whoever reads them, and nobody left behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agetf_pipeline.age_transformer.renderer import to_tensor
from agetf_pipeline.captions.cache import open_embeddings
from agetf_pipeline.captions.versions import CaptionVersion
from agetf_pipeline.config.train import TrainConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import CAPTIONS
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.training.dataset import FaceData, Sampler
from agetf_pipeline.training.loading import BatchReader, batches, to_device
from agetf_pipeline.training.vlm_guidance import VlmGuidance

COUNT, PEOPLE, SIZE = 24, 8, 8


def mapped_data(folder: Path) -> FaceData:
    """Noise in a file, mapped as the cache of faces is."""
    rng = np.random.default_rng(0)
    path = folder / "faces.npy"
    np.save(path, rng.integers(0, 256, (COUNT + 2, SIZE, SIZE, 3), np.uint8))
    enhanced = np.full(COUNT, -1)
    enhanced[:2] = COUNT, COUNT + 1
    return FaceData(
        np.load(path, mmap_mode="r"), np.arange(COUNT), enhanced,
        tuple(f"{i:064x}" for i in range(COUNT)), rng.uniform(5, 90, COUNT).astype(np.float32),
        np.full(COUNT, 4.0, np.float32), rng.integers(0, 10, COUNT), np.arange(COUNT) % PEOPLE,
    )  # fmt: skip


def vectors(folder: Path) -> VlmGuidance:
    rows = [
        dict.fromkeys(CAPTIONS.schema.names)
        | {"image_id": f"{i:03d}", "model_version": "v", "prompt_hash": "p", "prompt": "?",
           "status": "ok", "image_embedding": [float(i), 1.0], "text_embedding": [0.0, 0.0]}
        for i in range(COUNT)
    ]  # fmt: skip
    workspace = Workspace(folder / "captions")
    write_table(workspace, CAPTIONS, "ffhq_aging", to_frame(rows, CAPTIONS))
    store = open_embeddings(workspace, CaptionVersion("v", "p"))
    known = np.arange(COUNT)
    known[5] = -1
    return VlmGuidance(store, known, "image")


def make_reader(folder: Path) -> BatchReader:
    config = TrainConfig(batch_size=8, all_anchors_every=3)
    sampler = Sampler(mapped_data(folder), config, [5.0, 25.0, 45.0, 65.0])
    return BatchReader(sampler, vectors(folder), 0.3, 7)


class Breaks(Sampler):
    """Cannot draw the batch of step 9."""

    def draw(self, step, rows=None):
        if step == 9:
            raise DataError("Expected the file; found a hole.")
        return super().draw(step, rows)


def of_kind(kind: type[Sampler], reader: BatchReader) -> BatchReader:
    sampler = kind.__new__(kind)
    sampler.__dict__.update(reader.sampler.__dict__)
    return replace(reader, sampler=sampler)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_are_the_samplers_in_its_order_and_errors_come_in_their_place(
    tmp_path, num_workers
):
    reader = make_reader(tmp_path)
    with closing(batches(of_kind(Breaks, reader), 3, 12, num_workers)) as arriving:
        for step in range(3, 9):
            loaded = next(arriving)
            assert loaded.step == step
            for name, expected in vars(reader.sampler.draw(step)).items():
                found = getattr(loaded.batch, name)
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)
            vlm = reader.read(step)["vlm"]
            np.testing.assert_array_equal(loaded.tensors["vlm"].numpy(), vlm)
        with pytest.raises(DataError, match="found a hole"):
            next(arriving)
    assert not children()


def test_a_run_of_batches_ends_with_its_last_step(tmp_path):
    assert [loaded.step for loaded in batches(make_reader(tmp_path), 3, 5)] == [3, 4]
    assert list(batches(make_reader(tmp_path), 5, 5)) == []


def test_a_killed_worker_is_an_error_that_says_what_to_do(tmp_path):
    arriving = batches(make_reader(tmp_path), 0, 10_000, 2)
    next(arriving)
    os.kill(children()[0], signal.SIGKILL)
    with pytest.raises(StageError, match="num_loader_workers"):
        list(arriving)
    assert not children()


def test_leaving_early_ends_the_thread(tmp_path):
    before = set(threading.enumerate())  # a hanging one may be left of another test
    with closing(batches(make_reader(tmp_path), 0, 10_000, 1)) as arriving:
        assert next(arriving).step == 0
        added = set(threading.enumerate()) - before
        assert any(thread.name.startswith("ahead") for thread in added)
    assert set(threading.enumerate()) <= before


def test_workers_die_with_a_training_that_is_killed(tmp_path):
    (tmp_path / "reader.pickle").write_bytes(pickle.dumps(make_reader(tmp_path)))
    program = (
        "import pickle, sys, time\n"
        "from pathlib import Path\n"
        "from agetf_pipeline.training.loading import batches\n"
        "if __name__ == '__main__':\n"
        "    reader = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "    arriving = batches(reader, 0, 1000, 2)\n"
        "    next(arriving)\n"
        "    print('reading', flush=True)\n"
        "    time.sleep(600)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "reader.pickle")],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"reading\n"
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    process.stdout.close()
    for _ in range(300):
        if not any(is_alive(worker) for worker in workers):
            return
        time.sleep(0.1)
    raise AssertionError(f"still there: {workers}")


def test_several_processes_read_one_batch_between_them(tmp_path):
    reader = make_reader(tmp_path)
    rows = np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7])
    whole = reader.read(5)
    for mine in rows:
        part = replace(reader, rows=mine).read(5)
        for name in ("indices", "ages_years", "has_target", "variances_years2", "vlm"):
            np.testing.assert_array_equal(part[name], whole[name][mine])
        batch = reader.sampler.draw(5, mine)
        np.testing.assert_array_equal(batch.targets, reader.sampler.draw(5).targets[mine])
        np.testing.assert_array_equal(batch.sources, reader.sampler.draw(5).sources[mine])


def test_guidance_is_left_out_by_the_seed_as_one_process_would(tmp_path):
    reader = make_reader(tmp_path)
    vectors_BD = reader.read(2)["vlm"]
    indices = reader.read(2)["indices"]
    torch.manual_seed(7 * 1_000_003 + 2)
    dropped = (torch.rand(8) < 0.3).numpy() | (indices == 5)
    np.testing.assert_array_equal(np.isnan(vectors_BD[:, 0]), dropped)
    np.testing.assert_array_equal(vectors_BD[~dropped, 0], indices[~dropped])
    every = replace(reader, vlm_dropout=1.0)
    assert np.isnan(every.read(0)["vlm"]).all()


def test_a_map_travels_as_its_file(tmp_path):
    data = mapped_data(tmp_path)
    copy = pickle.loads(pickle.dumps(data))
    assert isinstance(copy.images, np.memmap)
    np.testing.assert_array_equal(copy.images, data.images)
    huge = replace(data, images=np.lib.format.open_memmap(
        tmp_path / "huge.npy", "w+", np.uint8, (5000, SIZE, SIZE, 3)))  # fmt: skip
    assert len(pickle.dumps(huge)) < 20_000
    in_memory = replace(data, images=np.array(data.images))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(in_memory)).images, data.images)
    part = replace(data, images=data.images[3:])  # a view does not lie where its file begins
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).images, data.images[3:])


def test_on_the_device_a_batch_is_what_the_step_reads(tmp_path):
    reader = make_reader(tmp_path)
    for step in (0, 2):  # pairs, and all anchors
        batch = reader.sampler.draw(step)
        found = to_device(next(batches(reader, step, step + 1)), torch.device("cpu"))
        torch.testing.assert_close(found.source, to_tensor(batch.sources), rtol=0, atol=0)
        B, A = batch.ages_years.shape
        targets = to_tensor(batch.targets.reshape(B * A, SIZE, SIZE, 3)).view(B, A, 3, SIZE, SIZE)
        torch.testing.assert_close(found.target, targets, rtol=0, atol=0)
        torch.testing.assert_close(found.ages, torch.from_numpy(batch.ages_years))
        assert found.has_target.tolist() == batch.has_target.astype(float).tolist()
        assert found.vlm is not None


def children(pid: int | None = None) -> list[int]:
    """Worker processes of a process (the resource tracker of multiprocessing is none)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == (pid or os.getpid()) and b"spawn_main" in command:
            found.append(int(entry.name))
    return [worker for worker in found if is_alive(worker)]


def is_alive(pid: int) -> bool:
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
