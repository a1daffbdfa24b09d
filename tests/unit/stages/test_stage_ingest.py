"""Ingest as a stage: labels and manifests, partitions, and doing only what is new."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.errors import DataError, StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data import examinations
from agetf_pipeline.data.corpora import discover_partitions, source_folder
from agetf_pipeline.data.ffhq_aging import LABEL_COLUMNS
from agetf_pipeline.data.images import read_rgb
from agetf_pipeline.data.schemas import IMAGES, QUARANTINE
from agetf_pipeline.data.tables import read_table, table_path
from agetf_pipeline.stages import ingest
from agetf_pipeline.synthetic.faces import draw_face, draw_identity


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "w")


def config_for(workspace: Workspace, **settings) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "workspace": {"root": workspace.root},
            "ingest": {"max_failed_fraction": 1.0, "num_workers": 1, "chunk_size": 2} | settings,
        }
    )


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def write_labels(workspace: Workspace, *rows: str) -> None:
    text = "\n".join([",".join(LABEL_COLUMNS), *rows, ""])
    (workspace.raw_ffhq / "ffhq_aging_labels.csv").write_text(text)


def write_shard(workspace: Workspace, shard: str, *rows: str) -> Path:
    folder = workspace.raw_caf / shard
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join(["path,subject,age", *rows, ""]))
    return folder


def images_of(workspace: Workspace, partition: str) -> dict[str, dict]:
    rows = read_table(workspace, IMAGES, [partition]).iter_rows(named=True)
    return {row["raw_name"]: row for row in rows}


def reasons_of(workspace: Workspace, partition: str) -> dict[str, str]:
    rows = read_table(workspace, QUARANTINE, [partition])
    return {row["path"].split("/")[-1]: row["reason"] for row in rows.iter_rows(named=True)}


def test_labels_meet_their_images_in_any_folder(workspace):
    draw(workspace.raw_ffhq / "00000" / "00007.png", 0)
    draw(workspace.raw_ffhq / "01000" / "01000.png", 1)
    draw(workspace.raw_ffhq / "ann.png", 2)
    write_labels(workspace, "7,3-6,0.9,female,1,-1,0,0,0,0,None", "9,0-2,1,male,1,0,0,0,0,0,Dark")
    report = ingest.run(config_for(workspace), workspace, "ffhq_aging")
    images = images_of(workspace, "ffhq_aging")
    labelled = images["00007.png"]
    assert (labelled["image_number"], labelled["age_group"]) == (7, "3-6")
    assert (labelled["glasses"], labelled["head_pitch"]) == ("None", None)
    assert (images["01000.png"]["image_number"], images["01000.png"]["age_group"]) == (1000, None)
    assert images["ann.png"]["image_number"] is None
    assert labelled["path"] == labelled["face_path"] == "data/raw/ffhq_aging/00000/00007.png"
    assert labelled["image_id"] == hash_file(workspace.raw_ffhq / "00000" / "00007.png")
    text = " ".join(report.messages)
    assert "1 of 2" in text
    assert "not named by a number" in text


def test_two_pictures_of_one_number_get_no_label(workspace):
    draw(workspace.raw_ffhq / "a" / "00007.png", 0)
    draw(workspace.raw_ffhq / "b" / "00007.png", 1)
    write_labels(workspace, "7,3-6,0.9,female,1,0,0,0,0,0,None")
    report = ingest.run(config_for(workspace), workspace, "ffhq_aging")
    images = read_table(workspace, IMAGES)
    assert images["age_group"].null_count() == 2
    assert images["image_number"].to_list() == [7, 7]
    assert any("share their number" in message for message in report.messages)


def test_a_shard_is_read_by_its_manifest(workspace):
    folder = write_shard(
        workspace, "s1", "a.png,ann,44", "b.png,,", "c.png,cat,140", "gone.png,x,1", "../o.png,x,1"
    )
    for seed, name in enumerate(("a.png", "b.png", "c.png", "new.png")):
        draw(folder / name, seed)
    report = ingest.run(config_for(workspace), workspace, "caf/s1")
    images = images_of(workspace, "caf/s1")
    assert (images["a.png"]["subject"], images["a.png"]["true_age_years"]) == ("ann", 44.0)
    assert (images["b.png"]["subject"], images["b.png"]["true_age_years"]) == (None, None)
    assert reasons_of(workspace, "caf/s1") == {
        "c.png": "bad_age",
        "gone.png": "missing_file",
        "new.png": "not_listed",
        "o.png": "outside_folder",
    }
    assert report.counts["inputs"] == 6
    assert (workspace.stats / "quarantine" / "caf" / "s1.csv").read_text().count("\n") == 5


def test_only_new_content_is_decoded_and_running_twice_changes_no_byte(workspace, monkeypatch):
    for seed in range(5):
        draw(workspace.raw_ffhq / f"{seed:05}.png", seed)
    config = config_for(workspace)
    first = ingest.run(config, workspace, "ffhq_aging")
    before = [hash_file(table_path(workspace, t, "ffhq_aging")) for t in (IMAGES, QUARANTINE)]
    assert ingest.run(config, workspace, "ffhq_aging").status == "skipped"
    decoded = []
    stream = examinations.ExaminePool.stream

    def watch(self, requests):
        asked = list(requests)
        decoded.extend(asked)
        return stream(self, asked)

    monkeypatch.setattr(examinations.ExaminePool, "stream", watch)
    draw(workspace.raw_ffhq / "00009.png", 9)
    (workspace.raw_ffhq / "00004.png").rename(workspace.raw_ffhq / "00008.png")
    ingest.run(config, workspace, "ffhq_aging")
    assert [Path(request.path).name for request in decoded] == ["00009.png"]
    (workspace.raw_ffhq / "00009.png").unlink()
    (workspace.raw_ffhq / "00008.png").rename(workspace.raw_ffhq / "00004.png")
    last = ingest.run(config, workspace, "ffhq_aging")
    assert len(decoded) == 1
    assert last.data_version == first.data_version
    after = [hash_file(table_path(workspace, t, "ffhq_aging")) for t in (IMAGES, QUARANTINE)]
    assert before == after


def test_a_table_that_was_deleted_is_made_again(workspace):
    draw(workspace.raw_ffhq / "00000.png", 0)
    ingest.run(config_for(workspace), workspace, "ffhq_aging")
    table_path(workspace, IMAGES, "ffhq_aging").unlink()
    assert ingest.run(config_for(workspace), workspace, "ffhq_aging").status == "ran"
    assert read_table(workspace, IMAGES).height == 1


def test_an_image_belongs_to_the_first_partition_that_has_it(workspace):
    draw(workspace.raw_ffhq / "00000.png", 0)
    for shard in ("s1", "s2"):
        folder = write_shard(workspace, shard, "a.png,ann,40", "b.png,ann,41")
        draw(folder / "a.png", 0)
        draw(folder / "b.png", 1)
    config = config_for(workspace)
    partitions = discover_partitions(config, workspace)
    assert partitions == ["ffhq_aging", "caf/s1", "caf/s2"]
    for partition in partitions:
        ingest.run(config, workspace, partition)
    images = read_table(workspace, IMAGES)
    assert images["image_id"].n_unique() == images.height == 2
    quarantine = read_table(workspace, QUARANTINE, ["caf/s2"]).sort("path")
    assert quarantine["duplicate_of"].to_list() == [
        "data/raw/ffhq_aging/00000.png",
        "data/raw/caf/s1/b.png",
    ]
    # Once more in any order: nothing moves.
    for partition in reversed(partitions):
        assert ingest.run(config, workspace, partition).status == "skipped"


def test_faces_are_cut_out_of_photographs(workspace):
    folder = write_shard(workspace, "old", "a.png,ann,40", "wall.png,ann,41")
    scene = np.full((260, 340, 3), 150, np.uint8)
    scene[40:232, 90:282] = draw_face(draw_identity(8), 35.0, 192)
    Image.fromarray(scene).save(folder / "a.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(folder / "wall.png")
    config = config_for(workspace, caf={"aligned": False}, face_px=96)
    report = ingest.run(config, workspace, "caf/old")
    row = images_of(workspace, "caf/old")["a.png"]
    crop = workspace.processed / "faces" / "caf" / "old" / f"{row['image_id']}.png"
    assert workspace.resolve(row["face_path"]) == crop
    assert (row["width_px"], row["stored_width_px"], row["path"]) == (
        96, 340, "data/raw/caf/old/a.png",
    )  # fmt: skip
    assert "face_cropped" in row["flags"]
    assert read_rgb(crop).shape == (96, 96, 3)
    assert reasons_of(workspace, "caf/old") == {"wall.png": "no_face"}
    assert "faces" in report.outputs
    # A crop that somebody changed is cut again, the same; one that nobody needs is removed.
    known = hash_file(crop)
    crop.write_bytes(b"scribble")
    (crop.parent / f"{'0' * 64}.png").write_bytes(b"")
    assert ingest.run(config, workspace, "caf/old").status == "ran"
    assert [path.name for path in crop.parent.iterdir()] == [crop.name]
    assert hash_file(crop) == known


def test_an_empty_ffhq_folder_is_fine_beside_shards_and_both_empty_is_not(workspace):
    config = config_for(workspace)
    with pytest.raises(StageError, match=r"ingest\.caf\.path"):
        ingest.run(config, workspace, "ffhq_aging")
    draw(write_shard(workspace, "s1", "a.png,ann,3") / "a.png", 0)
    report = ingest.run(config, workspace, "ffhq_aging")
    assert report.counts["inputs"] == 0
    assert any("CAF shards go on alone" in message for message in report.messages)
    assert read_table(workspace, IMAGES, ["ffhq_aging"]).height == 0


def test_corpora_are_found_where_the_config_says(workspace, tmp_path, caplog):
    config = config_for(workspace, caf={"path": tmp_path / "shards"})
    draw(tmp_path / "shards" / "b" / "1.png", 0)
    draw(tmp_path / "shards" / "a" / "1.png", 0)
    (tmp_path / "shards" / ".hidden").mkdir()
    (tmp_path / "shards" / "notes.txt").write_text("")
    assert discover_partitions(config, workspace) == ["caf/a", "caf/b"]
    assert source_folder(config, workspace, "caf/a") == tmp_path / "shards" / "a"
    with pytest.raises(DataError, match="Expected a shard folder"):
        source_folder(config, workspace, "caf/../..")
    with pytest.raises(DataError, match="Expected partition"):
        source_folder(config, workspace, "elsewhere")
    with pytest.raises(DataError, match=r"manifest\.csv"):
        ingest.run(config, workspace, "caf/a")
    (tmp_path / "shards" / "my photos").mkdir()
    assert discover_partitions(config, workspace) == ["caf/a", "caf/b"]
    assert "'my photos'. Rename the folder" in caplog.text
    one_shard = config_for(workspace, caf={"path": tmp_path / "shards" / "a"})
    (tmp_path / "shards" / "a" / "manifest.csv").write_text("path,subject,age\n")
    with pytest.raises(DataError, match="itself one shard"):
        discover_partitions(one_shard, workspace)


def test_a_partition_whose_folder_is_gone_is_mentioned(workspace):
    for shard in ("s1", "s2"):
        draw(write_shard(workspace, shard, "a.png,ann,3") / "a.png", len(shard + shard[-1]))
        ingest.run(config_for(workspace), workspace, f"caf/{shard}")
    (workspace.raw_caf / "s1").rename(workspace.root / "away")
    report = ingest.run(config_for(workspace), workspace, "caf/s2")
    assert any("still hold caf/s1" in message for message in report.messages)


def test_photographs_outside_the_workspace_are_named_absolutely(workspace, tmp_path):
    draw(tmp_path / "album" / "1.png", 0)
    config = config_for(workspace, ffhq_aging={"path": tmp_path / "album"})
    ingest.run(config, workspace, "ffhq_aging")
    (row,) = read_table(workspace, IMAGES).iter_rows(named=True)
    assert row["path"] == str(tmp_path / "album" / "1.png")
    assert workspace.resolve(row["face_path"]).is_file()
