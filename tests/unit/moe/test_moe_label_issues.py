"""Label issues: what is ranked first, what cleanlab takes for wrong, and the odd cases."""

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.special import ndtr

from agetf_pipeline.core.errors import DataError
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_bounds, group_of
from agetf_pipeline.data.schemas import IMAGES
from agetf_pipeline.data.tables import to_frame, write_table
from agetf_pipeline.moe.contact_sheet import faces_of_partition, review_sheet, write_label_issues
from agetf_pipeline.moe.label_issues import ISSUES_SCHEMA, find_label_issues

EDGES = np.array([group_bounds(group)[0] for group in AGE_GROUPS] + [101.0])


def corpus(ages, groups, sigma=3.0):
    """Labels and probabilities of estimates `ages`, years, normal with `sigma`."""
    ages = np.asarray(ages, dtype=float)
    below = ndtr((EDGES[None] - ages[:, None]) / np.broadcast_to(sigma, ages.shape)[:, None])
    mass = np.diff(below, axis=1)
    labels = pl.DataFrame(
        {
            "image_id": [f"i{n:04d}" for n in range(len(ages))],
            "original_age_group": pl.Series(groups, dtype=pl.String),
            "age_years": ages,
            "interval_low_years": ages - 1.64 * sigma,
            "interval_high_years": ages + 1.64 * sigma,
        }
    )
    return labels, mass / mass.sum(axis=1, keepdims=True)


def noisy_corpus(num=600, num_far=12, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 90, num)
    labels = [group_of(age) for age in truth]
    far = rng.choice(num, num_far, replace=False)
    for n in far:
        labels[n] = "0-2" if truth[n] > 40 else "70-120"
    estimates = np.clip(truth + rng.normal(0, 3, num), 0, 100)
    return *corpus(estimates, labels), {f"i{n:04d}" for n in far}


def test_labels_that_are_decades_off_come_first():
    labels, groups, far = noisy_corpus()
    issues = find_label_issues(labels, groups)
    assert issues.schema == pl.Schema(ISSUES_SCHEMA)
    assert issues["rank"].to_list() == list(range(1, 601))
    assert set(issues["image_id"].head(len(far))) == far
    assert issues["is_issue"].head(len(far)).all()
    assert issues["quality_score"].is_between(0, 1).all()
    assert (issues["is_issue"].cast(pl.Int8).diff().drop_nulls() <= 0).all()
    assert (issues["distance_years"].head(len(far)) > 20).all()
    assert 0 < issues["is_issue"].sum() < 300


def test_the_order_of_the_rows_changes_nothing():
    labels, groups, _ = noisy_corpus(num=120)
    order = np.random.default_rng(1).permutation(120)
    shuffled = find_label_issues(labels[order.tolist()], groups[order])
    assert shuffled.equals(find_label_issues(labels, groups))


def test_columns_of_one_row():
    ages = [30.5, 33.0, 80.0, 110.0, 8.0]
    labels, groups = corpus(ages, ["30-39", "20-29", "70-120", "70-120", "3-6"], sigma=2.0)
    of = {row["image_id"]: row for row in find_label_issues(labels, groups).iter_rows(named=True)}
    assert of["i0001"]["suggested_age_group"] == "30-39"
    assert of["i0001"]["p_original"] == pytest.approx(ndtr(-1.5), abs=1e-3)
    assert of["i0001"]["quality_score"] == of["i0001"]["p_original"]
    assert of["i0001"]["p_suggested"] == pytest.approx(1 - ndtr(-1.5), abs=1e-2)
    assert of["i0001"]["distance_years"] == pytest.approx(3.0)  # 20-29 ends where 30 begins
    assert of["i0004"]["distance_years"] == pytest.approx(1.0)
    assert of["i0000"]["distance_years"] == of["i0003"]["distance_years"] == 0.0
    assert of["i0000"]["suggested_age_group"] == "30-39"


def test_the_farther_of_two_hopeless_labels_comes_first():
    labels, groups = corpus([30.0, 60.0, 25.0, 5.0], ["0-2", "0-2", "20-29", "3-6"], sigma=0.5)
    issues = find_label_issues(labels, groups)
    assert issues["image_id"].head(2).to_list() == ["i0001", "i0000"]
    assert issues["quality_score"].head(2).to_list() == [0.0, 0.0]


def test_images_without_label_or_estimate_are_left_out():
    labels, groups = corpus([30.0, 31.0, 5.0], ["30-39", None, "3-6"])
    groups[0] = np.nan
    issues = find_label_issues(labels, groups)
    assert issues["image_id"].to_list() == ["i0002"]
    assert issues["is_issue"].to_list() == [None]  # one group: no confusions to learn from
    empty = find_label_issues(labels.head(0), groups[:0])
    assert empty.height == 0
    assert empty.schema == issues.schema


def test_absent_and_tiny_groups_and_certain_probabilities_do_no_harm():
    labels, groups = corpus(
        [4.0] * 20 + [80.0] * 20 + [80.0, 35.0], ["3-6"] * 20 + ["70-120"] * 21 + ["7-9"], 1.0
    )
    certain = (groups == groups.max(axis=1, keepdims=True)).astype(np.float32)
    for mass in (groups, certain):
        issues = find_label_issues(labels, mass)
        assert issues.height == 42
        assert issues["image_id"][0] == "i0041"
        assert issues["is_issue"].null_count() == 0
        assert not issues["is_issue"].tail(38).any()


def test_what_does_not_go_together_is_refused():
    labels, groups = corpus([30.0, 5.0], ["30-39", "3-6"])
    with pytest.raises(DataError, match=r"\(2, 10\)"):
        find_label_issues(labels, groups[:1])
    with pytest.raises(DataError, match="6-Mar"):
        find_label_issues(labels.with_columns(original_age_group=pl.lit("6-Mar")), groups)


def _faces(count):
    return [np.full((40, 30, 3), 4 * n, np.uint8) for n in range(count)]


def test_the_list_and_the_page_are_written(tmp_path):
    labels, groups, _ = noisy_corpus(num=80, num_far=3)
    issues = find_label_issues(labels, groups)
    asked = []

    def faces_of(image_ids):
        asked.extend(image_ids)
        return [*_faces(len(image_ids) - 1), None]

    files = write_label_issues(tmp_path, issues, faces_of, "a test", synthetic=True)
    assert asked == issues["image_id"].head(64).to_list()
    assert pl.read_csv(files["label_issues_csv"], schema=ISSUES_SCHEMA).equals(issues)
    assert pl.read_parquet(files["label_issues"]).equals(issues)
    first = [path.read_bytes() for path in files.values()]
    with Image.open(files["label_issues_page"]) as page:
        width, height = page.size
        assert height > width > 8 * 128
    write_label_issues(tmp_path, issues, faces_of, "a test", synthetic=True)
    assert [path.read_bytes() for path in files.values()] == first


def test_a_page_without_doubtful_labels(tmp_path):
    empty = pl.DataFrame(schema=ISSUES_SCHEMA)
    review_sheet(tmp_path / "page.png", empty, [], "nothing", synthetic=False)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_faces_come_from_the_partition_in_the_order_asked_for(tmp_path):
    workspace = Workspace(tmp_path)
    rows = []
    for n in range(3):
        Image.new("RGB", (64, 64), (60 * n, 0, 0)).save(tmp_path / f"{n}.png")
        rows.append(
            dict.fromkeys(IMAGES.schema.names)
            | {
                "image_id": f"i{n}", "partition": "ffhq_aging", "path": f"{n}.png",
                "face_path": f"{n}.png", "raw_name": f"{n}.png", "format": "PNG", "mode": "RGB",
                "stored_width_px": 64, "stored_height_px": 64, "width_px": 64, "height_px": 64,
                "num_bytes": 1, "is_grey": False, "flags": [],
            }
        )  # fmt: skip
    write_table(workspace, IMAGES, "ffhq_aging", to_frame(rows, IMAGES))
    (tmp_path / "1.png").write_bytes(b"damaged")
    faces = faces_of_partition(workspace, "ffhq_aging")(["i2", "i1", "i0", "absent"])
    assert [None if face is None else int(face[0, 0, 0]) for face in faces] == [120, None, 0, None]
