from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES, PREDICTIONS
from agetf_pipeline.data.tables import read_table, table_path, to_frame, write_table
from agetf_pipeline.experts.base import Readings
from agetf_pipeline.stages import predict

PARTITION = "ffhq_aging"


class FakeExpert:
    """Age = mean brightness / 2.55; records what it was shown."""

    trained_on = "synthetic"

    def __init__(self, name: str, broken: bool = False, version: str = "1") -> None:
        self.name = name
        self.version = f"{name}-{version}"
        self.broken = broken
        self.num_seen = 0

    def read(self, faces_NHWC: np.ndarray) -> Readings:
        if self.broken:
            raise RuntimeError("broken on purpose")
        self.num_seen += len(faces_NHWC)
        age = (faces_NHWC.mean(axis=(1, 2, 3)) / 2.55).astype(np.float32)
        return Readings(age, np.full_like(age, 2.0), None, None, (None,) * len(age))


def _config(**section) -> PipelineConfig:
    experts = {name: {"size": "tiny", "input_px": 32} for name in ("mivolo", "vgg16")}
    return PipelineConfig.model_validate(
        {
            "runtime": {"device": "cpu", "num_threads": 1},
            "train_experts": {"experts": experts},
            "predict": {"chunk_size": 3, "batch_size": 2, **section},
        }
    )


def _fill(workspace: Workspace, num: int = 8) -> pl.DataFrame:
    rows = []
    for index in range(num):
        path = workspace.raw_ffhq / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 10 * index, np.uint8)).save(path)
        rows.append(
            dict.fromkeys(IMAGES.schema.names) | {
                "image_id": hash_file(path), "partition": PARTITION,
                "path": workspace.relative(path), "face_path": workspace.relative(path),
                "raw_name": path.name, "format": "PNG", "mode": "RGB", "stored_width_px": 32,
                "stored_height_px": 32, "width_px": 32, "height_px": 32, "num_bytes": 1,
                "is_grey": True, "flags": [],
            }
        )  # fmt: skip
    frame = to_frame(rows, IMAGES)
    write_table(workspace, IMAGES, PARTITION, frame)
    return frame


@pytest.fixture
def experts(monkeypatch: pytest.MonkeyPatch) -> list[FakeExpert]:
    fakes = [FakeExpert("mivolo"), FakeExpert("vgg16")]
    by_name = {fake.name: fake for fake in fakes}
    monkeypatch.setattr(predict, "load_experts", lambda config, workspace: fakes)
    monkeypatch.setattr(
        predict, "weights_hash", lambda config, workspace, name: by_name[name].version
    )
    return fakes


def test_every_image_gets_a_row_per_expert(tmp_path: Path, experts: list[FakeExpert]):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    report = predict.run(_config(), workspace, PARTITION)
    rows = read_table(workspace, PREDICTIONS, [PARTITION])
    assert rows.height == 16
    ages = rows.filter(expert="vgg16").sort("image_id")["age_years"]
    assert np.allclose(ages.sort(), [i * 10 / 2.55 for i in range(8)], atol=0.01)
    assert report.counts["num_computed"] == 16
    assert report.messages == []
    assert predict.run(_config(), workspace, PARTITION).status == "skipped"


def test_only_what_is_missing_or_stale_is_read(tmp_path: Path, experts: list[FakeExpert]):
    workspace = Workspace(tmp_path)
    _fill(workspace, 6)
    predict.run(_config(), workspace, PARTITION)
    _fill(workspace, 8)
    report = predict.run(_config(), workspace, PARTITION)
    assert report.counts["num_computed"] == 4
    assert [fake.num_seen for fake in experts] == [8, 8]
    experts[1].version = "vgg16-2"
    report = predict.run(_config(), workspace, PARTITION)
    assert report.counts["num_computed"] == 8
    assert [fake.num_seen for fake in experts] == [8, 16]


def test_chunks_and_batches_change_no_byte(tmp_path: Path, experts: list[FakeExpert]):
    hashes = set()
    for number, (chunk_size, batch_size) in enumerate([(1, 1), (3, 2), (100, 5)]):
        workspace = Workspace(tmp_path / str(number))
        _fill(workspace)
        config = _config(chunk_size=chunk_size, batch_size=batch_size)
        predict.run(config, workspace, PARTITION)
        hashes.add(hash_file(table_path(workspace, PREDICTIONS, PARTITION)))
    assert len(hashes) == 1


def test_an_unreadable_image_does_not_hide_an_expert_that_raises_on_all_others(
    tmp_path: Path, experts: list[FakeExpert]
):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    (workspace.raw_ffhq / "00003.png").unlink()
    experts[1].broken = True
    with pytest.raises(StageError, match=r"each of 7 images raised the same\. vgg16"):
        predict.run(_config(max_failed_fraction=0.5), workspace, PARTITION)
    experts[1].broken = False
    report = predict.run(_config(max_failed_fraction=0.5), workspace, PARTITION)
    assert (report.counts["num_reused"], report.counts["num_failed"]) == (7, 2)


def test_a_kill_loses_at_most_a_chunk(tmp_path: Path, experts: list[FakeExpert]):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    read = FakeExpert.read

    def dies(self: FakeExpert, faces_NHWC: np.ndarray) -> Readings:
        if self.num_seen >= 6:
            raise KeyboardInterrupt
        return read(self, faces_NHWC)

    experts[0].read = dies.__get__(experts[0])  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        predict.run(_config(), workspace, PARTITION)
    experts[0].read = read.__get__(experts[0])  # type: ignore[method-assign]
    report = predict.run(_config(), workspace, PARTITION)
    assert report.counts["num_reused"] == 12
    assert report.counts["num_computed"] == 4


def test_a_broken_expert_is_no_image_s_fault_and_does_not_stop_the_others(
    tmp_path: Path, experts: list[FakeExpert]
):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    experts[0].broken = True
    with pytest.raises(StageError, match="mivolo: RuntimeError: broken on purpose"):
        predict.run(_config(), workspace, PARTITION)
    rows = read_table(workspace, PREDICTIONS, [PARTITION])
    assert rows.filter(status="ok")["expert"].to_list() == ["vgg16"] * 8


def test_failed_readings_are_tried_again(tmp_path: Path, experts: list[FakeExpert]):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    experts[0].broken = True
    with pytest.raises(StageError):
        predict.run(_config(), workspace, PARTITION)
    experts[0].broken = False
    _fill(workspace, 9)
    report = predict.run(_config(), workspace, PARTITION)
    assert report.counts["num_failed"] == 0
    assert report.counts["num_computed"] == 8 + 2


def test_an_unreadable_file_gives_failed_rows(tmp_path: Path, experts: list[FakeExpert]):
    workspace = Workspace(tmp_path)
    frame = _fill(workspace)
    workspace.resolve(frame["face_path"][2]).write_bytes(b"not an image")
    report = predict.run(_config(), workspace, PARTITION)
    failed = read_table(workspace, PREDICTIONS, [PARTITION]).filter(status="failed")
    assert failed["image_id"].unique().to_list() == [frame["image_id"][2]]
    assert failed.height == 2
    assert "readable image" in failed["reason"][0]
    assert report.counts["num_images_without_reading"] == 1


def test_a_picture_that_was_replaced_since_ingest_gets_no_reading_under_its_name(
    tmp_path: Path, experts: list[FakeExpert]
):
    workspace = Workspace(tmp_path)
    images = _fill(workspace)
    path = workspace.resolve(images["face_path"][2])
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(path)
    report = predict.run(_config(max_failed_fraction=0.2), workspace, PARTITION)
    failed = read_table(workspace, PREDICTIONS, [PARTITION]).filter(status="failed")
    assert failed["image_id"].unique().to_list() == [images["image_id"][2]]
    assert all("The file changed since ingest" in reason for reason in failed["reason"])
    assert report.counts["num_failed"] == len(experts)


def test_too_many_failures_stop_the_stage(tmp_path: Path, experts: list[FakeExpert]):
    workspace = Workspace(tmp_path)
    _fill(workspace)
    for fake in experts:
        fake.broken = True
    with pytest.raises(StageError, match="max_failed_fraction"):
        predict.run(_config(), workspace, PARTITION)


def test_an_unknown_partition_is_explained(tmp_path: Path, experts: list[FakeExpert]):
    with pytest.raises(DataError, match="Run the stage"):
        predict.run(_config(), Workspace(tmp_path), "caf/nothing")


def test_an_empty_partition_gives_an_empty_table(tmp_path: Path, experts: list[FakeExpert]):
    workspace = Workspace(tmp_path)
    _fill(workspace, 0)
    report = predict.run(_config(), workspace, PARTITION)
    assert report.counts["num_images"] == 0
    assert read_table(workspace, PREDICTIONS, [PARTITION]).height == 0


def test_batches_side_by_side_give_the_same_table(tmp_path: Path, monkeypatch):
    tables = []
    before = torch.get_num_threads()
    monkeypatch.setattr(predict, "weights_hash", lambda *_: "hash")
    try:
        for num_threads in (1, 3):
            workspace = Workspace(tmp_path / str(num_threads))
            _fill(workspace, 20)
            (workspace.raw_ffhq / "00013.png").write_bytes(b"no picture any more")
            experts = [FakeExpert("mivolo"), FakeExpert("vgg16")]
            monkeypatch.setattr(predict, "load_experts", lambda *_, found=experts: found)
            config = _config(chunk_size=15)
            runtime = config.runtime.model_copy(update={"num_threads": num_threads})
            report = predict.run(
                config.model_copy(update={"runtime": runtime}), workspace, PARTITION
            )
            assert report.counts["num_failed"] == 2
            assert [expert.num_seen for expert in experts] == [19, 19]
            reasons = pl.col("reason").str.replace(str(workspace.root), "", literal=True)
            found = read_table(workspace, PREDICTIONS, [PARTITION]).with_columns(reasons)
            tables.append(found)
    finally:
        torch.set_num_threads(before)
    assert tables[0].equals(tables[1])
