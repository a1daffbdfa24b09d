"""What must hold of the variance filter for every corpus and every pair of thresholds."""

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.data.schemas import IMAGES, LABELS
from agetf_pipeline.data.tables import to_frame
from agetf_pipeline.stages.filter import FORGIVEN, REASONS, group_report, judge

_images = st.fixed_dictionaries(
    {
        "true_age_years": st.sampled_from([None, None, 42.0]),
        "head_yaw": st.sampled_from([None, -60.0, 35.0]),
        "head_roll": st.sampled_from([None, -50.0, 5.0]),
        "glasses": st.sampled_from([None, "None", "Dark"]),
        "age_group_confidence": st.sampled_from([None, 0.3, 0.9]),
        "left_eye_occluded": st.sampled_from([None, 0.0, 60.0, 95.0]),
    }
)
_labels = st.fixed_dictionaries(
    {
        "age_years": st.sampled_from([None, 1.0, 25.0, 35.0, 80.0]),
        "within_variance_years2": st.floats(0.125, 200.0, width=32),
        "between_variance_years2": st.floats(0.0, 200.0, width=32),
        "width": st.floats(0.125, 80.0, width=32),
        "decision": st.sampled_from(["keep", "relabel", "review", "drop", "none", "unlabelled"]),
    }
)
_faces = st.lists(st.tuples(_images, _labels), max_size=25)
_tight = st.fixed_dictionaries(
    {
        "max_sigma_years": st.floats(0.5, 20),
        "max_disagreement_years": st.floats(0.5, 15),
        "max_interval_width_years": st.floats(1, 80),
        "max_head_yaw": st.floats(10, 60),
        "max_head_roll": st.floats(5, 60),
        "min_crowd_confidence": st.floats(0.2, 1),
        "max_eye_occluded": st.floats(20, 100),
        "drop_dark_glasses": st.just(True),
        "drop_review": st.just(True),
        "min_kept_per_group": st.integers(0, 4),
    }
)
_looser = {
    "max_sigma_years": lambda value: 2 * value,
    "max_disagreement_years": lambda _: None,
    "max_interval_width_years": lambda value: value + 5,
    "max_head_yaw": lambda value: value + 30,
    "max_head_roll": lambda _: None,
    "min_crowd_confidence": lambda _: None,
    "max_eye_occluded": lambda value: value + 10,
    "drop_dark_glasses": lambda _: False,
    "drop_review": lambda _: False,
    "min_kept_per_group": lambda value: value + 1,
}


def _tables(faces):
    images, labels = [], []
    for n, (image, label) in enumerate(faces):
        images.append(
            dict.fromkeys(IMAGES.schema.names)
            | {
                "image_id": f"i{n:02d}", "partition": "p", "path": "p", "face_path": "p",
                "raw_name": "p", "format": "PNG", "mode": "RGB", "stored_width_px": 64,
                "stored_height_px": 64, "width_px": 64, "height_px": 64, "num_bytes": 1,
                "is_grey": False, "flags": [],
            }
            | image
        )  # fmt: skip
        age, width = label["age_years"], label["width"]
        within, between = label["within_variance_years2"], label["between_variance_years2"]
        row = dict.fromkeys(LABELS.schema.names) | {
            "image_id": f"i{n:02d}", "label_version": "v", "num_experts": 2, "experts": "{}",
            "decision": label["decision"], "calibrated": True,
        }  # fmt: skip
        if age is not None:
            row |= {
                "age_years": age, "variance_years2": within + between,
                "within_variance_years2": within, "between_variance_years2": between,
                "interval_low_years": age, "interval_high_years": age + width,
            }  # fmt: skip
        labels.append(row)
    return to_frame(images, IMAGES), to_frame(labels, LABELS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(faces=_faces, tight=_tight, loosened=st.sets(st.sampled_from(sorted(_looser))))
def test_a_looser_threshold_keeps_a_superset(faces, tight, loosened):
    images, labels = _tables(faces)
    loose = tight | {name: _looser[name](tight[name]) for name in loosened}
    kept = []
    for thresholds in (tight, loose):
        judged = judge(images, labels, FilterConfig(**thresholds), 1.0)
        assert judged.height == len(faces)
        assert (judged["keep"] == (judged["reasons"].list.len() == 0)).all()
        assert judged.filter("keep")["curriculum_weight"].is_between(0, 1).all()
        kept.append(set(judged.filter("keep")["image_id"].to_list()))
    assert kept[0] <= kept[1]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(faces=_faces, tight=_tight)
def test_a_group_keeps_its_quota_and_the_report_counts_every_image(faces, tight):
    config = FilterConfig(**tight)
    judged = judge(*_tables(faces), config, 1.0)
    for (group,), rows in judged.group_by("age_group"):
        if group is None:
            assert not rows["keep"].any()
            continue
        # Of the surest few, nothing but the face or the mixture's own verdict speaks against one.
        surest = rows.sort("label_variance_years2", "image_id").head(config.min_kept_per_group)
        lost = surest.filter(~pl.col("keep"))
        barred = [name for name in REASONS if name not in FORGIVEN]
        for reasons in lost["reasons"].to_list():
            assert set(reasons) & set(barred)
    report = group_report(judged, config.min_kept_per_group)
    total = report.filter(age_group="all").row(0, named=True)
    groups = report.filter(pl.col("age_group") != "all")
    assert total["images"] == len(faces) == groups["images"].sum()
    assert total["kept"] == judged["keep"].sum() == groups["kept"].sum()
    assert (groups["kept_by_quota"] <= groups["quota"].fill_null(0)).all()
    effective = groups.filter(pl.col("kept") > 0)
    assert (effective["effective_images"] <= effective["kept"] + 1e-3).all()
