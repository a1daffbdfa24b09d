"""Batches: seeded, balanced, paired within a person and a split alone."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from agetf_pipeline.config.train import TrainConfig
from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_of
from agetf_pipeline.data.schemas import TRAINING_MANIFEST
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.training.dataset import (
    FaceData,
    Sampler,
    balanced_probabilities,
    effective_sizes,
    load_face_data,
    read_anchors,
)

ANCHORS = [5.0, 25.0, 45.0, 65.0]


def face_data(num_people: int = 6, per_person: int = 3, size_px: int = 8) -> FaceData:
    """People whose pictures are all of one value: ten times the person, plus the picture."""
    count = num_people * per_person
    values = (10 * np.repeat(np.arange(num_people), per_person)).astype(np.uint8)
    values += np.tile(np.arange(per_person), num_people).astype(np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (count, size_px, size_px, 3)).copy()
    ages = np.tile(np.linspace(8, 80, per_person), num_people).astype(np.float32)
    groups = np.array([AGE_GROUPS.index(group_of(float(age))) for age in ages])
    return FaceData(
        np.concatenate([images, images[:2] + 100]),
        np.arange(count),
        np.array([count, count + 1] + [-1] * (count - 2)),
        tuple(f"{index:064x}" for index in range(count)),
        ages,
        np.full(count, 4.0, np.float32),
        groups,
        np.repeat(np.arange(num_people), per_person),
    )


def config(**changes) -> TrainConfig:
    settings = {"batch_size": 8, "all_anchors_every": 0, "enhanced_probability": 0.0, **changes}
    return TrainConfig(**settings)


def test_a_batch_is_a_function_of_seed_and_step():
    data = face_data()
    one, two = Sampler(data, config(), ANCHORS), Sampler(data, config(), ANCHORS)
    one.draw(0)
    a, b = one.draw(7), two.draw(7)
    np.testing.assert_array_equal(a.targets, b.targets)
    np.testing.assert_array_equal(a.ages_years, b.ages_years)
    assert (one.draw(8).ages_years != a.ages_years).any()
    other = Sampler(data, config(seed=1), ANCHORS).draw(7)
    assert (other.indices != a.indices).any()


def test_targets_show_the_same_person_at_the_age_that_is_asked_for():
    data = face_data()
    batch = Sampler(data, config(ages_per_image=4, paired_fraction=1.0), ANCHORS).draw(0)
    assert batch.has_target[:, 0].all()
    assert batch.has_target.sum(axis=1).tolist() == [3] * 8  # itself and two others of three
    np.testing.assert_array_equal(batch.targets[:, 0], batch.sources)
    for row in range(8):
        person = data.identities[batch.indices[row]]
        for column in np.flatnonzero(batch.has_target[row]):
            value = batch.targets[row, column, 0, 0, 0]
            assert value // 10 == person
            assert batch.ages_years[row, column] == data.ages_years[person * 3 + value % 10]
        without = ~batch.has_target[row]
        assert (batch.targets[row, without] == 0).all()
        assert (batch.variances_years2[row, without] == 0).all()


def test_free_ages_are_anchors_but_for_the_share_off_them():
    data = face_data(num_people=18, per_person=1)
    ages = Sampler(data, config(batch_size=64, off_anchor_fraction=0.0), ANCHORS).draw(0)
    assert set(ages.ages_years[:, 1:].ravel()) <= set(ANCHORS)
    moved = Sampler(data, config(batch_size=400, off_anchor_fraction=0.3), ANCHORS).draw(0)
    off = ~np.isin(moved.ages_years[:, 1:], ANCHORS)
    assert 0.25 < off.mean() < 0.35
    assert moved.ages_years.min() >= 0
    assert moved.ages_years.max() <= 100


def test_every_eighth_step_renders_all_anchors():
    sampler = Sampler(face_data(), config(all_anchors_every=8), ANCHORS)
    batch = sampler.draw(7)
    np.testing.assert_array_equal(batch.ages_years[:, 1:], np.tile(ANCHORS, (8, 1)))
    assert not batch.has_target[:, 1:].any()
    assert sampler.draw(8).ages_years.shape == (8, 4)


def test_enhanced_counterparts_come_with_their_probability():
    data = face_data()
    every = np.arange(3)
    plain = data.pick(every, np.zeros(3, bool))[:, 0, 0, 0]
    enhanced = data.pick(every, np.ones(3, bool))[:, 0, 0, 0]
    assert plain.tolist() == [0, 1, 2]
    assert enhanced.tolist() == [100, 101, 2]  # the third has none
    batch = Sampler(data, config(batch_size=64, enhanced_probability=1.0), ANCHORS).draw(0)
    assert not np.isin(batch.targets[:, :, 0, 0, 0][batch.indices == 0][:, 0], [0]).any()


def test_sampling_favours_rare_groups_without_evening_them_out_entirely():
    groups = np.array([5] * 900 + [9] * 20)
    p = balanced_probabilities(groups)
    assert p.sum() == pytest.approx(1)
    assert 20 / 920 < p[groups == 9].sum() < 0.5


def test_effective_sizes_count_unsure_images_for_less():
    ages = np.array([24.0, 25.0, 26.0, 70.0])
    sure = effective_sizes(ages, np.zeros(4), [25.0, 50.0])
    assert sure == {25.0: 3.0, 50.0: 0.0}
    unsure = effective_sizes(ages, np.array([0.0, 0.0, 900.0, 0.0]), [25.0])
    assert 2 <= unsure[25.0] < 3


def test_items_are_drawn_with_their_probabilities():
    data = face_data(num_people=30, per_person=1)
    groups = np.array([5] * 28 + [9] * 2)
    data = replace(data, groups=groups)
    sampler = Sampler(data, config(batch_size=200, paired_fraction=0.0), ANCHORS)
    drawn = np.concatenate([sampler.draw(step).indices for step in range(40)])
    share = np.bincount(drawn, minlength=30) / len(drawn)
    expected = balanced_probabilities(groups)
    np.testing.assert_allclose(share, expected, atol=0.012)
    assert expected[29] > 5 * expected[0]


def test_any_rows_of_a_batch_are_those_of_the_whole():
    sampler = Sampler(face_data(), config(enhanced_probability=0.5, all_anchors_every=2), ANCHORS)
    for step in (0, 1):
        whole, rows = sampler.draw(step), np.array([6, 1, 2])
        part = sampler.draw(step, rows)
        for name in ("indices", "sources", "targets", "ages_years", "variances_years2"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])


def test_a_batch_carries_the_pictures_that_it_has_and_no_more():
    batch = Sampler(face_data(), config(all_anchors_every=1), ANCHORS).draw(0)
    assert batch.targets.shape[:2] == (8, 5)
    assert len(batch.pictures) == batch.has_target.sum() == 8


def test_the_source_at_its_own_age_is_its_own_target_also_where_it_is_enhanced():
    data = face_data()
    batch = Sampler(data, config(batch_size=64, enhanced_probability=0.5), ANCHORS).draw(1)
    np.testing.assert_array_equal(batch.targets[:, 0], batch.sources)
    np.testing.assert_array_equal(batch.ages_years[:, 0], data.ages_years[batch.indices])
    assert {0, 100} <= set(batch.sources[batch.indices == 0][:, 0, 0, 0].tolist())


def test_an_empty_split_is_a_clear_error():
    with pytest.raises(DataError, match="split 'train'"):
        Sampler(face_data(num_people=0), config(), ANCHORS)


def manifest_rows(workspace: Workspace) -> pl.DataFrame:
    from PIL import Image

    folder = workspace.root / "data" / "raw"
    folder.mkdir(parents=True)
    rows = []
    for index, split in enumerate(["train", "val", "train"]):
        face = np.full((16, 16, 3), 40 * index + 10, np.uint8)
        Image.fromarray(face).save(folder / f"{index}.png")
        Image.fromarray(face + 5).save(folder / f"{index}_enhanced.png")
        rows.append(
            {
                "image_id": f"{index:064x}",
                "partition": "ffhq_aging",
                "split": split,
                "identity": f"person-{index // 2}",
                "face_path": f"data/raw/{index}.png",
                "enhanced_path": f"data/raw/{index}_enhanced.png" if index == 2 else None,
                "age_years": 20.0 + index,
                "variance_years2": 4.0,
                "age_group": "20-29",
                "curriculum_weight": 1.0,
                "label_source": "moe",
                "has_caption": False,
            }
        )
    return to_frame(rows, TRAINING_MANIFEST)


def test_splits_hold_their_own_images_and_the_cache_is_kept(tmp_path):
    workspace = Workspace(tmp_path)
    manifest = manifest_rows(workspace)
    train = load_face_data(workspace, manifest, 16, "train")
    val = load_face_data(workspace, manifest, 16, "val")
    assert (len(train), len(val)) == (2, 1)
    assert train.ages_years.tolist() == [20, 22]
    no, yes = np.zeros(2, bool), np.ones(2, bool)
    assert train.pick(np.arange(2), no)[:, 0, 0, 0].tolist() == [10, 90]
    assert train.pick(np.arange(2), yes)[:, 0, 0, 0].tolist() == [10, 95]
    assert val.pick(np.arange(1), no[:1])[:, 0, 0, 0].tolist() == [50]
    cached = list((workspace.state / "cache").rglob("*.npy"))
    assert len(cached) == 1
    before = cached[0].stat().st_mtime_ns
    load_face_data(workspace, manifest, 16, "train")
    assert cached[0].stat().st_mtime_ns == before
    # Persons 0 and 1: the first is in both splits here, and pairs are sought in one split alone.
    assert Sampler(val, config(), ANCHORS).num_pairable == 0


def test_anchors_file_is_read_and_checked(tmp_path):
    path = tmp_path / "anchors.yaml"
    path.write_text("anchors_years: [5, 15.5, 95]\n")
    assert read_anchors(path) == [5.0, 15.5, 95.0]
    for text in ("anchors_years: [15, 5]", "anchors_years: [5, 500]", "other: 1", "[5, 15]"):
        path.write_text(text)
        with pytest.raises(DataError, match="anchors"):
            read_anchors(path)
    with pytest.raises(DataError, match="found nothing"):
        read_anchors(tmp_path / "absent.yaml")


def test_a_file_that_holds_no_anchors_is_not_shown(tmp_path):
    path = tmp_path / ".env"
    for text in ("POSTGRES_PIN=xyzzy\n", "pin: xyzzy", "- xyzzy", "pin: xyzzy: [", "pin: 'xyzzy"):
        path.write_text(text)
        with pytest.raises(DataError, match="Expected") as caught:
            read_anchors(path)
        assert "xyzzy" not in str(caught.value)
        assert caught.value.__cause__ is None
