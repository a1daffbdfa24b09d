"""Rows of many sources in one order, by way of the disk; counts gathered slice by slice."""

import numpy as np
import polars as pl
import pytest

from agetf_pipeline.data.buckets import open_buckets
from agetf_pipeline.data.manifest_counts import ManifestCounts


def _rows(num_rows, seed):
    draw = np.random.default_rng(seed)
    ids = [f"{n:016x}" for n in draw.integers(0, 2**63, num_rows)]
    return pl.DataFrame({"image_id": ids, "from": pl.Series([seed] * num_rows, dtype=pl.Int32)})


@pytest.mark.parametrize("bucket_rows", [1, 7, 100, 10_000])
def test_what_goes_in_comes_out_in_order_and_the_folder_goes(tmp_path, bucket_rows):
    folder = tmp_path / "state" / "x"
    sources = [_rows(40, seed) for seed in range(5)]
    with open_buckets(folder, "image_id", 200, bucket_rows) as buckets:
        for rows in sources:
            buckets.add(rows)
        taken = list(buckets.take())
    every = pl.concat(sources).sort("image_id")
    assert pl.concat([rows.sort("image_id") for rows in taken]).equals(every)
    assert len(taken) == (1 if bucket_rows == 10_000 else min(len(taken), 200))
    assert bucket_rows == 10_000 or max(rows.height for rows in taken) < 10 * bucket_rows + 10
    assert not folder.exists()


def test_equal_keys_share_a_bucket(tmp_path):
    rows = pl.DataFrame({"image_id": ["80000000", "7fffffff", "80000000", "zz", "00"]})
    with open_buckets(tmp_path / "x", "image_id", 5, 1) as buckets:
        buckets.add(rows[:2])
        buckets.add(rows[2:])
        taken = [sorted(rows["image_id"].to_list()) for rows in buckets.take()]
    assert taken == [["00"], ["7fffffff", "80000000", "80000000"], ["zz"]]


def test_nothing_went_in_and_what_a_killed_run_left_goes(tmp_path):
    left = tmp_path / "x" / "tmp"
    left.mkdir(parents=True)
    (left / "0000.arrow").write_bytes(b"half")
    with open_buckets(tmp_path / "x", "image_id", 0, 10) as buckets:
        assert not left.exists()
        assert list(buckets.take()) == []
    assert not (tmp_path / "x").exists()


def _stop(folder):
    with open_buckets(folder, "image_id", 100, 1) as buckets:
        buckets.add(_rows(50, 0))
        raise RuntimeError("stop")


def test_the_folder_goes_when_the_block_fails(tmp_path):
    with pytest.raises(RuntimeError, match="stop"):
        _stop(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def _manifest(num_rows):
    draw = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "split": draw.choice(["train", "val", "later"], num_rows),
            "age_group": draw.choice(["0-2", "20-29"], num_rows),
            "identity": [f"caf:p{n}" for n in draw.integers(0, 30, num_rows)],
            "curriculum_weight": draw.uniform(0.1, 1, num_rows).astype(np.float32),
            "enhanced_path": ["a" if some else None for some in draw.random(num_rows) < 0.5],
            "has_caption": draw.random(num_rows) < 0.3,
            "label_source": draw.choice(["corpus", "moe"], num_rows),
        }
    )


@pytest.mark.parametrize("size", [1, 9, 500])
def test_counts_are_the_same_by_slices_as_of_the_whole(size):
    manifest = _manifest(200)
    counts = ManifestCounts()
    for rows in manifest.iter_slices(size):
        counts.add(rows, pl.Series([False] * rows.height))
    table = counts.table()
    assert counts.num_images == 200 == table.filter(age_group="all")["num_images"].sum()
    for row in table.iter_rows(named=True):
        every = row["age_group"] == "all"
        its = manifest.filter(
            (pl.col("split") == row["split"]) & (every | (pl.col("age_group") == row["age_group"]))
        )
        assert row["num_images"] == its.height
        assert row["num_identities"] == its["identity"].n_unique()
        assert row["num_enhanced"] == its["enhanced_path"].count()
        assert row["num_captioned"] == its["has_caption"].sum()
        assert row["num_corpus_ages"] == (its["label_source"] == "corpus").sum()
        weights = its["curriculum_weight"].to_numpy().astype(float)
        effective = weights.sum() ** 2 / (weights**2).sum() if its.height else 0.0
        assert row["effective_num_images"] == pytest.approx(effective, abs=1e-3)
    assert table["split"].unique(maintain_order=True).to_list() == ["train", "val", "test", "later"]


def test_images_that_are_persons_of_their_own_are_not_remembered():
    counts, manifest = ManifestCounts(), _manifest(50)
    counts.add(manifest, pl.Series([True] * 50))
    assert counts.table().filter(age_group="all")["num_identities"].sum() == 50
    assert counts._persons == []
