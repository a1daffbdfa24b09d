"""Renderings read by a panel; numbers per face; groups, comparisons and cases made of them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from agetf_pipeline.core.statistics import Sampling
from agetf_pipeline.evaluation.cases import choose_cases
from agetf_pipeline.evaluation.cells import cells_of, measure_cells, worst_cells
from agetf_pipeline.evaluation.comparison import compare, compare_anchors
from agetf_pipeline.evaluation.held_out import real_rows, rendered_rows
from agetf_pipeline.evaluation.kernel_distance import distance_of_each, kernel_sums, squared_mmd
from agetf_pipeline.evaluation.panel import Panel
from agetf_pipeline.evaluation.readings import HeldOutFaces, render_and_read
from agetf_pipeline.evaluation.scores import face_scores, mean_of, verified

SAMPLING = Sampling(num_bootstrap=200, min_cell=10, synthetic=True)
ANCHORS = (5.0, 50.0, 95.0)


class Brightens:
    """A renderer: the target age is the grey level of the whole image."""

    def render(self, faces_NHWC, ages_years):
        shape = (len(faces_NHWC), len(ages_years), *faces_NHWC.shape[1:])
        ages = np.asarray(ages_years)[None, :, None, None, None]
        return np.broadcast_to(ages, shape).astype(np.uint8)


class ReadsGrey:
    """Everybody of a panel: what is read is the mean grey level."""

    def read(self, faces_NHWC):
        return faces_NHWC.mean(axis=(1, 2, 3)).astype(np.float64)

    def embed(self, faces_NHWC):
        angle = faces_NHWC.mean(axis=(1, 2, 3)) / 255
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def found(self, images_NHWC):
        return images_NHWC.mean(axis=(1, 2, 3)) < 90

    def features(self, images_NHWC):
        return images_NHWC.reshape(len(images_NHWC), -1)[:, :4].astype(np.float32)

    def distances(self, images_NHWC, references_NHWC):
        return np.abs(images_NHWC.astype(float) - references_NHWC).mean(axis=(1, 2, 3))


class ReadsDark:
    """A reader of attributes: whether a picture is dark."""

    def read(self, faces_NHWC):
        return {"dark": np.where(faces_NHWC.mean(axis=(1, 2, 3)) < 60, "yes", "no")}


def faces_of(num: int = 20) -> HeldOutFaces:
    rng = np.random.default_rng(2)
    faces = np.full((num, 16, 16, 3), 40, np.uint8)
    faces += rng.integers(0, 20, faces.shape, dtype=np.uint8)
    groups = {
        "age_group": np.array(["30-39"] * (num - 3) + ["3-6"] * 3),
        "gender": np.array(["female", ""] * (num // 2)),
    }
    return HeldOutFaces(
        [str(i) for i in range(num)], np.arange(num), faces, np.full(num, 40.0), groups
    )


def whole_panel() -> Panel:
    grey = ReadsGrey()
    return Panel(grey, grey, grey, ReadsDark(), grey, grey, grey, grey)


def test_every_reading_stands_at_its_face_and_anchor():
    held_out = faces_of()
    rendered = render_and_read(Brightens(), held_out, ANCHORS, whole_panel(), 3, chunk=7)
    for reader in ("estimator", "mixture"):
        np.testing.assert_array_equal(rendered.read_years[reader], np.tile(ANCHORS, (20, 1)))
    assert rendered.grid.shape == (3, 3, 16, 16, 3)
    assert rendered.grid[0, :, 0, 0, 0].tolist() == [5, 50, 95]
    assert rendered.found[7].tolist() == [True, True, False]
    assert rendered.kept["dark"][7].tolist() == [True, True, False]
    assert rendered.features["inception"].shape == (20, 3, 4)
    sources = held_out.faces.mean(axis=(1, 2, 3)) / 255
    expected = np.cos(sources[:, None] - np.array(ANCHORS)[None] / 255)
    np.testing.assert_allclose(rendered.similarity, expected, atol=1e-6)
    grey_40 = np.abs(held_out.faces.astype(float) - 40).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(rendered.source_lpips, grey_40)
    assert rendered.sharpness_ratio.max() == 0


def test_an_empty_panel_reads_nothing_and_the_pictures_are_still_measured():
    rendered = render_and_read(Brightens(), faces_of(), ANCHORS, Panel())
    assert rendered.read_years == {}
    assert rendered.similarity is None
    assert rendered.found is None
    scores = face_scores(rendered, None)
    assert set(scores) == {"sharpness_error", "sharpness_ratio", "source_psnr", "source_ssim"}


def test_numbers_of_a_face():
    rendered = render_and_read(Brightens(), faces_of(), ANCHORS, whole_panel())
    scores = face_scores(rendered, threshold=0.99)
    assert scores["age_mae_years"].tolist() == [0.0] * 20
    assert scores["order_violation_rate"].tolist() == [0.0] * 20
    assert scores["face_found_rate"] == pytest.approx(np.full(20, 2 / 3))
    assert scores["attributes_kept/dark"] == pytest.approx(np.full(20, 2 / 3))
    assert scores["attributes_kept"] == pytest.approx(np.full(20, 2 / 3))


def test_a_rendering_without_a_face_does_not_pass_as_its_source():
    similar = np.ones((2, 2))
    found = np.array([[True, False], [True, False]])
    base = render_and_read(Brightens(), faces_of(2), (5.0, 50.0), Panel())
    rendered = replace(base, similarity=similar, found=found, source_found=np.array([True, False]))
    # Where not even the source's face is found, the finder is what failed.
    assert verified(rendered, 0.5).tolist() == [[True, False], [True, True]]


def test_cells_are_suppressed_when_small_and_the_worst_one_is_named():
    held_out = faces_of()
    scores = {
        "age_mae_years": np.arange(20.0),
        "id_similarity": np.where(held_out.groups["gender"] == "female", 0.2, 0.9),
    }
    found = measure_cells(scores, held_out, SAMPLING)
    assert found["renderings/age_mae_years/age_group=3-6"].value is None
    assert found["renderings/age_mae_years/age_group=3-6"].n == 3
    assert found["renderings/age_mae_years/age_group=30-39"].value == pytest.approx(8.0)
    assert not any(name.endswith("gender=") for name in found)
    worst = worst_cells(found)
    assert worst["worst_cell/id_similarity"].note == "gender=female"
    assert worst["worst_cell/id_similarity"].value == pytest.approx(0.2)
    assert worst["worst_cell/age_mae_years"].note == "gender=female"


def test_age_groups_come_in_their_order():
    groups = {"age_group": np.array(["70-120", "3-6", "10-14", "3-6"])}
    assert [cell for cell, _ in cells_of(groups)] == [
        "age_group=3-6", "age_group=10-14", "age_group=70-120",
    ]  # fmt: skip


def test_a_difference_is_seen_though_faces_differ_far_more_than_models():
    rng = np.random.default_rng(4)
    held_out = faces_of(40)
    hard = rng.uniform(0, 30, 40)  # some faces are hard for every model
    champion = {"age_mae_years": hard, "id_similarity": np.full(40, 0.8)}
    better = {"age_mae_years": hard - 0.5, "id_similarity": np.full(40, 0.8)}
    found = compare(better, champion, held_out, SAMPLING)
    gain = found["against_champion/age_mae_years"]
    assert gain.value == pytest.approx(-0.5)
    assert gain.high == pytest.approx(-0.5)
    assert found["champion/age_mae_years"].value == pytest.approx(hard.mean())
    assert found["against_champion/id_similarity"].value == 0
    assert found["against_champion/age_mae_years/age_group=30-39"].n == 37


def test_unread_faces_are_said_and_a_figure_of_none_is_null():
    values = np.array([1.0] * 15 + [np.nan] * 5)
    found = mean_of(values, np.arange(20), SAMPLING)
    assert found.n == 15
    assert found.note is not None
    assert "5 of 20" in found.note
    nothing = mean_of(np.full(20, np.nan), np.arange(20), SAMPLING)
    assert nothing.value is None
    assert nothing.reason


def test_cases_are_the_ends_and_the_middle_and_none_twice():
    errors = np.array([5.0, 1.0, 9.0, 3.0, 7.0, np.nan])
    cases = choose_cases({"age_mae_years": errors}, 1)
    assert [(case.kind, case.index) for case in cases] == [
        ("best", 1), ("median", 0), ("worst", 5),
    ]  # fmt: skip
    few = choose_cases({"age_mae_years": errors[:2]}, 4)
    assert len({case.index for case in few}) == len(few)


def test_models_of_two_sizes_are_read_at_one():
    """A small model's renderings are enlarged to the faces' side before anybody reads them."""

    class Small(Brightens):
        def render(self, faces_NHWC, ages_years):
            assert faces_NHWC.shape[1:] == (8, 8, 3)
            return super().render(faces_NHWC, ages_years)

    held_out = faces_of(6)
    small = render_and_read(Small(), held_out, ANCHORS, whole_panel(), 2, size_px=8)
    large = render_and_read(Brightens(), held_out, ANCHORS, whole_panel(), 2)
    assert small.grid.shape == large.grid.shape == (2, 3, 16, 16, 3)
    np.testing.assert_array_equal(small.read_years["estimator"], large.read_years["estimator"])


def test_blur_and_grain_are_both_an_error_of_sharpness():
    base = render_and_read(Brightens(), faces_of(2), (5.0, 50.0), Panel())
    ratios = np.array([[0.5, 0.5], [2.0, 2.0]])
    errors = face_scores(replace(base, sharpness_ratio=ratios), None)["sharpness_error"]
    assert errors == pytest.approx([np.log(2), np.log(2)])


def test_a_model_that_fails_at_one_age_alone_is_seen_at_that_age():
    held_out = faces_of(40)
    good = np.zeros((40, 3))
    bad = good.copy()
    bad[:, 0] = 6.0
    found = compare_anchors(
        {"age_mae_years": bad}, {"age_mae_years": good}, ANCHORS, held_out, SAMPLING
    )
    assert found["against_champion/age_mae_years/target_age=5"].value == 6
    assert found["against_champion/age_mae_years/target_age=50"].value == 0


def rows_of(identities: list[str], groups: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [f"{i:03d}" for i in range(len(identities))],
            "identity": identities,
            "age_group": groups,
        }
    )


def test_every_age_group_has_its_turn():
    rows = rows_of([str(i) for i in range(100)], ["20-29"] * 90 + ["3-6"] * 7 + ["70-120"] * 3)
    chosen = rendered_rows(rows, 20)
    counts = dict(chosen["age_group"].value_counts().rows())
    assert counts == {"20-29": 10, "3-6": 7, "70-120": 3}
    assert rendered_rows(rows, 1000).height == 100


def test_people_with_several_faces_come_first_into_the_pairs():
    rows = rows_of([f"single {i}" for i in range(50)] + ["a", "b", "a", "b", "b"], ["3-6"] * 55)
    chosen = real_rows(rows, 10)
    assert chosen["identity"].to_list()[:5] == ["a", "a", "b", "b", "b"]
    assert chosen.height == 10


def test_what_a_face_adds_to_the_distance_averages_to_it():
    rng = np.random.default_rng(5)
    real, people = rng.normal(size=(80, 6)), np.arange(1000, 1080)
    near, far = rng.normal(size=(60, 6)), rng.normal(size=(60, 6)) + 0.8
    names = np.arange(60)
    parts = [distance_of_each(x, names, real, people) for x in (near, far)]
    exact = [squared_mmd(kernel_sums(x, names, real, people)) for x in (near, far)]
    assert parts[1].mean() - parts[0].mean() == pytest.approx(exact[1] - exact[0], rel=1e-9)
    assert exact[1] > exact[0]
    # A person's own face on the other side is no draw from the others.
    alone = distance_of_each(near[:2], np.array([1000, 1001]), real[:2], people[:2])
    assert np.isfinite(alone).all()
