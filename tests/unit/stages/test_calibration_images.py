"""Which images calibrate the mixture: whole subjects, at most so many, the same ones again."""

import numpy as np
import polars as pl
import pytest
from label_corpus import image_rows

from agetf_pipeline.config import PipelineConfig
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.moe import readings

NUM_EACH = 5


@pytest.fixture
def corpus(tmp_path):
    workspace, rng = Workspace(tmp_path), np.random.default_rng(0)
    for shard in ("a", "b"):
        subjects = [f"{shard}{n // NUM_EACH:03}" for n in range(600)]
        rows = image_rows(f"caf/{shard}", rng.uniform(0, 90, 600), rng, subjects)
        write_table(workspace, IMAGES, f"caf/{shard}", to_frame(rows, IMAGES))
    return workspace


def _config(limit):
    return PipelineConfig.model_validate({"relabel": {"max_calibration_images": limit}})


def _chosen(workspace, limit, partitions=("caf/a", "caf/b")):
    return readings.calibration_images(_config(limit), workspace, list(partitions))


@pytest.mark.parametrize("size", [50, 10_000])
def test_whole_subjects_up_to_the_limit(corpus, monkeypatch, size):
    every = _chosen(corpus, 5_000)
    assert every.height > 200
    monkeypatch.setattr(readings, "_SLICE", size)
    few = _chosen(corpus, 100)
    assert 100 - NUM_EACH < few.height <= 100
    assert set(few["image_id"]) < set(every["image_id"])
    assert few.group_by("identity").len()["len"].to_list() == [NUM_EACH] * (few.height // NUM_EACH)
    assert few["image_id"].is_sorted()
    again = _chosen(corpus, 100, ("caf/b", "caf/a"))
    assert again.equals(few)


def test_an_image_that_another_subject_had_first_is_left_out(corpus):
    taken = _chosen(corpus, 5_000).filter(partition="caf/b")["image_id"][0]
    before = _chosen(corpus, 5_000, ["caf/a"])["subject"].to_list()
    images = pl.read_parquet(corpus.tables / "images" / "caf" / "a.parquet")
    trains = images.filter(~pl.col("subject").is_in(before))[:1]
    twice = pl.concat([images, trains.with_columns(image_id=pl.lit(taken))])
    write_table(corpus, IMAGES, "caf/a", twice)
    assert taken not in _chosen(corpus, 5_000)["image_id"].to_list()
