import numpy as np
import polars as pl
import pytest

from agetf_pipeline.config.evaluate import EvaluateConfig
from agetf_pipeline.core.statistics import Measure, Sampling, absent
from agetf_pipeline.core.workspace import Workspace
from agetf_pipeline.data.ages import AGE_GROUPS, group_midpoint, group_of
from agetf_pipeline.evaluation import enhancement, labels, renderings
from agetf_pipeline.evaluation.must_hold import describe, judge

SAMPLING = Sampling(num_bootstrap=50, min_cell=10, synthetic=True)


def corpus(num_images: int = 200):
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 100, num_images)
    ids = [f"{i:03d}" for i in range(num_images)]
    truth = pl.DataFrame({"image_id": ids, "identity": ids, "true_age_years": true})
    images = pl.DataFrame({"image_id": ids, "age_group": [group_of(age) for age in true]})
    table = pl.DataFrame(
        {
            "image_id": ids,
            "age_years": (true + 1.0).astype(np.float32),
            "interval_low_years": (true - 4).astype(np.float32),
            "interval_high_years": np.where(np.arange(num_images) % 4 == 0, true - 2, true + 6),
        }
    )
    predictions = pl.concat(
        pl.DataFrame(
            {
                "image_id": ids,
                "expert": name,
                "status": "ok",
                "age_years": (true + error).astype(np.float32),
            }
        )
        for name, error in (("mivolo", 2.0), ("vgg16", -4.0), ("janus", 3.0))
    )
    return images, table, predictions, truth


def test_labels_against_known_errors():
    images, table, predictions, truth = corpus()
    found = labels.measure_labels(labels.join_labels(images, table, predictions, truth), SAMPLING)
    expected = {"mixture": 1.0, "expert_mivolo": 2.0, "expert_vgg16": 4.0, "expert_janus": 3.0,
                "equal_mean": 1 / 3, "equal_median": 2.0}  # fmt: skip
    for name, value in expected.items():
        assert found[f"labels/mae_years/{name}"].value == pytest.approx(value, abs=1e-4)
        assert found[f"labels/mae_years/{name}"].synthetic
    true = truth["true_age_years"].to_numpy()
    midpoints = np.array([group_midpoint(group_of(age)) for age in true])
    assert found["labels/mae_years/group_midpoints"].value == pytest.approx(
        np.abs(midpoints - true).mean()
    )
    assert found["labels/interval_coverage"].value == pytest.approx(0.75)
    assert labels.best_expert(found) == "expert_mivolo"
    assert found["labels/mae_ratio_to_best_expert"].value == pytest.approx(0.5, abs=1e-4)
    assert f"labels/mae_years/mixture/{AGE_GROUPS[-1]}" in found


def test_methods_are_compared_on_the_same_images():
    images, table, predictions, truth = corpus()
    failed = predictions.with_columns(
        pl.when((pl.col("image_id") == "000") & (pl.col("expert") == "vgg16"))
        .then(pl.lit("failed")).otherwise("status").alias("status")
    )  # fmt: skip
    unlabelled = table.with_columns(
        pl.when(pl.col("image_id") == "001").then(None).otherwise("age_years").alias("age_years")
    )
    joined = labels.join_labels(images, unlabelled, failed, truth)
    assert joined.height == 198
    assert labels.per_image_rows(joined).height == 198


def test_enhancement_compares_at_the_size_of_the_clean_image(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(1)
    workspace = Workspace(tmp_path)
    clean = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    clean_image = Image.fromarray(clean).resize((32, 32), Image.Resampling.BICUBIC)
    clean_image.save(tmp_path / "clean.png")
    clean_image.resize((16, 16)).save(tmp_path / "degraded.png")
    clean_image.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "enhanced.png")
    truth = pl.DataFrame(
        {"image_id": ["a", "b"], "identity": ["p", "q"], "path": "degraded.png",
         "degradations": [["low_res", "grey"], []], "clean_path": "clean.png"}
    )  # fmt: skip
    table = pl.DataFrame({"image_id": ["a", "b"], "status": "ok", "enhanced_path": "enhanced.png"})
    compared = enhancement.compare_enhanced(workspace, table, truth)
    assert compared["image_id"].to_list() == ["a"]
    row = compared.row(0, named=True)
    assert row["psnr_enhanced"] > row["psnr_bicubic"] + 3
    found = enhancement.measure_enhancement(compared, Sampling(10, min_cell=1))
    gain = row["psnr_enhanced"] - row["psnr_bicubic"]
    for kind in ("", "/low_res", "/grey"):
        assert found[f"enhancement/psnr/gain{kind}"].value == pytest.approx(gain)
    assert "supply" in found["enhancement/lpips/enhanced"].reason


def test_ages_of_perfect_and_of_constant_renderings():
    anchors = np.arange(5.0, 100, 10)
    people = np.arange(40)
    perfect = renderings.measure_ages(np.tile(anchors, (40, 1)), anchors, people, SAMPLING)
    assert perfect["renderings/age_mae_years"].value == 0
    assert perfect["renderings/age_slope"].value == pytest.approx(1)
    assert perfect["renderings/age_spearman"].value == pytest.approx(1)
    assert perfect["renderings/age_sd_years/25"].value == 0
    constant = renderings.measure_ages(np.full((40, 10), 50.0), anchors, people, SAMPLING)
    assert constant["renderings/age_slope"].value == 0
    assert constant["renderings/age_spearman"].value is None
    assert constant["renderings/age_spearman_per_face"].value == 0
    assert constant["renderings/age_bias_years/95"].value == pytest.approx(-45)


class Brightens:
    """A renderer for tests: the target age is the grey level of the whole image."""

    def render(self, faces_NHWC, ages_years):
        shape = (len(faces_NHWC), len(ages_years), *faces_NHWC.shape[1:])
        ages = np.asarray(ages_years)[None, :, None, None, None]
        return np.broadcast_to(ages, shape).astype(np.uint8)


def test_rendering_measures_each_face_at_each_anchor():
    rng = np.random.default_rng(2)
    faces = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    held_out = renderings.HeldOutFaces(
        [str(i) for i in range(12)], np.arange(12), faces, np.full(12, 40.0)
    )
    rendered = renderings.render_and_read(Brightens(), held_out, (5, 50, 95), None, None, 3)
    assert rendered.read_years is None
    assert rendered.grid.shape == (3, 3, 16, 16, 3)
    assert rendered.grid[0, :, 0, 0, 0].tolist() == [5, 50, 95]
    assert rendered.sharpness_ratio.max() == 0
    found = renderings.measure_quality(rendered, held_out.identities, SAMPLING)
    assert found["renderings/source_psnr"].n == 12
    assert found["renderings/kid"].value is None


def test_statements_hold_fail_and_stay_open():
    measures = {
        "labels/mae_years/mixture": Measure(3.0, 2.9, 3.1, 100, 100, "years", True),
        "labels/mae_years/group_midpoints": Measure(4.0, n=100),
        "labels/mae_years/expert_vgg16": Measure(2.9, n=100),
        "labels/mae_ratio_to_best_expert": Measure(3.0 / 2.9, n=100),
        "renderings/age_spearman": absent("no estimator"),
    }
    found = {item.name: item for item in judge(measures, EvaluateConfig())}
    assert found["mixture_below_group_midpoints"].holds is True
    assert found["mixture_near_best_expert"].holds is False
    assert "vgg16" in found["mixture_near_best_expert"].text
    assert found["rendered_age_rises"].holds is None
    assert found["rendered_age_rises"].verdict == "not judged"
    assert "no estimator" in found["rendered_age_rises"].detail
    assert describe(measures["labels/mae_years/mixture"]) == (
        "3.00 years [2.90, 3.10] (n = 100, synthetic)"
    )


@pytest.mark.parametrize(("ssim", "holds"), [(0.93, True), (0.91, False), (None, None)])
def test_colour_has_to_beat_the_grey_copy_by_both_measures(ssim, holds):
    values = {
        "psnr/enhanced": 26.0, "psnr/bicubic": 22.0, "ssim/enhanced": ssim, "ssim/bicubic": 0.92,
    }  # fmt: skip
    measures = {
        f"enhancement/{name}/grey": absent("no clean original") if value is None else Measure(value)
        for name, value in values.items()
    }
    found = {item.name: item for item in judge(measures, EvaluateConfig())}
    assert found["colour_beats_grey_copy"].holds is holds
    assert "labels/mae_years/expert: not measured" in found["mixture_near_best_expert"].detail
