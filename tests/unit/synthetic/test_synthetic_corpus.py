import csv
import io

import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from agetf_pipeline.config.synthesize import SynthesizeConfig
from agetf_pipeline.core.errors import StageError
from agetf_pipeline.core.hashing import hash_file
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.synthetic import corpus as corpus_module
from agetf_pipeline.synthetic.corpus import TRUTH_SCHEMA, truth_path, write_corpus
from agetf_pipeline.synthetic.plan import image_number

_CONFIG = SynthesizeConfig(
    enabled=True,
    size_px=64,
    num_ffhq_images=40,
    num_caf_shards=2,
    num_subjects_per_shard=6,
    num_ages_per_subject=4,
    degraded_fraction=0.5,
)


def _files(workspace, folder="data"):
    root = workspace.root / folder
    return {
        path.relative_to(workspace.root).as_posix(): hash_file(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".state" not in path.parts
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = Workspace(tmp_path_factory.mktemp("corpus"))
    write_corpus(_CONFIG, made)
    return made


@pytest.fixture(scope="module")
def truth(workspace):
    return pl.read_parquet(truth_path(workspace))


def test_the_ffhq_layout_is_the_real_one(workspace):
    text = (workspace.raw_ffhq / "ffhq_aging_labels.csv").read_text()
    assert text.splitlines()[0] == (
        "image_number,age_group,age_group_confidence,gender,gender_confidence,head_pitch,"
        "head_roll,head_yaw,left_eye_occluded,right_eye_occluded,glasses"
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 40
    numbers = [int(row["image_number"]) for row in rows]
    assert numbers == sorted(set(numbers))
    assert max(numbers) >= 60_000
    for row in rows:
        number = int(row["image_number"])
        file = workspace.raw_ffhq / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png"
        with Image.open(file) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (64, 64), "RGB")
        assert row["age_group"] in AGE_GROUPS
        assert row["gender"] in ("male", "female")
        assert row["glasses"] in ("None", "Normal", "Dark")
        assert 0 < float(row["age_group_confidence"]) <= 1


def test_the_caf_manifests_list_every_file_with_true_ages(workspace, truth):
    subjects = set()
    for shard in ("shard-0000", "shard-0001"):
        folder = workspace.raw_caf / shard
        rows = list(csv.DictReader((folder / "manifest.csv").open()))
        assert list(rows[0]) == ["path", "subject", "age", "group"]
        assert {row["path"] for row in rows} == {f.name for f in folder.iterdir()} - {
            "manifest.csv"
        }
        assert len(rows) == 24
        assert not subjects & {row["subject"] for row in rows}
        subjects |= {row["subject"] for row in rows}
        ages = dict(
            truth.select(pl.col("path").str.split("/").list.last(), "true_age_years").rows()
        )
        for row in rows:
            assert ages[row["path"]] == float(row["age"])
            assert row["group"] == group_of(float(row["age"]))
    assert len(subjects) == 12


def test_the_truth_names_every_image_and_its_clean_original(workspace, truth):
    assert pq.read_schema(truth_path(workspace)).equals(TRUTH_SCHEMA)
    images = {
        name: digest
        for name, digest in _files(workspace, "data/raw").items()
        if name.endswith((".png", ".jpg"))
    }
    assert dict(truth.select("path", "image_id").rows()) == images
    assert truth["image_id"].is_unique().all()
    for row in truth.iter_rows(named=True):
        with Image.open(workspace.resolve(row["clean_path"])) as clean:
            assert (clean.format, clean.size, clean.mode) == ("PNG", (64, 64), "RGB")
        if not row["degradations"]:
            assert row["clean_path"] == row["path"]
            continue
        assert row["partition"].startswith("caf/")
        assert row["clean_path"].startswith(f"data/truth/clean/{row['partition']}/")
        with Image.open(workspace.resolve(row["path"])) as image:
            assert (image.mode == "L") == ("grey" in row["degradations"])
            assert image.size == ((32, 32) if "low_res" in row["degradations"] else (64, 64))
            assert (image.format == "JPEG") == ("jpeg" in row["degradations"])
    share = (
        truth.filter(pl.col("partition") != "ffhq_aging")["degradations"].list.len() > 0
    ).mean()
    assert 0.3 < share < 0.7


def test_no_truth_lies_among_the_raw_files(workspace):
    raw = _files(workspace, "data/raw")
    assert not [name for name in raw if not name.endswith((".png", ".jpg", ".csv"))]
    assert len([name for name in raw if name.endswith(".csv")]) == 3
    assert not [name for name in raw if "clean" in name or "truth" in name]


def test_small_children_have_no_dark_glasses_and_no_beards(truth):
    small = truth.filter(pl.col("true_age_years") < 6)
    assert small.height > 0
    assert "Dark" not in small["glasses"]
    assert set(small["facial_hair"]) == {"none"}


def test_a_second_run_draws_nothing_and_changes_nothing(workspace):
    before = _files(workspace)
    assert write_corpus(_CONFIG, workspace).num_drawn == 0
    assert _files(workspace) == before


def test_an_interrupted_run_is_completed_with_the_same_bytes(workspace, tmp_path, monkeypatch):
    calls = 0

    def stop(root, photographs):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(root, photographs)

    real = corpus_module.write_chunk
    monkeypatch.setattr(corpus_module, "_CHUNK", 16)
    monkeypatch.setattr(corpus_module, "_SERIAL_CHUNKS", 100)
    monkeypatch.setattr(corpus_module, "write_chunk", stop)
    other = Workspace(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(_CONFIG, other)
    assert not truth_path(other).exists()
    monkeypatch.setattr(corpus_module, "write_chunk", real)
    assert write_corpus(_CONFIG, other).num_drawn == 88 - 16
    assert _files(other) == _files(workspace)


def test_a_damaged_image_is_drawn_again(tmp_path):
    config = _CONFIG.model_copy(update={"num_ffhq_images": 4, "num_caf_shards": 0})
    made = Workspace(tmp_path)
    write_corpus(config, made)
    before = _files(made)
    next(made.raw_ffhq.rglob("*.png")).write_bytes(b"")
    assert write_corpus(config, made).num_drawn == 4
    assert _files(made) == before


def test_another_shard_changes_nothing_in_the_others_and_a_smaller_corpus_takes_files_away(
    tmp_path,
):
    small = _CONFIG.model_copy(update={"num_ffhq_images": 0, "num_caf_shards": 1})
    large = small.model_copy(update={"num_caf_shards": 2})
    made = Workspace(tmp_path)
    write_corpus(small, made)
    first = _files(made, "data/raw")
    own = made.raw_caf / "mine" / "manifest.csv"
    own.parent.mkdir()
    own.write_text("path,subject,age\n")
    write_corpus(large, made)
    assert first.items() <= _files(made, "data/raw").items()
    write_corpus(small, made)
    assert own.exists()
    own.unlink()
    assert _files(made, "data/raw") == first
    assert not (made.raw_caf / "shard-0001").exists()


def test_foreign_photographs_are_never_mixed_with_drawn_ones(tmp_path):
    made = Workspace(tmp_path)
    photo = made.raw_ffhq / "00000.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"a photograph")
    with pytest.raises(StageError, match="did not come from here"):
        write_corpus(_CONFIG, made)
    assert photo.read_bytes() == b"a photograph"


def test_image_numbers_are_different_and_reach_the_test_range():
    numbers = [image_number(index, 1500) for index in range(1500)]
    assert len(set(numbers)) == 1500
    assert sum(number >= 60_000 for number in numbers) == pytest.approx(1500 / 7, abs=2)
